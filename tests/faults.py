"""Faults of real servers, links and disks, done to the program as a user runs it; for tests and `benchmarks/faults.py`.

A GStreamer RTSP server shows a room with a pattern that nothing else has; the program replaces it, records it,
publishes it by RTSP and RTMP, and shows it as a preview. Noticed is the log line, recovered the line that it is back.
Afterwards every picture that came out anywhere is searched for the room. Needs root for network namespaces and a small
disk.
"""

from __future__ import annotations

import json
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

import av
import numpy as np

from tests import networks
from tests.live_parts import Link, RtspServer, camera_clip, faulty_link, rtsp_server
from tests.rooms import room_picture
from tests.watch import Seen, Watchers

__all__ = ["FAULTS", "Bench", "Result", "nothing"]

SIZE_WH = (640, 360)
USER = "viewer:right"
_FRAMES = 90
_ENOUGH = 45


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

    def heard(self, words: str, since_s: float, timeout_s: float = 180) -> float:
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
        return self.process.wait(180), time.monotonic() - begin

    def close(self) -> None:
        """Let go of it, however it is."""
        self.process.kill()
        self.process.wait()
        self._reader.join(60)
        assert self.process.stderr is not None
        self.process.stderr.close()


@dataclass
class Result:
    """What a fault showed."""

    detect_s: list[float] = field(default_factory=list)
    recover_s: list[float] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)  # by output


class Bench:
    """Clips, servers and programs of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = networks.matte(folder / "red.onnx", size=64, alone=True, brittle=True)

    def noise(self) -> Path:
        """A background that takes many bits."""
        generator = np.random.default_rng(5)

        def draw(index: int) -> av.VideoFrame:
            grey = generator.integers(110, 150, SIZE_WH[::-1], np.uint8)
            return av.VideoFrame.from_ndarray(grey, format="gray").reformat(format="yuv420p")

        return self._clip("noise", draw, frames=15)

    def clip(self, name: str) -> tuple[str, Path]:
        """(codec, file) of what the camera shows: ``h264``, ``h265`` of another size, ``glare`` in half of the time."""
        size_wh = (480, 480) if name == "h265" else SIZE_WH

        def draw(index: int) -> av.VideoFrame:
            return room_picture(index, *size_wh, glare=name == "glare" and index >= _FRAMES // 2)

        codec, encoder = ("h265", "libx265") if name == "h265" else ("h264", "libx264")
        return codec, self._clip(name, draw, codec=encoder, size_wh=size_wh)

    def _clip(self, name: str, draw: Callable[[int], av.VideoFrame], **settings: Any) -> Path:
        path = self.folder / f"{name}.mkv"
        if not path.exists():
            camera_clip(path, **{"sound": None, "frames": _FRAMES, "size_wh": SIZE_WH, "draw": draw, **settings})
        return path

    @contextmanager
    def server(self, shows: str = "h264", *, link: Link | None = None) -> Iterator[RtspServer]:
        """The camera."""
        with rtsp_server(*self.arguments(shows), link=link) as server:
            yield server

    def arguments(self, shows: str, user: str = USER) -> list[str]:
        """Of the server: the same name shows one clip or another."""
        codec, clip = self.clip(shows)
        return ["--mount", f"cam={codec}+none:{clip}", "--secure", f"secure={codec}+none:{clip}", "--auth", user]

    @contextmanager
    def program(
        self,
        result: Result,
        source: str,
        *args: str,
        background: str = "color:#00ff00",
        recordings: Path | None = None,
    ) -> Iterator[tuple[Program, Watchers]]:
        """The program and who watches it; afterwards, what they saw is looked at."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            out = Path(name)
            watchers = Watchers(out, recordings)
            try:
                command = [sys.executable, "-m", "streamseg", "run", source, *args, "--log-json"]
                command += ["--model", str(self.network), "--report", str(out / "report")]
                command += ["--background", background]
                command += [word for url in watchers.urls for word in ("-o", url)]
                program = Program(command)
                try:
                    yield program, watchers
                    code, took_s = program.end()
                    result.notes["stop_s"] = round(took_s, 2)
                    assert code == 128 + signal.SIGTERM, program.lines[-3:]
                finally:
                    program.close()
            finally:
                watchers.close()
            told = json.loads((out / "report").read_text())
            result.notes["frames"] = told["frames"]
            result.notes["irregularities"] = told["source"]["irregularities"]
            result.seen = watchers.search()


