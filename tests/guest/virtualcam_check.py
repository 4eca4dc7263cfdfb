"""The virtual camera on a real loopback device, read by other programs."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamseg.errors import SinkAbsentError, SinkWriteError
from streamseg.sinks.loopback import choose
from streamseg.sinks.outside import Refused
from streamseg.sinks.v4l2 import Loopback, Readers, driver_version, holders, loopback_devices
from streamseg.sinks.virtualcam import VirtualCamera, open_virtual_camera
from tests.guest.checks import patience, run_checks
from tests.guest.coded import COLOURS, HEIGHT, WIDTH, coded_output, info, slate

# Starting a process takes ten seconds here: the other guests only run what their drivers do otherwise.
GUESTS = {
    "exclusive": (
        "check_read_by_pyav",
        "check_read_by_opencv",
        "check_readers_come_and_go",
        "check_slate_when_nothing_comes",
        "check_repeats_while_it_is_fresh",
        "check_on_demand",
        "check_second_writer_is_refused",
        "check_opened_again",
        "check_reader_came_first",
        "check_size_that_a_reader_keeps",
        "check_write_error",
        "check_child_is_killed",
        "check_parent_hangs",
        "check_words",
    ),
    "shared": ("check_second_writer_is_refused", "check_words"),
    "new": ("check_on_demand", "check_size_that_a_reader_keeps"),
    "old": ("check_read_by_pyav", "check_on_demand_without_the_event", "check_old_driver"),
}
DEVICE = "/dev/video0"
EXCLUSIVE = os.environ.get("STREAMSEG_GUEST_CAPS") == "1"
RATE = 15
STALE_S = 2.0
STREAMON, CAPTURE = 0x40045612, 1


def opened(width: int = WIDTH, height: int = HEIGHT) -> VirtualCamera:
    whole = (width, height) == (WIDTH, HEIGHT)
    return open_virtual_camera(
        f"virtualcam:{DEVICE}",
        info(width, height, rate=RATE),
        slate=slate() if whole else None,
        stale_s=STALE_S,
        open_s=100,
    )


@functools.cache
def shared() -> VirtualCamera:
    """One camera for the checks that do nothing to it."""
    return opened()


def closed() -> None:
    """Give the shared camera's device back."""
    if shared.cache_info().currsize:
        shared().close()
        shared.cache_clear()


def reload_driver() -> None:
    labels = 'card_label="StreamSeg Cam,Feeder Cam"'
    caps = f"exclusive_caps={int(EXCLUSIVE)},{int(EXCLUSIVE)}"
    subprocess.run(["rmmod", "v4l2loopback"], check=True)
    subprocess.run(
        ["insmod", os.environ["STREAMSEG_GUEST_DRIVER"], "devices=2", "video_nr=0,1", caps, labels], check=True
    )


