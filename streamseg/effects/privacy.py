"""People and vehicles made unrecognisable, also in frames in which the network missed them.

Live, or in one pass:

    hide = Privacy(HiddenClasses(PEOPLE | VEHICLES), then=overlay)     # `then`: another effect, painted before
    output = hide(frame, instances, dt_s)
    output.segmentation.covers        # for the audit: `cover_records`

A file, in two passes: the first looks at every frame, the second paints and needs no network of its own.

    store, seen = SightingStore(), HiddenClasses(PEOPLE)
    for frame in first: store.add(seen(segmenter(frame), dt_s), frame.seconds)
    hide = Privacy(store.plan(), then=overlay)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Frame, Output, Plane
from streamseg.lanes.events import PEOPLE, VEHICLES
from streamseg.pixels.blend import over_plane
from streamseg.pixels.planes import split
from streamseg.segment.result import CarriedInstances, InstanceMask, Instances, Segmentation
from streamseg.temporal.covers import Cover, HeldCovers, PlannedCovers, Sighting, SightingStore, grid_of
from streamseg.temporal.tracks import BuiltinTracker

__all__ = ["PEOPLE", "VEHICLES", "Hidden", "HiddenClasses", "Privacy", "SightingStore", "cover_records", "hide"]

# Score from which an object begins a track; a weaker one counts where a track expects it.
_SURE = 0.25
# Masks are widened by this share of their box's height, and at least by so many rows of a picture of 1,000.
_MARGIN, _LEAST_MARGIN = 0.035, 3 / 1000
# What is hidden is left this many cells across, and no finer than so many over the picture's height.
_CELLS_ACROSS, _CELLS_DOWN = 5, 60


@dataclass(frozen=True, slots=True, eq=False)
class Hidden:
    """What was seen, and what of it was hidden; stands in `Output.segmentation`.

    Attributes:
        seen: what the effect before gave there.
        covers: what was hidden, for the audit.
    """

    seen: Any
    covers: tuple[Cover, ...]


class HiddenClasses:
    """Turns what a network saw into sightings of some classes, with numbers; stateful, one for each pass.

    Args:
        classes: names.
    """

    def __init__(self, classes: Collection[str]) -> None:
        self._classes = frozenset(classes)
        # Missing somebody is worse than hiding a shadow: numbers are given at once, which ByteTrack does not.
        self._tracker = BuiltinTracker(sure=_SURE, sights=1)

    def __call__(self, seen: Segmentation | None, dt_s: float) -> list[Sighting]:
        """The sightings in the next frame, `dt_s` after the one before."""
        if not isinstance(seen, Instances | CarriedInstances):
            self._tracker(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), dt_s)
            return []
        wanted = [index for index, name in enumerate(seen.class_names) if name in self._classes]
        picked = seen.pick(np.isin(seen.class_ids, wanted))
        numbers = self._tracker(picked.boxes, picked.scores, picked.class_ids, dt_s).tolist()
        return [
            Sighting(number, picked.class_names[class_id], _box_of(found, box), grid_of(found.mask))
            for number, class_id, score, box, found in zip(
                numbers, picked.class_ids.tolist(), picked.scores.tolist(), picked.boxes, picked.masks(), strict=True
            )
            if number or score >= _SURE
        ]


def _box_of(found: InstanceMask, box: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where the mask lies, which is cut to whole pixels; an empty one hides its whole box."""
    if not found.mask.size:
        return np.asarray(box, np.float64)
    (left, top), (height, width) = found.offset_xy, found.mask.shape
    return np.array([left, top, left + width, top + height], np.float64)


