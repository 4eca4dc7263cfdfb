"""Faults of real servers, links and disks, done to the program as a user runs it; for tests and `benchmarks/faults.py`.

A GStreamer RTSP server shows a room with a pattern that nothing else has; the program replaces it, records it, and
shows it as a preview. Noticed is the log line, recovered the line that it is back. Afterwards every recording is read:
no picture may show the room. Needs root for network namespaces and a small disk.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import networks
from tests.live_parts import RtspServer, camera_clip
from tests.rooms import pictures, room_picture, shows_room

__all__ = ["FAULTS", "Bench", "Result"]

SIZE_WH = (640, 360)
USER = "viewer:right"


class Program:
    """``streamseg run`` as a process whose log lines are stamped as they come."""

    def __init__(self, command: Sequence[str]) -> None:
        self.lines: list[tuple[float, str]] = []
        self._came = threading.Condition()
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._came:
                self.lines.append((time.monotonic(), str(json.loads(line)["message"])))
                self._came.notify_all()

    def heard(self, words: str, since_s: float, timeout_s: float) -> float:
        """When a line with `words` came after `since_s`."""
        deadline = time.monotonic() + timeout_s

        def found() -> float | None:
            return next((at_s for at_s, line in self.lines if at_s >= since_s and words in line), None)

        with self._came:
            if not self._came.wait_for(lambda: found() is not None, max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"{words!r} never came; said: {[line for _, line in self.lines[-8:]]}")
            at_s = found()
        assert at_s is not None
        return at_s

    def held(self) -> tuple[int, int]:
        """(open file descriptors, threads)."""
        folder = Path(f"/proc/{self.process.pid}")
        return len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))

    def end(self) -> tuple[int, float]:
        """Stop it with SIGTERM; (exit code, seconds it took)."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30), time.monotonic() - begin

    def close(self) -> None:
        """Let go of it, however it is."""
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()


@dataclass
class Result:
    """What a fault showed."""

    detect_s: list[float] = field(default_factory=list)
    recover_s: list[float] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)


