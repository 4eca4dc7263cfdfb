"""The threads: every stage x {raises, blocks, ends} x {live, file}, and who is told what."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from streamseg.engine import Beside, Metrics, Pipeline, Process, Reopening
from streamseg.errors import PipelineAborted, PipelineStuckError, SinkWriteError, SourceLostError
from streamseg.frame import Colour, Frame, Origin, Output, Packet, Track, VideoInfo
from tests.stages import Each

INFO = VideoInfo(4, 2, Fraction(30), False, Fraction(1, 30), Colour(), "stub", (4, 2))


def frame(index: int) -> Frame:
    return Frame(np.zeros((3, 4), np.uint8), index, Fraction(1, 30), index, 0.0, Colour(), Origin("stub", (4, 2)))


class StubSource:
    notices: Sequence[str] = ()
    counts: Mapping[str, int] = {}

    def __init__(self, frames: int, *, live: bool = False, then: str = "end") -> None:
        self.info = replace(INFO, live=live)
        self._frames = frames
        self._then = then
        self._index = 0
        self.interrupted = threading.Event()
        self.closed = 0
        self._packets: list[Packet] = []

    def read(self) -> Frame | None:
        if self._index == self._frames:
            if self._then == "raise":
                raise SourceLostError("the cable was pulled")
            if self._then == "block":
                assert self.interrupted.wait(60), "nobody interrupted the source"
            return None
        self._index += 1
        return frame(self._index - 1)

    def take_packets(self) -> list[Packet]:
        packets, self._packets = self._packets, []
        return packets

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed += 1


class StubSink:
    notices: Sequence[str] = ()

    def __init__(self, *, fail_at: int | None = None, hold: threading.Event | None = None) -> None:
        self.indices: list[int] = []
        self.finished = 0
        self.closed = 0
        self._fail_at = fail_at
        self._hold = hold
        self.held = threading.Event()

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        if self._hold is not None:
            self.held.set()
            assert self._hold.wait(60)
        if output.frame.index == self._fail_at:
            raise SinkWriteError("the disk is full")
        self.indices.append(output.frame.index)

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        self.finished += 1

    def close(self) -> None:
        self.closed += 1


class Stepped(StubSource):
    """Live; gives the next frame when the one before was processed."""

    def __init__(self, frames: int) -> None:
        super().__init__(frames, live=True)
        self.processed = threading.Semaphore(1)

    def read(self) -> Frame | None:
        assert self.processed.acquire(timeout=60)
        return super().read()


def output(of: Frame) -> Output:
    return Output(of)


def test_a_file_loses_nothing_and_keeps_order() -> None:
    source, sinks = StubSource(100), [StubSink(), StubSink()]
    pipeline = Pipeline(source, Each(output), sinks)
    pipeline.start()
    assert pipeline.wait(60)
    for sink in sinks:
        assert sink.indices == list(range(100))
        assert (sink.finished, sink.closed) == (1, 1)
    assert source.closed == 1
    assert pipeline.metrics.get("frames in") == pipeline.metrics.get("frames out 1") == 100


def test_a_slow_sink_that_keeps_what_was_seen_gets_it_late_and_what_is_too_much_is_counted() -> None:
    hold = threading.Event()

    class Log(StubSink):
        def keeps(self, output: Output) -> bool:
            return output.frame.index % 2 == 1

    picture, log = StubSink(hold=hold), Log(hold=hold)
    source = Stepped(300)

    def process(of: Frame) -> Output:
        source.processed.release()
        return output(of)

    pipeline = Pipeline(source, Each(process), [picture, Reopening(None, name="log", first=log)])
    pipeline.start()
    while pipeline.metrics.get("frames in") < 300:
        pipeline.wait(0.01)
    hold.set()
    assert pipeline.wait(60)
    assert picture.indices[-1] == log.indices[-1] == 299
    assert len(picture.indices) <= 3
    assert log.indices == sorted(set(log.indices))
    kept = [index for index in log.indices if index % 2 and index < 299]
    assert kept[-60:] == list(range(179, 299, 2)), "the last sixty that it keeps"
    for number, sink in enumerate((picture, log)):
        assert pipeline.drops[f"sink {number} slower than processing"] == 300 - len(sink.indices)


def test_a_live_source_drops_the_oldest_and_counts_it() -> None:
    gate = threading.Event()
    source, sink = StubSource(50, live=True), StubSink()

    def slow(of: Frame) -> Output:
        assert gate.wait(60)
        return Output(of)

    pipeline = Pipeline(source, Each(slow), [sink])
    pipeline.start()
    while not source.closed:  # the source ran on although nothing was processed
        pipeline.wait(0.01)
    gate.set()
    assert pipeline.wait(60)
    assert len(sink.indices) <= 3
    assert sink.indices == sorted(sink.indices)
    assert sum(pipeline.drops.values()) == 50 - len(sink.indices)


@pytest.mark.parametrize("live", [False, True])
def test_a_failing_source_is_raised_and_nothing_is_finished(live: bool) -> None:
    source, sink = StubSource(3, live=live, then="raise"), StubSink()
    pipeline = Pipeline(source, Each(output), [sink])
    pipeline.start()
    with pytest.raises(SourceLostError, match="cable"):
        pipeline.wait(60)
    assert (sink.finished, sink.closed, source.closed) == (0, 1, 1)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("where", ["process", "sink"])
def test_a_failure_downstream_frees_a_source_that_blocks_in_read(where: str, live: bool) -> None:
    source = StubSource(1, live=live, then="block")
    sink = StubSink(fail_at=0 if where == "sink" else None)

    def process(of: Frame) -> Output:
        if where == "process":
            raise ZeroDivisionError
        return Output(of)

    pipeline = Pipeline(source, Each(process), [sink])
    pipeline.start()
    with pytest.raises(ZeroDivisionError if where == "process" else SinkWriteError) as caught:
        pipeline.wait(60)
    assert caught.traceback[-1].name in ("process", "write"), "the traceback must lead to where it happened"
    assert (sink.finished, sink.closed, source.closed) == (0, 1, 1)


def test_a_failing_sink_frees_the_others_and_a_full_channel() -> None:
    bad, good = StubSink(fail_at=2), StubSink()
    pipeline = Pipeline(StubSource(1000), Each(output), [bad, good])
    pipeline.start()
    with pytest.raises(SinkWriteError):
        pipeline.wait(60)
    assert (bad.closed, good.closed, bad.finished) == (1, 1, 0)


def test_stop_finishes_what_is_under_way() -> None:
    source, sink = StubSource(5, then="block"), StubSink()
    pipeline = Pipeline(source, Each(output), [sink])
    pipeline.start()
    while len(sink.indices) < 5:
        assert not pipeline.wait(0.01)
    pipeline.stop()
    pipeline.stop()
    assert pipeline.wait(60)
    assert (sink.indices, sink.finished) == (list(range(5)), 1)


def test_abort_finishes_nothing() -> None:
    source, sink = StubSource(1, then="block"), StubSink()
    pipeline = Pipeline(source, Each(output), [sink])
    pipeline.start()
    pipeline.abort()
    with pytest.raises(PipelineAborted):
        pipeline.wait(60)
    assert sink.finished == 0


def let_go(hold: threading.Event, pipeline: Pipeline) -> None:
    """Nothing is stuck any more; a busy machine may need longer than the time-out to show it."""
    hold.set()
    for _ in range(300):
        with contextlib.suppress(PipelineStuckError):
            assert pipeline.wait(60)
            return
    raise AssertionError("it is still stuck")


def test_a_stuck_thread_is_named_with_its_stack() -> None:
    hold = threading.Event()
    sink = StubSink(hold=hold)
    pipeline = Pipeline(StubSource(1), Each(output), [sink], join_timeout_s=0.2)
    pipeline.start()
    assert sink.held.wait(60)
    pipeline.stop()
    with pytest.raises(PipelineStuckError, match=r"write-0(.|\n)*in write"):
        pipeline.wait(60)
    let_go(hold, pipeline)


def test_waiting_in_small_portions_meets_a_stuck_thread_too() -> None:
    hold = threading.Event()
    sink = StubSink(hold=hold)
    pipeline = Pipeline(StubSource(1), Each(output), [sink], join_timeout_s=0.2)
    pipeline.start()
    assert sink.held.wait(60)
    pipeline.stop()

    def wait_for_ever() -> None:
        for _ in range(3000):
            pipeline.wait(0.02)

    with pytest.raises(PipelineStuckError):
        wait_for_ever()
    let_go(hold, pipeline)


def test_a_pipeline_runs_once() -> None:
    pipeline = Pipeline(StubSource(1), Each(output), [StubSink()])
    pipeline.start()
    pipeline.wait(60)
    with pytest.raises(RuntimeError):
        pipeline.start()


class KeepsTwo:
    """Keeps two frames back."""

    def __init__(self) -> None:
        self._kept: list[Frame] = []

    def __call__(self, of: Frame) -> list[Output]:
        self._kept.append(of)
        return [Output(self._kept.pop(0))] if len(self._kept) > 2 else []

    def finish(self) -> list[Output]:
        return [Output(of) for of in self._kept]


@pytest.mark.parametrize("process", [Each(output), KeepsTwo()], ids=["at once", "kept back"])
def test_packets_reach_every_sink_with_their_frame_and_the_last_ones_at_the_end(process: Process) -> None:
    class Muxed(StubSource):
        def read(self) -> Frame | None:
            self._packets.append(f"before {self._index}")  # type: ignore[arg-type]
            return super().read()

    class Muxer(StubSink):
        def __init__(self) -> None:
            super().__init__()
            self.packets: list[object] = []

        def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
            self.packets.extend(packets)

        def finish(self, packets: Sequence[Packet] = ()) -> None:
            self.packets.append(("trailing", list(packets)))

    sinks = [Muxer(), Muxer()]
    pipeline = Pipeline(Muxed(4), process, sinks)
    pipeline.start()
    assert pipeline.wait(60)
    for sink in sinks:
        assert sink.packets == ["before 0", "before 1", "before 2", "before 3", ("trailing", ["before 4"])]


def test_the_sound_of_dropped_pictures_goes_on_with_the_next() -> None:
    gate = threading.Event()
    source = StubSource(20, live=True)
    track = Track(1, "audio", "aac", None)
    read = source.read

    def with_sound() -> Frame | None:
        got = read()
        if got is not None:
            source._packets.append(Packet(track, got.index))
        return got

    source.read = with_sound  # type: ignore[method-assign]
    heard: list[int] = []

    class Listener(StubSink):
        def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
            super().write(output)
            heard.extend(packet.payload for packet in packets)

    def slow(of: Frame) -> Output:
        assert gate.wait(60)
        return Output(of)

    sink = Listener()
    pipeline = Pipeline(source, Each(slow), [sink])
    pipeline.start()
    while not source.closed:
        pipeline.wait(0.01)
    gate.set()
    pipeline.wait(60)
    assert len(sink.indices) < 5
    assert heard == list(range(20)), "every packet once, in order"


def test_a_stand_in_is_asked_for_while_the_source_is_silent() -> None:
    source = StubSource(2, live=True, then="block")
    enough = threading.Event()

    class Slate:
        asked = 0

        def wait_s(self) -> float:
            return 0.001

        def output(self) -> Output:
            self.asked += 1
            if self.asked == 5:
                enough.set()
            return Output(frame(1000 + self.asked), stands_in=True)

    slate, sink, metrics = Slate(), StubSink(), Metrics()
    pipeline = Pipeline(source, Each(Output), [sink], stand_in=slate, metrics=metrics)
    pipeline.start()
    assert enough.wait(60)
    pipeline.stop()
    assert pipeline.wait(60)
    assert sum(index > 1000 for index in sink.indices) >= 1
    true_ones = [index for index in sink.indices if index < 1000]
    stages = metrics.snapshot()["stages"]
    assert stages.get("latency-0", {"count": 0})["count"] == len(true_ones), "a stand-in has no latency"


def test_nothing_kept_back_is_written_after_a_failure() -> None:
    sink = StubSink()
    pipeline = Pipeline(StubSource(3, then="raise"), KeepsTwo(), [sink])
    pipeline.start()
    with pytest.raises(SourceLostError):
        pipeline.wait(60)
    assert sink.indices in ([], [0])
    assert sink.finished == 0


def test_what_was_kept_back_is_written_as_it_is_made() -> None:
    written = threading.Semaphore()

    class Slow:
        def __init__(self) -> None:
            self._kept: list[Frame] = []

        def __call__(self, of: Frame) -> list[Output]:
            self._kept.append(of)
            return []

        def finish(self) -> Iterator[Output]:
            for of in self._kept:
                assert written.acquire(timeout=60), "the one before was never written"
                yield Output(of)

    class Telling(StubSink):
        def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
            super().write(output, packets)
            written.release()

    sink = Telling()
    pipeline = Pipeline(StubSource(12), Slow(), [sink])
    pipeline.start()
    assert pipeline.wait(60)
    assert (sink.indices, sink.finished) == (list(range(12)), 1)


def test_the_small_stream_is_looked_at_only_while_it_shows_the_same_moment() -> None:
    beside = Beside(StubSource(0, live=True), StubSource(0, live=True))
    large = replace(frame(1), captured_at=100.0)
    assert beside.look_at(large) is large
    for captured_at, near in ((99.9, True), (100.1, True), (99.7, False), (99.0, False)):
        beside._newest = small = replace(frame(7), captured_at=captured_at)
        assert beside.look_at(large) is (small if near else large)
