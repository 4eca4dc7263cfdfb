"""The network looks at some of the frames, and what it said is carried to the others."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streamseg.app.answers import HANGS
from streamseg.app.asking import Asking
from streamseg.app.moments import Moment, Moments, Seen
from streamseg.errors import InferenceError
from streamseg.frame import Frame
from streamseg.segment.carried import Layers, carried, layers_of
from streamseg.segment.result import Segmentation
from streamseg.temporal import Propagator, StillScene, move_boxes

__all__ = ["FileKeyframes", "FixedPace", "LiveKeyframes", "Pace"]

# A keyframe of a live picture that is older than this, and than so many inferences, is not to be trusted any more.
_LONGEST_AGE_S, _LONGEST_AGE_INFERENCES = 2.0, 3.0
# With these limits at most 3 % of the subject's area, and a thousandth on the mean, is background that is carried along
# beside it; with the usual ones it is 10 and 1 % (DAVIS, juggle and couple, every third to sixth frame).
_CAREFUL_UNSURE, _CAREFUL_S = 0.25, 0.25


@dataclass(slots=True, eq=False)
class _Stretch:
    """A keyframe and the frames behind it, up to the next one."""

    key: Moment
    behind: list[Moment] = field(default_factory=list)


class FileKeyframes:
    """The network looks at every N-th frame, and where what it said can no longer be carried; nothing is in a hurry.

    Which frames those are depends on the pictures alone, so that a file gives the same result on every run. Keyframes
    are asked for ahead, while those before them are carried.

    Args:
        ask: the network.
        moments: of the frames.
        every: N.
        both_sides: frames between are carried from both keyframes, whose layers must mean the same; see `Propagator`.
        ahead: so many keyframes more are under way while one is waited for.
        still: spares the network what has not moved.
    """

    def __init__(
        self,
        ask: Asking,
        moments: Moments,
        *,
        every: int,
        both_sides: bool,
        ahead: int = 1,
        still: StillScene | None = None,
    ) -> None:
        self._ask = ask
        self._moments = moments
        self._every = every
        self._both_sides = both_sides
        self._ahead = ahead
        self._still = still
        self._propagator = Propagator(two_sided=both_sides)
        self._stretches: deque[_Stretch] = deque()
        self._key: tuple[Moment, Segmentation, Layers] | None = None
        self.waited_s = 0.0

    def see(self, frame: Frame) -> Sequence[Seen]:
        """See `Sight`."""
        self.waited_s = 0.0
        moment = self._moments(frame, small=True)
        last = self._stretches[-1] if self._stretches else None
        if last is None or moment.fresh or len(last.behind) >= self._every - 1:
            held = last is not None and not moment.fresh and self._is_still(moment, last)
            moment.answer = last.key.answer if held and last is not None else self._ask(moment)
            if not held and self._still is not None:
                self._still.segmented(moment.luma)
            self._stretches.append(_Stretch(moment))
        else:
            last.behind.append(moment)
        seen: list[Seen] = []
        while len(self._stretches) > 1 + self._ahead:
            seen += self._resolve()
        return seen

    def finish(self) -> Iterator[Seen]:
        """See `Sight`."""
        while self._stretches:
            yield from self._resolve()

    def _is_still(self, moment: Moment, last: _Stretch) -> bool:
        if self._still is None:
            return False
        passed_s = moment.frame.seconds - last.key.frame.seconds
        return self._still(moment.luma, passed_s)

    def _resolve(self) -> list[Seen]:
        stretch = self._stretches.popleft()
        following = self._stretches[0].key if self._stretches else None
        seen = []
        if self._key is None or self._key[0] is not stretch.key:
            self._begin(stretch.key)
        assert self._key is not None
        seen.append(stretch.key.seen(self._key[1]))
        waiting: list[Moment] = []
        for moment in stretch.behind:
            key, said, layers = self._key
            carry = self._propagator.carry(moment.luma, moment.frame.seconds - key.frame.seconds)
            if carry.wants_keyframe:
                moment.answer = self._ask(moment)
                seen += self._settle(waiting, self._begin(moment), said, layers)
                waiting = []
                seen.append(moment.seen(self._key[1]))
            elif self._both_sides:
                waiting.append(moment)
            else:
                seen.append(moment.seen(carried(said, layers, carry.layers, move_boxes)))
        _, said, layers = self._key
        if following is None or following.fresh:
            settled = self._propagator.flush()
            self._propagator.reset()
            self._key = None
        else:
            settled = self._begin(following)
        return seen + self._settle(waiting, settled, said, layers)

    def _begin(self, moment: Moment) -> list[Layers]:
        """Make it the keyframe; the layers of those that waited for it."""
        assert moment.answer is not None
        began = time.perf_counter()
        said = moment.answer.result()
        self.waited_s += time.perf_counter() - began
        layers = layers_of(said)
        after_s = 0.0 if self._key is None else moment.frame.seconds - self._key[0].frame.seconds
        settled = self._propagator.keyframe(layers, moment.luma, after_s)
        self._key = moment, said, layers
        return settled

    def _settle(
        self, waiting: Sequence[Moment], settled: Sequence[Layers], said: Segmentation, layers: Layers
    ) -> list[Seen]:
        return [
            moment.seen(carried(said, layers, now, move_boxes)) for moment, now in zip(waiting, settled, strict=True)
        ]


class Pace(Protocol):
    """How often the network looks at a live picture; see `temporal.AutoInterval`."""

    @property
    def interval(self) -> int:
        """N: it looks at every N-th frame."""
        ...

    def inferred(self, took_s: float) -> None:
        """One inference took so long."""
        ...

    def processed(self, other_s: float, dt_s: float) -> None:
        """A frame took so long besides inference, `dt_s` seconds after the one before."""
        ...


@dataclass(frozen=True, slots=True)
class FixedPace:
    """The same `interval` however long anything takes."""

    interval: int

    def inferred(self, took_s: float) -> None:
        """Nothing follows from it."""

    def processed(self, other_s: float, dt_s: float) -> None:
        """Nothing follows from it."""


class LiveKeyframes:
    """The network looks at a live picture as often as it can, in a thread of its own; the newest frame wins.

    Args:
        ask: the network.
        moments: of the frames.
        pace: its `interval` is N: the network is spared N - 1 frames between two looks; at 1, every frame waits for it.
        took_s: how long the last inference took.
        locked: the picture is delayed by the time that the network takes, so that it is shown with what was seen of
            that very moment; else the last answer is carried on to the present.
        careful: where what is carried is unsure, the picture waits for the network: nothing may be shown that was not
            seen to belong to the subject.
        still: spares the network what has not moved.
        clock: monotonic seconds, as `Frame.captured_at`.
    """

    def __init__(
        self,
        ask: Asking,
        moments: Moments,
        *,
        pace: Pace,
        took_s: Callable[[], float],
        locked: bool = False,
        careful: bool = False,
        still: StillScene | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._careful = careful
        self._ask = ask
        self._moments = moments
        self._pace = pace
        self._took_s = took_s
        self._locked = locked
        self._still = still
        self._clock = clock
        self._propagator = Propagator(unsure_limit=_CAREFUL_UNSURE, longest_s=_CAREFUL_S) if careful else Propagator()
        self._key: tuple[Moment, Segmentation, Layers] | None = None
        self._under_way: Moment | None = None
        self._line: deque[Moment] = deque()
        self._latencies_s: deque[float] = deque(maxlen=15)
        self._since = 0
        self._hangs = False
        self.waited_s = 0.0

    def see(self, frame: Frame) -> Sequence[Seen]:
        """See `Sight`."""
        self.waited_s = 0.0
        if self._hangs:
            if self._under_way is None or self._under_way.answer is None or not self._under_way.answer.done:
                raise InferenceError(HANGS)
            self._hangs = False
        moment = self._moments(frame, small=True)
        self._since += 1
        if moment.fresh:
            return [*self._flush(), self._look_now(moment)]
        self._take()
        interval = self._pace.interval
        if self._key is None or interval <= 1:
            return [*self._flush(), self._look_now(moment)]
        still = self._still is not None and self._still(moment.luma, moment.dt_s)
        if self._under_way is None and self._since >= interval and not still:
            self._look(moment)
        elif still and self._under_way is None:
            moment.answer = self._key[0].answer
        self._line.append(moment)
        shown_until = self._clock() - (self._latency_s() if self._locked else 0.0)
        seen = []
        while self._line and (not self._locked or self._line[0].frame.captured_at <= shown_until):
            seen.append(self._carry(self._line.popleft()))
        return seen

    def finish(self) -> Sequence[Seen]:
        """See `Sight`."""
        return self._flush()

    def _flush(self) -> list[Seen]:
        seen = [self._carry(moment) for moment in self._line] if self._key is not None else []
        self._line.clear()
        return seen

    def _look(self, moment: Moment) -> None:
        moment.answer = self._ask(moment)
        self._under_way = moment
        self._since = 0
        if self._still is not None:
            self._still.segmented(moment.luma)

    def _look_now(self, moment: Moment) -> Seen:
        """There is nothing to carry, or no need to."""
        self._under_way = None  # of another shot, or older than this one
        self._look(moment)
        self._wait()
        assert self._key is not None
        return moment.seen(self._key[1])

    def _wait(self) -> None:
        began = time.perf_counter()
        try:
            self._take(wait=True)
        finally:
            self.waited_s += time.perf_counter() - began

    def _take(self, *, wait: bool = False) -> None:
        """Make what the network has said since the keyframe."""
        moment = self._under_way
        if moment is None or moment.answer is None or not (wait or moment.answer.done):
            return
        self._under_way = None
        try:
            said = moment.answer.result(live=True)
        except InferenceError:
            if not moment.answer.done:
                self._under_way, self._hangs = moment, True
            self._key = None
            self._line.clear()
            self._propagator.reset()
            raise
        self._pace.inferred(self._took_s())
        self._latencies_s.append(self._clock() - moment.frame.captured_at)
        layers = layers_of(said)
        self._propagator.reset()
        self._propagator.keyframe(layers, moment.luma)
        self._key = moment, said, layers

    def _latency_s(self) -> float:
        return statistics.quantiles(self._latencies_s, n=4)[2] if len(self._latencies_s) > 1 else 0.0

    def _carry(self, moment: Moment) -> Seen:
        seen = self._carried(moment)
        if seen is None and self._under_way is not None:
            self._wait()  # what it says is nearer
            seen = self._carried(moment)
        return seen or self._look_now(moment)

    def _carried(self, moment: Moment) -> Seen | None:
        """What the keyframe says of the moment; None where that would not be sure enough."""
        assert self._key is not None
        key, said, layers = self._key
        if moment.answer is key.answer:
            return moment.seen(said)
        age_s = abs(moment.frame.seconds - key.frame.seconds)
        longest_s = max(_LONGEST_AGE_S, _LONGEST_AGE_INFERENCES * self._latency_s())
        if not self._careful and age_s > longest_s:
            # Without the time, which is another one for every picture: each failure is said once.
            raise InferenceError("the network does not answer")
        carry = self._propagator.carry(moment.luma, age_s)
        if carry.wants_keyframe and self._careful:
            return None
        if carry.wants_keyframe and self._under_way is None and not self._locked:
            self._look(moment)
        return moment.seen(carried(said, layers, carry.layers, move_boxes))