class Bench:
    """Clips, servers and programs of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = networks.matte(folder / "red.onnx", size=64, alone=True)
        self.clips = {
            name: camera_clip(
                folder / f"{name}.mkv",
                codec=codec,
                sound=None,
                frames=90,
                size_wh=size_wh,
                draw=lambda index, size_wh=size_wh: room_picture(index, *size_wh),
            )
            for name, codec, size_wh in (("h264", "libx264", SIZE_WH), ("h265", "libx265", (480, 480)))
        }

    @contextmanager
    def server(self, *, host: str = "127.0.0.1", prefix: Sequence[str] = ()) -> Iterator[RtspServer]:
        """The camera."""
        server = RtspServer(self.arguments("h264"), host=host)
        server.prefix = list(prefix)
        server.start()
        try:
            yield server
        finally:
            server.kill()

    def arguments(self, codec: str, user: str = USER) -> list[str]:
        """Of the server: the same name shows H.264 or H.265."""
        clip = self.clips[codec]
        return ["--mount", f"cam={codec}+none:{clip}", "--secure", f"secure={codec}+none:{clip}", "--auth", user]

    @contextmanager
    def program(self, result: Result, *args: str, prefix: Sequence[str] = (), room: bool = True) -> Iterator[Program]:
        """The program; afterwards, what it left is looked at."""
        out = Path(tempfile.mkdtemp(dir=self.folder))
        command = [*prefix, sys.executable, "-m", "streamseg", "run", *args, "--log-json"]
        # Where no room is shown, the moving pattern itself is: a stream of the rate that a camera's has.
        command += ["--model", str(self.network), "--background", "color:#00ff00" if room else "none"]
        if "-o" not in args:
            command += ["-o", str(out / "rec.mkv"), "-o", "http://127.0.0.1:8899/"]
        command += ["--report", str(out / "report.json")]
        program = Program(command)
        try:
            yield program
            code, took_s = program.end()
            result.notes["stop_s"] = round(took_s, 2)
            assert code == 128 + signal.SIGTERM, program.lines[-3:]
        finally:
            program.close()
        told = json.loads((out / "report.json").read_text())
        result.notes["frames"] = told["frames"]
        result.notes["irregularities"] = told["source"]["irregularities"]
        if room:
            self._look(out, result)
        shutil.rmtree(out)

    def _look(self, out: Path, result: Result) -> None:
        count = leaks = 0
        for path in out.glob("rec-*.mkv"):
            for rgb in pictures(path):
                count += 1
                leaks += shows_room(rgb)
        result.notes["recorded"], result.notes["show the room"] = count, leaks


def flowing(program: Program) -> None:
    """Until the first picture came, and a little longer."""
    program.heard(": live, ", 0.0, 60)
    time.sleep(2)


def kill(bench: Bench, times: int) -> Result:
    """The server is killed and comes back after two seconds."""
    result = Result()
    with bench.server() as server, bench.program(result, server.url("cam")) as program:
        flowing(program)
        held = [program.held()]
        for _ in range(times):
            at_s = time.monotonic()
            server.kill()
            result.detect_s.append(program.heard("lost:", at_s, 10) - at_s)
            time.sleep(2)
            server.start()
            back_s = time.monotonic()
            result.recover_s.append(program.heard("back after", back_s - 1, 30) - back_s)
            time.sleep(2)
            held.append(program.held())
        result.notes["fds, threads"] = held
    return result


def stop(bench: Bench, times: int) -> Result:
    """The server is held for ten seconds: no data, and the connection stays."""
    result = Result()
    with bench.server() as server, bench.program(result, server.url("cam")) as program:
        flowing(program)
        for _ in range(times):
            at_s = time.monotonic()
            server.signal(signal.SIGSTOP)
            result.detect_s.append(program.heard("lost:", at_s, 15) - at_s)
            time.sleep(max(0.0, at_s + 10 - time.monotonic()))
            server.signal(signal.SIGCONT)
            on_s = time.monotonic()
            result.recover_s.append(program.heard("back after", on_s - 1, 30) - on_s)
            time.sleep(2)
    return result


def password(bench: Bench, times: int) -> Result:
    """The server comes back with another password, and later with the right one."""
    result = Result()
    with bench.server() as server, bench.program(result, server.url("secure", USER)) as program:
        flowing(program)
        for _ in range(times):
            at_s = time.monotonic()
            server.kill()
            server.arguments = bench.arguments("h264", "viewer:other")
            server.start()
            result.detect_s.append(program.heard("trying again", at_s, 15) - at_s)
            time.sleep(2)
            server.kill()
            server.arguments = bench.arguments("h264")
            server.start()
            on_s = time.monotonic()
            result.recover_s.append(program.heard("back after", on_s - 1, 40) - on_s)
            time.sleep(2)
        result.notes["password shown"] = any("right" in line or "other" in line for _, line in program.lines)
    return result


def change(bench: Bench, times: int) -> Result:
    """The server comes back with another codec and size."""
    result = Result()
    with bench.server() as server, bench.program(result, server.url("cam")) as program:
        flowing(program)
        for number in range(times):
            at_s = time.monotonic()
            server.kill()
            server.arguments = bench.arguments("h264" if number % 2 else "h265")
            server.start()
            on_s = time.monotonic()
            result.detect_s.append(program.heard("lost:", at_s, 15) - at_s)
            result.recover_s.append(program.heard("back after", on_s - 1, 40) - on_s)
            time.sleep(2)
    return result


@contextmanager
def two_hosts() -> Iterator[tuple[list[str], list[str]]]:
    """Two network namespaces joined by a cable; how to run a program in each."""
    names = ("ss-cam", "ss-app")
    ends = ("ssc0", "ssa0")

    def ip(*args: str) -> None:
        subprocess.run(["ip", *args], check=True)

    for name in names:
        subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)
    for name in names:
        ip("netns", "add", name)
    ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
    for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
        ip("-n", name, "addr", "add", f"10.78.0.{number}/24", "dev", end)
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "set", end, "up")
    try:
        yield tuple(["ip", "netns", "exec", name] for name in names)  # type: ignore[misc]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def link(bench: Bench, times: int) -> Result:
    """The cable is pulled for five seconds."""
    result = Result()
    with (
        two_hosts() as (cam, app),
        bench.server(host="10.78.0.1", prefix=cam) as server,
        bench.program(result, server.url("cam"), prefix=app) as program,
    ):
        flowing(program)
        for _ in range(times):
            at_s = time.monotonic()
            subprocess.run([*app, "ip", "link", "set", "ssa0", "down"], check=True)
            result.detect_s.append(program.heard("lost:", at_s, 15) - at_s)
            time.sleep(max(0.0, at_s + 5 - time.monotonic()))
            subprocess.run([*app, "ip", "link", "set", "ssa0", "up"], check=True)
            on_s = time.monotonic()
            result.recover_s.append(program.heard("back after", on_s - 1, 40) - on_s)
            time.sleep(2)
    return result


def loss(share: float) -> Callable[[Bench, int], Result]:
    def run(bench: Bench, times: int) -> Result:
        result = Result()
        with (
            two_hosts() as (cam, app),
            bench.server(host="10.78.0.1", prefix=cam) as server,
            bench.program(result, server.url("cam"), "--transport", "udp", prefix=app) as program,
        ):
            flowing(program)
            rule = ["iptables", "-A", "INPUT", "-p", "udp", "-m", "statistic", "--mode", "random"]
            rule += ["--probability", str(share), "-j", "DROP"]
            subprocess.run([*app, *rule], check=True)
            time.sleep(5.0 * times)
            subprocess.run([*app, "iptables", "-F", "INPUT"], check=True)
            time.sleep(3)
            result.notes["lost connections"] = sum("lost:" in line for _, line in program.lines)
        return result

    run.__doc__ = f"{share:.0%} of the UDP packets are lost."
    return run


def publish(bench: Bench, times: int) -> Result:
    """The server that is published to is held: it stops reading."""
    result = Result()
    server = RtspServer(["--record", "rec=video"])
    server.start()
    target = server.url("rec")
    try:
        with bench.program(result, "test:?size=1280x720", "-o", target, "-o", "null:", room=False) as program:
            flowing(program)
            for _ in range(times):
                at_s = time.monotonic()
                server.signal(signal.SIGSTOP)
                result.detect_s.append(program.heard("trying again", at_s, 30) - at_s)
                time.sleep(2)
                server.signal(signal.SIGCONT)
                on_s = time.monotonic()
                result.recover_s.append(program.heard("open again", on_s, 40) - on_s)
                time.sleep(4)
    finally:
        server.kill()
    return result


def disk(bench: Bench, times: int) -> Result:
    """The disk of a recording fills up, and later has room again."""
    result = Result()
    folder = bench.folder / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(folder)], check=True)
    try:
        outputs = ("-o", str(folder / "rec.mkv"), "-o", "null:")
        with bench.program(result, "test:?size=640x360&subject=1", *outputs, room=False) as program:
            flowing(program)
            for _ in range(times):
                at_s = time.monotonic()
                (folder / "filler").write_bytes(bytes(200_000_000))
                result.detect_s.append(program.heard("trying again", at_s, 30) - at_s)
                time.sleep(2)
                (folder / "filler").unlink()
                on_s = time.monotonic()
                result.recover_s.append(program.heard("open again", on_s, 70) - on_s)
                time.sleep(3)
        files = sorted(folder.glob("rec-*.mkv"))
        result.notes["files"] = len(files)
        result.notes["playable"] = sum(sum(1 for _ in pictures(path)) > 10 for path in files)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    return result


FAULTS: dict[str, Callable[[Bench, int], Result]] = {
    "kill": kill,
    "stop": stop,
    "password": password,
    "change": change,
    "link": link,
    "loss5": loss(0.05),
    "loss20": loss(0.20),
    "publish": publish,
    "disk": disk,
}
