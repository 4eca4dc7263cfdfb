"""Capture, process, write: one thread each, one more for every further sink."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from streamseg.engine.channel import Channel, ChannelClosed
from streamseg.engine.metrics import Metrics
from streamseg.errors import PipelineAborted, PipelineStuckError
from streamseg.frame import Frame, Output, Packet, Sink, Source

__all__ = ["Pipeline", "Process", "StandIn"]

# A file waits for us and loses nothing; a live source does not wait, and only its newest frame is of use.
_FILE_CAPACITY = 8
_LIVE_CAPACITY = 1
_ABORT_TIMEOUT_S = 5.0
# Sound of about half a minute may wait for the next picture of a live source; older sound is let go.
_MOST_PACKETS = 2000
# Pictures that wait for a sink which writes down what was seen in each: two seconds.
_MOST_LATE = 60


@dataclass(frozen=True, slots=True)
class _Captured:
    frame: Frame | None  # None: no further frame, only the packets that came after the last one
    packets: Sequence[Packet]


@dataclass(frozen=True, slots=True)
class _Finished:
    output: Output | None
    packets: Sequence[Packet]
    late: Sequence[Output] = ()  # earlier ones that the sink writes down nevertheless


class Process(Protocol):
    """What is done with the frames. Used from the process thread; frames come in order.

    It gives as many pictures as it was given frames, in their order; it may keep some back for a while.
    """

    def __call__(self, frame: Frame) -> Sequence[Output]:
        """Take one frame; the pictures that are ready."""
        ...

    def finish(self) -> Iterable[Output]:
        """No frame follows: the pictures that were kept back, one by one. Not called after a failure."""
        ...


class StandIn(Protocol):
    """What a live pipeline shows while nothing true comes. Used from the process thread."""

    def wait_s(self) -> float:
        """How long to wait for the next frame before `output` is asked for."""
        ...

    def output(self) -> Output:
        """The picture to show now."""
        ...


class Pipeline:
    """Runs a source through `process` into the sinks, once.

    The pipeline owns the source and the sinks from `start` on: each is closed in its own thread, however the run ends.
    At the end of the source, and after `stop`, what is under way is drained and every sink finished. After a failure
    nothing is finished; the first failure is kept and `wait` raises it.

    Args:
        source: read in the thread ``capture``.
        process: used in the thread ``process``.
        sinks: written in threads ``write-0``, ``write-1`` and so on, each behind a channel of its own. Live, a slow one
            gets the newest picture; one with ``keeps(output)`` gets those for which that is true, too, however late,
            up to the last 60.
        metrics: receives the times of the stages ``capture``, ``process``, ``write-N`` and ``latency-N`` (from
            `Frame.captured_at` to the end of `Sink.write`), and the counts ``frames in`` and ``frames out N``.
        join_timeout_s: how long after a stop or a failure nothing may happen, no frame written and no thread ended,
            until the run counts as stuck.
        stand_in: of a live source: asked for a picture whenever none came in time.
    """

    def __init__(
        self,
        source: Source,
        process: Process,
        sinks: Sequence[Sink],
        *,
        metrics: Metrics | None = None,
        join_timeout_s: float = 30.0,
        stand_in: StandIn | None = None,
    ) -> None:
        self.metrics = metrics or Metrics()
        self._source = source
        self._process = process
        self._sinks = tuple(sinks)
        self._join_timeout_s = join_timeout_s
        self._stand_in = stand_in
        live = source.info.live
        capacity = _LIVE_CAPACITY if live else _FILE_CAPACITY
        when_full: Literal["block", "drop_oldest"] = "drop_oldest" if live else "block"
        self._captured: Channel[_Captured] = Channel(capacity, when_full, merge=_keep_captured)
        self._backlogs = [_Backlog(getattr(sink, "keeps", _nothing)) for sink in self._sinks]
        self._finished: list[Channel[_Finished]] = [
            Channel(capacity, when_full, merge=backlog.merge) for backlog in self._backlogs
        ]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._progress: tuple[tuple[int, int], float] | None = None
        stages: list[tuple[str, tuple[Callable[[], None], ...]]] = [
            ("capture", (self._capture, self._captured.close, source.close)),
            ("process", (self._transform, *(channel.close for channel in self._finished), self._captured.abort)),
        ]
        for number, (sink, channel) in enumerate(zip(self._sinks, self._finished, strict=True)):
            stages.append((f"write-{number}", (partial(self._write, number), channel.abort, sink.close)))
        self._threads = [
            threading.Thread(target=copy_context().run, args=(self._run, *steps), name=name) for name, steps in stages
        ]

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: it was started before; a pipeline runs once.
        """
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask the run to end: what is under way is finished and written. Any thread, any number of times.

        Of a live source, a frame that still waits is let go.
        """
        self._stopping.set()
        self._source.interrupt()
        if self._source.info.live:
            # Nobody misses the one frame that waits, and a slow network would take its time for it.
            self._captured.abort()

    def abort(self) -> None:
        """Ask the run to end at once: what is under way is discarded and no sink is finished."""
        self._join_timeout_s = min(self._join_timeout_s, _ABORT_TIMEOUT_S)
        self._fail(PipelineAborted("aborted; nothing was finished"))

    @property
    def drops(self) -> dict[str, int]:
        """Frames discarded so far, by reason."""
        reasons = {"processing slower than the source": self._captured.dropped}
        for number, (channel, backlog) in enumerate(zip(self._finished, self._backlogs, strict=True)):
            reasons[f"sink {number} slower than processing"] = channel.dropped - backlog.spared
        return {reason: count for reason, count in reasons.items() if count}

    @property
    def running(self) -> bool:
        """Whether one of its threads lives."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def stopping(self) -> bool:
        """Whether an end was asked for."""
        return self._stopping.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; True when it came, False when `timeout_s` passed before.

        Raises:
            The first failure of any thread, with its traceback.
            PipelineStuckError: after a stop or a failure nothing moved for too long.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while alive := [thread for thread in self._threads if thread.is_alive()]:
            now = time.monotonic()
            if self._stopping.is_set():
                # Kept between calls: whoever waits in small portions must come to an end too.
                progress = (len(alive), sum(self.metrics.get(f"frames out {n}") for n in range(len(self._sinks))))
                if self._progress is None or progress != self._progress[0]:
                    self._progress = (progress, now)
                elif now >= self._progress[1] + self._join_timeout_s:
                    self._progress = None  # whoever waits again gives it as long again
                    raise _stuck(alive) from self._failure
            if deadline is not None and now >= deadline:
                return False
            # Short joins, so that the main thread sees signals and a stop asked for meanwhile.
            alive[0].join(0.1 if deadline is None else min(0.1, deadline - now))
        if self._failure is not None:
            raise self._failure
        return True

    def _capture(self) -> None:
        source, metrics = self._source, self.metrics
        while not self._stopping.is_set():
            with metrics.time("capture"):
                frame = source.read()
            packets = source.take_packets()
            if frame is not None:
                metrics.count("frames in")
            # After the last frame only sound is left to hand on; an item without any would count as a drop.
            if frame is None and not packets:
                break
            if not self._captured.put(_Captured(frame, packets)) or frame is None:
                break

    def _transform(self) -> None:
        metrics, stand_in, live = self.metrics, self._stand_in, self._source.info.live
        # Of the frames whose pictures are still kept back, and of what came after the last frame.
        behind: deque[Sequence[Packet]] = deque()
        trailing: Sequence[Packet] = ()

        def hand_on(outputs: Sequence[Output]) -> None:
            for output in outputs:
                packets = behind.popleft() if behind else ()
                while live and behind:  # a frame that could not be processed has no picture to go with
                    packets = _joined(packets, behind.popleft())
                self._hand_on(_Finished(output, packets))

        while True:
            try:
                item = self._captured.get(None if stand_in is None else stand_in.wait_s())
            except ChannelClosed:
                break
            except TimeoutError:
                if stand_in is not None:
                    self._hand_on(_Finished(stand_in.output(), ()))
                continue
            if item.frame is None:
                trailing = item.packets
                continue
            behind.append(item.packets)
            with metrics.time("process"):
                outputs = self._process(item.frame)
            hand_on(outputs)
        if self._failure is None:
            # Each as it is made: a slow end goes on before the eyes of `wait`, and an abort ends it.
            for output in self._process.finish():
                if self._failure is not None:
                    break
                hand_on([output])
            rest = [packet for packets in (*behind, trailing) for packet in packets]
            if rest:
                self._hand_on(_Finished(None, rest))

    def _hand_on(self, item: _Finished) -> None:
        for channel in self._finished:
            channel.put(item)

    def _write(self, number: int) -> None:
        trailing: list[Packet] = []
        for item in self._finished[number]:
            for late in item.late:
                self._write_one(number, late, ())
            if item.output is None:
                trailing.extend(item.packets)
                continue
            self._write_one(number, item.output, item.packets)
        # After a failure the channel ends too, but what was written is not the whole: it gets no final name.
        if self._failure is None:
            self._sinks[number].finish(trailing)

    def _write_one(self, number: int, output: Output, packets: Sequence[Packet]) -> None:
        metrics = self.metrics
        with metrics.time(f"write-{number}"):
            self._sinks[number].write(output, packets)
        if not output.stands_in:
            metrics.add(f"latency-{number}", time.monotonic() - output.frame.captured_at)
        metrics.count(f"frames out {number}")

    def _run(self, stage: Callable[[], None], *cleanup: Callable[[], None]) -> None:
        """Run a stage, then close its output, abort its input and close its resource, whatever happens.

        A failure is stored before anything is closed: the next stage must not take the end for a good one.
        """
        for step in (stage, *cleanup):
            try:
                step()
            except BaseException as failure:  # re-raised by wait(), in the caller
                self._fail(failure)

    def _fail(self, failure: BaseException) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = failure
        self._stopping.set()
        self._captured.abort()
        for channel in self._finished:
            channel.abort()
        self._source.interrupt()


