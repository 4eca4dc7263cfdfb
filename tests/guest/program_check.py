"""The program itself between a real webcam driver and a real virtual camera: on demand, through an unplugged cable."""

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

WEBCAM, CAMERA = "/dev/video10", "/dev/video0"
# What a reader sees, by picture: the driver's colour bars have white and yellow ones, which the network never keeps.
READER = """
import sys, av, numpy as np
with av.open(sys.argv[1], format="v4l2", timeout=30) as container:
    for picture in container.decode(video=0):
        rgb = picture.to_ndarray(format="rgb24").astype(int)
        red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
        bright = ((red > 130) & (green > 130)).mean()
        room = ((green > 180) & (red < 90) & (blue < 90)).mean()
        kind = "raw" if bright > 0.05 else "composite" if room > 0.3 else "slate" if rgb.mean() < 70 else "other"
        print(kind, flush=True)
"""


@contextmanager
def program(*args: str) -> Iterator[subprocess.Popen[str]]:
    network = networks.matte(Path("/run/red.onnx"), size=64, alone=True)
    command = [sys.executable, "-m", "streamseg", "run", WEBCAM, "-o", f"virtualcam:{CAMERA}", "--log-json"]
    command += ["--size", "320x180", "--fps", "15", "--model", str(network), "--background", "color:#00ff00", *args]
    with open("/guest/said.jsonl", "w") as said:
        process = subprocess.Popen(command, stderr=said, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(process: subprocess.Popen[str], true: Callable[[], Any], what: str, limit_s: float = 90) -> float:
    began_s = time.monotonic()
    while not true():
        said = Path("/guest/said.jsonl").read_text()[-600:]
        assert process.poll() is None, f"the program ended before {what}; {said}"
        assert time.monotonic() - began_s < limit_s, f"never came: {what}; {said}"
        time.sleep(0.05)
    return round(time.monotonic() - began_s, 2)


def written() -> bool:
    return any(device.path == CAMERA and device.writers for device in loopback_devices())


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
    with program("--on-demand", "--set", "live.on_demand_delay_s=2") as process:
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
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        assert code == 128 + signal.SIGTERM, code
    said = [json.loads(line)["message"] for line in Path("/guest/said.jsonl").read_text().splitlines()]
    return {
        "up_s": up_s,
        "opened_s": opened_s,
        "picture_s": picture_s,
        "closed_s": closed_s,
        "again_s": again_s,
        "slate_s": slate_s,
        "back_s": back_s,
        "kinds": kinds,
        "said": said[:12],
        "listed": listed,
    }


if __name__ == "__main__":
    run_checks(globals())
