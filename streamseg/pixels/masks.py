"""Masks from prototypes and coefficients: per box at the frame's scale, and as opacity at the prototypes'.

A mask's logits are the prototypes weighed by an instance's coefficients. Positions follow pixel centres: sample i of a
grid stands at i + 0.5. A cell is a sample of the prototypes, which cover the network's whole input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.pixels.letterbox import Placement

__all__ = ["box_mask", "box_probability", "boxes_in_cells", "fill_unsure", "fit_frame", "sigmoid"]

Floats = NDArray[np.floating]
Window = tuple[slice, slice]

# How many cells to look at for one that begins on a whole pixel of the frame, and how near is near enough, in px.
_SEARCH = 16
_NEAR = 1 / 32
# A cell below the first opacity may show the background; one below the second surely is the background.
_SHOWS = 0.5
_CLEAR = 0.02
# What lies further within the subject than this share of the shorter side is deep.
_DEEP = 0.075
# How the two kinds of cells that show the background are told apart.
_HOLE, _OUTSIDE = 1, 2


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)) without overflow, as a new array of one or two dimensions.

    >>> sigmoid(np.array([[-100, 0, 100]], np.float32)).round(3).tolist()
    [[0.0, 0.5, 1.0]]
    """
    out = np.negative(logits)
    cv2.exp(np.minimum(out, np.float32(80), out=out), out)
    out += 1
    return np.divide(np.float32(1), out, out=out)


def box_mask(
    prototypes: Floats, coefficients: NDArray[np.float32], box: NDArray[np.float32], placement: Placement
) -> tuple[tuple[int, int], NDArray[np.uint8]]:
    """One instance's mask within its box, at the frame's scale.

    Only the cells under the box are combined; they are scaled up bilinearly, then thresholded. The cells are taken to
    begin on a whole pixel of the frame, as they do at the common sizes; where they do not, the mask lies off by a
    small part of a pixel.

    Args:
        prototypes: (m, mh, mw).
        coefficients: (m,) float32.
        box: (4,) xyxy in frame px.
        placement: of the frame in the network's input.

    Returns:
        The (x, y) of the region's first pixel, and the region (h, w) uint8 of 0 and 1: the pixels whose index lies in
        the box. An empty box gives no rows or no columns.
    """
    x1, y1, x2, y2 = box.tolist()
    _, rows, columns = prototypes.shape
    cell_x, cell_y = columns / placement.input_wh[0], rows / placement.input_wh[1]
    scale_x, scale_y = placement.scale_xy
    across = _span(x1, x2, placement.frame_wh[0], placement.left * cell_x, 1 / (scale_x * cell_x), columns)
    down = _span(y1, y2, placement.frame_wh[1], placement.top * cell_y, 1 / (scale_y * cell_y), rows)
    if not (across.size and down.size):
        return (across.first, down.first), np.zeros((down.size, across.size), np.uint8)
    logits = _combine(prototypes[:, down.cells, across.cells], coefficients)
    # With explicit factors cv2 keeps the scale exact, whatever whole number of pixels the result has.
    full = cv2.resize(logits, None, fx=across.growth, fy=down.growth, interpolation=cv2.INTER_LINEAR)
    if full.shape[0] < down.skip + down.size or full.shape[1] < across.skip + across.size:
        # The result's last pixel is cut off where the last cell ends in the middle of it.
        full = cv2.copyMakeBorder(full, 0, 1, 0, 1, cv2.BORDER_REPLICATE)
    region = full[down.skip : down.skip + down.size, across.skip : across.skip + across.size]
    return (across.first, down.first), np.greater(region, 0).view(np.uint8)


@dataclass(frozen=True, slots=True)
class _Span:
    """Along one axis: pixels `first` to `first + size` of the frame, and the cells that hold them.

    Scaled by `growth`, the cells begin `skip` pixels before `first`.
    """

    first: int
    size: int
    cells: slice
    growth: float
    skip: int


def _span(low: float, high: float, side: int, offset: float, growth: float, count: int) -> _Span:
    """The pixels of [low, high) among `side`, of which `growth` lie on each of `count` cells, from cell `offset` on."""
    first = max(0, math.ceil(low))
    size = max(0, min(side, math.ceil(high)) - first)
    begin = max(0, math.floor((first + 0.5) / growth + offset - 0.5))
    end = min(count, math.floor((first + size - 0.5) / growth + offset - 0.5) + 2)
    best, best_miss, pixel = begin, 1.0, 0
    for cell in range(begin, max(-1, begin - _SEARCH), -1):
        exact = (cell - offset) * growth
        miss = abs(exact - round(exact))
        if miss < best_miss:
            best, best_miss, pixel = cell, miss, round(exact)
        if miss < _NEAR:
            break
    return _Span(first, size, slice(best, end), growth, first - pixel)


def boxes_in_cells(
    boxes: NDArray[np.float32], placement: Placement, grid_hw: tuple[int, int], *, snap: float = 0.0
) -> NDArray[np.float32]:
    """Boxes in frame px as boxes in cells.

    Args:
        boxes: (n, 4) xyxy in frame px.
        placement: of the frame in the network's input.
        grid_hw: (rows, columns) of the prototypes.
        snap: a side that ends within this share of the picture's side from its border is carried on across the border,
            to the end of the grid. Boxes of objects that the picture cuts off mostly end a little before it.

    Returns:
        (n, 4) float32.
    """
    offset = np.array((placement.left, placement.top) * 2, np.float32)
    cell = np.array((grid_hw[1] / placement.input_wh[0], grid_hw[0] / placement.input_wh[1]) * 2, np.float32)
    cells = (boxes * np.array(placement.scale_xy * 2, np.float32) + offset) * cell
    if snap:
        sides = np.array(placement.picture_wh, np.float32)
        near = sides * np.float32(snap)
        ends = np.array(grid_hw[::-1], np.float32)
        cells[:, :2] = np.where(boxes[:, :2] <= near, np.float32(0), cells[:, :2])
        cells[:, 2:] = np.where(boxes[:, 2:] >= sides - near, ends, cells[:, 2:])
    return cells