def _keep_captured(dropped: _Captured, following: _Captured) -> _Captured:
    # At the end of the source, the last picture is worth more than none.
    frame = dropped.frame if following.frame is None else following.frame
    return _Captured(frame, _joined(dropped.packets, following.packets))


class _Backlog:
    """What must not be lost with a picture for which one sink was too slow: its sound, and what was seen in it.

    Args:
        keeps: whether the sink writes a picture down however late it is.

    Attributes:
        spared: pictures that were dropped from the channel and are written nevertheless.
    """

    def __init__(self, keeps: Callable[[Output], bool]) -> None:
        self._keeps = keeps
        self.spared = 0

    def merge(self, dropped: _Finished, following: _Finished) -> _Finished:
        output, late = following.output, list(dropped.late)
        if output is None:
            output = dropped.output  # at the end, the last picture is worth more than none
        elif dropped.output is not None and self._keeps(dropped.output):
            late.append(dropped.output)
            self.spared += 1
        late += following.late
        self.spared -= max(0, len(late) - _MOST_LATE)
        return _Finished(output, _joined(dropped.packets, following.packets), late[-_MOST_LATE:])


def _nothing(output: Output) -> bool:
    return False


def _joined(earlier: Sequence[Packet], later: Sequence[Packet]) -> Sequence[Packet]:
    """The sound of a picture that was dropped goes on with the next one."""
    return [*earlier, *later][-_MOST_PACKETS:] if earlier else later


def _stuck(threads: Sequence[threading.Thread]) -> PipelineStuckError:
    frames = sys._current_frames()
    stacks = []
    for thread in threads:
        stack = frames.get(thread.ident or 0)
        lines = traceback.format_stack(stack) if stack else ["(no stack)\n"]
        stacks.append(f"{thread.name}:\n{''.join(lines)}")
    names = ", ".join(thread.name for thread in threads)
    return PipelineStuckError(f"these threads did not stop: {names}\n" + "\n".join(stacks))
