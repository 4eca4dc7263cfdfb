"""Scores of lane detections against ground truth, as the data sets' own tools define them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import linear_sum_assignment

Line = NDArray[np.floating]  # (n, 2) px


def draw(line: Line, size_wh: tuple[int, int], width_px: int) -> NDArray[np.uint8]:
    """The line as CULane's tool draws it: a spline through its points, `width_px` wide."""
    mask = np.zeros(size_wh[::-1], np.uint8)
    order = np.argsort(line[:, 1])
    y, first = np.unique(line[order, 1], return_index=True)
    x = line[order, 0][first]
    if len(y) >= 3:
        rows = np.linspace(y[0], y[-1], 200)
        x, y = CubicSpline(y, x)(rows), rows
    points = np.rint(np.stack([x, y], 1) * 16).astype(np.int32)
    cv2.polylines(mask, [points], False, 1, width_px, cv2.LINE_8, 4)
    return mask


def culane_counts(
    found: Sequence[Line], truth: Sequence[Line], size_wh: tuple[int, int], iou: float, width_px: int = 30
) -> tuple[int, int, int]:
    """(true positives, false positives, false negatives) of one picture."""
    if not found or not truth:
        return 0, len(found), len(truth)
    ours, theirs = ([draw(line, size_wh, width_px) > 0 for line in lines] for lines in (found, truth))
    overlap = np.array([[(a & b).sum() / max(1, (a | b).sum()) for b in theirs] for a in ours])
    rows, columns = linear_sum_assignment(-overlap)
    hits = int((overlap[rows, columns] > iou).sum())
    return hits, len(found) - hits, len(truth) - hits


def f1(hits: int, false: int, missed: int) -> float:
    return 2 * hits / max(1, 2 * hits + false + missed)


def tusimple_accuracy(found: Sequence[Line], truth: Sequence[Line]) -> tuple[float, float, float]:
    """(accuracy, false positives a detection, false negatives a lane) of one picture, without the limit on lanes.

    A point is right within 20 px / cos(angle of the lane), a lane at 85 % of its points.
    """
    if not truth:
        return 1.0, float(bool(found)), 0.0
    best, matched = [], 0
    for lane in truth:
        slope = np.polyfit(lane[:, 1], lane[:, 0], 1)[0]
        limit = 20 / np.cos(np.arctan(slope))
        shares = [0.0]
        for line in found:
            order = np.argsort(line[:, 1])
            x = np.interp(lane[:, 1], line[order, 1], line[order, 0], left=-1e6, right=-1e6)
            shares.append(float((np.abs(x - lane[:, 0]) < limit).mean()))
        best.append(max(shares))
        matched += max(shares) >= 0.85
    false = (len(found) - matched) / len(found) if found else 0.0
    return float(np.mean(best)), max(0.0, false), (len(truth) - matched) / len(truth)


def iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[int, int]:
    """(intersection, union) in px, to be summed over a set."""
    return int((found & truth).sum()), int((found | truth).sum())
