"""Identities for instances from frame to frame: association in two rounds, as in ByteTrack, by elapsed time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["BuiltinTracker", "Tracker"]

Floats = NDArray[np.float64]

# Overlap that is enough for a sure instance and for an unsure one.
_SURE_IOU, _UNSURE_IOU = 0.1, 0.4
# A car and a truck are taken for one another; what is matched across classes must overlap by this much more.
_OTHER_CLASS = 0.25
# Networks see some things twice for a moment: a track of this age has so much overlap in advance of a new one.
_ELDER_S, _ELDER = 1.0, 0.4
# The speed of what is not seen is worth half after this.
_SPEED_HALF_LIFE_S = 2.0
# Standard deviations as shares of an object's size: of a seen side; of a speed before it is known, a second; and of
# what a speed changes by in one.
_SIGHT_NOISE, _FIRST_SPEED, _PUSH = 0.1, 3.0, 1.0
_LEAST_SIZE_PX = 4.0


class Tracker(Protocol):
    """Gives each instance a number that it keeps while it is seen, and for a while after."""

    def __call__(
        self, boxes: NDArray[np.floating], scores: NDArray[np.floating], class_ids: NDArray[np.integer], dt_s: float
    ) -> NDArray[np.int64]:
        """Number the instances of the next frame.

        Args:
            boxes: (n, 4) xyxy px.
            scores: (n,) in [0, 1].
            class_ids: (n,).
            dt_s: seconds since the frame before; 0 where that has nothing to do with this one: tracks end there.

        Returns:
            (n,) numbers from 1, none given twice; 0 where an instance has none, or not yet.
        """
        ...


@dataclass(slots=True)
class _Track:
    """A Kalman filter of constant speed for every side of a box.

    The sides share their uncertainty: `spread` holds the variance of a side, its covariance with the speed, and the
    speed's variance (px², px²/s, px²/s²).
    """

    number: int
    class_id: int
    box: Floats
    velocity: Floats
    spread: tuple[float, float, float]
    sights: int = 1
    age_s: float = 0.0
    unseen_s: float = 0.0


class BuiltinTracker:
    """A `Tracker` that needs nothing but NumPy.

    Sure instances are matched with all tracks first, by their overlap with where each track should be by now; then the
    less sure ones with the tracks that are left. Only sure instances begin a track.

    Args:
        sure: score from which an instance may begin a track, in [0, 1].
        lasts_s: how long a track outlives its last sight.
        sights: before a number is told; in a still picture it is told at once.
    """

    def __init__(self, *, sure: float = 0.4, lasts_s: float = 1.5, sights: int = 2) -> None:
        self._sure = sure
        self._lasts_s = lasts_s
        self._sights = sights
        self._tracks: list[_Track] = []
        self._next = 1

    def __call__(
        self, boxes: NDArray[np.floating], scores: NDArray[np.floating], class_ids: NDArray[np.integer], dt_s: float
    ) -> NDArray[np.int64]:
        """See `Tracker`."""
        if dt_s == 0:
            self._tracks = []
        for track in self._tracks:
            _move(track, dt_s)
        numbers = np.zeros(len(boxes), np.int64)
        sure = np.flatnonzero(scores >= self._sure)
        free = self._tracks
        taken: set[int] = set()
        for candidates, least in ((sure, _SURE_IOU), (np.flatnonzero(scores < self._sure), _UNSURE_IOU)):
            pairs = _match(boxes[candidates], class_ids[candidates], free, least)
            for row, column in pairs:
                index, track = int(candidates[row]), free[column]
                _see(track, boxes[index].astype(np.float64), int(class_ids[index]))
                taken.add(index)
                if track.sights >= self._sights:
                    numbers[index] = track.number
            matched = {column for _, column in pairs}
            free = [track for column, track in enumerate(free) if column not in matched]
        self._tracks = [track for track in self._tracks if track.unseen_s <= self._lasts_s]
        for index in sure.tolist():
            if index not in taken:
                box = boxes[index].astype(np.float64)
                size = _size(box)
                spread = ((_SIGHT_NOISE * size) ** 2, 0.0, (_FIRST_SPEED * size) ** 2)
                self._tracks.append(_Track(self._next, int(class_ids[index]), box, np.zeros(4), spread))
                if dt_s == 0 or self._sights <= 1:
                    numbers[index] = self._next
                self._next += 1
        return numbers


def _size(box: Floats) -> float:
    """Half of width and height, px."""
    return max(_LEAST_SIZE_PX, float(box[2] - box[0] + box[3] - box[1]) / 2)


def _move(track: _Track, dt_s: float) -> None:
    """The filter's prediction; white noise pushes the speed (Bar-Shalom et al., 2001, 6.2.2)."""
    side, both, speed = track.spread
    push = (_PUSH * _size(track.box)) ** 2
    track.spread = (
        side + 2 * both * dt_s + speed * dt_s**2 + push * dt_s**3 / 3,
        both + speed * dt_s + push * dt_s**2 / 2,
        speed + push * dt_s,
    )
    if track.unseen_s > 0:
        # It keeps its size: what went behind something shrank on its way, and would shrink to nothing.
        middle = track.velocity.reshape(2, 2).mean(axis=0)
        track.velocity = np.tile(middle, 2) * 0.5 ** (dt_s / _SPEED_HALF_LIFE_S)
    track.box = track.box + track.velocity * dt_s
    track.unseen_s += dt_s
    track.age_s += dt_s


def _see(track: _Track, box: Floats, class_id: int) -> None:
    """The filter's correction."""
    side, both, speed = track.spread
    noise = (_SIGHT_NOISE * _size(box)) ** 2
    gain, speed_gain = side / (side + noise), both / (side + noise)
    apart = box - track.box
    track.box = track.box + gain * apart
    track.velocity = track.velocity + speed_gain * apart
    track.spread = ((1 - gain) * side, (1 - gain) * both, speed - speed_gain * both)
    track.class_id = class_id
    track.sights += 1
    track.unseen_s = 0.0


def _match(
    boxes: NDArray[np.floating], class_ids: NDArray[np.integer], tracks: list[_Track], least: float
) -> list[tuple[int, int]]:
    """(instance, track) pairs, the best overlap and the older track first; each at most once."""
    if not len(boxes) or not tracks:
        return []
    theirs = np.stack([track.box for track in tracks])
    low = np.maximum(boxes[:, None, :2], theirs[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], theirs[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(each[:, 2:] - each[:, :2], 0, None).prod(axis=1) for each in (boxes, theirs)]
    overlap = both / np.maximum(areas[0][:, None] + areas[1][None, :] - both, 1e-9)
    overlap -= _OTHER_CLASS * (class_ids[:, None] != np.array([track.class_id for track in tracks])[None, :])
    worth = overlap + _ELDER * np.array([min(track.age_s / _ELDER_S, 1.0) for track in tracks])
    worth[overlap < least] = -np.inf
    pairs: list[tuple[int, int]] = []
    while True:
        row, column = divmod(int(worth.argmax()), worth.shape[1])
        if worth[row, column] == -np.inf:
            return pairs
        pairs.append((row, column))
        worth[row, :] = -np.inf
        worth[:, column] = -np.inf
