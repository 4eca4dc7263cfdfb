"""Instances overlay: masks, outlines, boxes and labels, a colour an identity or a class, painted into the planes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Frame, Output, Plane
from streamseg.lanes.result import RoadUser
from streamseg.pixels.draw import fill_mask, fill_polygons, stroke, text_size, write
from streamseg.pixels.planes import yuv_colour
from streamseg.segment.result import CarriedInstances, ClassMap, Instances, Segmentation
from streamseg.temporal.tracks import BuiltinTracker, Tracker
from streamseg.temporal.votes import ClassVote

__all__ = ["COLOURS", "PARTS", "InstanceOverlay", "InstancePainter", "RoadUsers", "Tracked", "road_users"]

PARTS = ("masks", "outlines", "boxes", "labels")

Things = Instances | CarriedInstances

# R, G, B; neighbours in the list are told apart with every kind of colour vision (Okabe and Ito, Tol).
COLOURS = (
    (86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (153, 221, 255), (238, 136, 102), (187, 204, 51), (119, 170, 221), (255, 170, 187),
)  # fmt: skip
# A mask is remembered in its own box, on a grid of so many cells a side.
_GRID = 96
# What is missing in a few frames is drawn for so long where it should be.
_HOLD_S = 0.12


@dataclass(slots=True)
class _Sight:
    """What is drawn of an instance: `coverage` is (h, w) uint8 at `offset_xy`, `velocity` in px a second."""

    box: NDArray[np.float64]
    class_id: int
    name: str
    coverage: Plane | None = None
    offset_xy: tuple[int, int] = (0, 0)
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    unseen_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Tracked:
    """Instances with their numbers; stands in `Output.segmentation`.

    Attributes:
        instances: what the network gave, of the wanted classes; those with a number have the class that it has most.
        numbers: (n,) int64; 0 where an instance has none yet.
        followed: a tracker gave the numbers. In a clip, what it has not confirmed is not painted: it comes and goes.
    """

    instances: Things
    numbers: NDArray[np.int64]
    followed: bool = False


class InstancePainter:
    """Draws instances; remembers each one for a moment, so that its edge does not flicker, nor it as a whole.

    Args:
        show: some of `PARTS`; None shows all.
        colour_by: "instance" or "class".
        opacity: of the masks, in [0, 1].
        half_life_s: of the remembered masks; 0 remembers nothing.
    """

    def __init__(
        self,
        show: Collection[str] | None = None,
        *,
        colour_by: str = "instance",
        opacity: float = 0.45,
        half_life_s: float = 0.08,
    ) -> None:
        self._show = frozenset(PARTS if show is None else show)
        self._colour_by = colour_by
        self._opacity = opacity
        self._half_life_s = half_life_s
        self._remembered: dict[int, NDArray[np.float32]] = {}
        self._last: dict[int, _Sight] = {}

    def paint(self, planes: Plane, seen: Tracked, frame: Frame, dt_s: float) -> None:
        """Draw into (H * 3 / 2, W) uint8 planes of the frame's size and colour, in place; the best come on top."""
        instances = seen.instances
        wants_masks = bool(self._show & {"masks", "outlines"})
        masks = instances.masks() if wants_masks else []
        self._hold(planes, seen, frame, dt_s)
        for index in range(len(instances) - 1, -1, -1):
            number, class_id = int(seen.numbers[index]), int(instances.class_ids[index])
            if seen.followed and not number and dt_s > 0:
                continue
            sight = _Sight(instances.boxes[index].astype(np.float64), class_id, instances.class_names[class_id])
            if wants_masks and masks[index].mask.size:
                sight.coverage = self._steadied(masks[index].mask, number, dt_s)
                sight.offset_xy = masks[index].offset_xy
            self._draw(planes, sight, number, frame)
            if number and self._half_life_s > 0:
                if dt_s > 0 and (before := self._last.get(number)):
                    step = (sight.box - before.box).reshape(2, 2).mean(axis=0) / (dt_s + before.unseen_s)
                    sight.velocity = (before.velocity + step) / 2
                self._last[number] = sight

    def _hold(self, planes: Plane, seen: Tracked, frame: Frame, dt_s: float) -> None:
        """Draw what was there a moment ago and is missing now where it should be; forget what is gone."""
        for number in set(self._last) - set(seen.numbers.tolist()):
            sight = self._last[number]
            sight.unseen_s += dt_s
            if dt_s == 0 or sight.unseen_s > _HOLD_S:
                del self._last[number]
                self._remembered.pop(number, None)
                continue
            moved = np.rint(sight.velocity * sight.unseen_s).astype(int)
            x, y = sight.offset_xy
            there = replace(sight, box=sight.box + np.tile(moved, 2), offset_xy=(x + int(moved[0]), y + int(moved[1])))
            self._draw(planes, there, number, frame)

    def _draw(self, planes: Plane, sight: _Sight, number: int, frame: Frame) -> None:
        place = number if self._colour_by == "instance" and number else sight.class_id
        colour = yuv_colour(COLOURS[place % len(COLOURS)], frame.colour, frame.height)
        if sight.coverage is not None:
            self._draw_mask(planes, sight.coverage, sight.offset_xy, colour)
        if "boxes" in self._show:
            left, top, right, bottom = sight.box.tolist()
            corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)
            stroke(planes, [corners], colour, max(1, round(frame.height / 360)), 0.9, closed=True)
        if "labels" in self._show:
            self._write_label(planes, f"{sight.name} {number}" if number else sight.name, sight.box, colour, frame)

    def _draw_mask(
        self, planes: Plane, coverage: Plane, offset_xy: tuple[int, int], colour: tuple[int, int, int]
    ) -> None:
        if "masks" in self._show:
            fill_mask(planes, coverage, offset_xy, colour, self._opacity)
        if "outlines" in self._show:
            solid = cv2.copyMakeBorder((coverage > 127).view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
            outlines, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            shift = np.array(offset_xy, np.float32) - 1
            lines = [line.reshape(-1, 2).astype(np.float32) + shift for line in outlines if len(line) > 2]
            stroke(planes, lines, colour, max(1, round(planes.shape[0] / 1080)), 0.95, closed=True)

    def _steadied(self, mask: NDArray[np.uint8], number: int, dt_s: float) -> Plane:
        """Opacity in 0..255 of a mask, mixed with what its track's looked like in its box before."""
        height, width = mask.shape
        if not number or self._half_life_s <= 0:
            return cv2.blur(mask * np.uint8(255), (3, 3))
        small = cv2.resize(mask * np.uint8(255), (_GRID, _GRID), interpolation=cv2.INTER_AREA).astype(np.float32)
        before = self._remembered.get(number)
        if before is not None and dt_s > 0:
            keep = np.float32(0.5 ** (dt_s / self._half_life_s))
            small = before * keep + small * (1 - keep)
        self._remembered[number] = small
        if width <= _GRID and height <= _GRID:
            large = cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)
        else:
            large = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        # About one half it is made steep again: averaging over time and cells must not fray the edge.
        return cv2.convertScaleAbs(np.clip(large * 2 - 127.5, 0, 255))

    def _write_label(
        self, planes: Plane, text: str, box: NDArray[np.float64], colour: tuple[int, int, int], frame: Frame
    ) -> None:
        size = max(9.0, frame.height / 50)
        text = text.encode("ascii", "replace").decode("ascii")
        width, height = text_size(text, size)
        left = int(min(max(float(box[0]), 0), max(0, frame.width - width - 6)))
        top = int(max(float(box[1]) - height - 4, 0))
        corners = [(left, top), (left + width + 6, top), (left + width + 6, top + height + 4), (left, top + height + 4)]
        fill_polygons(planes, [np.array(corners, np.float32)], colour, 0.85)
        ink = (0, 0, 0) if colour[0] > 110 else (255, 255, 255)
        write(planes, text, (left + 3, top + 2), size, yuv_colour(ink, frame.colour, frame.height))


