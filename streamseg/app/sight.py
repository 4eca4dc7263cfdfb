"""Which frames the network looks at, and what is known of the others.

Every way of seeing gives as many frames as it was given, in their order, each with what is known of it.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Protocol

import cv2

from streamseg.engine import Metrics
from streamseg.errors import InferenceError
from streamseg.frame import Frame, Plane
from streamseg.pixels.flow import flow_wh, small_luma
from streamseg.pixels.planes import coarse_luma, crop
from streamseg.segment.carried import Layers, carried, layers_of
from streamseg.segment.load import Segmenter
from streamseg.segment.pool import Pool
from streamseg.segment.result import Matte, Segmentation
from streamseg.temporal import Propagator, SceneCut, StillScene, SubjectBox, move_boxes, paste

__all__ = [
    "Asking",
    "CloseLook",
    "EveryFrame",
    "FileKeyframes",
    "FixedPace",
    "LiveKeyframes",
    "Moments",
    "Pace",
    "Seen",
    "Sight",
    "Timed",
    "TwoSights",
    "Unseen",
    "in_good_time",
]

# A pause this long says nothing about the next picture.
_FORGET_AFTER_S = 1.0
# A keyframe of a live picture that is older than this, and than so many inferences, is not to be trusted any more.
_LONGEST_AGE_S, _LONGEST_AGE_INFERENCES = 2.0, 3.0
# A live picture waits so long for a network that hangs; then there are slates until it answers. Many streams that take
# turns at one network wait for each other, too.
_PATIENCE_S = 5.0
_HANGS = f"the network has not answered for {_PATIENCE_S:g} s"
# With these limits at most 3 % of the subject's area, and a thousandth on the mean, is background that is carried along
# beside it; with the usual ones it is 10 and 1 % (DAVIS, juggle and couple, every third to sixth frame).
_CAREFUL_UNSURE, _CAREFUL_S = 0.25, 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A frame and what is known of it.

    Attributes:
        frame: as it was captured.
        segmentation: what the network says of it, or of its keyframe, carried here; None where there is no network.
        dt_s: seconds since the frame before; 0 where that has nothing to do with it: after a cut or a long pause.
        shot_s: seconds since the frame before of the same shot, however many; 0 for its first.
        beside: what a second network says of it, where there is one.
    """

    frame: Frame
    segmentation: Segmentation | None
    dt_s: float
    shot_s: float
    beside: Segmentation | None = None


class Sight(Protocol):
    """A way of seeing; used from the process thread."""

    @property
    def waited_s(self) -> float:
        """How long the last call waited for the network."""
        ...

    def see(self, frame: Frame) -> Sequence[Seen]:
        """Take one frame; those of which is known what there will be.

        Raises:
            InferenceError: the network failed.
        """
        ...

    def finish(self) -> Iterable[Seen]:
        """No frame follows: those that wait, one by one."""
        ...


@dataclass(slots=True, eq=False)
class _Moment:
    """A frame on its way through."""

    frame: Frame
    looked_at: Frame
    dt_s: float
    fresh: bool
    shot_s: float
    luma: Plane
    answer: Answer | None = None

    def seen(self, segmentation: Segmentation | None) -> Seen:
        return Seen(self.frame, segmentation, 0.0 if self.fresh else self.dt_s, self.shot_s)


class Moments:
    """Tells how long ago the frame before was, and whether it has anything to do with this one.

    Args:
        at_cuts: a cut to another shot ends what was; may be changed at any time.
        look_at: gives the frame that the network looks at, which may be a smaller one of the same moment.
    """

    def __init__(self, *, at_cuts: bool = True, look_at: Callable[[Frame], Frame] = lambda frame: frame) -> None:
        self.at_cuts = at_cuts
        self._look_at = look_at
        self._cut = SceneCut()
        self._before: tuple[float, tuple[int, ...]] | None = None

    def __call__(self, frame: Frame, *, small: bool = False) -> _Moment:
        """The moment of a frame; `small` keeps its luma at the scale of optical flow."""
        looked_at = self._look_at(frame)
        luma = coarse_luma(looked_at)
        if small:
            luma = small_luma(luma, flow_wh((looked_at.width, looked_at.height)))
        before, self._before = self._before, (frame.seconds, looked_at.planes.shape)
        dt_s = 0.0 if before is None else frame.seconds - before[0]
        cut = self._cut(luma, dt_s) and self.at_cuts
        other_shot = before is None or cut or dt_s <= 0 or before[1] != looked_at.planes.shape
        fresh = other_shot or dt_s >= _FORGET_AFTER_S
        return _Moment(frame, looked_at, dt_s, fresh, 0.0 if other_shot else dt_s, luma)


