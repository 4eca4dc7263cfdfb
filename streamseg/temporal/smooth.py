"""Steady a matte over time, at model scale."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["HalfLife", "Smoother", "Uncertainty"]

_Matte = NDArray[np.float32]

# 1 - u(x) with x = (p - 1/2)^2: a quintic through the binary entropy of p, as in MediaPipe's segmentation smoothing
# (google-ai-edge/mediapipe, segmentation_smoothing_calculator, Apache-2.0). It is 0 at p = 1/2 and 1 at p = 0 and 1.
_CERTAINTY = tuple(np.float32(c) for c in (5.68842, -0.748699, -57.8051, 291.309, -624.717))


class Smoother(Protocol):
    """A matte in, a steadier matte out."""

    def __call__(self, matte: _Matte, dt_s: float) -> _Matte:
        """Smooth the next matte.

        Args:
            matte: (h, w) float32 in [0, 1].
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

    def __call__(self, matte: _Matte, dt_s: float) -> _Matte:
        """Smooth the next matte, see `Smoother`."""
        previous = self._previous
        if previous is not None and previous.shape == matte.shape and dt_s > 0:
            matte = self._mix(matte, previous, np.float32(0.5 ** (dt_s / self._half_life_s)))
        self._previous = matte
        return matte

    def reset(self) -> None:
        """Forget the past."""
        self._previous = None

    def _mix(self, matte: _Matte, previous: _Matte, past: np.float32) -> _Matte:
        return matte + (previous - matte) * past


class Uncertainty(HalfLife):
    """Hold back only what the network is unsure of: a certain pixel changes at once and leaves no trail.

    The past's weight is ``0.5 ** (dt / half_life)`` where p = 1/2 and falls to 0 where p is 0 or 1.
    """

    def _mix(self, matte: _Matte, previous: _Matte, past: np.float32) -> _Matte:
        c1, c2, c3, c4, c5 = _CERTAINTY
        x = np.square(matte - np.float32(0.5))
        certainty = np.minimum(x * (c1 + x * (c2 + x * (c3 + x * (c4 + x * c5)))), np.float32(1))
        return matte + (previous - matte) * ((np.float32(1) - certainty) * past)