def show_while(camera: VirtualCamera, running: Callable[[], bool], first: int = 0) -> int:
    """Write coded pictures at the rate while it runs; returns the next index."""
    index, due = first, time.monotonic()
    while running():
        camera.write(coded_output(index, int(time.monotonic() * 1000) & 0xFFFFF))
        index += 1
        due = max(due + 1 / RATE, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
    return index


def reader(how: str, count: int, times: int = 1, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.guest.reader", DEVICE, how, str(count), str(times), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def seen_by(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-2000:]
    return json.loads(out)


def refused(target: str) -> Refused:
    """What the child would answer, without starting it."""
    answer = choose(target)
    assert isinstance(answer, Refused), f"{target} could be opened"
    return answer


def _read(how: str) -> dict[str, Any]:
    camera = shared()
    process = reader(how, 40, 1, f"/guest/{how}.png")
    show_while(camera, lambda: process.poll() is None)
    seen = seen_by(process)
    shown = [index for index in seen["indices"] if index is not None]
    assert len(shown) >= 30, seen["indices"]
    assert shown == sorted(shown), f"out of order: {shown}"
    for found, wanted in zip(seen["colours"], COLOURS, strict=True):
        assert all(abs(a - b) <= 6 for a, b in zip(found, wanted, strict=True)), seen["colours"]
    return {
        "pictures": len(shown),
        "skipped": shown[-1] - shown[0] + 1 - len(set(shown)),
        "repeated": len(shown) - len(set(shown)),
        "delay_p50_ms": statistics.median(seen["delays_ms"]),
        "delay_max_ms": max(seen["delays_ms"]),
        "dropped": dict(camera.counts),
        "colours": seen["colours"],
    }


def check_read_by_pyav() -> dict[str, Any]:
    return _read("pyav")


def check_read_by_opencv() -> dict[str, Any]:
    return _read("opencv")


def check_readers_come_and_go() -> dict[str, Any]:
    camera = shared()
    fds = Path(f"/proc/{camera.pid}/fd")
    index = show_while(camera, iter([True] * 5 + [False]).__next__)
    before = len(list(fds.iterdir()))
    process = reader("pyav", 2, 50)
    show_while(camera, lambda: process.poll() is None, index)
    seen = seen_by(process)
    # Nothing left over, and the writer lives.
    assert len(list(fds.iterdir())) == before
    camera.write(coded_output(0, 0))
    assert len(seen["waits_ms"]) == 50
    assert seen["torn"] <= 3
    shown = [index for index in seen["indices"] if index is not None]
    assert len(shown) >= 95
    assert shown == sorted(shown)
    return {"first_picture_p50_ms": statistics.median(seen["waits_ms"]), "max_ms": max(seen["waits_ms"]), "fds": before}


def check_slate_when_nothing_comes() -> dict[str, Any]:
    """The slate is all there is when the parent falls silent; it was all there was before its first picture."""
    camera = shared()
    camera.write(coded_output(7, 0))
    seen = seen_by(reader("pyav", 10))  # which takes longer to start than a picture lasts
    assert seen["indices"] == [None] * 10
    return {}


def check_repeats_while_it_is_fresh() -> dict[str, Any]:
    """A source of two pictures a second gives a camera of fifteen."""
    camera = shared()
    process = reader("pyav", 45)
    index = 0
    while process.poll() is None:
        camera.write(coded_output(index, 0))
        index += 1
        time.sleep(0.5)
    shown = [index for index in seen_by(process)["indices"] if index is not None]
    assert len(shown) > 40
    assert len(set(shown)) < len(shown) / 3
    return {"different": len(set(shown)), "pictures": len(shown)}


def check_on_demand() -> dict[str, Any]:
    """Whether somebody reads is known at once, by the driver's event."""
    readers = Readers(DEVICE, ignore=[shared().pid])
    try:
        assert readers.by_event
        assert _changes(readers) == [{False, True}] * 2
    finally:
        readers.close()
    return {}


def check_on_demand_without_the_event() -> dict[str, Any]:
    """Driver 0.12 has no event: the processes are looked for."""
    readers = Readers(DEVICE, ignore=[shared().pid])
    try:
        assert not readers.by_event
        assert _changes(readers) == [{False, True}] * 2
    finally:
        readers.close()
    return {}


def _changes(readers: Readers) -> list[set[bool]]:
    changes = []
    for _ in range(2):
        assert not readers.watched()
        states = set()
        process = reader("pyav", 20)

        def look(process: subprocess.Popen[str] = process, states: set[bool] = states) -> bool:
            states.add(readers.watched())
            return process.poll() is None

        show_while(shared(), look)
        seen_by(process)
        changes.append(states)
        time.sleep(0.6)  # longer than an answer is kept where processes are looked for
    assert not readers.watched()
    return changes


def check_second_writer_is_refused() -> dict[str, Any]:
    camera = shared()
    camera.write(coded_output(0, 0))
    answer = refused(DEVICE)
    assert answer.absent
    assert f"process {camera.pid}" in answer.text, answer
    # Without a name, the other device is taken.
    free = choose("")
    assert isinstance(free, Loopback)
    assert free.path == "/dev/video1"
    # The library alone would not have noticed without exclusive_caps; the driver takes the writes of the first only.
    return {"message": answer.text}


def check_opened_again() -> dict[str, Any]:
    """With another size in between."""
    closed()
    took_ms = []
    for size in ((WIDTH, HEIGHT), (640, 480), (WIDTH, HEIGHT)):
        began = time.monotonic()
        camera = opened(*size)
        took_ms.append(round((time.monotonic() - began) * 1000))
        assert loopback_devices()[0].size_wh == size
        camera.close()
    return {"open_p50_ms": statistics.median(took_ms)}


def check_reader_came_first() -> dict[str, Any]:
    """Something has the device open before there is a picture, as a browser that was told to use it."""
    closed()
    fd = os.open(DEVICE, os.O_RDWR)
    try:
        camera = shared()
        process = reader("pyav", 5)
        show_while(camera, lambda: process.poll() is None)
        seen = seen_by(process)
    finally:
        os.close(fd)
    assert len(seen["indices"]) == 5
    return {"indices": seen["indices"]}


def check_size_that_a_reader_keeps() -> dict[str, Any]:
    """A program that stays keeps the size of the writer that left, in driver 0.13; later ones let it change."""
    shared()
    waiting = "import os, sys; os.open(sys.argv[1], os.O_RDWR); print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", waiting, DEVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    closed()
    try:
        opened().close()  # the same size is no matter
        opened(640, 480).close()
        message = ""
    except SinkAbsentError as error:
        message = str(error)
    finally:
        process.communicate("")
    if driver_version() == (0, 13, 2):
        assert f"{WIDTH}x{HEIGHT}" in message, message
        assert str(process.pid) in message, message
    else:
        assert not message
    return {"message": message}


def check_write_error() -> dict[str, Any]:
    """The driver takes our descriptor for a reader's: every write fails, and the library only prints it."""
    camera = shared()
    libc = ctypes.CDLL(None, use_errno=True)
    fds = Path(f"/proc/{camera.pid}/fd")
    (number,) = [int(link.name) for link in fds.iterdir() if os.readlink(link) == DEVICE]
    same = libc.syscall(438, os.pidfd_open(camera.pid), number, 0)  # pidfd_getfd
    assert same >= 0, os.strerror(ctypes.get_errno())
    try:
        camera.write(coded_output(0, 0))
        fcntl.ioctl(same, STREAMON, struct.pack("i", CAPTURE))
        failure, noticed_ms = _failure(camera)
    finally:
        os.close(same)
        closed()
    # What it took for a reader's never tells it that its writer left.
    reload_driver()
    assert "error writing frame" in failure, failure
    assert noticed_ms < 2000 * patience()
    return {"message": failure, "noticed_ms": noticed_ms}


def check_child_is_killed() -> dict[str, Any]:
    camera = shared()
    camera.write(coded_output(0, 0))
    os.kill(camera.pid, signal.SIGKILL)
    failure, noticed_ms = _failure(camera)
    closed()
    assert "signal 9" in failure, failure
    return {"message": failure, "noticed_ms": noticed_ms}


def _failure(camera: VirtualCamera) -> tuple[str, int]:
    began = time.monotonic()
    try:
        show_while(camera, lambda: time.monotonic() < began + 60)
    except SinkWriteError as error:
        return str(error), round((time.monotonic() - began) * 1000)
    raise AssertionError("nobody noticed")


def check_parent_hangs() -> dict[str, Any]:
    """The process that gives the pictures is stopped: readers see the slate, not the last picture."""
    closed()
    program = (
        "from tests.guest.virtualcam_check import *\n"
        "camera = opened()\n"
        "print(camera.pid, flush=True)\n"
        "show_while(camera, lambda: True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        before = seen_by(reader("pyav", 10))
        os.kill(parent.pid, signal.SIGSTOP)
        after = seen_by(reader("pyav", 10))
    finally:
        parent.kill()
        parent.wait()
    assert set(before["indices"]) != {None}
    assert after["indices"] == [None] * 10
    ended = time.monotonic() + 60
    while holders(DEVICE) and time.monotonic() < ended:
        time.sleep(0.05)
    assert not holders(DEVICE), "the child outlived its parent"
    assert not Path(f"/proc/{child}/fd/0").exists()
    return {}


def check_words() -> dict[str, Any]:
    """Every way in which a virtual camera can be missing says what to do."""
    closed()
    said = {target: refused(target).text for target in ("/dev/video77", "/dev/video10", "Nobody")}
    assert "does not exist" in said["/dev/video77"]
    assert "/dev/video0 (StreamSeg Cam)" in said["/dev/video77"]
    assert "is not a virtual camera" in said["/dev/video10"]
    assert "'Nobody'" in said["Nobody"]
    camera = open_virtual_camera("virtualcam:streamseg cam", info(), slate=None, open_s=100)
    try:
        assert camera.device == DEVICE
        said["notices"] = " ".join(camera.notices)
        assert ("exclusive_caps" in said["notices"]) is not EXCLUSIVE
        state = loopback_devices()[0]
        assert state.exclusive_caps is EXCLUSIVE
        assert state.size_wh == (WIDTH, HEIGHT)
        assert [holder.pid for holder in state.writers] == [camera.pid]
    finally:
        camera.close()
    for path in ("/dev/video0", "/dev/video1"):
        os.chmod(path, 0o660)
    said["nobody"] = _as_nobody(lambda: refused("").text)
    assert "usermod -aG video" in said["nobody"], said
    subprocess.run(["rmmod", "v4l2loopback"], check=True)
    missing = refused("")
    said["no module"] = missing.text
    assert "modprobe v4l2loopback exclusive_caps=1 card_label=" in missing.text
    assert not missing.absent
    return said


def _as_nobody(ask: Callable[[], str]) -> str:
    """What it answers to a user who is in no group; in a fork, because there is no way back."""
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.write(write_end, ask().encode())
        os._exit(0)
    os.close(write_end)
    os.wait()
    with os.fdopen(read_end) as answer:
        return answer.read()


def check_old_driver() -> dict[str, Any]:
    """Driver 0.12 with exclusive_caps=1 takes one writer in its life; that is said, with the way out."""
    closed()
    answer = refused(DEVICE)
    assert "before 0.13" in answer.text
    assert "modprobe -r v4l2loopback" in answer.text
    return {"message": answer.text}


if __name__ == "__main__":
    run_checks(globals())
