"""A source and a sink that come back: time, geometry, counts, and how soon."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from streamseg.engine import LIVE_TIME_BASE, Backoff, Pipeline, Reconnecting, Reopening
from streamseg.errors import SinkAbsentError, SinkWriteError, SourceAbsentError, SourceLostError, StreamsegError
from streamseg.frame import Colour, Frame, Origin, Output, Packet, Track, VideoInfo

INFO = VideoInfo(4, 2, Fraction(30), True, LIVE_TIME_BASE, Colour(), "cam", (4, 2))
SOUND = Track(1, "audio", "aac", None)


def frame(index: int, stream_s: float, arrived_s: float, width: int = 4) -> Frame:
    return Frame(
        np.zeros((3, width), np.uint8),
        round(stream_s * 1000),
        Fraction(1, 1000),
        index,
        arrived_s,
        Colour(),
        Origin("cam", (width, 2)),
    )


class Script:
    """A source that gives what it was told to: frames, then an error, or None for a clean end."""

    notices: Sequence[str] = ("said once",)

    def __init__(self, *steps: Frame | Exception | None, packets: Sequence[Packet] = ()) -> None:
        self.info = INFO
        self.counts: Mapping[str, int] = {"broken packets skipped": 1}
        self._steps = list(steps)
        self._packets = list(packets)
        self.closed = 0
        self.interrupted = threading.Event()

    def read(self) -> Frame | None:
        if not self._steps:
            assert self.interrupted.wait(60)
            return None
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def take_packets(self) -> list[Packet]:
        packets, self._packets = self._packets, []
        return packets

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed += 1


class opener:
    """An `Opener` that gives or raises one thing after the other."""

    def __init__(self, *results: Script | StreamsegError, looks: Sequence[bool] = ()) -> None:
        self._left = list(results)
        self._looks = list(looks)
        self.interrupted = threading.Event()
        self.closed = 0

    def __call__(self) -> Script:
        result = self._left.pop(0)
        if isinstance(result, StreamsegError):
            raise result
        return result

    def ready(self) -> bool | None:
        return self._looks.pop(0) if self._looks else None

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed += 1


def quick() -> Backoff:
    return Backoff(0.001, 0.002)


def seconds(frames: Sequence[Frame | None]) -> list[float]:
    return [round(frame.seconds, 4) for frame in frames if frame is not None]


def test_backoff_doubles_to_a_limit_with_jitter() -> None:
    backoff = Backoff(1, 60, jitter=0.5, chance=lambda: 0.0)
    assert [backoff.next_s() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.reset()
    assert backoff.next_s() == 1
    assert Backoff(1, 60, jitter=0.5, chance=lambda: 0.999).next_s() == pytest.approx(0.5, abs=0.01)


class Waits(Backoff):
    """Remembers how long it should have been waited, and lets nobody wait."""

    def __init__(self) -> None:
        super().__init__(1, 60, jitter=0)
        self.told: list[float] = []

    def next_s(self) -> float:
        self.told.append(super().next_s())
        return 0.0


def test_a_source_that_is_lost_as_soon_as_it_is_there_is_tried_less_and_less_often() -> None:
    def connection(begin_s: float, lasts_s: float) -> Script:
        return Script(frame(0, 0, begin_s), frame(1, lasts_s, begin_s + lasts_s), SourceLostError("gone"))

    lost = [connection(10.0 * number, 0.1) for number in range(4)]
    opens = opener(*lost, connection(50, 3), connection(60, 0.1), Script(frame(0, 0, 70)), looks=[True, True] * 20)
    waits = Waits()
    source = Reconnecting(opens, INFO, backoff=waits)
    while source.read().captured_at < 70:  # type: ignore[union-attr]
        pass
    assert waits.told == [1, 2, 4, 8, 1, 2]
    source.close()


def test_remarks_of_months_do_not_grow() -> None:
    lost = []
    for number in range(150):
        lost.append(Script(frame(0, 0, number), SourceLostError("gone")))
        lost[-1].notices = (f"the picture changes at frame {number}",)
    source = Reconnecting(opener(*lost, Script(frame(0, 0, 200))), INFO, backoff=quick())
    while source.read().captured_at < 200:  # type: ignore[union-attr]
        pass
    assert len(source.notices) == 100
    assert source.notices[0].endswith("frame 0")
    source.close()


def test_time_goes_on_across_a_reconnect() -> None:
    """The gap has the length it had for us; within a connection the stream's own clock counts."""
    first = Script(frame(0, 100.0, 7.0), frame(1, 100.033, 7.04), SourceLostError("gone"))
    second = Script(frame(0, 5.0, 9.04), frame(1, 5.033, 9.05), None)
    third = Script(frame(0, 0.0, 10.05))
    source = Reconnecting(opener(first, second, third), INFO, backoff=quick())
    assert source.state == "connecting"
    frames = [source.read() for _ in range(5)]
    assert seconds(frames) == [0.0, 0.033, 2.033, 2.066, 3.066]
    assert [frame.index for frame in frames if frame] == [0, 1, 2, 3, 4]
    assert (first.closed, second.closed) == (1, 1)
    assert source.counts == {
        "connections lost": 2,
        "reconnects": 2,
        "broken packets skipped": 3,
    }
    assert source.notices == ("said once",)
    source.close()
    assert third.closed == 1
    assert source.state == "ended"


