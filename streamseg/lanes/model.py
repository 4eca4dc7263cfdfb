"""The shape of a lane in the picture: five numbers for both of its lines, and the fit to places of paint.

On a plane road a line ``c`` to the right of the camera (in heights of the camera) lies, `y` below the horizon, at

    x = c * (y + pitch) + heading + curvature / (y + pitch)

all in picture heights from the vanishing point: straight lines meet in it, bends are hyperbolas. Both lines share
heading, curvature and pitch, so that a solid line on one side helps a dashed one on the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamseg.lanes.markings import Points

__all__ = ["CURVATURE", "HEADING", "MIDDLE", "PITCH", "WIDTH", "Fit", "fit", "line_place", "line_x"]

Floats = NDArray[np.floating]

# Indices into a shape: the lane's middle and width in camera heights, then what both lines share.
MIDDLE, WIDTH, HEADING, CURVATURE, PITCH = range(5)

# A place of paint is right to so much across the road (camera heights), and to so much in the picture (heights).
_SIGMA_ROAD, _SIGMA_PICTURE = 0.045, 0.0018
# Places of one marking err together: a hundred of them are not a hundred measurements.
_INDEPENDENT = 0.12
_NEAREST_TO_HORIZON = 0.012
# Places farther from both lines than this, in camera heights across the road, are on neither.
_GATE = 0.3
# Of reweighting; the gate narrows to its width from one to the next.
_ROUNDS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A shape fitted to places of paint.

    Attributes:
        shape: (5,).
        information: (5, 5), the inverse covariance that the places alone give.
        sides: -1, 0, 1 for each place: on the left line, on none, on the right one.
        support: (left, right) rows with paint on the line, beyond what chance would put there.
    """

    shape: NDArray[np.float64]
    information: NDArray[np.float64]
    sides: NDArray[np.int8]
    support: tuple[float, float]


def line_x(shape: Floats, place: float, y: Floats) -> NDArray[np.float64]:
    """Where a line is at `y`, both in picture heights from the vanishing point.

    Args:
        shape: of the lane.
        place: of the line across the road, in camera heights from the lane's middle; +-width / 2 are its own lines.
        y: down from the vanishing point.
    """
    down = np.maximum(y + shape[PITCH], _NEAREST_TO_HORIZON)
    x: NDArray[np.float64] = (shape[MIDDLE] + place) * down + shape[HEADING] + shape[CURVATURE] / down
    return x


def line_place(shape: Floats, points: Points) -> NDArray[np.float64]:
    """How far from the lane's middle each place of paint lies across the road, in camera heights."""
    down = np.maximum(points.y + shape[PITCH], _NEAREST_TO_HORIZON)
    place: NDArray[np.float64] = (points.x - shape[HEADING] - shape[CURVATURE] / down) / down - shape[MIDDLE]
    return place


def fit(points: Points, start: Floats, prior: Floats, prior_information: Floats) -> Fit:
    """Fit a shape by iteratively reweighted least squares (Cauchy), beginning at `start`.

    Args:
        points: places of paint.
        start: (5,) shape.
        prior: (5,) what is known before,
        prior_information: (5, 5) and how well.
    """
    shape = np.array(start, np.float64)
    x, y = points.x.astype(np.float64), points.y.astype(np.float64)
    information = np.zeros((5, 5))
    for turn in range(_ROUNDS):
        down = np.maximum(y + shape[PITCH], _NEAREST_TO_HORIZON)
        middle = shape[MIDDLE] * down + shape[HEADING] + shape[CURVATURE] / down
        side = np.where(x > middle, 0.5, -0.5)
        residual = x - middle - side * shape[WIDTH] * down
        across = np.abs(residual) / down
        near = across < _GATE * (2.0 - turn / (_ROUNDS - 1))
        variance = (_SIGMA_ROAD * down) ** 2 + _SIGMA_PICTURE**2
        weight = np.where(near, points.weight * _INDEPENDENT / (variance + residual**2 / 2), 0)
        place = shape[MIDDLE] + side * shape[WIDTH]
        jacobian = np.stack([down, side * down, np.ones_like(down), 1 / down, place - shape[CURVATURE] / down**2])
        weighted = jacobian * weight
        information = weighted @ jacobian.T
        right = weighted @ residual + prior_information @ (prior - shape)
        shape = shape + np.linalg.solve(information + prior_information, right)
    return _judge(points, shape, information)


def _judge(points: Points, shape: NDArray[np.float64], information: NDArray[np.float64]) -> Fit:
    down = np.maximum(points.y + shape[PITCH], _NEAREST_TO_HORIZON)
    sides = np.zeros(len(points), np.int8)
    support = []
    for side in (-1, 1):
        off = (points.x - line_x(shape, side * shape[WIDTH] / 2, points.y)) / down
        reach = np.hypot(0.1, 0.004 / down)
        on = np.abs(off) < reach
        sides[on] = side
        paint = np.bincount(points.row[on], points.weight[on], points.rows)
        found = float(np.minimum(paint, 1).sum())
        beside = (np.abs(off) > 2 * reach) & (np.abs(off) < 5 * reach)
        chance = float(points.weight[beside].sum()) / 3
        support.append(found - chance - 2 * np.sqrt(chance))
    return Fit(shape, information, sides, (support[0], support[1]))
