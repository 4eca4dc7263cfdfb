"""The program itself between real cameras and a real virtual camera: on demand, and through every fault of a camera.

Every picture that a reader of the virtual camera gets is searched for the raw room.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamseg.sinks.v4l2 import loopback_devices
from streamseg.sources.cameras import holders
from tests import networks
from tests.guest.checks import run_checks

WEBCAM, CAMERA, FEEDER = "/dev/video10", "/dev/video0", "/dev/video1"
SAID = Path("/guest/said.jsonl")
# What a reader sees, by picture. Raw is the room of tests/rooms.py, and the white and yellow of the webcam driver's
# colour bars, which the network never keeps.
READER = """
import sys, av, numpy as np
from tests.rooms import shows_room
with av.open(sys.argv[1], format="v4l2", timeout=30) as container:
    for picture in container.decode(video=0):
        rgb = picture.to_ndarray(format="rgb24")
        red, green, blue = (rgb[..., channel].astype(int) for channel in range(3))
        bright = ((red > 130) & (green > 130)).mean()
        room = ((green > 180) & (red < 90) & (blue < 90)).mean()
        raw = bright > 0.05 or shows_room(rgb)
        kind = "raw" if raw else "composite" if room > 0.3 else "slate" if rgb.mean() < 70 else "other"
        print(kind, flush=True)
"""
# The room; SIGUSR1 switches the glare on and off, in which the network fails.
FEED = f"""
import signal, pyvirtualcam
from tests.rooms import room_picture
shown = [[room_picture(index, 320, 240, glare=glare).to_ndarray() for index in range(0, 50, 5)] for glare in (0, 1)]
signal.signal(signal.SIGUSR1, lambda *_: shown.reverse())
camera = pyvirtualcam.Camera(320, 240, 10, device={FEEDER!r}, fmt=pyvirtualcam.PixelFormat.I420)
while True:
    for number in range(10):
        camera.send(shown[0][number].reshape(-1)); camera.sleep_until_next_frame()
