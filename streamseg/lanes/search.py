"""A lane from nothing: every heading, bend and pitch is tried, and paint votes for where the lines lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamseg.lanes.markings import Points

__all__ = ["score", "search"]

Floats = NDArray[np.float64]

_STEP = 0.06
_REACH = 4.2
_BINS = round(2 * _REACH / _STEP)
_HEADINGS = np.linspace(-0.06, 0.06, 9)
_CURVATURES = np.linspace(-0.012, 0.012, 13)
_PITCHES = np.linspace(-0.06, 0.06, 5)
# Nearly straight and level roads are the rule.
_PRIOR = np.exp(-0.5 * ((_HEADINGS[:, None] / 0.06) ** 2 + (_CURVATURES[None, :] / 0.01) ** 2)).ravel()
_PLACES = (np.arange(_BINS) + 0.5) * _STEP - _REACH
# Most cameras hang 1.1 to 1.5 m above lanes of 2.7 to 3.7 m.
_USUAL_WIDTH, _WIDTH_SPREAD = 2.7, 0.75
_NARROWEST, _WIDEST = 1.3, 5.2
_USUAL = np.exp(-0.5 * ((np.abs(_PLACES) - _USUAL_WIDTH / 2) / 0.8) ** 2)
_HALF = _BINS // 2
# Paint this near to a line belongs to it.
_MARGIN = 4
_WIDTHS = _PLACES[None, _HALF:] - _PLACES[:_HALF, None]
_MIDDLES = (_PLACES[None, _HALF:] + _PLACES[:_HALF, None]) / 2
_PAIR_PRIOR = np.where(
    (_WIDTHS >= _NARROWEST) & (_WIDTHS <= _WIDEST),
    np.exp(-0.5 * ((_WIDTHS - _USUAL_WIDTH) / _WIDTH_SPREAD) ** 2 - 0.5 * (_MIDDLES / 0.7) ** 2),
    0,
)


def search(points: Points) -> tuple[Floats, float] | None:
    """The shape (see `lanes.model`) of the car's lane that most paint agrees on, and its score; None without one."""
    if len(points) < 12:
        return None
    heading, curvature = (g.ravel().astype(np.float32) for g in np.meshgrid(_HEADINGS, _CURVATURES, indexing="ij"))
    best: tuple[Floats, float] | None = None
    for pitch in _PITCHES:
        votes = _votes(points, heading, curvature, float(pitch))
        wanted = votes * _USUAL
        left, right = wanted[:, : _BINS // 2].max(axis=1), wanted[:, _BINS // 2 :].max(axis=1)
        prior = _PRIOR * np.exp(-0.5 * (pitch / 0.06) ** 2)
        for combination in np.argsort(-np.sqrt(left * right) * prior)[:3]:
            score, middle, width = _pair(votes[combination], _PAIR_PRIOR)
            score *= float(prior[combination])
            if best is None or score > best[1]:
                best = np.array([middle, width, heading[combination], curvature[combination], pitch]), score
    return best if best and best[1] > 2 else None


def score(points: Points, shape: Floats, *, held: bool = False) -> float:
    """What `search` would give for this shape.

    Args:
        points: paint.
        shape: see `lanes.model`.
        held: the lane is known to be there: being far from its middle, or at an angle to it, is nothing unusual.
    """
    _, _, heading, curvature, pitch = shape
    votes = _votes(points, np.array([heading], np.float32), np.array([curvature], np.float32), float(pitch))
    middle, width = shape[:2]
    near = np.abs(_PLACES[:, None] - (middle + width * np.array([-0.5, 0.5]))[None, :]).min(axis=1) < 0.15
    if held:
        # Both lines may lie to one side of the camera while it changes lanes: their middle is what divides them.
        shift = round(middle / _STEP)
        votes, near = np.roll(votes, -shift, axis=1), np.roll(near, -shift)
        return _pair(votes[0], (near[:_HALF, None] & near[None, _HALF:]).astype(float))[0]
    prior = np.exp(-0.5 * ((heading / 0.06) ** 2 + (curvature / 0.01) ** 2 + (pitch / 0.06) ** 2))
    return _pair(votes[0], _PAIR_PRIOR * (near[:_HALF, None] & near[None, _HALF:]))[0] * float(prior)


def _votes(points: Points, heading: NDArray[np.float32], curvature: NDArray[np.float32], pitch: float) -> Floats:
    """(combinations, bins) paint by its place across the road, with every heading and curvature taken out."""
    down = points.y + np.float32(pitch)
    usable = down > 0.02
    weight = points.weight[usable]
    inverse = 1 / down[usable]
    across = (points.x[usable] * inverse)[None, :] - heading[:, None] * inverse - curvature[:, None] * inverse**2
    bins = ((across + _REACH) * np.float32(1 / _STEP)).astype(np.int32)
    outside = (bins < 0) | (bins >= _BINS)
    bins += np.arange(len(heading), dtype=np.int32)[:, None] * _BINS
    bins[outside] = len(heading) * _BINS
    flat = np.bincount(bins.ravel(), np.broadcast_to(weight, bins.shape).ravel(), len(heading) * _BINS + 1)
    votes: Floats = flat[:-1].reshape(len(heading), _BINS).astype(np.float64)
    smooth = votes.copy()
    smooth[:, 1:] += 0.7 * votes[:, :-1]
    smooth[:, :-1] += 0.7 * votes[:, 1:]
    return smooth


def _pair(votes: Floats, prior: Floats) -> tuple[float, float, float]:
    """The best two lines of which the lane may consist: (score, middle, width).

    A lane has no line inside: of a kerb and the line before it, the line is the lane's.

    Args:
        votes: (bins,).
        prior: (bins / 2, bins / 2) of a line in the left half with one in the right.
    """
    inner_left = np.maximum.accumulate(votes[_HALF - 1 :: -1])[::-1]
    inner_right = np.maximum.accumulate(votes[_HALF:])
    none = np.zeros(_MARGIN)
    inside = np.maximum(
        np.concatenate([inner_left[_MARGIN:], none])[:, None], np.concatenate([none, inner_right[:-_MARGIN]])[None, :]
    )
    strength = np.sqrt(votes[:_HALF, None] * votes[None, _HALF:])
    score = strength * prior * (1 - 0.75 * np.minimum(inside / np.maximum(strength, 1e-6), 1))
    row, column = divmod(int(score.argmax()), score.shape[1])
    return float(score[row, column]), float(_MIDDLES[row, column]), float(_WIDTHS[row, column])