class InstanceOverlay:
    """The effect: number the instances and paint them; a semantic network's classes are painted as areas.

    Args:
        painter: of instances.
        classes: names of those to show; None shows all.
        tracker: gives the numbers; None: there are none.
        opacity: of a semantic network's areas, in [0, 1].
        timed: wraps each stage, ``timed("track")`` and so on, for the report.
    """

    def __init__(
        self,
        painter: InstancePainter | None = None,
        *,
        classes: Collection[str] | None = None,
        tracker: Tracker | None = None,
        opacity: float = 0.45,
        timed: Callable[[str], AbstractContextManager[None]] | None = None,
    ) -> None:
        self._painter = painter or InstancePainter()
        self._classes = None if classes is None else frozenset(classes)
        self._tracker = tracker
        self._vote = ClassVote()
        self._opacity = opacity
        self._timed = timed or (lambda stage: nullcontext())

    def __call__(
        self, frame: Frame, segmentation: Segmentation | None, dt_s: float, stuff: ClassMap | None = None
    ) -> Output:
        """Paint one picture; see `Effect`. `stuff` is what a semantic network says, painted beneath the instances."""
        if isinstance(segmentation, Things):
            with self._timed("track"):
                seen = numbered(chosen(segmentation, self._classes), self._tracker, self._vote, dt_s)
            with self._timed("draw"):
                planes = frame.planes.copy()
                if stuff is not None:
                    self._lay_classes(planes, stuff, frame, None)
                self._painter.paint(planes, seen, frame, dt_s)
            return Output(frame.with_picture(planes), seen)
        if isinstance(segmentation, ClassMap):
            with self._timed("draw"):
                planes = frame.planes.copy()
                self._lay_classes(planes, segmentation, frame, self._classes)
            return Output(frame.with_picture(planes), segmentation)
        return Output(frame, segmentation)

    def _lay_classes(self, planes: Plane, found: ClassMap, frame: Frame, classes: Collection[str] | None) -> None:
        """Each class but the first, where it is more probable than not."""
        for index, name in enumerate(found.class_names):
            if index == 0 or (classes is not None and name not in classes):
                continue
            soft = np.clip(found.probabilities[index] * 510 - 127.5, 0, 255).astype(np.uint8)
            coverage = cv2.resize(soft, found.frame_wh, interpolation=cv2.INTER_LINEAR)
            colour = yuv_colour(COLOURS[(index - 1) % len(COLOURS)], frame.colour, frame.height)
            fill_mask(planes, coverage, (0, 0), colour, self._opacity)