"""


@contextmanager
def program(source: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    network = networks.matte(Path("/run/red.onnx"), size=64, alone=True, brittle=True)
    command = [sys.executable, "-m", "streamseg", "run", source, "-o", f"virtualcam:{CAMERA}", "--log-json"]
    command += ["--model", str(network)]
    with SAID.open("w") as said:
        process = subprocess.Popen([*command, *args], stderr=said, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def feeder() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", FEED])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(process: subprocess.Popen[str], true: Callable[[], Any], what: str, limit_s: float = 400) -> float:
    began_s = time.monotonic()
    while not true():
        said = SAID.read_text()[-600:]
        assert process.poll() is None, f"the program ended before {what}; {said}"
        assert time.monotonic() - began_s < limit_s, f"never came: {what}; {said}"
        time.sleep(0.05)
    return round(time.monotonic() - began_s, 2)


def messages() -> list[str]:
    return [json.loads(line)["message"] for line in SAID.read_text().splitlines()]


def written() -> bool:
    return any(device.path == CAMERA and device.writers for device in loopback_devices())


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
    assert code == 128 + signal.SIGTERM, code


class Reader:
    """Reads the virtual camera; counts what it sees."""

    def __init__(self) -> None:
        self.log = Path("/guest/seen.txt")
        self._file = self.log.open("w")
        self._process = subprocess.Popen([sys.executable, "-c", READER, CAMERA], stdout=self._file)

    def seen(self) -> list[str]:
        return self.log.read_text().split()

    def count(self, kind: str) -> int:
        return self.seen().count(kind)

    def more(self, process: subprocess.Popen[str], kind: str, after: str) -> float:
        """Seconds until a few more pictures of a kind were seen."""
        before = self.count(kind)
        return until(process, lambda: self.count(kind) > before + 5, f"{kind} after {after}")

    def stop(self) -> list[str]:
        self._process.kill()
        self._process.wait()
        self._file.close()
        return self.seen()


def _listed() -> str:
    """What `streamseg devices` says while the program has the virtual camera."""
    command = [sys.executable, "-m", "streamseg", "devices"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cameras, virtual = listed.split("virtual cameras:")
    assert WEBCAM in cameras, listed
    assert f"{CAMERA}  StreamSeg Cam  320x180, written by python" in virtual, listed
    return listed


def check_listed_on_demand_and_unplugged() -> dict[str, Any]:
    options = ("--size", "320x180", "--fps", "15", "--background", "color:#00ff00")
    with program(WEBCAM, *options, "--on-demand", "--set", "live.on_demand_delay_s=2") as process:
        up_s = until(process, written, "the virtual camera is written to")
        until_s = time.monotonic() + 4
        while time.monotonic() < until_s:
            assert not holders(WEBCAM), "nobody watches, and the webcam is open"
            time.sleep(0.1)
        listed = _listed()
        reader = Reader()
        opened_s = until(process, lambda: holders(WEBCAM), "the webcam is opened for the reader")
        picture_s = until(process, lambda: reader.count("composite") > 5, "the picture")
        reader.stop()
        closed_s = until(process, lambda: not holders(WEBCAM), "the webcam is closed after the reader")
        reader = Reader()
        again_s = until(process, lambda: reader.count("composite") > 5, "the picture again")
        slates = reader.count("slate")
        subprocess.run(["v4l2-ctl", "-d", WEBCAM, "-c", "disconnect=1"], check=True)
        slate_s = until(process, lambda: reader.count("slate") > slates + 3, "the slate")
        composites = reader.count("composite")
        subprocess.run(["v4l2-ctl", "-d", WEBCAM, "-c", "disconnect=0"], check=False)
        back_s = until(process, lambda: reader.count("composite") > composites + 5, "the picture after the cable")
        kinds = Counter(reader.stop())
        assert not kinds["raw"], kinds
        stop(process)
    return {
        "up_s": up_s,
        "opened_s": opened_s,
        "picture_s": picture_s,
        "closed_s": closed_s,
        "again_s": again_s,
        "slate_s": slate_s,
        "back_s": back_s,
        "kinds": kinds,
        "said": messages()[:12],
        "listed": listed,
    }


def check_every_fault_of_a_fed_camera() -> dict[str, Any]:
    config = Path("/run/look.yaml")
    config.write_text("background: {spec: 'color:#00ff00'}\n")
    seconds = {}
    # Here a try alone takes ten seconds and more.
    options = ("--size", "320x240", "--set", "source.wait=yes", "--set", "source.longest_backoff_s=1")
    with program(FEEDER, "--config", str(config), *options) as process:
        until(process, written, "the virtual camera is written to")
        reader = Reader()
        seconds["slate at the start"] = reader.more(process, "slate", "the start without a camera")
        with feeder() as fed:
            seconds["picture"] = reader.more(process, "composite", "the camera came")
            fed.send_signal(signal.SIGUSR1)
            seconds["slate as the network fails"] = reader.more(process, "slate", "the network failed")
            fed.send_signal(signal.SIGUSR1)
            seconds["picture again"] = reader.more(process, "composite", "the network's failures")
            fed.send_signal(signal.SIGSTOP)
            seconds["slate as the feeder is frozen"] = reader.more(process, "slate", "the feeder froze")
            fed.send_signal(signal.SIGCONT)
            seconds["picture once more"] = reader.more(process, "composite", "the feeder went on")
            fed.kill()
            seconds["slate as the feeder died"] = reader.more(process, "slate", "the feeder died")
        with feeder():
            seconds["picture of the next feeder"] = reader.more(process, "composite", "the next feeder")
            hidden = Counter(reader.seen())
            assert not hidden["raw"], hidden
            # Would the search have found it? Without a background, the room is meant to be seen.
            config.write_text("background: {spec: none}\n")
            process.send_signal(signal.SIGHUP)
            reader.more(process, "raw", "the background was taken away")
        reader.stop()
        stop(process)
    return {**seconds, "kinds": hidden, "said": messages()[:20]}


if __name__ == "__main__":
    run_checks(globals())
