"""Ways of seeing: every one gives as many frames as it was given, in their order, each with what is known of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from streamseg.app.answers import HANGS, Answer
from streamseg.app.asking import Asking
from streamseg.app.moments import Moment, Moments, Seen
from streamseg.errors import InferenceError
from streamseg.frame import Frame
from streamseg.temporal import StillScene

__all__ = ["EveryFrame", "Sight", "TwoSights", "Unseen"]


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
        self._waiting: deque[Moment] = deque()
        self._last: Answer | None = None
        self.waited_s = 0.0

    def see(self, frame: Frame) -> Sequence[Seen]:
        """See `Sight`."""
        if not self._ahead and self._last is not None and not self._last.done:
            raise InferenceError(HANGS)  # one is waited for already
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
            return moment.seen(moment.answer.result(live=not self._ahead))
        except InferenceError:
            if moment.answer.done:
                self._last = None
            raise
        finally:
            self.waited_s += time.perf_counter() - began
