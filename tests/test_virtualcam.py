"""The virtual camera without a device: its clock, its slate, its colours and its words. On real ones: test_guest.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from streamseg.child import Memory
from streamseg.errors import SinkOpenError, SinkWriteError
from streamseg.frame import Colour, Frame, Origin, Output, VideoInfo
from streamseg.sinks import loopback, virtualcam, virtualcam_child
from streamseg.sinks.loopback import choose, describe_failure, remarks
from streamseg.sinks.outside import Finish, Finished, Handed, Lost, Refused, Taken, slot_view
from streamseg.sinks.v4l2 import Holder, Loopback
from streamseg.sinks.virtualcam_child import Request

OBS = Holder(11, "obs", "writes")
BROWSER = Holder(12, "firefox", "both")


def device(number: int, name: str = "Cam", **other: Any) -> Loopback:
    given = {"takes_writer": True, "exclusive_caps": True, "size_wh": None, "holders": ()} | other
    return Loopback(f"/dev/video{number}", name, **given)


def pretend(monkeypatch: pytest.MonkeyPatch, *devices: Loopback, version: tuple[int, ...] | None = (0, 13, 2)) -> None:
    monkeypatch.setattr(loopback, "loopback_devices", lambda: list(devices))
    monkeypatch.setattr(loopback, "driver_version", lambda: version)
    monkeypatch.setattr(os, "access", lambda path, mode: True)


def refusal(answer: object) -> Refused:
    assert isinstance(answer, Refused)
    assert "\n" not in answer.text
    assert not answer.text.endswith(".")
    return answer


def test_the_first_free_device_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, device(4, takes_writer=False, holders=(OBS,)), device(6, holders=(BROWSER,)), device(8))
    chosen = choose("")
    assert isinstance(chosen, Loopback)
    assert chosen.path == "/dev/video6"  # somebody reads it, which is no hindrance


def test_a_device_by_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, device(4, "Other"), device(6, "StreamSeg Cam"))
    chosen = choose("streamseg cam")
    assert isinstance(chosen, Loopback)
    assert chosen.path == "/dev/video6"


def test_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, version=None)
    answer = refusal(choose(""))
    assert answer.text.endswith('sudo modprobe v4l2loopback exclusive_caps=1 card_label="StreamSeg"')
    assert not answer.absent


def test_all_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, device(4, takes_writer=False, holders=(OBS, BROWSER)))
    answer = refusal(choose(""))
    assert "obs (process 11) writes to it" in answer.text
    assert "firefox" not in answer.text
    assert answer.absent


def test_a_writer_that_may_also_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, device(4, takes_writer=False, holders=(BROWSER,)))
    assert "firefox (process 12) writes to it" in refusal(choose("/dev/video4")).text


def test_an_old_driver_takes_one_writer_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, device(4, takes_writer=False), version=())
    answer = refusal(choose("/dev/video4"))
    assert "before 0.13 with exclusive_caps=1 can be written to only once" in answer.text
    assert "sudo modprobe -r v4l2loopback" in answer.text


def test_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, device(4))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    answer = refusal(choose(""))
    assert "sudo usermod -aG video $USER" in answer.text
    assert not answer.absent


def test_a_size_that_a_reader_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, device(4, size_wh=(640, 480), holders=(BROWSER,)))
    answer = describe_failure("/dev/video4", (1280, 720), "could not be configured: Device or resource busy")
    assert "it keeps 640x480 while firefox (process 12) has it open" in answer.text
    assert "--size 640x480" in answer.text
    assert answer.absent


def test_without_exclusive_caps_there_is_a_remark_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, device(4, exclusive_caps=False), device(6))
    assert isinstance(choose(""), Loopback)
    assert "exclusive_caps=1" in remarks("/dev/video4")[0]
    assert remarks("/dev/video6") == ()


class Clock:
    """Time that passes only where somebody waits."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, for_s: float) -> None:
        self.now_s += max(0.0, for_s)


