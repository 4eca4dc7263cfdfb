"""What one line looks like over time: unbroken or dashed, white or yellow."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.lanes.markings import Points

__all__ = ["LineLook"]

# Shares of a line's rows with paint: below the first a solid line is dashed, above the other a dashed one is solid.
# Solid lines are worn or shaded for a second, and dashes run together.
_BROKEN, _WHOLE = 0.5, 0.7


class LineLook:
    """What one line looks like, over a second: paint without gaps or dashes, white or yellow."""

    def __init__(self) -> None:
        self._paint: float | None = None
        self._solid = False
        self._chroma = 0.0

    def look(self, points: Points, on: NDArray[np.bool_], dt_s: float) -> None:
        """Take in the paint that lies on the line (`on`, bool for each place)."""
        share = 1.0 if self._paint is None else 1 - math.exp(-dt_s / 0.7)
        # Near rows tell dashes from their gaps; towards the horizon they run together.
        paint = np.bincount(points.row[on], minlength=points.rows)[: points.rows * 6 // 10] > 0
        covered = float(cv2.blur(paint.astype(np.float32), (1, 3)).ravel().mean())
        self._paint = covered if self._paint is None else self._paint + share * (covered - self._paint)
        self._solid = self._paint > (_BROKEN if self._solid else _WHOLE)
        if on.any():
            self._chroma += share * (float(np.median(points.chroma[on])) - self._chroma)

    @property
    def kind(self) -> str:
        """Whether it is "solid", "dashed" or "unknown"."""
        if self._paint is None or self._paint < 0.08:
            return "unknown"
        return "solid" if self._solid else "dashed"

    @property
    def colour(self) -> str:
        """Whether it is "white", "yellow" or "unknown"."""
        if self._paint is None or self._paint < 0.08:
            return "unknown"
        return "yellow" if self._chroma < -13 else "white"