class Timed:
    """A segmenter whose time is noted as the stage ``segment``; `took_s` is that of the last frame."""

    def __init__(self, segmenter: Segmenter, metrics: Metrics) -> None:
        self._segmenter = segmenter
        self._metrics = metrics
        self.took_s = 0.0
        self.class_names = segmenter.class_names
        self.retune = segmenter.retune
        self.describe = segmenter.describe

    def __call__(self, frame: Frame) -> Segmentation:
        """See `Segmenter`."""
        began = time.perf_counter()
        segmentation = self._segmenter(frame)
        self.took_s = time.perf_counter() - began
        self._metrics.add("segment", self.took_s)
        return segmentation


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the network will say of a frame."""

    future: Future[Segmentation]
    frame: Frame
    looked_at: Frame
    digest: Callable[[Segmentation], Segmentation]

    @property
    def done(self) -> bool:
        """Whether `result` comes at once."""
        return self.future.done()

    def result(self, patience_s: float | None = None) -> Segmentation:
        """What it says, about the frame that is shown; waits for it, for `patience_s` if that is given.

        Raises:
            InferenceError: the network failed, or has not answered.
        """
        try:
            said = self.future.result(patience_s)
        except TimeoutError:
            raise InferenceError(_HANGS) from None
        if self.looked_at is not self.frame:
            said = said.on((self.frame.width, self.frame.height))
        return self.digest(said)


def in_good_time(pool: Pool) -> Callable[[Frame], Segmentation]:
    """What a network says of one live frame after the other; one that hangs is not waited for without end.

    The call that comes back raises `InferenceError`: the network failed, or has not answered.
    """
    last: Future[Segmentation] | None = None

    def segment(frame: Frame) -> Segmentation:
        nonlocal last
        if last is not None and not last.done():
            raise InferenceError(_HANGS)  # it was waited for already
        last = pool.submit(frame)
        try:
            return last.result(_PATIENCE_S)
        except TimeoutError:
            raise InferenceError(_HANGS) from None

    return segment


class Asking:
    """Asks the network about frames.

    Args:
        pool: of segmenters.
        digest: makes of an answer what is needed of it; the less that is, the less has to be carried.
    """

    def __init__(self, pool: Pool, digest: Callable[[Segmentation], Segmentation] = lambda said: said) -> None:
        self._pool = pool
        self._digest = digest
        self._last: tuple[Frame, Future[Segmentation]] | None = None

    def __call__(self, moment: _Moment) -> Answer:
        """Ask; the same picture is not looked at twice, as when the smaller stream is the slower one."""
        if self._last is None or self._last[0] is not moment.looked_at:
            self._last = moment.looked_at, self._pool.submit(moment.looked_at)
        return Answer(self._last[1], moment.frame, moment.looked_at, self._digest)


class CloseLook(Asking):
    """Asks about the box around the subject, and about the whole picture at intervals; gives mattes.

    Their grid has twice the network's cells along each side, so that what was seen closely stays fine.

    Args:
        pool: of segmenters.
        digest: makes a `Matte` of an answer.
    """

    def __init__(self, pool: Pool, digest: Callable[[Segmentation], Segmentation]) -> None:
        super().__init__(pool, digest)
        self._box: SubjectBox | None = None
        self._grid_hw: tuple[int, int] | None = None

    def __call__(self, moment: _Moment) -> Answer:
        """Ask; see `Asking`."""
        looked_at = moment.looked_at
        picture_wh = (looked_at.width, looked_at.height)
        if self._box is None or moment.fresh:
            self._box = SubjectBox(picture_wh, aspect=looked_at.width / looked_at.height)
            self._grid_hw = None
        box = self._box
        grid_hw = self._grid_hw
        window = box.window(moment.luma, moment.dt_s) if grid_hw else None
        if window is not None:
            looked_at = looked_at.with_picture(crop(looked_at.planes, window))

        def whole(said: Segmentation) -> Segmentation:
            matte = self._digest(said)
            assert isinstance(matte, Matte)
            # The answer may come when the next shot has begun: what belongs to that one is left alone.
            if window is None or grid_hw is None:
                doubled_hw = (matte.alpha.shape[0] * 2, matte.alpha.shape[1] * 2)
                alpha = cv2.resize(matte.alpha, doubled_hw[::-1], interpolation=cv2.INTER_LINEAR)
                if box is self._box:
                    self._grid_hw = doubled_hw
            else:
                alpha = paste(matte.alpha, window, picture_wh, grid_hw)
            box.seen(alpha, moment.luma, window)
            return Matte(alpha, (moment.frame.width, moment.frame.height))

        return Answer(self._pool.submit(looked_at), looked_at, looked_at, whole)


class Unseen:
    """No network looks at anything."""

    waited_s = 0.0

    def __init__(self, moments: Moments) -> None:
        self._moments = moments

    def see(self, frame: Frame) -> Sequence[Seen]:
        """The frame itself."""
        return [self._moments(frame).seen(None)]

    def finish(self) -> Sequence[Seen]:
        """Nothing waits."""
        return []


class TwoSights:
    """Two networks look at the same frames, each in its own way.

    Args:
        first: gives `Seen.segmentation` and the time.
        second: gives `Seen.beside`.
    """

    def __init__(self, first: Sight, second: Sight) -> None:
        self._first = first
        self._second = second
        self._ahead: deque[Seen] = deque()
        self._beside: deque[Seen] = deque()

    @property
    def waited_s(self) -> float:
        """See `Sight`."""
        return self._first.waited_s + self._second.waited_s

    def see(self, frame: Frame) -> Sequence[Seen]:
        """See `Sight`."""
        self._ahead.extend(self._first.see(frame))
        try:
            self._beside.extend(self._second.see(frame))
        except InferenceError:
            self._ahead.clear()  # or they would pile up while it fails; a live picture can do without them
            raise
        return self._matched()

    def finish(self) -> Sequence[Seen]:
        """See `Sight`."""
        self._ahead.extend(self._first.finish())
        self._beside.extend(self._second.finish())
        return self._matched()

    def _matched(self) -> list[Seen]:
        matched = []
        while self._ahead and self._beside:
            one, other = self._ahead[0], self._beside[0]
            # Where one of them failed on a frame, the other's answer has no partner.
            if one.frame.index < other.frame.index:
                self._ahead.popleft()
            elif one.frame.index > other.frame.index:
                self._beside.popleft()
            else:
                matched.append(replace(self._ahead.popleft(), beside=self._beside.popleft().segmentation))
        return matched


class EveryFrame:
    """The network looks at every frame.

    Args:
        ask: the network.
        moments: of the frames.
        ahead: so many frames more are under way while one is waited for; 0 for a live picture.
        still: spares the network what has not moved.
    """

    def __init__(self, ask: Asking, moments: Moments, *, ahead: int = 0, still: StillScene | None = None) -> None:
        self._ask = ask
        self._moments = moments
        self._ahead = ahead
        self._still = still
        self._waiting: deque[_Moment] = deque()
        self._last: Answer | None = None
        self.waited_s = 0.0

    def see(self, frame: Frame) -> Sequence[Seen]:
        """See `Sight`."""
        if not self._ahead and self._last is not None and not self._last.done:
            raise InferenceError(_HANGS)  # one is waited for already
        moment = self._moments(frame, small=self._still is not None)
        held = self._still is not None and not moment.fresh and self._still(moment.luma, moment.dt_s)
        if self._last is None or not held:
            self._last = self._ask(moment)
            if self._still is not None:
                self._still.segmented(moment.luma)
        moment.answer = self._last
        self._waiting.append(moment)
        self.waited_s = 0.0
        return [self._settle() for _ in range(len(self._waiting) - self._ahead)]

    def finish(self) -> Iterator[Seen]:
        """See `Sight`."""
        while self._waiting:
            yield self._settle()

    def _settle(self) -> Seen:
        moment = self._waiting.popleft()
        assert moment.answer is not None
        began = time.perf_counter()
        try:
            return moment.seen(moment.answer.result(None if self._ahead else _PATIENCE_S))
        except InferenceError:
            if moment.answer.done:
                self._last = None
            raise
        finally:
            self.waited_s += time.perf_counter() - began


@dataclass(slots=True, eq=False)
class _Stretch:
    """A keyframe and the frames behind it, up to the next one."""

    key: _Moment
    behind: list[_Moment] = field(default_factory=list)


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
        self._key: tuple[_Moment, Segmentation, Layers] | None = None
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

    def _is_still(self, moment: _Moment, last: _Stretch) -> bool:
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
        waiting: list[_Moment] = []
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

    def _begin(self, moment: _Moment) -> list[Layers]:
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
        self, waiting: Sequence[_Moment], settled: Sequence[Layers], said: Segmentation, layers: Layers
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
        self._key: tuple[_Moment, Segmentation, Layers] | None = None
        self._under_way: _Moment | None = None
        self._line: deque[_Moment] = deque()
        self._latencies_s: deque[float] = deque(maxlen=15)
        self._since = 0
        self._hangs = False
        self.waited_s = 0.0

    def see(self, frame: Frame) -> Sequence[Seen]:
        """See `Sight`."""
        self.waited_s = 0.0
        if self._hangs:
            if self._under_way is None or self._under_way.answer is None or not self._under_way.answer.done:
                raise InferenceError(_HANGS)
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

    def _look(self, moment: _Moment) -> None:
        moment.answer = self._ask(moment)
        self._under_way = moment
        self._since = 0
        if self._still is not None:
            self._still.segmented(moment.luma)

    def _look_now(self, moment: _Moment) -> Seen:
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
            said = moment.answer.result(_PATIENCE_S)
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

    def _carry(self, moment: _Moment) -> Seen:
        seen = self._carried(moment)
        if seen is None and self._under_way is not None:
            self._wait()  # what it says is nearer
            seen = self._carried(moment)
        return seen or self._look_now(moment)

    def _carried(self, moment: _Moment) -> Seen | None:
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
