"""A live sink's two halves: nothing waits for the child, and everything that happens to it is noticed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from streamseg.child import Host
from streamseg.errors import SinkAbsentError, SinkOpenError, SinkWriteError
from streamseg.sinks.outside import (
    Finish,
    Finished,
    Handed,
    Lost,
    Opened,
    Outside,
    Refused,
    Taken,
    slot_view,
)

SHAPE = (6, 4)


def collect(host: Host) -> None:
    """Takes pictures until told to finish; the last byte of each is appended to the path in the request."""
    path = host.receive(None)
    host.send(Opened("collector", ("it collects",)))
    seen = []
    while True:
        message = host.receive(None)
        if isinstance(message, Handed):
            seen.append((int(slot_view(host.memory, message.slot, SHAPE)[-1, -1]), message.extra))
            host.send(Taken(message.slot))
            if len(seen) == 1:
                Path(f"{path}.taken").touch()
        elif isinstance(message, Finish):
            with open(path, "w", encoding="ascii") as file:
                file.write(repr((seen, message.extra)))
            host.send(Finished())


def refuse(host: Host) -> None:
    absent = host.receive(None)
    host.send(Refused("cannot open it: try later" if absent else "cannot open it: never", absent))


def stall(host: Host) -> None:
    """Takes one picture, and then nothing, not even the end."""
    host.receive(None)
    host.send(Opened("stalling"))
    message = host.receive(None)
    host.send(Taken(message.slot))
    while True:
        time.sleep(100)


def lose(host: Host) -> None:
    host.receive(None)
    host.send(Opened("losing"))
    host.receive(None)
    host.send(Lost("the peer is gone"))


def hang(host: Host) -> None:
    while True:
        time.sleep(100)


def crash(host: Host) -> None:
    raise RuntimeError("rtsp://me:secret@server/x is no good")


def outside(entry: str, request: Any = None, name: str = "the peer", **options: Any) -> Outside:
    given = {"shape": SHAPE, "slots": 2, "open_s": 120.0, "stall_s": 600.0} | options
    return Outside(f"tests.test_outside:{entry}", name, request, **given)


def picture(value: int) -> Any:
    return np.full(SHAPE, value, np.uint8)


def offer_until(half: Outside, number: int) -> None:
    """Offer pictures 1 to `number`, each until it finds room."""
    until_s = time.monotonic() + 300
    for value in range(1, number + 1):
        while not half.offer(picture(value), value):
            assert time.monotonic() < until_s, f"picture {value} of {number} finds no room; {half._child.alive=}"
            time.sleep(0.001)  # the processor is the child's, where there is only one


def offer_until_it_fails(half: Outside) -> None:
    """At a camera's pace."""
    until_s = time.monotonic() + 120
    while time.monotonic() < until_s:
        try:
            half.offer(picture(1))
        except SinkWriteError:
            return
        time.sleep(0.005)
    raise AssertionError("it did not fail")


@pytest.fixture(autouse=True)
def _time_to_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes what it is given may be slow at it."""
    monkeypatch.setattr("streamseg.sinks.outside._FINISH_S", 120.0)


def test_pictures_arrive_in_order_and_the_end_is_awaited(tmp_path: Any) -> None:
    half = outside("collect", str(tmp_path / "seen"))
    assert half.opened == "collector"
    assert half.notices == ("it collects",)
    offer_until(half, 50)
    assert half.finish("trailing")
    half.close()
    assert eval((tmp_path / "seen").read_text()) == ([(value, value) for value in range(1, 51)], "trailing")


def test_the_first_picture_keeps_its_slot(tmp_path: Any) -> None:
    half = outside("collect", str(tmp_path / "seen"), slots=3, first=picture(99))
    offer_until(half, 9)
    assert slot_view(half._child.memory, 0, SHAPE).tolist() == picture(99).tolist()
    half.close()


@pytest.mark.parametrize(("absent", "kind"), [(True, SinkAbsentError), (False, SinkOpenError)])
def test_refusals(absent: bool, kind: type[SinkOpenError]) -> None:
    with pytest.raises(SinkOpenError, match="cannot open it") as caught:
        outside("refuse", absent)
    assert type(caught.value) is kind


def test_the_process_list_holds_no_key(tmp_path: Any) -> None:
    # Long ones: the paths in the command line are random, and may hold a short one by chance.
    secrets = ("pass-word-0", "stream-key-0", "signature-0")
    url = "rtmp://me:{}@host/live/{}?auth={}".format(*secrets)
    half = outside("collect", str(tmp_path / "seen"), name=url)
    command = " ".join(psutil.Process(half.pid).cmdline())
    half.close()
    assert "streamseg rtmp://***@host/live/***" in command
    assert not any(secret in command for secret in secrets)


def test_no_answer_is_absence() -> None:
    with pytest.raises(SinkAbsentError, match=r"no answer for 0\.5 s"):
        outside("hang", open_s=0.5)


def test_a_crash_is_told_without_the_password() -> None:
    with pytest.raises(SinkOpenError, match="is no good") as caught:
        outside("crash")
    assert "secret" not in str(caught.value)


def test_a_stall_is_noticed_and_nothing_waits() -> None:
    half = outside("stall", stall_s=2.0)
    offer_until_it_fails(half)
    # Two seconds of pictures that found no room: whoever waits for room has none.
    assert half.dropped > 10
    assert not half._child.alive
    with pytest.raises(SinkWriteError, match="takes nothing any more, for 2 s"):
        half.offer(picture(1))
    half.close()


def test_a_pause_of_the_pictures_is_no_stall(tmp_path: Any) -> None:
    half = outside("collect", str(tmp_path / "seen"), stall_s=1.0)
    offer_until(half, 1)
    while not (tmp_path / "seen.taken").exists():
        time.sleep(0.01)
    time.sleep(1.5)  # the pause
    assert half.offer(picture(2))
    half.close()


def test_the_end_does_not_wait_for_a_stalled_child(monkeypatch: pytest.MonkeyPatch) -> None:
    half = outside("stall")
    while half.offer(picture(1)):
        pass
    monkeypatch.setattr("streamseg.sinks.outside._FINISH_S", 0.2)
    assert not half.finish(), "or it would wait for ever"
    half.close()


def test_what_the_child_says_last_is_told() -> None:
    half = outside("lose")
    offer_until_it_fails(half)
    with pytest.raises(SinkWriteError, match="cannot write to the peer: the peer is gone"):
        half.offer(picture(1))
    half.close()


def test_a_killed_child_is_noticed(tmp_path: Any) -> None:
    half = outside("collect", str(tmp_path / "seen"))
    os.kill(half.pid, signal.SIGKILL)
    offer_until_it_fails(half)
    with pytest.raises(SinkWriteError, match="ended by signal 9"):
        half.offer(picture(1))
    half.close()


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc to count file descriptors in")
def test_nothing_is_left_open(tmp_path: Any) -> None:
    outside("collect", str(tmp_path / "seen")).close()  # what is made once for all
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        half = outside("collect", str(tmp_path / "seen"))
        half.offer(picture(1))
        half.close()
        with pytest.raises(SinkOpenError):
            outside("refuse", False)
    assert len(os.listdir("/proc/self/fd")) == len(before)