class RoadUsers:
    """Vehicles and people of a network that runs beside the lane finder.

    Args:
        segment: gives `Instances` of a frame.
        classes: names of those that are followed.
        painter: draws them; None draws none.
        tracker: gives the numbers; None takes the builtin one.
    """

    def __init__(
        self,
        segment: Callable[[Frame], Segmentation],
        *,
        classes: Collection[str] = ("person", "bicycle", "car", "motorcycle", "bus", "truck"),
        painter: InstancePainter | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        self._segment = segment
        self._classes = frozenset(classes)
        self._painter = painter
        self._tracker = tracker or BuiltinTracker()
        self._vote = ClassVote()
        self._seen: Tracked | None = None

    def __call__(self, frame: Frame, dt_s: float) -> tuple[RoadUser, ...]:
        """Who is on the road in this frame, `dt_s` after the one before."""
        found = self._segment(frame)
        if isinstance(found, Things):
            users = _without_bonnet(chosen(found, self._classes), frame)
            self._seen = numbered(users, self._tracker, self._vote, dt_s)
        return () if self._seen is None else road_users(self._seen)

    def paint(self, planes: Plane, frame: Frame, dt_s: float) -> None:
        """Draw those of the last call into the planes, in place."""
        if self._painter is not None and self._seen is not None:
            self._painter.paint(planes, self._seen, frame, dt_s)


def chosen(instances: Things, classes: Collection[str] | None) -> Things:
    """The instances of some classes, by name; None keeps all."""
    if classes is None:
        return instances
    wanted = [index for index, name in enumerate(instances.class_names) if name in classes]
    return instances.pick(np.isin(instances.class_ids, wanted))


def _without_bonnet(users: Things, frame: Frame) -> Things:
    """The others: what is half the picture wide, at its lower edge, and flatter than any vehicle is the own bonnet."""
    left, top, right, bottom = users.boxes.T
    width, height = right - left, bottom - top
    return users.pick((bottom < 0.95 * frame.height) | (width < 0.5 * frame.width) | (width < 3 * height))


def numbered(instances: Things, tracker: Tracker | None, vote: ClassVote, dt_s: float) -> Tracked:
    """The instances with the numbers that the tracker gives them, and the class that each number has by vote."""
    if tracker is None:
        return Tracked(instances, np.zeros(len(instances), np.int64))
    numbers = tracker(instances.boxes, instances.scores, instances.class_ids, dt_s)
    classes = vote(numbers, instances.class_ids, instances.scores, dt_s)
    return Tracked(replace(instances, class_ids=classes), numbers, followed=True)


def road_users(seen: Tracked) -> tuple[RoadUser, ...]:
    """Those that have a number, for `lanes.events`."""
    instances = seen.instances
    return tuple(
        RoadUser(number, instances.class_names[class_id], (box[0], box[1], box[2], box[3]), score)
        for number, class_id, box, score in zip(
            seen.numbers.tolist(), instances.class_ids.tolist(), instances.boxes.tolist(), instances.scores.tolist(),
            strict=True,
        )
        if number
    )  # fmt: skip