def box_probability(
    prototypes: Floats, coefficients: NDArray[np.float32], box: NDArray[np.float32]
) -> tuple[Window, NDArray[np.float32]]:
    """One instance's opacity in the cells that its box touches; a cell that it covers in part counts in part.

    The plain cut is the best of those tried against ground truth: every softer or wider one lets in more of the
    background than it saves of the object.

    Args:
        prototypes: (m, mh, mw).
        coefficients: (m,) float32.
        box: (4,) xyxy in cells.

    Returns:
        The window (rows, columns) of the grid, and its opacity (h, w) float32 in [0, 1].
    """
    x1, y1, x2, y2 = box.tolist()
    columns, across = _coverage(x1, x2, prototypes.shape[2])
    rows, down = _coverage(y1, y2, prototypes.shape[1])
    if not (across.size and down.size):
        return (rows, columns), np.zeros((down.size, across.size), np.float32)
    opacity = sigmoid(_combine(prototypes[:, rows, columns], coefficients))
    opacity *= across
    opacity *= down[:, np.newaxis]
    return (rows, columns), opacity


def _coverage(low: float, high: float, count: int) -> tuple[slice, NDArray[np.float32]]:
    """The cells that [low, high) touches, and how much of each."""
    first, last = max(0, math.floor(low)), min(count, math.ceil(high))
    edges = np.arange(first, max(first, last) + 1, dtype=np.float32)
    np.minimum(np.maximum(edges, low, out=edges), high, out=edges)
    return slice(first, max(first, last)), edges[1:] - edges[:-1]


def _combine(window: Floats, coefficients: NDArray[np.float32]) -> NDArray[np.float32]:
    # einsum, not BLAS: a multi-threaded product beside a busy session waits 8 to 16 ms for its workers. It also takes
    # the window as it lies, where a product would copy it first.
    return np.einsum("m,myx->yx", coefficients, window.astype(np.float32, copy=False))


def fill_unsure(opacity: NDArray[np.float32]) -> None:
    """Fill, in place, what is unsure and lies deep within the subject: a badge on a chest, glasses.

    A hole is filled where it is deep, is no larger than twice the depth squared, and has no clear cell. A gap between
    limbs is not: limbs are thinner than that, and what shows through a wide gap is clear. What is half sure that deep,
    away from the holes that stay, is filled too.

    Args:
        opacity: (h, w) float32 in [0, 1].
    """
    # A frame of what shows joins all that the picture cuts off; from there the fill reaches whatever is outside.
    shows = cv2.copyMakeBorder((opacity < _SHOWS).view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=_HOLE)
    cv2.floodFill(shows, None, (0, 0), _OUTSIDE, flags=8)
    shows = shows[1:-1, 1:-1]
    depth = max(1, round(_DEEP * min(opacity.shape)))
    deep = _eroded(shows != _OUTSIDE, depth)
    holes = (shows == _HOLE).view(np.uint8)
    if holes.any():
        _, labels, stats, _ = cv2.connectedComponentsWithStats(holes, connectivity=8, ltype=cv2.CV_16U)
        for label, (left, top, across, down, area) in enumerate(stats[1:].tolist(), start=1):
            window = slice(top, top + down), slice(left, left + across)
            part = labels[window] == label
            if area <= 2 * depth**2 and deep[window][part].all() and opacity[window][part].min() >= _CLEAR:
                opacity[window][part] = 1
        deep = _eroded(opacity >= _SHOWS, depth)
    opacity[deep] = 1


def _eroded(inside: NDArray[np.bool_], depth: int) -> NDArray[np.bool_]:
    """What lies further than `depth` cells, counted along either side, within `inside`; the border is no end of it."""
    side = 2 * depth + 1
    return cv2.erode(inside.view(np.uint8), np.ones((side, side), np.uint8)).view(np.bool_)


def fit_frame(plane: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """The part of a plane over the network's input that the frame covers, at the same scale.

    Args:
        plane: (mh, mw) float32 covering the whole input.
        placement: of the frame in it.

    Returns:
        (h, w) float32 covering exactly the whole frame; a view where the frame lies on whole cells.
    """
    rows, columns = plane.shape
    cell_x, cell_y = columns / placement.input_wh[0], rows / placement.input_wh[1]
    left, top = placement.left * cell_x, placement.top * cell_y
    width = placement.frame_wh[0] * placement.scale_xy[0] * cell_x
    height = placement.frame_wh[1] * placement.scale_xy[1] * cell_y
    if all(float(value).is_integer() for value in (left, top, width, height)):
        return plane[int(top) : int(top + height), int(left) : int(left + width)]
    out_wh = (max(1, round(width)), max(1, round(height)))
    step_x, step_y = width / out_wh[0], height / out_wh[1]
    matrix = np.array([[step_x, 0, left + 0.5 * step_x - 0.5], [0, step_y, top + 0.5 * step_y - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(plane, matrix, out_wh, flags=flags, borderMode=cv2.BORDER_REPLICATE)