def flowing(program: Program) -> None:
    """Until the first picture came, and a second longer."""
    program.heard(": live, ", 0.0)
    time.sleep(1)


def shown(program: Program, watchers: Watchers) -> None:
    """Until everybody sees the camera, and enough of it: a busy machine shows few pictures in a second."""
    program.heard(": live, ", 0.0)
    watchers.reached()
    watchers.shown(watchers.count + _ENOUGH)


def held_again(program: Program, before: tuple[int, int]) -> tuple[int, int]:
    """What the program holds, once it holds no more and no less than before, or after a minute."""
    until_s = time.monotonic() + 60
    while (held := program.held()) != before and time.monotonic() < until_s:
        time.sleep(0.1)
    return held


def kill(bench: Bench, times: int) -> Result:
    """The server is killed and comes back after two seconds."""
    result = Result()
    with bench.server() as server, bench.program(result, server.url("cam")) as (program, watchers):
        shown(program, watchers)
        held = [program.held()]
        for _ in range(times):
            at_s = time.monotonic()
            server.kill()
            result.detect_s.append(program.heard("lost:", at_s) - at_s)
            time.sleep(2)
            server.start()
            back_s = time.monotonic()
            result.recover_s.append(program.heard("back after", at_s) - back_s)
            shown(program, watchers)
            held.append(held_again(program, held[0]))
        result.notes["fds, threads"] = held
    return result


def stop(bench: Bench, times: int) -> Result:
    """The server is held for ten seconds: no data, and the connection stays."""
    result = Result()
    with bench.server() as server, bench.program(result, server.url("cam")) as (program, watchers):
        shown(program, watchers)
        for _ in range(times):
            at_s = time.monotonic()
            server.signal(signal.SIGSTOP)
            result.detect_s.append(program.heard("lost:", at_s) - at_s)
            time.sleep(max(0.0, at_s + 10 - time.monotonic()))
            server.signal(signal.SIGCONT)
            on_s = time.monotonic()
            result.recover_s.append(program.heard("back after", at_s) - on_s)
            shown(program, watchers)
    return result


def password(bench: Bench, times: int) -> Result:
    """The server comes back with another password, and later with the right one."""
    result = Result()
    with bench.server() as server, bench.program(result, server.url("secure", USER)) as (program, watchers):
        shown(program, watchers)
        for _ in range(times):
            at_s = time.monotonic()
            server.kill()
            server.arguments = bench.arguments("h264", "viewer:other")
            server.start()
            result.detect_s.append(program.heard("trying again", at_s) - at_s)
            time.sleep(2)
            server.kill()
            server.arguments = bench.arguments("h264")
            server.start()
            on_s = time.monotonic()
            result.recover_s.append(program.heard("back after", at_s) - on_s)
            shown(program, watchers)
        result.notes["password shown"] = any("right" in line or "other" in line for _, line in program.lines)
    return result


def change(bench: Bench, times: int) -> Result:
    """The server comes back with another codec and size."""
    result = Result()
    with bench.server() as server, bench.program(result, server.url("cam")) as (program, watchers):
        shown(program, watchers)
        for number in range(times):
            at_s = time.monotonic()
            server.kill()
            server.arguments = bench.arguments("h264" if number % 2 else "h265")
            server.start()
            on_s = time.monotonic()
            result.detect_s.append(program.heard("lost:", at_s) - at_s)
            result.recover_s.append(program.heard("back after", at_s) - on_s)
            shown(program, watchers)
    return result


