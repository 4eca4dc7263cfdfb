"""Whether what looks like a lane is one: a picture of anything has bright ridges, and some of them line up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane
from streamseg.lanes.markings import BirdsEye, Points
from streamseg.lanes.model import CURVATURE, HEADING, MIDDLE, PITCH, WIDTH, line_place

__all__ = ["plausible", "quality", "whole"]

# What roads reach and other pictures do not: of the score, of the share of paint that lies on the two lines, of the
# surface's unevenness; taken from photographs with and without roads.
_SCORE, _SHARE, _UNEVEN = 8.0, 0.45, 0.15
_MOST_TINT = 16
# Paint in a line inside the lane, as a share of its lines' own: an arrow or a seam, and the line of another lane.
_INSIDE, _DIVIDED = 0.6, 1.0
# Mean weight of the plainer line's paint that leaves doubt, and none.
_FAINT, _PLAIN = 0.4, 0.55
# Below this luma (video range) nothing can be told from black.
_BLACK = 22


def plausible(shape: NDArray[np.float64], *, held: bool = False) -> bool:
    """Whether a shape can be a lane: of a width that is driven on, with the camera in or near it.

    A lane that is `held` may be left at a steeper angle than one that is met.
    """
    return bool(
        1.1 < shape[WIDTH] < 5.5
        and abs(shape[MIDDLE]) < 0.75 * shape[WIDTH]
        and abs(shape[HEADING]) < (0.45 if held else 0.2)
        and abs(shape[CURVATURE]) < 0.03
        and abs(shape[PITCH]) < 0.12
    )


def quality(view: BirdsEye, luma: Plane, u: Plane, points: Points, shape: NDArray[np.float64], score: float) -> float:
    """How much like a marked road this is: 1 is a poor one, clear ones reach 5 and more, other pictures stay below 0.7.

    Args:
        view: of the road.
        luma: what it shows, (rows, columns) uint8.
        u: the same.
        points: paint.
        shape: of the lane, see `lanes.model`.
        score: of the shape, see `lanes.search`.
    """
    place = line_place(shape, points) / shape[WIDTH]
    inside = np.abs(place) < 0.62
    on = inside & (np.abs(np.abs(place) - 0.5) < 0.06)
    total = float(points.weight[inside].sum())
    if total == 0:
        return 0.0
    share = float(points.weight[on].sum()) / total
    # At least one of the lines is paint beyond doubt: ruts in snow make two even lines, and both are faint.
    sides = [points.weight[on & (place * side > 0)] for side in (-1, 1)]
    plain = max(float(weight.mean()) if len(weight) else 0.0 for weight in sides)
    share *= min(max((plain - _FAINT) / (_PLAIN - _FAINT), 0.0), 1.0)

    rows = np.arange(0, len(view.y) * 7 // 10, 3)
    down = np.maximum(view.y[rows] + shape[PITCH], 0.02)
    middle = (shape[MIDDLE] * down + shape[HEADING] + shape[CURVATURE] / down) / view.y[rows]
    places = middle[:, None] + shape[WIDTH] * np.linspace(-0.4, 0.4, 33)[None, :]
    step = view.across[1] - view.across[0]
    columns = np.rint((places - view.across[0]) / step).astype(np.intp)
    seen = (columns >= 0) & (columns < len(view.across))
    columns = np.clip(columns, 0, len(view.across) - 1)
    seen &= view.inside[rows[:, None], columns]
    whole = seen.mean(axis=1) > 0.7
    if np.count_nonzero(whole) < 6:
        return 0.0
    surface = luma[rows[whole, None], columns[whole]].astype(np.float32)
    tint = abs(float(np.median(u[rows[whole, None], columns[whole]])) - 128)
    level = float(np.median(surface))
    if tint > _MOST_TINT or level < _BLACK:
        return 0.0
    uneven = float(np.median(surface.std(axis=1))) / level
    return score / _SCORE * share / _SHARE * float(np.sqrt(_UNEVEN / max(uneven, 0.05)))


def whole(points: Points, shape: NDArray[np.float64]) -> float:
    """In [0, 1]: 0 for a lane with a line in its middle, which is two lanes.

    Args:
        points: paint, best of a moment: the line in the middle may be dashed.
        shape: of the lane, see `lanes.model`.
    """
    place = line_place(shape, points) / shape[WIDTH]
    sides = [float(points.weight[np.abs(place - side) < 0.06].sum()) for side in (-0.5, 0.5)]
    within, _ = np.histogram(place, np.linspace(-0.36, 0.36, 13), weights=points.weight)
    divided = float((within[1:] + within[:-1]).max()) / max(float(np.sqrt(sides[0] * sides[1])), 1e-6)
    return min(max((_DIVIDED - divided) / (_DIVIDED - _INSIDE), 0.0), 1.0)
