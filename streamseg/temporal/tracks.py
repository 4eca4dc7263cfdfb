"""Identities for instances from frame to frame: association in two rounds, as in ByteTrack, by elapsed time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tracker"]

Floats = NDArray[np.float64]

# Overlap that is enough for a sure instance and for an unsure one.
_SURE_IOU, _UNSURE_IOU = 0.15, 0.4
# A car and a truck are taken for one another; what is matched across classes must overlap by this much more.
_OTHER_CLASS = 0.25
# The speed of what is not seen is worth half after this.
_SPEED_HALF_LIFE_S = 0.5
# Speeds are averaged over this.
_SPEED_OVER_S = 0.2


@dataclass(slots=True)
class _Track:
    number: int
    class_id: int
    box: Floats
    velocity: Floats
    sights: int = 1
    unseen_s: float = 0.0


class Tracker:
    """Gives each instance a number that it keeps while it is seen, and for a while after.

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
        """Number the instances of the next frame.

        Args:
            boxes: (n, 4) xyxy px.
            scores: (n,) in [0, 1].
            class_ids: (n,).
            dt_s: seconds since the frame before; 0 where that has nothing to do with this one: tracks end there.

        Returns:
            (n,) numbers from 1; 0 where an instance has none, or not yet.
        """
        if dt_s == 0:
            self._tracks = []
        for track in self._tracks:
            track.unseen_s += dt_s
            track.box = track.box + track.velocity * dt_s
            if track.unseen_s > dt_s:
                track.velocity = track.velocity * 0.5 ** (dt_s / _SPEED_HALF_LIFE_S)
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
                self._tracks.append(_Track(self._next, int(class_ids[index]), box, np.zeros(4)))
                if dt_s == 0 or self._sights <= 1:
                    numbers[index] = self._next
                self._next += 1
        return numbers


def _see(track: _Track, box: Floats, class_id: int) -> None:
    """`track.box` is where it was expected after `track.unseen_s`."""
    if track.unseen_s > 0:
        share = min(1.0, track.unseen_s / (_SPEED_OVER_S + track.unseen_s))
        track.velocity = track.velocity + share * (box - track.box) / track.unseen_s
    track.box, track.class_id = box, class_id
    track.sights += 1
    track.unseen_s = 0.0


def _match(
    boxes: NDArray[np.floating], class_ids: NDArray[np.integer], tracks: list[_Track], least: float
) -> list[tuple[int, int]]:
    """(instance, track) pairs, the best overlap first; each at most once."""
    if not len(boxes) or not tracks:
        return []
    theirs = np.stack([track.box for track in tracks])
    low = np.maximum(boxes[:, None, :2], theirs[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], theirs[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(each[:, 2:] - each[:, :2], 0, None).prod(axis=1) for each in (boxes, theirs)]
    overlap = both / np.maximum(areas[0][:, None] + areas[1][None, :] - both, 1e-9)
    overlap -= _OTHER_CLASS * (class_ids[:, None] != np.array([track.class_id for track in tracks])[None, :])
    pairs: list[tuple[int, int]] = []
    while overlap.size:
        row, column = divmod(int(overlap.argmax()), overlap.shape[1])
        if overlap[row, column] < least:
            break
        pairs.append((row, column))
        overlap[row, :] = -1
        overlap[:, column] = -1
    return pairs
