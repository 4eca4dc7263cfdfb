"""Lanes without a network: paint is what is brighter, or more yellow, than the road on both sides of it."""

from __future__ import annotations

from streamseg.frame import Frame
from streamseg.lanes.follow import Judge, LaneFollower
from streamseg.lanes.judge import quality
from streamseg.lanes.markings import BirdsEye, Points, find_markings
from streamseg.lanes.result import Lanes
from streamseg.segment.result import Segmentation

__all__ = ["ClassicalLaneFinder"]


class ClassicalLaneFinder:
    """Finds the car's lane by its paint; needs no weights.

    It is at its best on marked roads by day and night. Roads without paint, snow, and junctions are beyond it: there it
    finds nothing, and a network is better.

    Args:
        vanishing: (x, y) of the vanishing point as shares of the picture's size; None estimates it from the clip.
        bonnet: where the car's own bonnet begins, as a share of the picture's height; 1: it is not in sight.
    """

    def __init__(self, vanishing: tuple[float, float] | None = None, *, bonnet: float = 1.0) -> None:
        self._follow = LaneFollower(_see, vanishing, bonnet=bonnet)

    def __call__(self, frame: Frame, segmentation: Segmentation | None, dt_s: float) -> Lanes:
        """Look at one picture; `segmentation` is not looked at. See `LaneFinder`."""
        return self._follow(frame, None, dt_s)


def _see(view: BirdsEye, frame: Frame, segmentation: Segmentation | None) -> tuple[Points, Judge]:
    luma, u = view(frame)
    points = find_markings(view, luma, u)
    return points, lambda shape, score: quality(view, luma, u, points, shape, score)
