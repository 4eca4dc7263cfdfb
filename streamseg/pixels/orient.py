"""Turn and mirror a picture."""

from __future__ import annotations

import cv2

from streamseg.frame import Plane
from streamseg.pixels.planes import empty, split

__all__ = ["orient"]

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def orient(planes: Plane, rotate: int, *, mirror: bool) -> Plane:
    """Turn an I420 picture, then mirror it.

    Args:
        planes: (H * 3 / 2, W) uint8.
        rotate: degrees clockwise: 0, 90, 180 or 270.
        mirror: exchange left and right of the turned picture.

    Returns:
        (H * 3 / 2, W) uint8, or (W * 3 / 2, H) where it was turned by 90 or 270.
    """
    rows, width = planes.shape
    height = rows // 3 * 2
    out = empty(height, width) if rotate in (90, 270) else empty(width, height)
    for source, target in zip(split(planes), split(out), strict=True):
        if rotate:
            source = cv2.rotate(source, _TURNS[rotate], target)
        if mirror:
            cv2.flip(source, 1, target)
    return out