class Host:
    """Scripted messages at scripted times; what was sent is kept."""

    def __init__(self, script: Sequence[tuple[float, object]], shape: tuple[int, int], clock: Clock) -> None:
        self.clock = clock
        self.memory = Memory.create()
        self.memory.resize(4 * 4096)
        for slot in range(4):
            slot_view(self.memory, slot, shape)[:] = slot
        self.script = list(script)
        self.sent: list[object] = []
        self.lines: list[str] = []

    def receive(self, timeout_s: float) -> object:
        at_s, message = self.script[0]
        if at_s > self.clock.now_s + timeout_s:
            self.clock.sleep(timeout_s)
            raise TimeoutError
        self.clock.sleep(at_s - self.clock.now_s)
        del self.script[0]
        return message

    def send(self, message: object) -> None:
        self.sent.append(message)

    def native_text(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


class Camera:
    """Keeps which picture was shown when."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.shown: list[tuple[float, int]] = []

    def send(self, planes: Any) -> None:
        self.shown.append((self.clock.now_s, int(planes[0, 0])))

    def close(self) -> None:
        pass


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Camera, Host]]:
    """What a camera of 50 pictures a second is shown, of which none is shown for longer than 0.3 s."""
    clock = Clock()
    monkeypatch.setattr(virtualcam_child, "time", clock)
    monkeypatch.setattr(os, "write", lambda fd, data: len(data))

    def show(script: Sequence[tuple[float, object]], lines: Sequence[str] = ()) -> tuple[Camera, Host]:
        host, camera = Host(script, (3, 2), clock), Camera(clock)
        host.lines = list(lines)
        virtualcam_child._Show(host, camera, Request("", (2, 2), 50, 0.3)).run()  # type: ignore[arg-type]
        host.memory.close()
        return camera, host

    return show


def test_a_picture_is_shown_at_once_again_and_again_and_not_for_ever(run: Callable[..., tuple[Camera, Host]]) -> None:
    camera, host = run([(0.1, Handed(1)), (1.0, Finish())])
    numbers = [number for _, number in camera.shown]
    first = numbers.index(1)
    last = len(numbers) - 1 - numbers[::-1].index(1)
    assert set(numbers[:first]) == {0}
    assert set(numbers[first : last + 1]) == {1}
    assert set(numbers[last + 1 :]) == {0}
    at_s = [at for at, _ in camera.shown]
    assert 0.1 <= at_s[first] < 0.1 + 0.0101, "half a period after the one before, at most"
    assert 0.38 < at_s[last] < 0.4001
    assert len(numbers) > 40
    assert host.sent == [Taken(None), Finished()]


def test_of_pictures_that_come_too_fast_the_latest_is_shown(run: Callable[..., tuple[Camera, Host]]) -> None:
    camera, host = run([(0.1, Handed(1)), (0.1001, Handed(2)), (0.1002, Handed(3)), (0.2, Finish())])
    numbers = [number for _, number in camera.shown]
    assert 3 in numbers
    assert len({1, 2} & set(numbers)) <= 1
    assert host.sent == [Taken(None), Taken(1), Taken(2), Finished()]


def test_a_failed_write_is_the_end(run: Callable[..., tuple[Camera, Host]]) -> None:
    _, host = run([(9.0, Finish())], ["something else", "error writing frame: Invalid argument"])
    assert host.sent == [Lost("error writing frame: Invalid argument")]


class Taker:
    """Instead of the child: keeps what it is offered."""

    def __init__(self, entry: str, name: str, request: Request, **options: Any) -> None:
        self.request, self.first, self.dropped = request, options["first"], 0
        self.opened, self.notices = "/dev/video4", ()
        self.offered: list[Any] = []

    def offer(self, planes: Any) -> bool:
        self.offered.append(planes)
        return True


def opened(monkeypatch: pytest.MonkeyPatch, colour: Colour, **other: Any) -> virtualcam.VirtualCamera:
    monkeypatch.setattr(virtualcam, "Outside", Taker)
    given = {"width": 64, "height": 36, "rate": Fraction(30)} | other
    info = VideoInfo(live=True, time_base=Fraction(1, 90000), colour=colour, name="x", original_wh=(64, 36), **given)
    return virtualcam.open_virtual_camera("virtualcam:", info)


def output(luma: int, colour: Colour, chroma: int = 128, height: int = 36) -> Output:
    planes = np.full((height * 3 // 2, 64), chroma, np.uint8)
    planes[:height] = luma
    return Output(Frame(planes, 0, Fraction(1, 90000), 0, 0.0, colour, Origin("x", (64, height))))


def test_samples_go_straight_through(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = opened(monkeypatch, Colour(matrix=6))
    given = output(123, Colour(matrix=6))
    camera.write(given)
    assert camera._outside.offered[0] is given.frame.planes


@pytest.mark.parametrize(("colour", "luma", "wanted"), [(Colour(True, 6), 255, 235), (Colour(True, 6), 0, 16)])
def test_full_range_is_made_limited(monkeypatch: pytest.MonkeyPatch, colour: Colour, luma: int, wanted: int) -> None:
    camera = opened(monkeypatch, colour)
    camera.write(output(luma, colour))
    shown = camera._outside.offered[0]
    assert np.abs(shown[:36].astype(int) - wanted).max() <= 1
    assert np.abs(shown[36:].astype(int) - 128).max() <= 1


def test_bt709_is_made_bt601(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pure blue: (32, 240, 118) in BT.709 is (41, 240, 110) in BT.601, both by the standards' own formulas."""
    camera = opened(monkeypatch, Colour(matrix=1))
    given = output(32, Colour(matrix=1))
    given.frame.u[:], given.frame.v[:] = 240, 118
    camera.write(given)
    shown = camera._outside.offered[0].reshape(-1)
    found = [int(shown[place]) for place in (0, 64 * 36, 64 * 36 * 5 // 4)]
    assert np.abs(np.array(found) - (41, 240, 110)).max() <= 2


def test_the_slate_is_black_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(monkeypatch, Colour())._outside.first
    assert set(first[:36].reshape(-1)) == {16}
    assert set(first[36:].reshape(-1)) == {128}


def test_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SinkOpenError, match="both must be even"):
        opened(monkeypatch, Colour(), width=65)
    camera = opened(monkeypatch, Colour())
    with pytest.raises(SinkWriteError, match="a picture of 64x72 on /dev/video4: it has 64x36"):
        camera.write(output(16, Colour(), height=72))
