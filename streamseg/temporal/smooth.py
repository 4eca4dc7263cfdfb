"""Steady a matte over time, at model scale."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane
from streamseg.pixels.planes import halve

__all__ = ["HalfLife", "Smoother", "Uncertainty"]

_Matte = NDArray[np.float32]

# 1 - u(x) with x = (p - 1/2)^2: a quintic through the binary entropy of p, as in MediaPipe's segmentation smoothing
# (google-ai-edge/mediapipe, segmentation_smoothing_calculator, Apache-2.0). It is 0 at p = 1/2 and 1 at p = 0 and 1.
_CERTAINTY = tuple(np.float32(c) for c in (5.68842, -0.748699, -57.8051, 291.309, -624.717))

# A mean change of luma this large, in levels, is motion: its past weighs 1/e. Sensor noise, averaged, stays below 3.
_MOTION_LEVELS = 8.0
_MOTION_WINDOW = (5, 5)


class Smoother(Protocol):
    """A matte in, a steadier matte out."""

    def __call__(self, matte: _Matte, luma: Plane, dt_s: float) -> _Matte:
        """Smooth the next matte.

        Args:
            matte: (h, w) float32 in [0, 1].
            luma: (H, W) uint8 of the same picture, at any scale.
            dt_s: seconds since the matte before; 0 or less means that nothing is known of the past.
        """
        ...

    def reset(self) -> None:
        """Forget the past: the next matte comes out as it went in."""
        ...


class HalfLife:
    """Exponential moving average: what was seen `half_life_s` ago weighs half of what is seen now.

    It trails behind motion everywhere; `Uncertainty` does not.
    """

    def __init__(self, half_life_s: float) -> None:
        if half_life_s <= 0:
            raise ValueError(f"half_life_s must be positive, not {half_life_s}")
        self._half_life_s = half_life_s
        self._previous: _Matte | None = None

    def __call__(self, matte: _Matte, luma: Plane, dt_s: float) -> _Matte:
        """Smooth the next matte, see `Smoother`."""
        previous = self._previous
        if previous is not None and previous.shape == matte.shape and dt_s > 0:
            matte = matte + (previous - matte) * np.float32(0.5 ** (dt_s / self._half_life_s))
        self._previous = matte
        return matte

    def reset(self) -> None:
        """Forget the past."""
        self._previous = None


class Uncertainty:
    """Hold back only what the network is unsure of, and only where the picture stands still.

    The past's weight is ``0.5 ** (dt / half_life)`` where p = 1/2. It falls to 0 where p is 0 or 1, so that a certain
    pixel changes at once, and by ``exp(-(change / 8) ** 2)`` with the luma's local mean change, because on a moving
    edge the past is of another place: without this, boundary F of moving subjects falls below that of raw mattes.
    """

    def __init__(self, half_life_s: float) -> None:
        if half_life_s <= 0:
            raise ValueError(f"half_life_s must be positive, not {half_life_s}")
        self._half_life_s = half_life_s
        self._previous: tuple[_Matte, Plane] | None = None

    def __call__(self, matte: _Matte, luma: Plane, dt_s: float) -> _Matte:
        """Smooth the next matte, see `Smoother`."""
        height, width = matte.shape
        small = _reduce(luma, (width, height))
        if self._previous is not None and self._previous[0].shape == matte.shape and dt_s > 0:
            previous, before = self._previous
            past = np.float32(0.5 ** (dt_s / self._half_life_s))
            change = cv2.blur(cv2.absdiff(small, before).astype(np.float32), _MOTION_WINDOW)
            change *= np.float32(1 / _MOTION_LEVELS)
            still = cv2.exp(-(change * change))
            matte = matte + (previous - matte) * (_uncertainty(matte) * still * past)
        self._previous = (matte, small)
        return matte

    def reset(self) -> None:
        """Forget the past."""
        self._previous = None


def _uncertainty(p: _Matte) -> _Matte:
    """1 where p is 1/2, falling to 0 where p is 0 or 1."""
    c1, c2, c3, c4, c5 = _CERTAINTY
    x = np.square(p - np.float32(0.5))
    certainty = x * (c1 + x * (c2 + x * (c3 + x * (c4 + x * c5))))
    return np.float32(1) - np.minimum(certainty, np.float32(1))


def _reduce(luma: Plane, size_wh: tuple[int, int]) -> Plane:
    """The luma at the matte's size, averaged, so that noise does not pass for motion."""
    # Halving is many times faster than an area resize by an uneven factor; less than two to one is left for the last.
    while luma.shape[1] >= 2 * size_wh[0] and luma.shape[0] >= 2 * size_wh[1]:
        luma = halve(luma)
    return cv2.resize(luma, size_wh, interpolation=cv2.INTER_LINEAR)
