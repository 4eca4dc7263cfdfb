"""Where the road's parallel lines meet: the vanishing point, from all edges of the picture, over time."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane
from streamseg.pixels.planes import halve

__all__ = ["VanishingPoint"]

# The road's lines are looked for in a picture of at least this many rows.
_ROWS = 120
_ACROSS, _DOWN = 96, 64
# Candidates, as shares of the picture's width and height.
_X_RANGE, _Y_RANGE = (0.2, 0.8), (0.1, 0.72)
# Of a camera that looks down from a bridge, the lines meet at the upper edge of these or beyond: so many rows of
# candidates are asked, and by so much they must have more votes than the place that is expected.
_TOP, _OVERHEAD = 6, 1.4
# Of the votes; the camera's mount does not move, so long is steady.
_HALF_LIFE_S = 4.0
# Where the point is looked for first, as shares of the picture's size.
_EXPECTED_XY = (0.5, 0.5)


class VanishingPoint:
    """Estimates the vanishing point of the road from a clip; votes fade with a half-life.

    Every edge votes, at each height, for the place where its straight line passes. Lines that lean to the left and to
    the right must agree on a place: one line alone leaves its point open.
    """

    def __init__(self) -> None:
        self._votes = np.zeros((2, _DOWN, _ACROSS), np.float32)
        x = np.linspace(*_X_RANGE, _ACROSS)
        y = np.linspace(*_Y_RANGE, _DOWN)
        self._x, self._y = x, y
        beside, below = x - _EXPECTED_XY[0], y[:, None] - _EXPECTED_XY[1]
        self._prior = np.exp(-0.5 * ((beside / 0.12) ** 2 + (below / 0.11) ** 2))

    def __call__(self, luma: Plane, dt_s: float) -> tuple[float, float, float]:
        """The point (x, y) as shares of the width and height, and how clear it is, in [0, 1]; 0: it is not in sight.

        Args:
            luma: (H, W) uint8.
            dt_s: seconds since the last call.
        """
        self._votes *= np.float32(0.5 ** (dt_s / _HALF_LIFE_S))
        self._votes += self._vote(luma)
        smooth = [cv2.GaussianBlur(side, (0, 0), sigmaX=1.5, sigmaY=1.0) for side in self._votes]
        # What votes for every place in a row alike (a hedge) votes for none.
        left, right = (np.maximum(side - np.median(side, axis=1, keepdims=True), 0) for side in smooth)
        agreed = np.sqrt(left * right)
        score = agreed * self._prior
        row, column = divmod(int(score.argmax()), score.shape[1])
        above, before = max(row - 2, 0), max(column - 2, 0)
        window = score[above : row + 3, before : column + 3]
        total = float(window.sum())
        if total <= 0:
            return 0.5, 0.5, 0.0
        y = float(window.sum(axis=1) @ self._y[above : row + 3]) / total
        x = float(window.sum(axis=0) @ self._x[before : column + 3]) / total
        if float(agreed[:_TOP].max()) > _OVERHEAD * float(agreed[above : row + 3, before : column + 3].max()):
            return x, y, 0.0
        spread = float(score.mean())
        clear = float(score[row, column]) / (float(score[row, column]) + 8 * spread)
        return x, y, clear

    def _vote(self, luma: Plane) -> NDArray[np.float32]:
        while luma.shape[0] >= 2 * _ROWS:
            luma = halve(luma)
        height, width = luma.shape
        top = int(height * 0.3)
        part = cv2.GaussianBlur(luma[top:], (3, 3), 0)
        gx = cv2.Sobel(part, cv2.CV_32F, 1, 0)
        gy = cv2.Sobel(part, cv2.CV_32F, 0, 1)
        strength = np.abs(gx) + np.abs(gy)
        # Neither level edges (shadows, bumpers) nor upright ones (poles) tell where the road goes.
        lean = np.abs(gy) / np.maximum(np.abs(gx), 1e-3)
        usable = (strength > max(24.0, float(np.percentile(strength, 75)))) & (lean > 0.15) & (lean < 6)
        rows, columns = np.nonzero(usable)
        votes = np.zeros((2, _DOWN, _ACROSS), np.float32)
        if len(rows) == 0:
            return votes
        slope = -gy[rows, columns] / gx[rows, columns]  # columns a row
        weight = np.sqrt(np.minimum(strength[rows, columns], 200)).astype(np.float32)
        y = (rows + top + 0.5).astype(np.float32)
        x = columns + np.float32(0.5)
        first, step = _X_RANGE[0] * width, (_X_RANGE[1] - _X_RANGE[0]) * width / (_ACROSS - 1)
        for place, share in enumerate(self._y):
            rise = share * height - y
            at = np.rint((x + rise * slope - first) / step).astype(np.int32)
            seen = (rise < -0.06 * height) & (at >= 0) & (at < _ACROSS)
            for side, leans in enumerate((slope < 0, slope > 0)):
                here = seen & leans
                votes[side, place] = np.bincount(at[here], weight[here], _ACROSS)
        return votes
