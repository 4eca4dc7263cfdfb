"""What is known of the lanes in one picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Boundary", "Lanes", "RoadUser"]


@dataclass(frozen=True, slots=True, eq=False)
class Boundary:
    """One line.

    Attributes:
        points: (n, 2) float32 x, y in frame px, from near to far; they may lie outside of the frame.
        confidence: in [0, 1].
        kind: "solid", "dashed" or "unknown".
        colour: "white", "yellow" or "unknown".
        seen: its own marking is seen; False where it is taken to run beside the other boundary.
    """

    points: NDArray[np.float32]
    confidence: float
    kind: str = "unknown"
    colour: str = "unknown"
    seen: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Lanes:
    """The car's own lane and what else was found. Where nothing is known, everything is None or empty.

    Attributes:
        left, right: boundaries of the car's own lane.
        others: further lines.
        offset: of the camera from the lane's middle, in lane widths, positive to the right; +-0.5 is on a line.
        width: of the lane, in heights of the camera above the road.
        curvature: as the lines' shape in the picture, see `lanes.model`; positive bends to the right.
        horizon_px: the row where the road's lines meet.
        vanishing_px: (x, y) of the camera's direction of travel.
        road: (h, w) float32 probability of drivable road over the whole frame, at the network's scale.
        frame_wh: size of the frame, px.
    """

    frame_wh: tuple[int, int]
    left: Boundary | None = None
    right: Boundary | None = None
    others: tuple[Boundary, ...] = ()
    offset: float | None = None
    width: float | None = None
    curvature: float = 0.0
    horizon_px: float | None = None
    vanishing_px: tuple[float, float] | None = None
    road: NDArray[np.float32] | None = None

    @property
    def confidence(self) -> float:
        """Of the own lane, in [0, 1]; 0 where it is not known."""
        if self.left is None or self.right is None:
            return 0.0
        return (self.left.confidence + self.right.confidence) / 2

    def across(self, x: float, y: float) -> float | None:
        """Where a point of the road lies in the lane: 0 is the middle, +-0.5 a line, in lane widths.

        Args:
            x: px.
            y: px; nearer than the lines' near ends, they are drawn out straight.

        Returns:
            None beyond the far end of the lines, and where there is no lane.
        """
        if self.left is None or self.right is None:
            return None
        sides = []
        for line in (self.left.points, self.right.points):
            if y < line[-1, 1] or len(line) < 2:
                return None
            if y > line[0, 1]:
                slope = (line[0, 0] - line[1, 0]) / (line[0, 1] - line[1, 1])
                sides.append(float(line[0, 0] + slope * (y - line[0, 1])))
            else:
                sides.append(float(np.interp(-y, -line[:, 1], line[:, 0])))
        left, right = sides
        return (x - (left + right) / 2) / (right - left) if right > left else None


@dataclass(frozen=True, slots=True)
class RoadUser:
    """A vehicle or person on or beside the road, followed from frame to frame.

    Attributes:
        track: number that it keeps.
        class_name: "car", "person" and so on.
        box_xyxy: in frame px.
        score: in [0, 1].
    """

    track: int
    class_name: str
    box_xyxy: tuple[float, float, float, float]
    score: float = 1.0
