"""Masks from prototypes and coefficients: logits, per-box masks at the frame's scale, and the union at the prototypes'.

Coordinates follow pixel centres: sample i of a grid lies at i + 0.5 of the length that the grid covers.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.pixels.letterbox import Placement

__all__ = ["box_mask", "fit_frame", "sigmoid", "union_probability"]

Floats = NDArray[np.floating]
_SEARCH = 8


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), without overflow."""
    out = cv2.exp(np.minimum(-logits, np.float32(80)))
    out += 1
    return np.divide(np.float32(1), out, out=out)


def box_mask(
    prototypes: Floats, coefficients: NDArray[np.float32], box: NDArray[np.float32], placement: Placement
) -> tuple[tuple[int, int], NDArray[np.uint8]]:
    """One instance's mask within its box, at the frame's scale, thresholded after upsampling.

    Args:
        prototypes: (m, mh, mw), covering the network's whole input.
        coefficients: (m,) float32.
        box: (4,) xyxy in frame px.
        placement: of the frame in the input.

    Returns:
        The (x, y) of the region's first pixel, and the region (h, w) uint8 of 0 and 1. It holds the pixels whose index
        lies within the box, and is empty (0 rows or columns) for an empty box.
    """
    _, rows, columns = prototypes.shape
    cell_wh = (placement.input_wh[0] / columns, placement.input_wh[1] / rows)
    x = _axis(box[0], box[2], placement.frame_wh[0], placement.left, placement.width, cell_wh[0], columns)
    y = _axis(box[1], box[3], placement.frame_wh[1], placement.top, placement.height, cell_wh[1], rows)
    if x.size == 0 or y.size == 0:
        return (x.first, y.first), np.zeros((y.size, x.size), np.uint8)
    logits = _logits(prototypes[:, y.cells, x.cells], coefficients)
    grown = cv2.resize(logits, None, fx=1 / x.scale, fy=1 / y.scale, interpolation=cv2.INTER_LINEAR)
    if grown.shape[0] < y.skip + y.size or grown.shape[1] < x.skip + x.size:
        # The length of the result is rounded down where the cells end with the frame.
        grown = cv2.copyMakeBorder(grown, 0, 1, 0, 1, cv2.BORDER_REPLICATE)
    region = grown[y.skip : y.skip + y.size, x.skip : x.skip + x.size]
    return (x.first, y.first), np.greater(region, 0).view(np.uint8)


class _axis:  # noqa: N801 - thin version
    def __init__(self, low: float, high: float, side: int, offset: int, length: int, cell: float, count: int) -> None:
        self.first = max(0, math.ceil(float(low)))
        self.size = max(0, min(side, math.ceil(float(high))) - self.first)
        self.scale = length / side / cell  # cells a frame pixel
        start = ((self.first + 0.5) * self.scale) + offset / cell - 0.5
        end = ((self.first + self.size - 0.5) * self.scale) + offset / cell - 0.5
        lowest = max(0, math.floor(start))
        last = min(count, math.floor(end) + 2)
        best = lowest
        gap = 2.0
        for cell_index in range(lowest, max(-1, lowest - _SEARCH), -1):
            position = (cell_index - offset / cell) / self.scale
            error = abs(position - round(position))
            if error < gap - 1e-6:
                best, gap = cell_index, error
        self.cells = slice(best, last)
        self.skip = self.first - round((best - offset / cell) / self.scale)


def _logits(window: Floats, coefficients: NDArray[np.float32]) -> NDArray[np.float32]:
    # einsum, not BLAS: a multi-threaded product beside a busy session waits 8 to 16 ms for its workers.
    if window.dtype != np.float32:
        window = window.astype(np.float32)
    return np.einsum("m,myx->yx", coefficients, window)


def union_probability(
    prototypes: Floats, coefficients: NDArray[np.float32], boxes: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The highest mask probability at every prototype cell, each instance within its box.

    Args:
        prototypes: (m, mh, mw).
        coefficients: (n, m) float32.
        boxes: (n, 4) xyxy in cells.

    Returns:
        (mh, mw) float32 in [0, 1].
    """
    _, rows, columns = prototypes.shape
    union = np.full((rows, columns), -80, np.float32)
    for vector, (x1, y1, x2, y2) in zip(coefficients, boxes.tolist(), strict=True):
        window = (
            slice(max(0, math.floor(y1 - 1)), min(rows, math.ceil(y2 + 1))),
            slice(max(0, math.floor(x1 - 1)), min(columns, math.ceil(x2 + 1))),
        )
        part = union[window]
        np.maximum(part, _logits(prototypes[:, *window], vector), out=part)
    return sigmoid(union)


def fit_frame(plane: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """The part of a plane over the network's input that the frame covers, at the same scale.

    Args:
        plane: (mh, mw) float32 covering the whole input.
        placement: of the frame in it.

    Returns:
        (h, w) float32 covering exactly the whole frame; a view where no interpolation is needed.
    """
    rows, columns = plane.shape
    scale_x, scale_y = columns / placement.input_wh[0], rows / placement.input_wh[1]
    left, top = placement.left * scale_x, placement.top * scale_y
    width, height = placement.width * scale_x, placement.height * scale_y
    if all(value == int(value) for value in (left, top, width, height)):
        return plane[int(top) : int(top + height), int(left) : int(left + width)]
    out_wh = (max(1, round(width)), max(1, round(height)))
    step_x, step_y = width / out_wh[0], height / out_wh[1]
    matrix = np.array([[step_x, 0, left + 0.5 * step_x - 0.5], [0, step_y, top + 0.5 * step_y - 0.5]])
    return cv2.warpAffine(
        plane, matrix, out_wh, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
