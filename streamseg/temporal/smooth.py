"""Steady a matte over time, at model scale."""

from __future__ import annotations

import math
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane
from streamseg.pixels.flow import FlowTracker, flow_wh, small_luma

__all__ = ["FlowFusion", "HalfLife", "OneEuro", "Smoother", "Uncertainty"]

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
        small = small_luma(luma, (width, height))
        if self._previous is not None and self._previous[0].shape == matte.shape and dt_s > 0:
            previous, before = self._previous
            past = np.float32(0.5 ** (dt_s / self._half_life_s))
            change = cv2.boxFilter(cv2.absdiff(small, before), cv2.CV_32F, _MOTION_WINDOW)
            weight = cv2.exp(cv2.multiply(change, change, scale=-1 / _MOTION_LEVELS**2))
            weight *= _uncertainty(matte)
            weight *= past
            weight *= previous - matte
            matte = matte + weight
        self._previous = (matte, small)
        return matte

    def reset(self) -> None:
        """Forget the past."""
        self._previous = None


class OneEuro:
    """The One-Euro filter for every pixel: slow changes are smoothed, quick ones pass.

    A low-pass whose cut-off rises with the speed of the change (Casiez et al., 1 Euro Filter, CHI 2012).

    Args:
        still_hz: cut-off where nothing changes; lower is steadier.
        rise: by how many Hz the cut-off rises for each unit of opacity a second; higher lags less.
        speed_hz: cut-off of the speed's own low-pass.
    """

    def __init__(self, still_hz: float = 0.5, rise: float = 2.0, speed_hz: float = 1.0) -> None:
        if still_hz <= 0 or rise < 0 or speed_hz <= 0:
            raise ValueError(f"still_hz and speed_hz must be positive, not {still_hz} and {speed_hz}; rise {rise} >= 0")
        self._still_hz = still_hz
        self._rise = rise
        self._speed_hz = speed_hz
        self._previous: tuple[_Matte, _Matte, _Matte] | None = None

    def __call__(self, matte: _Matte, luma: Plane, dt_s: float) -> _Matte:
        """Smooth the next matte, see `Smoother`."""
        if self._previous is None or self._previous[0].shape != matte.shape or dt_s <= 0:
            self._previous = (matte, matte, np.zeros_like(matte))
            return matte
        raw, smooth, speed = self._previous
        # A low-pass of cut-off f keeps 1 / (1 + 2 pi f dt) of its past.
        speed = speed + ((matte - raw) / np.float32(dt_s) - speed) * np.float32(_gain(self._speed_hz, dt_s))
        reached = np.float32(2 * math.pi * dt_s) * (np.float32(self._still_hz) + np.float32(self._rise) * np.abs(speed))
        smooth = smooth + (matte - smooth) * (reached / (np.float32(1) + reached))
        self._previous = (matte, smooth, speed)
        return smooth

    def reset(self) -> None:
        """Forget the past."""
        self._previous = None


def _gain(cut_off_hz: float, dt_s: float) -> float:
    reached = 2 * math.pi * cut_off_hz * dt_s
    return reached / (1 + reached)


class FlowFusion:
    """Average along the motion: the past is fetched by optical flow to where it belongs now.

    The past's weight is ``0.5 ** (dt / half_life)`` where the flow can be trusted, and falls to 0 with its confidence.
    At 0.1 s J and F rise on every sequence with ground truth; from 0.2 s on, what the flow drags along shows.
    """

    def __init__(self, half_life_s: float = 0.1) -> None:
        if half_life_s <= 0:
            raise ValueError(f"half_life_s must be positive, not {half_life_s}")
        self._half_life_s = half_life_s
        self._tracker = FlowTracker()
        self._previous: tuple[_Matte, Plane] | None = None

    def __call__(self, matte: _Matte, luma: Plane, dt_s: float) -> _Matte:
        """Smooth the next matte, see `Smoother`."""
        small = small_luma(luma, flow_wh((luma.shape[1], luma.shape[0])))
        previous = self._previous
        if previous is not None and previous[0].shape == matte.shape and previous[1].shape == small.shape and dt_s > 0:
            was, before = previous
            match = self._tracker.match(small, before)
            past = cv2.resize(match.confidence, (matte.shape[1], matte.shape[0]), interpolation=cv2.INTER_AREA)
            past *= 0.5 ** (dt_s / self._half_life_s)
            matte = matte + (self._tracker.fetch(was, match.field) - matte) * past
        self._previous = (matte, small)
        return matte

    def reset(self) -> None:
        """Forget the past."""
        self._previous = None


def _uncertainty(p: _Matte) -> _Matte:
    """1 where p is 1/2, falling to 0 where p is 0 or 1."""
    x = np.square(p - np.float32(0.5))
    certainty = x * _CERTAINTY[-1]
    for coefficient in _CERTAINTY[-2::-1]:
        certainty += coefficient
        certainty *= x
    np.minimum(certainty, 1, out=certainty)
    return np.subtract(1, certainty, out=certainty)
