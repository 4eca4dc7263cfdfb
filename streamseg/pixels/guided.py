"""Bring a matte from model scale to the picture's, along the picture's own edges."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane
from streamseg.pixels.planes import shrink

__all__ = ["coefficient_factor", "edge_curve", "fit_grid", "guided_upsample", "plain_upsample"]

_Floats = NDArray[np.floating[Any]]  # float32; numpy's stubs widen what arithmetic gives

# Rows of a strip, at full scale: the strip's float arrays then stay in the second-level cache.
_STRIP_ROWS = 64
# A coefficient this flat changes an 8-bit opacity by less than half a step.
_FLAT = 1 / 512


def guided_upsample(
    matte: NDArray[np.float32],
    luma: Plane,
    *,
    radius: float = 0.006,
    epsilon: float = 1e-4,
    curve: Plane | None = None,
    out: Plane | None = None,
) -> Plane:
    """Upsample a matte with the fast guided filter (He & Sun 2015, arXiv:1505.00996), guided by the full luma.

    The filter's linear coefficients are fitted at about 180 rows and applied to every pixel of the luma. Work at full
    scale is done in strips, and only where the matte is neither flat 0 nor flat 1.

    Args:
        matte: (h, w) float32 in [0, 1], covering the whole picture.
        luma: (H, W) uint8.
        radius: of the fitting window, as a share of the picture's height.
        epsilon: regularisation, in squared luma of [0, 1]; larger follows the matte more and the picture's edges less.
        curve: 256 uint8 entries applied to the result, see `edge_curve`.
        out: (H, W) uint8 to write into.

    Returns:
        (H, W) uint8 opacity.
    """
    height, width = luma.shape
    factor = coefficient_factor(height)
    guide = shrink(luma, factor).astype(np.float32)
    guide *= np.float32(1 / 255)
    target = fit_grid(matte, (width, height), factor, guide.shape)
    slope, offset = _coefficients(guide, target, max(1, round(radius * height / factor)), epsilon)
    return _apply(slope, offset, luma, factor, curve, np.empty_like(luma) if out is None else out)


def plain_upsample(
    matte: NDArray[np.float32], size_wh: tuple[int, int], *, curve: Plane | None = None, out: Plane | None = None
) -> Plane:
    """Upsample a matte bilinearly: (h, w) float32 in [0, 1] to (H, W) uint8. The picture's edges play no part."""
    small = cv2.convertScaleAbs(matte, alpha=255)
    full = cv2.resize(small, size_wh, out, interpolation=cv2.INTER_LINEAR)
    return full if curve is None else cv2.LUT(full, curve, full)


def edge_curve(threshold: float = 0.5, feather: float = 0.5) -> Plane:
    """A smoothstep as 256 uint8 entries: opaque from `threshold + feather / 2`, clear to `threshold - feather / 2`.

    Args:
        threshold: the opacity, in (0, 1), that lies in the middle of the edge.
        feather: width of the soft edge in opacity, in [0, 1]; 0 is a hard edge.
    """
    levels = np.arange(256) / 255
    low, high = threshold - feather / 2, threshold + feather / 2
    ramp = np.clip((levels - low) / max(high - low, 1e-6), 0, 1)
    return np.rint(255 * ramp * ramp * (3 - 2 * ramp)).astype(np.uint8)


def coefficient_factor(height: int) -> int:
    """By how much the coefficients' grid is smaller than the picture: a power of two that leaves about 180 rows."""
    factor = 1
    while height / (factor * 2) >= 120:
        factor *= 2
    return factor


