"""Pictures with opacity, for files."""

from __future__ import annotations

import numpy as np

from streamseg.frame import Colour, Plane

__all__ = ["hide_transparent"]


def hide_transparent(planes: Plane, alpha: Plane, colour: Colour) -> Plane:
    """A copy of the picture that is black where it is wholly transparent.

    Straight alpha keeps the picture underneath, and whoever ignores the alpha sees it: the room that was to be hidden.

    Args:
        planes: (H * 3 / 2, W) uint8 I420.
        alpha: (H, W) uint8.
        colour: of the picture; only its range matters.
    """
    height, width = alpha.shape
    hidden = alpha == 0
    result = planes.copy()
    result[:height][hidden] = 0 if colour.full_range else 16
    # A chroma sample is hidden where all four pixels are.
    hidden = hidden.reshape(height // 2, 2, width // 2, 2).all(axis=(1, 3))
    chroma = result.reshape(-1)[height * width :].reshape(2, height // 2, width // 2)
    chroma[:, hidden] = 128
    return np.ascontiguousarray(result)
