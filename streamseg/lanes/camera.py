"""From the picture to metres, where the camera's height and field of view are given."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamseg.lanes.result import Lanes

__all__ = ["Camera"]

# Straighter than this is not told from straight.
_STRAIGHT_M = 3000.0


@dataclass(frozen=True, slots=True)
class Camera:
    """How the camera sits in the car.

    Attributes:
        height_m: above the road.
        view_deg: horizontal field of view, in (0, 180).
    """

    height_m: float
    view_deg: float = 70.0

    def offset_m(self, lanes: Lanes) -> float | None:
        """Of the camera from the lane's middle, positive to the right; None without a lane."""
        if lanes.offset is None or lanes.width is None:
            return None
        return lanes.offset * lanes.width * self.height_m

    def width_m(self, lanes: Lanes) -> float | None:
        """Of the lane."""
        return None if lanes.width is None else lanes.width * self.height_m

    def radius_m(self, lanes: Lanes) -> float | None:
        """Of the bend, positive to the right; None without a lane, infinite where it is straight."""
        if lanes.offset is None:
            return None
        # x = f^2 * height / (2 * radius * y) for a bend, and lines are x = curvature * picture height^2 / y.
        focal = self._focal_px(lanes)
        bend = 2 * lanes.curvature * lanes.frame_wh[1] ** 2 / (focal**2 * self.height_m)
        return 1 / bend if abs(bend) > 1 / _STRAIGHT_M else math.inf

    def on_road(self, points: NDArray[np.float32], lanes: Lanes) -> NDArray[np.float64]:
        """(n, 2) metres to the right and ahead of points of a level road, (n, 2) px below the horizon."""
        if lanes.horizon_px is None or lanes.vanishing_px is None:
            return np.empty((0, 2))
        down = points[:, 1].astype(np.float64) - lanes.horizon_px
        below = down > 0.5
        ahead = self._focal_px(lanes) * self.height_m / down[below]
        right = (points[below, 0] - lanes.vanishing_px[0]) * ahead / self._focal_px(lanes)
        return np.stack([right, ahead], 1)

    def _focal_px(self, lanes: Lanes) -> float:
        return lanes.frame_wh[0] / 2 / math.tan(math.radians(self.view_deg) / 2)
