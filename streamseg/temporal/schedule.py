"""When the network need look: how many frames a keyframe serves, and whether anything moved at all."""

from __future__ import annotations

import math
from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane
from streamseg.pixels.flow import flow_wh, small_luma

__all__ = ["AutoInterval", "StillScene"]

# Of a frame's period this much may be spent; going back to more keyframes must leave some more in hand.
_SPENT, _SPENT_TO_GO_BACK = 0.9, 0.75
_REMEMBERED = 30

# The mean of a block of the small luma that changes by so many levels has moved; sensor noise, averaged, stays below 1.
_BLOCK_PX = 8
_STILL_LEVELS = 2.0


class AutoInterval:
    """Chooses N for ``keyframes:N`` so that the picture keeps up: as few frames a keyframe as the machine can bear.

    For inference and the rest one after the other, at a camera's pace. Two checks in a row must agree, and going back
    to more keyframes must leave a margin, so that N does not hunt. It depends on measured times, and so would a file's
    result: for files choose N beforehand.

    Args:
        period_s: seconds between the source's frames.
        longest: the largest N.
        check_s: seconds between checks.
    """

    def __init__(self, period_s: float, *, longest: int = 6, check_s: float = 1.0) -> None:
        if period_s <= 0 or longest < 1:
            raise ValueError(f"period_s must be positive and longest at least 1, not {period_s} and {longest}")
        self._period_s = period_s
        self._longest = longest
        self._check_s = check_s
        self._inference_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._other_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._since_check_s = 0.0
        self._proposed: int | None = None
        self._interval = 1

    @property
    def interval(self) -> int:
        """N: the network looks at every N-th frame."""
        return self._interval

    def inferred(self, took_s: float) -> None:
        """One inference took so long."""
        self._inference_s.append(took_s)

    def processed(self, other_s: float, dt_s: float) -> None:
        """A frame took so long besides inference, `dt_s` seconds after the one before."""
        self._other_s.append(other_s)
        self._since_check_s += dt_s
        if self._since_check_s >= self._check_s and self._inference_s:
            self._since_check_s = 0.0
            self._check()

    def _check(self) -> None:
        # The third quartile: what is usual on a busy machine, without its outliers.
        inference_s = float(np.percentile(self._inference_s, 75))
        other_s = float(np.percentile(self._other_s, 75))
        needed = self._needed(inference_s, other_s, _SPENT)
        if needed < self._interval:
            needed = min(self._interval, self._needed(inference_s, other_s, _SPENT_TO_GO_BACK))
        before, self._proposed = self._proposed, needed
        if before is not None and (before > self._interval) == (needed > self._interval) and needed != self._interval:
            # Both point the same way: the smaller step of the two is certain.
            self._interval = min(before, needed) if needed > self._interval else max(before, needed)
            self._proposed = None

    def _needed(self, inference_s: float, other_s: float, spent: float) -> int:
        left_s = spent * self._period_s - other_s
        return min(self._longest, max(1, math.ceil(inference_s / left_s))) if left_s > 0 else self._longest


class StillScene:
    """Tells that nothing has moved since the network last looked, for a bounded time.

    Args:
        bound_s: however still it is, the network looks again after this time.
    """

    def __init__(self, bound_s: float = 1.0) -> None:
        self._bound_s = bound_s
        self._seen: NDArray[np.float32] | None = None
        self._since_s = 0.0

    def segmented(self, luma: Plane) -> None:
        """The network has looked at the picture of this luma, (H, W) uint8."""
        self._seen = _blocks(luma)
        self._since_s = 0.0

    def __call__(self, luma: Plane, dt_s: float) -> bool:
        """Whether the last answer still holds for `luma`, (H, W) uint8, `dt_s` seconds after the picture before."""
        self._since_s += dt_s
        if self._seen is None or dt_s <= 0 or self._since_s >= self._bound_s:
            return False
        blocks = _blocks(luma)
        return blocks.shape == self._seen.shape and float(cv2.absdiff(blocks, self._seen).max()) < _STILL_LEVELS


def _blocks(luma: Plane) -> NDArray[np.float32]:
    width, height = flow_wh((luma.shape[1], luma.shape[0]))
    small = small_luma(luma, (width, height)).astype(np.float32)
    return cv2.resize(small, (-(-width // _BLOCK_PX), -(-height // _BLOCK_PX)), interpolation=cv2.INTER_AREA)
