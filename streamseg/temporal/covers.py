"""What must stay covered although the network missed it: sightings of one track are carried to the frames between.

Live: `HeldCovers` covers what was seen a moment ago. Files, in two passes: `SightingStore` takes in what a first pass
saw, `PlannedCovers` knows what comes later, and so covers the frames before and after a missed detection, too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane

__all__ = ["GRID", "Cover", "HeldCovers", "PlannedCovers", "Sighting", "SightingStore", "grid_of"]

# A mask is kept in its own box, on a grid of so many cells a side.
GRID = 64
# Masks seen within this time of a frame are laid together in it: a limb that is missing once is there just before.
_STEADY_S = 0.12
# What is not seen may have moved away from where it is expected, by so many box heights a second.
_DRIFT_PER_S = 0.25
# Speeds are taken over this time.
_SPEED_OVER_S = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """An object as the network saw it.

    Attributes:
        track: its number; 0 where it has none.
        class_name: "person" and so on.
        box: (4,) xyxy px, that of the mask.
        grid: (GRID, GRID) bool, its mask over its box.
    """

    track: int
    class_name: str
    box: NDArray[np.float64]
    grid: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Cover:
    """What is to be hidden in a frame.

    Attributes:
        track, class_name: as in `Sighting`.
        box: (4,) xyxy px; it may stand out of the picture.
        grid: (GRID, GRID) bool over the box.
        grown: how far the mask is to be widened for not being seen, in box heights; 0 where it is seen.
        source: "detected", or "bridged" where the network did not see it in this frame.
    """

    track: int
    class_name: str
    box: NDArray[np.float64]
    grid: NDArray[np.bool_]
    grown: float = 0.0
    source: str = "detected"


def grid_of(mask: Plane) -> NDArray[np.bool_]:
    """(GRID, GRID) bool of an (h, w) uint8 mask of 0 and 1; a cell of which an eighth is covered counts."""
    if not mask.size:
        return np.ones((GRID, GRID), bool)
    return np.greater_equal(cv2.resize(mask * np.uint8(255), (GRID, GRID), interpolation=cv2.INTER_AREA), 32)


@dataclass(slots=True)
class _Held:
    class_name: str
    seen: list[tuple[float, NDArray[np.float64], NDArray[np.bool_]]] = field(default_factory=list)


class HeldCovers:
    """Covers for a live picture: what was seen, and what was seen until a moment ago, where it should be by now.

    Args:
        hold_s: how long something stays covered after its last sight.
    """

    def __init__(self, hold_s: float = 1.0) -> None:
        self._hold_s = hold_s
        self._tracks: dict[int, _Held] = {}
        self._at_s = 0.0

    def __call__(self, sightings: Sequence[Sighting], dt_s: float) -> list[Cover]:
        """What to hide in the next frame, `dt_s` after the one before."""
        self._at_s += dt_s
        covers = []
        for sighting in sightings:
            if not sighting.track:
                covers.append(Cover(0, sighting.class_name, sighting.box, sighting.grid))
                continue
            held = self._tracks.setdefault(sighting.track, _Held(sighting.class_name))
            held.seen.append((self._at_s, sighting.box, sighting.grid))
        for number, held in list(self._tracks.items()):
            last_s, box, _ = held.seen[-1]
            unseen_s = self._at_s - last_s
            if unseen_s > self._hold_s:
                del self._tracks[number]
                continue
            recent = [one for one in held.seen if last_s - one[0] <= _SPEED_OVER_S]
            held.seen = recent
            grid = np.logical_or.reduce([one[2] for one in recent if last_s - one[0] <= _STEADY_S])
            moved = _moved(box, recent, unseen_s)
            source = "bridged" if unseen_s > 0 else "detected"
            covers.append(Cover(number, held.class_name, moved, grid, unseen_s * _DRIFT_PER_S, source))
        return covers


def _moved(
    box: NDArray[np.float64], seen: Sequence[tuple[float, NDArray[np.float64], Any]], by_s: float
) -> NDArray[np.float64]:
    """The box after `by_s` seconds, or before: as fast as its middle moved from the first sight to the last.

    It never moves further than half its longer side: where a box jumps from one object to another, it would fly off.
    """
    span_s = seen[-1][0] - seen[0][0]
    if span_s <= 0:
        return box
    first, last = seen[0][1], seen[-1][1]
    speed = (last[:2] + last[2:] - first[:2] - first[2:]) / 2 / span_s
    reach = float((box[2:] - box[:2]).max()) / 2
    return box + np.tile(np.clip(speed * by_s, -reach, reach), 2)


_ROW = np.dtype(
    [
        ("frame", "i8"),
        ("time", "f8"),
        ("track", "i4"),
        ("class", "i2"),
        ("box", "f4", 4),
        ("grid", "u1", GRID * GRID // 8),
    ]
)


class SightingStore:
    """What a first pass saw, in a temporary file: half a kilobyte for each object and frame."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the store
        self._names: dict[str, int] = {}
        self._times: list[float] = []

    def __len__(self) -> int:
        return len(self._times)

    def add(self, sightings: Sequence[Sighting], time_s: float) -> None:
        """Take in the next frame."""
        rows = np.zeros(len(sightings), _ROW)
        for row, seen in zip(rows, sightings, strict=True):
            row["frame"], row["time"], row["track"] = len(self._times), time_s, seen.track
            row["class"] = self._names.setdefault(seen.class_name, len(self._names))
            row["box"], row["grid"] = seen.box, np.packbits(seen.grid)
        self._file.write(rows.tobytes())
        self._times.append(time_s)

    def plan(self, *, bridge_s: float = 1.5, around_s: float = 0.5) -> PlannedCovers:
        """What to cover in each of the frames; the store is used up by it.

        Args:
            bridge_s: a track that is gone for longer is not bridged.
            around_s: how long before its first sight and after its last one a track is covered, too.
        """
        self._file.flush()
        rows: NDArray[Any] = np.zeros(0, _ROW)
        if self._file.tell():
            rows = np.memmap(self._file, _ROW, "r")  # it outlives the file
        self.close()
        return PlannedCovers(rows, list(self._names), np.array(self._times), bridge_s, around_s)

    def close(self) -> None:
        """Let go of the file; plans made of it stay."""
        self._file.close()


