"""A real webcam driver and a real loopback device as sources: read, unplugged, busy, forbidden, their feeder dead."""

from __future__ import annotations

import grp  # noqa: F401 - where another user cannot import it any more
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from streamseg.errors import SourceAbsentError, SourceError, SourceLostError, SourceOpenError
from streamseg.frame import Source
from streamseg.sources import LiveOptions, live_opener
from streamseg.sources.cameras import camera_address, list_cameras
from tests.guest.checks import patience, run_checks

WEBCAM, FEEDER = "/dev/video10", "/dev/video1"
# How often each fault is done; the fault table in docs/benchmarks.md is of five.
TIMES = int(os.environ.get("STREAMSEG_FAULT_TIMES", "1"))
# The emulator is slow to start Python and to draw.
SMALL = LiveOptions(size_wh=(320, 180), rate=Fraction(15), connect_timeout_s=30)
FEED = f"""
import sys, numpy as np, pyvirtualcam
camera = pyvirtualcam.Camera(320, 240, 10, device={FEEDER!r}, fmt=pyvirtualcam.PixelFormat.I420)
planes = np.full((360, 320), 128, np.uint8)
while True:
    planes[:240] = (int(planes[0, 0]) + 8) % 256
    camera.send(planes.reshape(-1)); camera.sleep_until_next_frame()
    print("fed", flush=True)
"""


def taken(source: Source, count: int) -> list[np.ndarray]:
    pictures = []
    for _ in range(count):
        frame = source.read()
        assert frame is not None
        pictures.append(frame.planes)
    return pictures


def lost_after_s(source: Source, limit_s: float = 60) -> float:
    """Seconds until reading fails; frames that were on their way are passed over."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < limit_s:
        try:
            assert source.read() is not None, "a camera has no end"
        except SourceLostError:
            return time.monotonic() - began_s
    raise AssertionError("never lost")


def refusal(call: Callable[[], object], kind: type[SourceError]) -> str:
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError("it was opened")


def check_what_is_listed() -> dict[str, object]:
    cameras = {camera.path: camera for camera in list_cameras()}
    assert WEBCAM in cameras
    # Nobody feeds the loopback devices.
    assert FEEDER not in cameras
    assert "/dev/video0" not in cameras
    webcam = cameras[WEBCAM]
    assert webcam.driver == "vivid"
    yuyv = [mode for mode in webcam.modes if mode.format == "YUYV"]
    assert any(mode.size_wh == (640, 360) and Fraction(30) in mode.rates for mode in yuyv), yuyv
    return {"name": webcam.name, "modes": len(webcam.modes)}


def check_unplugged_and_plugged_in_again() -> dict[str, object]:
    opener = live_opener(WEBCAM, SMALL)
    lost_s, back_s = [], []
    try:
        for _ in range(TIMES):
            assert opener.ready()
            source = opener()
            info = source.info
            assert (info.width, info.height, info.live, info.rate) == (320, 180, True, 15)
            pictures = taken(source, 60)
            assert len({picture.tobytes() for picture in pictures}) > 30, "it stands still"
            subprocess.run(["v4l2-ctl", "-d", WEBCAM, "-c", "disconnect=1"], check=True)
            lost_s.append(round(lost_after_s(source), 2))
            source.close()
            # vivid plugs itself in again once nobody has it open any more.
            began_s = time.monotonic()
            while not opener.ready():
                assert time.monotonic() - began_s < 60
                time.sleep(0.05)
            source = opener()
            taken(source, 5)
            back_s.append(round(time.monotonic() - began_s, 2))
            source.close()
    finally:
        opener.close()
    assert max(lost_s) < 3 * patience(), lost_s
    return {"lost_s": lost_s, "back_s": back_s}


def check_a_busy_camera_names_its_holder() -> dict[str, object]:
    opener = live_opener(WEBCAM, SMALL)
    source = opener()
    taken(source, 2)
    other = live_opener(WEBCAM, SMALL)
    try:
        why = refusal(other, SourceAbsentError)
        assert "is busy" in why, why
        assert f"pid {opener.pid}" in why, why
        taken(source, 2)
        source.close()
        second = other()
        taken(second, 2)
        second.close()
    finally:
        opener.close()
        other.close()
    return {"why": why}


def check_a_mode_that_it_lacks() -> dict[str, object]:
    opener = live_opener(WEBCAM, LiveOptions(size_wh=(1000, 1000)))
    why = refusal(opener, SourceOpenError)
    opener.close()
    assert "has no 1000x1000; it has" in why, why
    assert "YUYV 640x360 at" in why, why
    assert len(why) < 1500
    return {"why": why}


def check_no_permission() -> dict[str, object]:
    subprocess.run(["chgrp", "video", WEBCAM], check=True)
    os.chmod(WEBCAM, 0o660)
    # The interpreter may lie where only root may look: another user's process begins as a copy of this one.
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            camera_address(WEBCAM, LiveOptions())
        except BaseException as error:
            os.write(write_end, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(pid, 0)
    with os.fdopen(read_end) as text:
        why = text.read()
    assert why.startswith("SourceOpenError"), why
    assert "group video; sudo usermod -aG video" in why, why
    return {"why": why}


def check_a_feeder_that_dies_or_freezes() -> dict[str, object]:
    opener = live_opener(FEEDER, LiveOptions(connect_timeout_s=30))
    after_s: dict[str, list[float]] = {"SIGKILL": [], "SIGSTOP": []}
    try:
        assert opener.ready() is False
        unfed = refusal(opener, SourceAbsentError)
        for how in [signal.SIGKILL, signal.SIGSTOP] * TIMES:
            feeder = subprocess.Popen([sys.executable, "-c", FEED], stdout=subprocess.PIPE, text=True)
            assert feeder.stdout is not None
            assert feeder.stdout.readline() == "fed\n"
            assert FEEDER in [camera.path for camera in list_cameras()]
            source = opener()
            assert (source.info.width, source.info.height) == (320, 240)
            taken(source, 10)
            feeder.send_signal(how)
            after_s[how.name].append(round(lost_after_s(source), 2))
            source.close()
            feeder.kill()
            feeder.wait()
    finally:
        opener.close()
    assert max(after_s["SIGKILL"] + after_s["SIGSTOP"]) < 3.5 * patience(), after_s
    return {"unfed": unfed, **after_s}


if __name__ == "__main__":
    run_checks(globals())
