"""Fail closed: while nothing true comes, the last composite for a moment, then the slate; never the raw room."""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from streamseg.engine.metrics import Metrics
from streamseg.engine.pipeline import Process
from streamseg.engine.turns import TurnsOver
from streamseg.errors import StreamsegError, redact
from streamseg.frame import Frame, Output

__all__ = ["FailClosed"]

_log = logging.getLogger(__name__)
_STALL_S = 0.5
_SLATE_INTERVAL_S = 0.1
_STALL_INTERVALS = 3
_STEP_S = 0.001
_LONGEST_INTERVAL_S = 60.0
# What comes and goes with every other frame is said so often, not fifteen times a second.
_SAID_EVERY_S = 60.0


class FailClosed:
    """Wraps what the process thread does, so that a live output goes on whatever happens to its input.

    It is both the pipeline's `process` and its `StandIn`. After a frame, the last composite is repeated at the source's
    rate; when nothing has come for max(0.5 s, 3 median frame intervals), or when the wrapped process failed, the slate
    is shown, ten times a second: it has nothing to show, and yet readers must not be kept waiting. Time goes on in all
    of them. What was captured before the slate came and was kept back until now, as a delayed picture is, is not shown
    after it.

    Args:
        process: makes the composites; a `StreamsegError` from it shows the slate and is said once, and again after a
            minute where it comes and goes.
        slate: ``slate(state)`` gives the safe picture as a frame, whose time is replaced here.
        state: one line about why nothing comes, for the slate.
        metrics: counts ``pictures repeated``, ``slates shown``, ``frames that could not be processed`` and ``pictures
            from before an outage left out``.
        interval_s: between frames, before any was seen.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        process: Process,
        slate: Callable[[str], Frame],
        *,
        state: Callable[[], str],
        metrics: Metrics,
        interval_s: float = 1 / 30,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process = process
        self._slate = slate
        self._state = state
        self._metrics = metrics
        self._clock = clock
        self._intervals_s: deque[float] = deque([interval_s], maxlen=31)
        self._arrived: float | None = None
        self._composite: Output | None = None
        self._shown: Frame | None = None
        self._newest: float | None = None  # when the last frame was captured; and that when the slate came
        self._before_slate: float | None = None
        self._shown_at = clock() - _SLATE_INTERVAL_S
        self._failing = ""
        self._said: tuple[str, float] = ("", 0.0)  # what, and when

    @property
    def failing(self) -> str:
        """Why the last frame could not be processed; empty when it could."""
        return self._failing

    @property
    def stall_s(self) -> float:
        """Without a frame for so long, the slate is shown."""
        return max(_STALL_S, _STALL_INTERVALS * statistics.median(self._intervals_s))

    def __call__(self, frame: Frame) -> Sequence[Output]:
        """The composites that are ready, or the slate when they cannot be made."""
        now = self._clock()
        # An outage is one interval among many: the median does not care.
        if self._arrived is not None and 0 < now - self._arrived < _LONGEST_INTERVAL_S:
            self._intervals_s.append(now - self._arrived)
        self._arrived, self._newest = now, frame.captured_at
        try:
            outputs = self._process(frame)
        except StreamsegError as error:
            return [self._failed(error, frame)]
        self._failing = ""
        return [self._true(output) for output in outputs if not self._is_from_before(output.frame)]

    def finish(self) -> Sequence[Output]:
        """The composites that were kept back, as far as they can be made."""
        try:
            return [self._true(output) for output in self._process.finish()]
        except StreamsegError as error:
            _log.debug("what was kept back is lost", exc_info=error)
            return []

    def wait_s(self) -> float:
        """How long until a stand-in is due."""
        interval_s = _SLATE_INTERVAL_S
        if self._composite is not None and self._arrived is not None:
            # Half an interval late is not yet missing.
            interval_s = 1.5 * statistics.median(self._intervals_s)
            interval_s = min(interval_s, max(self._arrived + self.stall_s - self._shown_at, 0.0))
        return max(self._shown_at + interval_s - self._clock(), 0.0)

    def output(self) -> Output:
        """The last composite again, or the slate."""
        now = self._clock()
        if self._composite is None or self._arrived is None or now - self._arrived >= self.stall_s:
            self._composite = None
            self._before_slate = self._newest
            return self._show(self._safe(self._state(), None))
        self._metrics.count("pictures repeated")
        return self._show(Output(self._timed(self._composite.frame), matte=self._composite.matte, stands_in=True))

    def _is_from_before(self, frame: Frame) -> bool:
        before = self._before_slate is not None and frame.captured_at <= self._before_slate
        if before:
            self._metrics.count("pictures from before an outage left out")
        return before

    def _true(self, output: Output) -> Output:
        self._composite = output = self._in_order(output)
        return self._show(output)

    def _failed(self, error: StreamsegError, frame: Frame) -> Output:
        self._metrics.count("frames that could not be processed")
        if not isinstance(error, TurnsOver):
            before, self._failing = self._failing, redact(str(error))
            said, at = self._said
            if self._failing != before and (self._failing != said or self._clock() - at >= _SAID_EVERY_S):
                self._said = self._failing, self._clock()
                _log.warning("%s; the slate is shown meanwhile", self._failing)
        self._composite = None
        return self._show(self._in_order(self._safe("the picture cannot be processed", frame)))

    def _in_order(self, output: Output) -> Output:
        """The same after whatever was shown last: a stand-in may have a later time than a frame that came late."""
        if self._shown is None or output.frame.seconds > self._shown.seconds:
            return output
        pts = self._shown.pts + round(_STEP_S / output.frame.time_base)
        return replace(output, frame=replace(output.frame, pts=pts))

    def _safe(self, state: str, frame: Frame | None) -> Output:
        self._metrics.count("slates shown")
        slate = self._slate(state)
        if frame is not None:
            slate = replace(slate, pts=frame.pts, index=frame.index, captured_at=frame.captured_at)
            return Output(slate, stands_in=True)
        return Output(self._timed(slate), stands_in=True)

    def _timed(self, frame: Frame) -> Frame:
        """The frame as one of this moment."""
        now, last = self._clock(), self._shown
        pts, index = 0, 0
        if last is not None:
            pts = last.pts + round(max(now - self._shown_at, _STEP_S) / frame.time_base)
            index = last.index
        return replace(frame, pts=pts, index=index, captured_at=now)

    def _show(self, output: Output) -> Output:
        self._shown = output.frame
        self._shown_at = self._clock()
        return output