class PlannedCovers:
    """Covers for the frames of a file that was looked at before; made by `SightingStore.plan`."""

    def __init__(
        self,
        rows: NDArray[Any],
        names: Sequence[str],
        times: NDArray[np.float64],
        bridge_s: float,
        around_s: float,
    ) -> None:
        self._rows = rows
        self._names = names
        self._times = times
        self._bridge_s = bridge_s
        self._around_s = around_s
        order = np.lexsort((rows["frame"], rows["track"]))
        tracks = rows["track"][order]
        # The rows of each track in order of time; and when it begins and ends.
        self._own = {int(number): order[tracks == number] for number in np.unique(tracks) if number}
        self._loose = order[tracks == 0]
        self._loose_frames = rows["frame"][self._loose]
        self._seen_s = {number: np.array(rows["time"][own]) for number, own in self._own.items()}
        self._numbers = np.array(list(self._own), np.int64)
        self._from_s = np.array([seen_s[0] - around_s for seen_s in self._seen_s.values()])
        self._to_s = np.array([seen_s[-1] + around_s for seen_s in self._seen_s.values()])

    def __len__(self) -> int:
        return len(self._times)

    def __call__(self, index: int) -> list[Cover]:
        """What to hide in the frame with this index.

        Raises:
            IndexError: the first pass did not reach it.
        """
        at_s = float(self._times[index])
        first, last = np.searchsorted(self._loose_frames, (index, index + 1))
        loose = [self._rows[place] for place in self._loose[first:last]]
        covers = [self._cover(row, row["box"].astype(np.float64), self._grid(row)) for row in loose]
        for number in self._numbers[(self._from_s <= at_s) & (at_s <= self._to_s)].tolist():
            found = self._of_track(number, at_s)
            if found is not None:
                covers.append(found)
        return covers

    def _of_track(self, number: int, at_s: float) -> Cover | None:
        own, seen_s = self._own[number], self._seen_s[number]
        after = int(np.searchsorted(seen_s, at_s - 1e-9))
        near = np.flatnonzero(np.abs(seen_s - at_s) <= _STEADY_S)
        around = [self._grid(self._rows[own[place]]) for place in near]
        if after < len(own) and abs(seen_s[after] - at_s) <= 1e-9:
            row = self._rows[own[after]]
            return self._cover(row, row["box"].astype(np.float64), np.logical_or.reduce(around))
        if 0 < after < len(own):
            one, two = self._rows[own[after - 1]], self._rows[own[after]]
            gap_s = float(two["time"] - one["time"])
            if gap_s > self._bridge_s:
                return self._beyond(own, seen_s, after - 1, at_s) or self._beyond(own, seen_s, after, at_s)
            share = (at_s - float(one["time"])) / gap_s
            box = (1 - share) * one["box"].astype(np.float64) + share * two["box"]
            # Within a gap it is never further than half of it from a sight.
            away_s = min(share, 1 - share) * gap_s
            grid = np.logical_or.reduce([self._grid(one), self._grid(two), *around])
            return self._cover(one, box, grid, away_s * _DRIFT_PER_S, "bridged")
        return self._beyond(own, seen_s, min(after, len(own) - 1), at_s)

    def _beyond(self, own: NDArray[np.int64], seen_s: NDArray[np.float64], place: int, at_s: float) -> Cover | None:
        """Before a sight or after it, moved as it moved there."""
        away_s = at_s - float(seen_s[place])
        if abs(away_s) > self._around_s:
            return None
        # Of the sights on the other side.
        with_it = np.flatnonzero(np.abs(seen_s - seen_s[place]) <= _SPEED_OVER_S)
        with_it = with_it[with_it <= place] if away_s > 0 else with_it[with_it >= place]
        seen = [(float(seen_s[i]), self._rows[own[i]]["box"].astype(np.float64), None) for i in with_it]
        row = self._rows[own[place]]
        moved = _moved(row["box"].astype(np.float64), seen, away_s)
        grids = [self._grid(self._rows[own[i]]) for i in with_it if abs(seen_s[i] - seen_s[place]) <= _STEADY_S]
        return self._cover(row, moved, np.logical_or.reduce(grids), abs(away_s) * _DRIFT_PER_S, "bridged")

    def _cover(
        self, row: Any, box: NDArray[np.float64], grid: NDArray[np.bool_], grown: float = 0.0, source: str = "detected"
    ) -> Cover:
        return Cover(int(row["track"]), self._names[int(row["class"])], box, grid, grown, source)

    def _grid(self, row: Any) -> NDArray[np.bool_]:
        return np.unpackbits(row["grid"]).reshape(GRID, GRID).view(bool)
