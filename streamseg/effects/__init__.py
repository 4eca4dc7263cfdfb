"""What is painted."""

from typing import Protocol

from streamseg.effects.background import Backdrop, Background, BlurredRoom, Edges, Pictures, PlainColour
from streamseg.frame import Frame, Output
from streamseg.segment.result import Segmentation

__all__ = ["Backdrop", "Background", "BlurredRoom", "Edges", "Effect", "Pictures", "PlainColour"]


class Effect(Protocol):
    """Paints one picture."""

    def __call__(self, frame: Frame, segmentation: Segmentation | None, dt_s: float) -> Output:
        """Paint.

        Args:
            frame: the picture.
            segmentation: what was found in it; None: nothing is known.
            dt_s: seconds since the picture before; 0 for the first.
        """
        ...