def test_the_time_before_a_source_was_first_there_counts() -> None:
    """Slates went before it: its frames must not be squeezed behind them until its own clock has caught up."""
    now = time.monotonic()
    late = Script(frame(0, 5.0, now + 30), frame(1, 5.1, now + 30.1))
    source = Reconnecting(opener(SourceAbsentError("nobody there"), late), INFO, backoff=quick())
    first_s, second_s = (frame.seconds for frame in (source.read(), source.read()) if frame)
    assert first_s == pytest.approx(30, abs=25)
    assert second_s - first_s == pytest.approx(0.1, abs=1e-3)
    source.close()
    there = Script(frame(0, 5.0, now + 30))
    source = Reconnecting(opener(), INFO, first=there)
    assert seconds([source.read()]) == [0.0]
    source.close()


def test_a_jump_of_the_streams_clock_is_bridged() -> None:
    script = Script(frame(0, 50.0, 1.0), frame(1, 3.0, 1.04), frame(2, 3.04, 1.08), frame(3, 9000.0, 1.12))
    source = Reconnecting(opener(script), INFO)
    assert seconds([source.read() for _ in range(4)]) == [0.0, 0.04, 0.08, 0.12]
    assert source.counts["jumps of the stream's clock"] == 2
    source.close()


def test_time_never_stands_still() -> None:
    script = Script(frame(0, 1.0, 1.0), frame(1, 1.0, 1.03), frame(2, 0.9, 1.06))
    source = Reconnecting(opener(script), INFO)
    assert seconds([source.read() for _ in range(3)]) == [0.0, 0.001, 0.002]
    source.close()


def test_frames_dropped_by_the_source_leave_a_gap_in_the_index() -> None:
    source = Reconnecting(opener(Script(frame(0, 0, 0), frame(3, 0.1, 0.1), frame(4, 0.13, 0.13))), INFO)
    assert [got.index for got in [source.read() for _ in range(3)] if got] == [0, 3, 4]
    source.close()


def test_another_size_is_fitted() -> None:
    def fit(picture: Frame) -> Frame:
        return picture.with_picture(picture.planes[:, :4].copy())

    source = Reconnecting(
        opener(Script(frame(0, 0, 0), None), Script(frame(0, 0, 1, width=8))), INFO, fit=fit, backoff=quick()
    )
    widths = [picture.width for picture in (source.read(), source.read()) if picture]
    assert widths == [4, 4]
    source.close()


def test_an_absent_source_is_waited_for_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    absent = SourceAbsentError("cannot open rtsp://me:secret@cam/: connection refused")
    with caplog.at_level(logging.INFO, "streamseg"):
        source = Reconnecting(opener(absent, absent, absent, Script(frame(0, 0, 0))), INFO, backoff=quick())
        assert source.read() is not None
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "cam: cannot open rtsp://***@cam/: connection refused; trying again"
    assert len(lines) == 2
    assert lines[1] == "cam: live, 4x2"
    assert source.counts["failed tries to connect"] == 3
    source.close()


def test_a_wait_ends_early_when_the_server_answers_again() -> None:
    looks = [False, False, True, True, True]
    source = Reconnecting(
        opener(SourceAbsentError("refused"), Script(frame(0, 0, 0)), looks=looks),
        INFO,
        backoff=Backoff(60, 60, jitter=0),
    )
    begin = time.monotonic()
    assert source.read() is not None
    assert time.monotonic() - begin < 50
    source.close()


