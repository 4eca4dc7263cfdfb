"""Drawing into planes: anti-aliased polygons, lines and text with opacity; chroma at half the coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane
from streamseg.pixels.planes import halve, split

__all__ = ["fill_mask", "fill_polygons", "stroke", "text_size", "write"]

Points = NDArray[np.floating]
Yuv = tuple[int, int, int]

# The share of a value, by coverage.
_CURVES = np.rint(np.outer(np.arange(256), np.arange(256)) / 255).astype(np.uint8)
# Sixteenths of a pixel.
_SHIFT = 4
_STRIP_ROWS = 64
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Rows of capitals at scale 1.
_FONT_PX = 22.0


def fill_polygons(planes: Plane, polygons: Sequence[Points], colour: Yuv, opacity: float = 1.0) -> None:
    """Fill polygons, in place; where they overlap, the colour lies once.

    Args:
        planes: (H * 3 / 2, W) uint8 I420, changed.
        polygons: (n, 2) x, y in px each; pixel centres are at whole numbers. They may lie outside of the picture.
        colour: Y, U, V in 0..255.
        opacity: in [0, 1].
    """
    window = _window(planes, polygons, 1)
    if window is None:
        return
    coverage = np.zeros((window[1] - window[0], window[3] - window[2]), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(coverage, [_fixed(polygon, window)], 255, cv2.LINE_AA, _SHIFT)
    _lay(planes, coverage, window, colour, opacity)


def stroke(
    planes: Plane, lines: Sequence[Points], colour: Yuv, width_px: int, opacity: float = 1.0, *, closed: bool = False
) -> None:
    """Draw lines through points, in place; see `fill_polygons`. Closed ones are outlines."""
    window = _window(planes, lines, width_px)
    if window is None:
        return
    coverage = np.zeros((window[1] - window[0], window[3] - window[2]), np.uint8)
    fixed = [_fixed(line, window) for line in lines]
    cv2.polylines(coverage, fixed, closed, 255, max(1, width_px), cv2.LINE_AA, _SHIFT)
    _lay(planes, coverage, window, colour, opacity)


def fill_mask(planes: Plane, coverage: Plane, offset_xy: tuple[int, int], colour: Yuv, opacity: float = 1.0) -> None:
    """Lay a colour where `coverage`, (h, w) uint8 in 0..255, says so; its first pixel lies at `offset_xy`.

    What stands out of the picture is left out.
    """
    rows, width = planes.shape
    height = rows // 3 * 2
    x, y = offset_xy
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + coverage.shape[1], width), min(y + coverage.shape[0], height)
    if left >= right or top >= bottom:
        return
    # To whole chroma samples.
    window = (top // 2 * 2, -(-bottom // 2) * 2, left // 2 * 2, -(-right // 2) * 2)
    part = coverage[top - y : bottom - y, left - x : right - x]
    margins = (top - window[0], window[1] - bottom, left - window[2], window[3] - right)
    if any(margins):
        part = cv2.copyMakeBorder(part, *margins, cv2.BORDER_CONSTANT, value=0)
    _lay(planes, part, window, colour, opacity)


def text_size(text: str, height_px: float) -> tuple[int, int]:
    """(width, height) in px that `write` takes for one line of capitals of `height_px`, with descenders."""
    (width, height), below = cv2.getTextSize(text, _FONT, height_px / _FONT_PX, _weight(height_px))
    return int(width), int(height + below)


def write(planes: Plane, text: str, left_top: tuple[int, int], height_px: float, colour: Yuv) -> None:
    """Write one line of ASCII, in place; its box is that of `text_size`."""
    width, height = text_size(text, height_px)
    if width <= 0:
        return
    coverage = np.zeros((height + 2, width + 2), np.uint8)
    (_, above), _ = cv2.getTextSize(text, _FONT, height_px / _FONT_PX, _weight(height_px))
    cv2.putText(
        coverage, text, (0, int(above)), _FONT, height_px / _FONT_PX, 255, _weight(height_px), cv2.LINE_AA
    )  # fmt: skip
    fill_mask(planes, coverage, left_top, colour)


def _weight(height_px: float) -> int:
    return max(1, round(height_px / 9))


def _window(planes: Plane, shapes: Sequence[Points], margin: int) -> tuple[int, int, int, int] | None:
    """Top, bottom, left, right, all even, of the part of the picture that the shapes touch; None where they do not."""
    rows, width = planes.shape
    height = rows // 3 * 2
    if not shapes:
        return None
    points = np.concatenate([np.asarray(shape, np.float64).reshape(-1, 2) for shape in shapes])
    if len(points) == 0 or not np.isfinite(points).all():
        return None
    low = np.floor(points.min(axis=0)) - margin - 1
    high = np.ceil(points.max(axis=0)) + margin + 2
    left, top = (int(max(0, side)) // 2 * 2 for side in low)
    right, bottom = (-(-int(min(side, whole)) // 2) * 2 for side, whole in zip(high, (width, height), strict=True))
    return (top, bottom, left, right) if top < bottom and left < right else None


def _fixed(points: Points, window: tuple[int, int, int, int]) -> NDArray[np.int32]:
    # Coordinates in sixteenths must fit 16 bits in the library's clipping.
    moved = np.asarray(points, np.float64).reshape(-1, 2) - (window[2], window[0])
    return np.rint(np.clip(moved, -30_000, 30_000) * (1 << _SHIFT)).astype(np.int32)


def _lay(planes: Plane, coverage: Plane, window: tuple[int, int, int, int], colour: Yuv, opacity: float) -> None:
    top, bottom, left, _ = window
    if opacity < 1:
        coverage = cv2.convertScaleAbs(coverage, alpha=max(opacity, 0.0))
    curves = _CURVES[list(colour)]
    targets = split(planes)
    # A line runs across its window: in strips, most of the window is left alone.
    for first in range(0, bottom - top, _STRIP_ROWS):
        weight = coverage[first : first + _STRIP_ROWS]
        used = np.flatnonzero(cv2.reduce(weight, 0, cv2.REDUCE_MAX)[0])
        if len(used) == 0:
            continue
        begin, end = int(used[0]) // 2 * 2, int(used[-1]) // 2 * 2 + 2
        weight = weight[:, begin:end]
        rows, columns = (top + first, top + first + weight.shape[0]), (left + begin, left + end)
        half = halve(weight)
        for index, (plane, curve) in enumerate(zip(targets, curves, strict=True)):
            step, share = (1, weight) if index == 0 else (2, half)
            part = plane[rows[0] // step : rows[1] // step, columns[0] // step : columns[1] // step]
            # Both products are rounded: an untouched pixel keeps its value to the bit.
            hidden = cv2.multiply(part, cv2.bitwise_not(share), scale=1 / 255)
            cv2.add(cv2.LUT(share, curve), hidden, part)