def absent(bench: Bench, times: int) -> Result:
    """The server is not there at the start, and comes later."""
    result = Result()
    for _ in range(times):
        server = RtspServer(bench.arguments("h264"))
        try:
            with bench.program(result, server.url("cam"), "--size", "640x360") as (program, watchers):
                program.heard("waiting for it", 0.0)
                watchers.shown(10)
                server.start()
                on_s = time.monotonic()
                result.recover_s.append(program.heard(": live, ", 0.0) - on_s)
                shown(program, watchers)
        finally:
            server.kill()
    return result


def model(bench: Bench, times: int) -> Result:
    """The network fails on what the camera shows, and later no longer."""
    result = Result()
    with bench.server("glare") as server, bench.program(result, server.url("cam")) as (program, watchers):
        program.heard("the slate is shown", 0.0)
        watchers.reached()
        # The clip is three seconds long, and the network fails in half of it.
        time.sleep(3.0 * (times + 1))
        watchers.shown(3 * _ENOUGH)
        result.notes["failures said"] = sum("the slate is shown" in line for _, line in program.lines)
    return result


def link(bench: Bench, times: int) -> Result:
    """The cable is pulled for five seconds."""
    result = Result()
    with (
        faulty_link() as cable,
        bench.server(link=cable) as server,
        bench.program(result, server.url("cam")) as (program, watchers),
    ):
        shown(program, watchers)
        for _ in range(times):
            at_s = time.monotonic()
            cable.cut()
            result.detect_s.append(program.heard("lost:", at_s) - at_s)
            time.sleep(max(0.0, at_s + 5 - time.monotonic()))
            cable.mend()
            on_s = time.monotonic()
            result.recover_s.append(program.heard("back after", at_s) - on_s)
            shown(program, watchers)
    return result


def loss(share: float) -> Callable[[Bench, int], Result]:
    def run(bench: Bench, times: int) -> Result:
        result = Result()
        with (
            faulty_link() as cable,
            bench.server(link=cable) as server,
            bench.program(result, server.url("cam"), "--transport", "udp") as (program, watchers),
        ):
            shown(program, watchers)
            cable.lose(share)
            time.sleep(5.0 * times)
            cable.lose(0)
            shown(program, watchers)
            result.notes["lost connections"] = sum("lost:" in line for _, line in program.lines)
        return result

    run.__doc__ = f"{share:.0%} of the UDP packets are lost."
    return run


def publish(bench: Bench, times: int) -> Result:
    """The server that is published to is held: it stops reading."""
    result = Result()
    background = f"video:{bench.noise()}"
    with (
        bench.server() as server,
        bench.program(result, server.url("cam"), background=background) as (program, watchers),
    ):
        shown(program, watchers)
        for _ in range(times):
            at_s = time.monotonic()
            watchers.rtsp.signal(signal.SIGSTOP)
            result.detect_s.append(program.heard("trying again", at_s) - at_s)
            time.sleep(2)
            on_s = time.monotonic()
            watchers.rtsp.signal(signal.SIGCONT)
            result.recover_s.append(program.heard("open again", on_s) - on_s)
            shown(program, watchers)
    return result


def disk(bench: Bench, times: int) -> Result:
    """The disk of a recording fills up, and later has room again."""
    result = Result()
    folder = bench.folder / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(folder)], check=True)
    try:
        with (
            bench.server() as server,
            bench.program(result, server.url("cam"), recordings=folder) as (program, watchers),
        ):
            shown(program, watchers)
            for _ in range(times):
                at_s = time.monotonic()
                (folder / "filler").write_bytes(bytes(200_000_000))
                result.detect_s.append(program.heard("trying again", at_s) - at_s)
                time.sleep(2)
                on_s = time.monotonic()
                (folder / "filler").unlink()
                result.recover_s.append(program.heard("open again", on_s) - on_s)
                shown(program, watchers)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    return result


def nothing(bench: Bench, times: int) -> Result:
    """No fault, and no background either: the room is meant to be seen, and the search must find it."""
    result = Result()
    with bench.server() as server, bench.program(result, server.url("cam"), background="none") as (program, watchers):
        shown(program, watchers)
        time.sleep(2.0 * times)
    return result


FAULTS: dict[str, Callable[[Bench, int], Result]] = {
    "absent": absent,
    "model": model,
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