@pytest.mark.parametrize("blocked_in", ["wait", "open", "read"])
def test_interrupt_ends_whatever_it_does(blocked_in: str) -> None:
    script = Script()

    class Blocking(opener):
        def __call__(self) -> Script:
            if blocked_in == "wait":
                raise SourceAbsentError("refused")
            if blocked_in == "open":
                assert self.interrupted.wait(60)
                raise SourceLostError("cancelled")
            return script

    opens = Blocking()
    source = Reconnecting(opens, INFO, backoff=Backoff(60, 60))
    got: list[Frame | None] = []
    thread = threading.Thread(target=lambda: got.append(source.read()))
    thread.start()
    source.interrupt()
    thread.join(60)
    assert got == [None]
    source.close()
    assert opens.closed == 1


def test_it_is_closed_while_nobody_watches() -> None:
    watched = threading.Event()
    watched.set()
    script, again = Script(frame(0, 0, 0), frame(1, 0.03, 0.03)), Script(frame(0, 0, 5))
    source = Reconnecting(opener(script, again), INFO, wanted=watched.is_set)
    assert source.read() is not None
    watched.clear()
    got: list[Frame | None] = []
    thread = threading.Thread(target=lambda: got.append(source.read()))
    thread.start()
    deadline = time.monotonic() + 120
    while source.state != "idle" and time.monotonic() < deadline:
        pass
    assert (source.state, script.closed) == ("idle", 1)
    watched.set()
    thread.join(60)
    assert seconds(got) == [5.0]
    assert source.state == "live"
    assert "reconnects" not in source.counts, "nothing was lost"
    source.close()


def test_sound_moves_with_the_picture() -> None:
    moved: list[tuple[str, float]] = []

    def shift(packet: Packet, track: Track, by_s: float) -> Packet:
        moved.append((packet.payload, round(by_s, 3)))
        return replace(packet, track=track)

    theirs = Track(1, "audio", "aac", None)
    other = Track(1, "audio", "opus", None)
    first = Script(frame(0, 100.0, 0.0), None, packets=[Packet(theirs, "a")])
    second = Script(frame(0, 7.0, 2.0), packets=[Packet(theirs, "b"), Packet(other, "c")])
    source = Reconnecting(opener(first, second), replace(INFO, tracks=[SOUND]), shift=shift, backoff=quick())
    source.read()
    assert [packet.track for packet in source.take_packets()] == [SOUND]
    source.read()
    assert [packet.track for packet in source.take_packets()] == [SOUND, other], (
        "another kind of sound is its own track"
    )
    assert moved == [("a", -100.0), ("b", -5.0), ("c", -5.0)]
    source.close()


class Well:
    """A sink that fails at given indices."""

    notices: Sequence[str] = ("a remark",)

    def __init__(self, *fail_at: int) -> None:
        self.fail_at = fail_at
        self.indices: list[int] = []
        self.finished = self.closed = 0

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        if output.frame.index in self.fail_at:
            raise SinkWriteError("rtmp://me:secret@host/live: broken pipe")
        self.indices.append(output.frame.index)

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        self.finished += 1

    def close(self) -> None:
        self.closed += 1


class Passing:
    """Makes a picture of every frame."""

    def __call__(self, frame: Frame) -> Sequence[Output]:
        return [Output(frame)]

    def finish(self) -> Sequence[Output]:
        return []


def test_a_sink_is_opened_again_and_its_drops_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    first, second = Well(2), Well()
    results: list[Well | StreamsegError] = [SinkAbsentError("refused"), second]

    def open_sink(given_up: Callable[[], bool]) -> Well:
        result = results.pop(0)
        if isinstance(result, StreamsegError):
            raise result
        return result

    sink = Reopening(open_sink, name="rtmp://host/live", first=first, backoff=Backoff(0.0, 0.0))
    with caplog.at_level(logging.INFO, "streamseg"):
        for index in range(6):
            sink.write(Output(frame(index, index, index)))
            assert sink.state == ("waiting" if index in (2, 3) else "open")
    sink.finish()
    sink.close()
    assert (first.indices, second.indices) == ([0, 1], [4, 5])
    assert (first.closed, first.finished, second.closed, second.finished) == (1, 0, 1, 1)
    assert sink.counts == {"pictures dropped while closed": 2, "lost": 1, "reopened": 1}
    assert sink.notices == ("a remark",)
    assert [record.getMessage() for record in caplog.records] == [
        "rtmp://host/live: rtmp://***@host/live: broken pipe; trying again",
        "rtmp://host/live: refused; trying again",
        "rtmp://host/live: open again",
    ]


def test_a_sink_that_is_lost_as_soon_as_it_is_open_is_tried_less_and_less_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    waits = Waits()
    wells = [Well(1), Well(3), Well(5), Well(7), Well(40), Well()]
    sink = Reopening(lambda given_up: wells.pop(0), name="rtmp://host/live", backoff=waits)
    for index in range(60):
        sink.write(Output(frame(index, index, index)))
    sink.close()
    assert wells == []
    assert waits.told == [1, 2, 4, 8, 16, 1], "the first one is that of opening it at all"
    said = [record.getMessage() for record in caplog.records if "trying again" in record.getMessage()]
    assert len(said) == 5, "the log never ends with 'open again' while it is not"