class Privacy:
    """The effect: hide in each picture what is to be hidden, after another effect has painted it.

    Args:
        covers: the classes to hide as they are seen, or what a first pass planned.
        then: paints the picture before; its `Output.segmentation` stands in `Hidden.seen`. None paints nothing.
        hold_s: how long something stays hidden after its last sight, in one pass.
    """

    def __init__(
        self,
        covers: HiddenClasses | PlannedCovers,
        *,
        then: Callable[[Frame, Segmentation | None, float], Output] | None = None,
        hold_s: float = 1.0,
    ) -> None:
        self._covers = covers
        self._then = then or (lambda frame, segmentation, dt_s: Output(frame, segmentation))
        self._held = HeldCovers(hold_s)

    def __call__(self, frame: Frame, segmentation: Segmentation | None, dt_s: float) -> Output:
        """Paint one picture; see `Effect`."""
        if isinstance(self._covers, PlannedCovers):
            covers = self._covers(frame.index)
        else:
            covers = self._held(self._covers(segmentation, dt_s), dt_s)
        painted = self._then(frame, segmentation, dt_s)
        planes = painted.frame.planes.copy()
        for cover in covers:
            hide(planes, cover)
        return replace(
            painted,
            frame=painted.frame.with_picture(planes, painted.frame.alpha),
            segmentation=Hidden(painted.segmentation, tuple(covers)),
        )


def cover_records(covers: Sequence[Cover]) -> list[dict[str, Any]]:
    """The audit of one frame, for JSON: track (0 without one), class, box and whether it was detected or bridged."""
    return [
        {
            "track": cover.track,
            "class": cover.class_name,
            "box_xyxy": [round(float(side), 1) for side in cover.box],
            "source": cover.source,
        }
        for cover in covers
    ]


def hide(planes: Plane, cover: Cover) -> None:
    """Make unrecognisable, in place, what lies under a cover.

    Args:
        planes: (H * 3 / 2, W) uint8 I420.
        cover: in px of that picture.
    """
    rows, width = planes.shape
    height = rows // 3 * 2
    coverage, (left, top) = coverage_of(cover, height)
    # To whole chroma samples, within the picture.
    x1, y1 = max(left, 0) // 2 * 2, max(top, 0) // 2 * 2
    x2 = min(-(-(left + coverage.shape[1]) // 2) * 2, width)
    y2 = min(-(-(top + coverage.shape[0]) // 2) * 2, height)
    if x1 >= x2 or y1 >= y2:
        return
    window = np.zeros((y2 - y1, x2 - x1), np.uint8)
    inside = coverage[max(y1 - top, 0) : y2 - top, max(x1 - left, 0) : x2 - left]
    window[max(top - y1, 0) :, max(left - x1, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    cell = max(min(x2 - x1, y2 - y1) / _CELLS_ACROSS, height / _CELLS_DOWN)
    size = (max(1, round((x2 - x1) / cell)), max(1, round((y2 - y1) / cell)))
    for plane, step in zip(split(planes), (1, 2, 2), strict=True):
        part = plane[y1 // step : y2 // step, x1 // step : x2 // step]
        weight = window if step == 1 else cv2.resize(window, part.shape[::-1], interpolation=cv2.INTER_AREA)
        cells = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        blurred = cv2.resize(cells, part.shape[::-1], interpolation=cv2.INTER_LINEAR)
        over_plane(blurred, part, weight, part)


def coverage_of(cover: Cover, height: int) -> tuple[Plane, tuple[int, int]]:
    """(h, w) uint8 opacity of a cover, widened, and where its first pixel lies in a picture of so many rows."""
    left, top, right, bottom = (float(side) for side in cover.box)
    size = (max(1, round(right - left)), max(1, round(bottom - top)))
    margin = (_MARGIN + cover.grown) * (bottom - top)
    margin = max(2, round(max(min(margin, height / 4), _LEAST_MARGIN * height)))
    solid = cv2.resize(cover.grid.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR)
    pad = 2 * margin
    solid = cv2.copyMakeBorder(solid, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    solid = cv2.threshold(solid, 63, 255, cv2.THRESH_BINARY)[1]
    # The rim is narrower than the mask is widened: what was seen is hidden in full.
    soft = max(1, margin // 2)
    solid = cv2.dilate(solid, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    return cv2.blur(solid, (soft, soft)), (round(left) - pad, round(top) - pad)
