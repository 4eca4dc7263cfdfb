"""Fail closed: what is shown, and when, while nothing true comes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from streamseg.engine import LIVE_TIME_BASE, FailClosed, Metrics
from streamseg.errors import InferenceError
from streamseg.frame import Colour, Frame, Origin, Output
from tests.stages import Each

RAW, COMPOSITE, SLATE = 1, 2, 3


def picture(value: int, pts: int = 0, index: int = 0) -> Frame:
    planes = np.full((3, 4), value, np.uint8)
    return Frame(planes, pts, LIVE_TIME_BASE, index, 0.0, Colour(), Origin("x", (4, 2)))


class Bench:
    """A fail-closed process under a clock that is set by hand."""

    def __init__(self, rate: int = 30) -> None:
        self.now = 100.0
        self.broken = False
        self.states: list[str] = []
        self.metrics = Metrics()
        self.closed = FailClosed(
            Each(self._process),
            self._slate,
            state=lambda: "reconnecting",
            metrics=self.metrics,
            interval_s=1 / rate,
            clock=lambda: self.now,
        )

    def _process(self, frame: Frame) -> Output:
        if self.broken:
            raise InferenceError("out of memory")
        return Output(frame.with_picture(np.full_like(frame.planes, COMPOSITE)))

    def _slate(self, state: str) -> Frame:
        self.states.append(state)
        return picture(SLATE)

    def frame(self, at_s: float) -> Output:
        self.now = 100.0 + at_s
        (output,) = self.closed(replace(picture(RAW), pts=round(at_s / LIVE_TIME_BASE), captured_at=self.now))
        return output


def shown(output: Output) -> int:
    values = np.unique(output.frame.planes)
    assert len(values) == 1
    return int(values[0])


def test_the_slate_comes_at_once_when_there_is_no_frame_yet() -> None:
    bench = Bench()
    assert bench.closed.wait_s() == 0
    output = bench.closed.output()
    assert (shown(output), output.stands_in) == (SLATE, True)
    assert bench.closed.wait_s() == pytest.approx(0.1)
    assert bench.states == ["reconnecting"]


def test_a_stall_repeats_the_composite_for_half_a_second_then_shows_the_slate() -> None:
    bench = Bench(rate=30)
    for index in range(60):
        assert shown(bench.frame(index / 30)) == COMPOSITE
    last_s = 59 / 30
    seen = []
    while bench.now - 100 < last_s + 1.0:
        bench.now += bench.closed.wait_s() + 1e-6
        output = bench.closed.output()
        assert output.stands_in
        seen.append((bench.now - 100 - last_s, shown(output)))
    repeats = [at_s for at_s, value in seen if value == COMPOSITE]
    slates = [at_s for at_s, value in seen if value == SLATE]
    assert len(repeats) == 9, "every 1.5 intervals of a thirtieth, for half a second"
    assert max(repeats) < 0.5
    assert min(slates) == pytest.approx(0.5, abs=0.001)
    assert len(slates) == pytest.approx(6, abs=1), "ten a second"
    counts = bench.metrics.snapshot()["counts"]
    assert counts == {"pictures repeated": len(repeats), "slates shown": len(slates)}


def test_what_was_kept_back_over_an_outage_is_not_shown_after_the_slate() -> None:
    bench = Bench(rate=30)

    class Late:
        """Gives each picture three frames later, as one that is delayed."""

        def __init__(self) -> None:
            self.line: list[Output] = []

        def __call__(self, frame: Frame) -> list[Output]:
            self.line.append(Output(frame))
            ready, self.line = (self.line, []) if frame.index == 10 else (self.line[:-3], self.line[-3:])
            return ready

        def finish(self) -> list[Output]:
            return self.line

    closed = FailClosed(
        Late(), bench._slate, state=lambda: "lost", metrics=bench.metrics, clock=lambda: bench.now, interval_s=1 / 30
    )

    def give(index: int, at_s: float) -> list[int]:
        bench.now = 100 + at_s
        frame = replace(picture(RAW, round(at_s / LIVE_TIME_BASE), index), captured_at=bench.now)
        return [output.frame.index for output in closed(frame)]

    for index in range(10):
        assert give(index, index / 30) == ([index - 3] if index >= 3 else [])
    bench.now += 2
    assert shown(closed.output()) == SLATE
    assert give(10, 10 / 30 + 2) == [10], "those before are two seconds old"
    assert bench.metrics.get("pictures from before an outage left out") == 3
    assert give(11, 11 / 30 + 2) == []
    assert [output.frame.index for output in closed.finish()] == [11]


def test_a_slow_camera_is_no_stall() -> None:
    bench = Bench(rate=2)
    for index in range(10):
        bench.frame(index / 2)
    assert bench.closed.stall_s == pytest.approx(1.5)


def test_time_goes_on_through_stand_ins_and_late_frames() -> None:
    bench = Bench()
    outputs = [bench.frame(0.0), bench.frame(1 / 30)]
    bench.now = 100 + 1 / 30 + 0.6
    outputs.append(bench.closed.output())
    bench.now += 0.1
    outputs.append(bench.closed.output())
    bench.now += 0.01
    (late,) = bench.closed(replace(picture(RAW), pts=round(0.066 / LIVE_TIME_BASE), captured_at=bench.now))
    outputs.append(late)
    times = [output.frame.seconds for output in outputs]
    assert times == sorted(set(times))
    assert times[2] == pytest.approx(1 / 30 + 0.6, abs=1e-4)
    assert times[3] == pytest.approx(1 / 30 + 0.7, abs=1e-4)
    assert shown(late) == COMPOSITE
    assert not late.stands_in


def test_a_failing_network_shows_the_slate_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    assert shown(bench.frame(0.0)) == COMPOSITE
    bench.broken = True
    for index in (1, 2, 3):
        output = bench.frame(index / 30)
        assert (shown(output), output.stands_in) == (SLATE, True)
        assert output.frame.seconds == pytest.approx(index / 30, abs=1e-4)
    bench.now += 0.2
    assert shown(bench.closed.output()) == SLATE, "an older composite is not brought back"
    assert [record.getMessage() for record in caplog.records] == ["out of memory; the slate is shown meanwhile"]
    bench.broken = False
    assert shown(bench.frame(1.0)) == COMPOSITE
    assert bench.metrics.get("frames that could not be processed") == 3


def test_a_network_that_fails_now_and_then_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    for index in range(3600):
        bench.broken = index % 2 == 1
        bench.frame(index / 30)
        assert bench.closed.failing == ("out of memory" if bench.broken else "")
    assert len(caplog.records) == 2, "once a minute"
    bench.broken = True
    for index in range(3600, 10800, 10):
        bench.frame(index / 30)
    assert len(caplog.records) <= 3, "what lasts is said once"


def test_a_programming_mistake_is_not_hidden() -> None:
    def process(frame: Frame) -> Output:
        raise ZeroDivisionError

    closed = FailClosed(Each(process), lambda state: picture(SLATE), state=str, metrics=Metrics())
    with pytest.raises(ZeroDivisionError):
        closed(picture(RAW))


def test_the_interval_is_learnt() -> None:
    bench = Bench(rate=30)
    for index in range(40):
        bench.frame(index / 4)
    assert bench.closed.stall_s == pytest.approx(0.75), "three times a quarter of a second"
    assert Fraction(LIVE_TIME_BASE) == bench.closed.output().frame.time_base


def test_a_camera_that_is_slower_than_it_says_is_learnt() -> None:
    bench = Bench(rate=30)
    for index in range(8):
        bench.frame(float(index))
    assert bench.closed.stall_s == pytest.approx(3.0), "three times a second, not three thirtieths"