def test_tries_that_fail_for_one_reason_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def open_sink(given_up: Callable[[], bool]) -> Well:
        raise SinkAbsentError("nobody answers")

    sink = Reopening(open_sink, name="x", first=Well(1), backoff=Backoff(0.0, 0.0))
    for index in range(9):
        sink.write(Output(frame(index, index, index)))
    sink.close()
    assert [record.getMessage() for record in caplog.records] == [
        "x: rtmp://***@host/live: broken pipe; trying again",
        "x: nobody answers; trying again",
    ]


def test_a_sink_that_cannot_be_completed_is_said_and_the_others_are_completed(caplog: pytest.LogCaptureFixture) -> None:
    class Unfinished(Well):
        def finish(self, packets: Sequence[Packet] = ()) -> None:
            raise SinkWriteError("the disk is full")

    other = Well()
    sinks = [Reopening(None, name=name, first=first) for name, first in (("bad", Unfinished()), ("good", other))]
    source = Script(frame(0, 0, 0), None)
    pipeline = Pipeline(source, Passing(), sinks)
    pipeline.start()
    assert pipeline.wait(60)
    assert (other.finished, other.closed) == (1, 1)
    assert [sink.incomplete for sink in sinks] == [True, False]
    assert [record.getMessage() for record in caplog.records] == ["bad: the disk is full"]


def test_a_sink_is_not_tried_before_it_is_due() -> None:
    def open_sink(given_up: Callable[[], bool]) -> Well:
        raise AssertionError("too early")

    sink = Reopening(open_sink, name="x", backoff=Backoff(60, 60))
    sink.write(Output(frame(0, 0, 0)))
    assert sink.counts == {"pictures dropped while closed": 1}
    sink.finish()
    sink.close()


def test_a_sink_that_is_given_up_is_not_opened_any_more() -> None:
    asked = threading.Event()

    def open_sink(given_up: Callable[[], bool]) -> Well:
        asked.set()
        while not given_up():
            pass
        raise SinkAbsentError("given up")

    sink = Reopening(open_sink, name="x", backoff=Backoff(0.0, 0.0))
    thread = threading.Thread(target=sink.write, args=[Output(frame(0, 0, 0))])
    thread.start()
    assert asked.wait(60)
    sink.give_up()
    thread.join(60)
    assert not thread.is_alive()
    asked.clear()
    sink.write(Output(frame(1, 1, 1)))
    assert not asked.is_set()
    sink.close()


def test_a_late_burst_is_no_jump_of_the_clock() -> None:
    """What was held up on the way comes all at once, with its right times: nothing is stretched."""
    frames = [frame(index, index / 30, index / 30) for index in range(30)]
    # Two seconds of silence, then sixty frames within a moment, and on as before.
    frames += [frame(index, index / 30, 3.0 + (index - 30) / 1000) for index in range(30, 90)]
    frames += [frame(index, index / 30, index / 30 + 0.06) for index in range(90, 200)]
    source = Reconnecting(opener(Script(*frames)), INFO)
    placed = [source.read() for _ in range(200)]
    assert "jumps of the stream's clock" not in source.counts
    assert seconds(placed[-1:]) == [pytest.approx(199 / 30, abs=0.01)]
    source.close()


def test_a_pause_of_the_stream_itself_is_a_gap() -> None:
    """A server that was held goes on where it was: the gap was real for everybody who watched."""
    frames = [frame(index, index / 30, index / 30) for index in range(30)]
    frames += [frame(index, index / 30, 5.0 + index / 30) for index in range(30, 150)]
    source = Reconnecting(opener(Script(*frames)), INFO)
    placed = [source.read() for _ in range(150)]
    assert source.counts["jumps of the stream's clock"] == 1
    assert seconds(placed[-1:]) == [pytest.approx(5 + 149 / 30, abs=0.05)]
    source.close()


def test_a_sink_that_cannot_be_opened_again_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    sink = Reopening(None, name="standard output", first=Well(1))
    for index in range(4):
        sink.write(Output(frame(index, index, index)))
    assert sink.incomplete
    assert sink.counts["pictures dropped while closed"] == 3
    assert caplog.records[0].getMessage().endswith("given up, the other outputs go on")
    sink.finish()
    sink.close()
    assert sink.incomplete
