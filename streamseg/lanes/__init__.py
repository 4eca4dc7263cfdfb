"""Lanes: where they are, how the car lies in its own, and what happens there. No threads, no files, no drawing."""

from typing import Protocol

from streamseg.frame import Frame
from streamseg.lanes.result import Boundary, Lanes
from streamseg.segment.result import Segmentation

__all__ = ["Boundary", "LaneFinder", "Lanes"]


class LaneFinder(Protocol):
    """Finds the lanes of one drive, frame after frame."""

    def __call__(self, frame: Frame, segmentation: Segmentation | None, dt_s: float) -> Lanes:
        """Look at one picture.

        Args:
            frame: the picture.
            segmentation: what a network found in it; a finder without a network does not look at it.
            dt_s: seconds since the picture before; 0 for the first, and for the first after a cut.
        """
        ...
