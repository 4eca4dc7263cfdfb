"""Blur the background without smearing the subject into it."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane
from streamseg.pixels.planes import shrink, split

__all__ = ["blur_background"]

# sigma at strength 1, as a share of the picture's height: a room is then colours without shapes.
_SIGMA_SHARE = 0.06
# In cells: a Gaussian that is sampled no coarser than this is interpolated without a trace of the grid.
_LEAST_SIGMA = 1.25


def blur_background(
    planes: Plane,
    alpha: Plane,
    strength: float,
    out: Plane,
    *,
    half: Plane | None = None,
    half_alpha: Plane | None = None,
) -> Plane:
    """Blur what is not the subject: G(I * (1 - alpha)) / G(1 - alpha), so that no halo of the subject spills out.

    Worked out at a quarter of the size or less; the result is smooth, so nothing is lost.

    Args:
        planes: (H * 3 / 2, W) uint8 I420.
        alpha: (H, W) uint8 opacity of the subject.
        strength: in [0, 1]; the Gaussian's sigma is 6 % of the height at 1.
        out: (H * 3 / 2, W) uint8 to write into.
        half: the luma at half size, where it is known already, see `half_luma`.
        half_alpha: the opacity at half size, see `halve`, where it is known already.

    Returns:
        `out`: the background, also where the subject hides it.
    """
    height, width = alpha.shape
    sigma = max(strength, 0.02) * _SIGMA_SHARE * height
    # A grid cell may be as wide as sigma before the interpolation shows.
    factor = 2
    while factor * 2 <= min(sigma, 8):
        factor *= 2
    y, u, v = split(planes)
    room = cv2.bitwise_not(shrink(alpha, factor) if half_alpha is None else shrink(half_alpha, factor // 2))
    # The smallest weight is not 0: where only the subject is near, its own colours are better than a division by zero.
    weight = room.astype(np.float32) * np.float32(1 / 255) + np.float32(1e-3)
    luma = shrink(y, factor) if half is None else shrink(half, factor // 2)
    small = [luma, shrink(u, factor // 2), shrink(v, factor // 2)]
    weighted = cv2.merge([*(plane * weight for plane in small), weight])
    grid_wh = weighted.shape[1::-1]
    weighted = _smooth(weighted, sigma / factor)
    total = weighted[..., 3]
    shapes = ((width, height), (width // 2, height // 2), (width // 2, height // 2))
    for channel, (plane, size_wh) in enumerate(zip(split(out), shapes, strict=True)):
        mean = cv2.divide(weighted[..., channel], total, dtype=cv2.CV_8U)
        if mean.shape[::-1] != grid_wh:
            mean = cv2.resize(mean, grid_wh, interpolation=cv2.INTER_CUBIC)
        scale = factor if channel == 0 else factor // 2
        scaled_wh = (mean.shape[1] * scale, mean.shape[0] * scale)
        if scaled_wh == size_wh:
            cv2.resize(mean, size_wh, plane, interpolation=cv2.INTER_LINEAR)
        else:
            plane[:] = cv2.resize(mean, scaled_wh, interpolation=cv2.INTER_LINEAR)[: size_wh[1], : size_wh[0]]
    return out


def _smooth(cells: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """A Gaussian of `sigma` cells, on a grid that is halved, rounded up, as long as sigma stays wide enough for it."""
    halvings = 0
    while sigma >= 2 * _LEAST_SIGMA:
        height, width = cells.shape[:2]
        cells = cv2.resize(cells, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
        sigma, halvings = sigma / 2, halvings + 1
    # The mean over a cell, and the linear interpolation between the finest ones, blur too: by these variances.
    variance = sigma**2 - 1 / 12 - 1 / 6 / 4**halvings
    if variance <= 0:
        return cells
    side = 2 * math.ceil(3 * math.sqrt(variance)) + 1
    return cv2.GaussianBlur(cells, (side, side), math.sqrt(variance), borderType=cv2.BORDER_REFLECT_101)