def fit_grid(
    matte: NDArray[np.float32], size_wh: tuple[int, int], factor: int, shape_hw: tuple[int, int]
) -> NDArray[np.float32]:
    """Resample a matte that covers a picture of `size_wh` onto a grid of `factor` pixels a cell, (rows, columns).

    The grid may reach past the picture when its sides are no multiple of the factor; the matte's border is repeated.
    """
    scale_x, scale_y = matte.shape[1] * factor / size_wh[0], matte.shape[0] * factor / size_wh[1]
    # Centre of cell i lies at matte coordinate (i + 1/2) * scale - 1/2.
    to_matte = np.array([[scale_x, 0, scale_x / 2 - 0.5], [0, scale_y, scale_y / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(matte, to_matte, shape_hw[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _coefficients(guide: _Floats, target: _Floats, radius: int, epsilon: float) -> tuple[_Floats, _Floats]:
    """Slope a and offset b of target = a * guide + b, fitted in every window and averaged over those that overlap."""
    window = (2 * radius + 1, 2 * radius + 1)

    def mean(values: _Floats) -> _Floats:
        return cv2.blur(values, window, borderType=cv2.BORDER_REFLECT_101)

    mean_guide, mean_target = mean(guide), mean(target)
    variance = mean(guide * guide) - mean_guide * mean_guide
    covariance = mean(guide * target) - mean_guide * mean_target
    slope = covariance / (np.maximum(variance, 0) + np.float32(epsilon))
    return mean(slope), mean(mean_target - slope * mean_guide)


def _apply(
    slope: _Floats,
    offset: _Floats,
    luma: Plane,
    factor: int,
    curve: Plane | None,
    out: Plane,
) -> Plane:
    height, width = luma.shape
    rows, columns = slope.shape
    offset = offset * np.float32(255)
    # Flat regions first, by repetition: 0 or 255 nearly everywhere.
    flat = cv2.convertScaleAbs(np.clip(offset, 0, 255))
    if curve is not None:
        flat = cv2.LUT(flat, curve)
    edge = (np.abs(slope) > _FLAT) | (np.abs(offset - np.rint(offset / 255) * 255) > 0.5)
    # Interpolation reads the neighbouring cells too.
    edge = cv2.dilate(edge.view(np.uint8), np.ones((3, 3), np.uint8))
    step = max(1, _STRIP_ROWS // factor)
    for top in range(0, rows, step):
        bottom = min(top + step, rows)
        y0, y1 = top * factor, min(bottom * factor, height)
        # Stretching the columns and then copying rows is four times faster than one resize of both.
        wide = cv2.resize(flat[top:bottom], (columns * factor, bottom - top), interpolation=cv2.INTER_NEAREST)
        out[y0:y1] = np.repeat(wide[:, :width], factor, axis=0)[: y1 - y0]
        for left, right in _runs(edge[top:bottom].any(axis=0)):
            x0, x1 = left * factor, min(right * factor, width)
            block = out[y0:y1, x0:x1]
            cells = (top, bottom, left, right)
            opacity = _enlarge(slope, cells, factor)[: y1 - y0, : x1 - x0]
            np.multiply(opacity, luma[y0:y1, x0:x1], out=opacity)
            # Adding into 8 bits rounds and saturates in one pass.
            level = cv2.add(opacity, _enlarge(offset, cells, factor)[: y1 - y0, : x1 - x0], dtype=cv2.CV_8U)
            block[:] = level if curve is None else cv2.LUT(level, curve)
    return out


def _runs(active: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end (exclusive) of every run of True; runs fewer than eight cells apart are one."""
    bounds = np.flatnonzero(np.diff(active, prepend=False, append=False)).reshape(-1, 2)
    runs: list[tuple[int, int]] = []
    for begin, end in bounds.tolist():
        if runs and begin - runs[-1][1] < 8:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((begin, end))
    return runs


def _enlarge(grid: _Floats, cells: tuple[int, int, int, int], factor: int) -> _Floats:
    """The cells (top, bottom, left, right) of `grid`, `factor` times larger, as if the whole were resized."""
    top, bottom, left, right = cells
    above, below = max(top - 1, 0), min(bottom + 1, grid.shape[0])
    before, after = max(left - 1, 0), min(right + 1, grid.shape[1])
    part = grid[above:below, before:after]
    full = cv2.resize(part, (part.shape[1] * factor, part.shape[0] * factor), interpolation=cv2.INTER_LINEAR)
    y, x = (top - above) * factor, (left - before) * factor
    return full[y : y + (bottom - top) * factor, x : x + (right - left) * factor]
