"""Take the old background's light out of the subject's soft edge."""

from __future__ import annotations

import cv2
import numpy as np

from streamseg.frame import Plane
from streamseg.pixels.blend import over_plane
from streamseg.pixels.guided import coefficient_factor
from streamseg.pixels.planes import halve, shrink, split
from streamseg.pixels.tiles import enlarge, tiles

__all__ = ["decontaminate"]

# How far into the edge the subject's own colour is carried, as a share of the picture's height.
_REACH = 0.03
# Opacity from which a pixel's colour is the subject's own, and up to which it is replaced altogether.
_OWN, _REPLACED = 254, 240


def _ramp(low: int, high: int) -> Plane:
    return np.clip((np.arange(256) - low) * 255 // (high - low), 0, 255).astype(np.uint8)


_IS_OWN = _ramp(_REPLACED, _OWN)
_IS_FOREIGN = 255 - _IS_OWN


def decontaminate(planes: Plane, alpha: Plane) -> Plane:
    """Replace the colours of half-transparent pixels, and of the rim within them, by those of the nearby opaque ones.

    A half-transparent pixel mixes the subject with the old background; over another background that shows as a fringe.
    So does the outermost opaque pixel, which lenses, sharpening and chroma subsampling mix as well.
    The subject's colour is its local mean over the opaque pixels (the first step of blur fusion: Forte,
    Approximate Fast Foreground Colour Estimation, ICIP 2021).

    Args:
        planes: (H * 3 / 2, W) uint8 I420; left as it is.
        alpha: (H, W) uint8.

    Returns:
        A new (H * 3 / 2, W) array.
    """
    height = alpha.shape[0]
    factor = max(2, coefficient_factor(height))
    out = planes.copy()
    y, u, v = split(out)
    inner = cv2.erode(alpha, np.ones((3, 3), np.uint8), borderValue=255)
    small = shrink(inner, factor)
    own = cv2.LUT(small, _IS_OWN).astype(np.float32) * np.float32(1 / 255)
    weighted = cv2.merge([shrink(y, factor) * own, shrink(u, factor // 2) * own, shrink(v, factor // 2) * own, own])
    side = max(1, round(_REACH * height / factor)) | 1
    for _ in range(3):
        weighted = cv2.blur(weighted, (side, side))
    known = weighted[..., 3]
    # The edge's cells, as far as an opaque pixel is near: elsewhere there is no colour to carry.
    edge = (shrink(alpha, factor) > 0) & (small < _OWN)
    busy = (cv2.dilate(edge.view(np.uint8), np.ones((3, 3), np.uint8)) > 0) & (known > 1e-3)
    if not busy.any():
        return out
    divisor = np.maximum(known, np.float32(1e-3))
    means = [cv2.divide(weighted[..., channel], divisor, dtype=cv2.CV_8U) for channel in range(3)]
    reach = np.where(known > 1e-3, 255, 0).astype(np.uint8)
    foreign = cv2.LUT(inner, _IS_FOREIGN)
    foreign_half = halve(foreign)
    for tile in tiles(busy, factor):
        for plane, mean, mask, scale in (
            (y, means[0], foreign, factor),
            (u, means[1], foreign_half, factor // 2),
            (v, means[2], foreign_half, factor // 2),
        ):
            rows, columns = tile.pixels(scale, plane.shape)
            block = plane[rows, columns]
            shape = (slice(0, block.shape[0]), slice(0, block.shape[1]))
            weight = cv2.min(mask[rows, columns], enlarge(reach, tile, scale)[shape])
            over_plane(enlarge(mean, tile, scale)[shape], block, weight, block)
    return out
