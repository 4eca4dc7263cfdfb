"""Lane overlay: the car's lane, its lines, departures and a small panel, painted into the planes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Colour, Frame, Output, Plane
from streamseg.lanes import LaneFinder
from streamseg.lanes.camera import Camera
from streamseg.lanes.events import Event, LaneEvents
from streamseg.lanes.result import Boundary, Lanes, RoadUser
from streamseg.lanes.telemetry import Fix
from streamseg.pixels.draw import fill_mask, fill_polygons, stroke, text_size, write
from streamseg.pixels.planes import yuv_colour
from streamseg.segment.result import Segmentation

__all__ = ["PARTS", "Drive", "LaneOverlay", "UsersFinder"]

# What can be switched on and off.
PARTS = ("lane", "lines", "others", "road", "centre", "users", "panel", "warning")

Rgb = tuple[int, int, int]
# R, G, B in 0..255; told apart with every kind of colour vision (Okabe and Ito).
_COLOURS: dict[str, Rgb] = {
    "lane": (0, 158, 155),
    "warning": (230, 120, 0),
    "line": (240, 228, 66),
    "guessed": (170, 170, 170),
    "other": (86, 180, 233),
    "road": (0, 114, 178),
    "text": (255, 255, 255),
    "panel": (0, 0, 0),
}
# Seconds in which the lane appears; it goes at once, for what is not known is not shown.
_FADE_S = 0.2
# Smaller letters cannot be read.
_LEAST_TEXT_PX = 9.0


@dataclass(frozen=True, slots=True, eq=False)
class Drive:
    """What was found in one frame of a drive; stands in `Output.segmentation`.

    Attributes:
        lanes: the car's lane.
        segmentation: what the network gave, if there was one.
        users: of the road.
        events: what began or ended with this frame.
    """

    lanes: Lanes
    segmentation: Segmentation | None
    users: tuple[RoadUser, ...]
    events: tuple[Event, ...]


class UsersFinder(Protocol):
    """Finds road users and draws them."""

    def __call__(self, frame: Frame, dt_s: float) -> Sequence[RoadUser]:
        """Who is on the road in this frame, `dt_s` after the one before."""
        ...

    def paint(self, planes: Plane, frame: Frame, dt_s: float) -> None:
        """Draw those of the last call into the planes, in place."""
        ...


class LaneOverlay:
    """The effect: find the lane, note what happens, paint.

    Args:
        finder: of lanes.
        show: some of `PARTS`; None shows all.
        camera: gives metres; without it, offsets are shares of the lane's width.
        events: notes departures and the like; None takes the usual thresholds.
        opacity: of the filled lane, in [0, 1].
        users: finds and draws road users; None: there are none.
        where: position and speed at a time of the video, None where they are not known; they go into events and panel.
        timed: wraps each stage, ``timed("lanes")`` and so on, for the report.
    """

    def __init__(
        self,
        finder: LaneFinder,
        *,
        show: Collection[str] | None = None,
        camera: Camera | None = None,
        events: LaneEvents | None = None,
        opacity: float = 0.35,
        users: UsersFinder | None = None,
        where: Callable[[float], Fix | None] | None = None,
        timed: Callable[[str], AbstractContextManager[None]] | None = None,
    ) -> None:
        self._finder = finder
        self._show = frozenset(PARTS if show is None else show)
        self._camera = camera
        self.events = events or LaneEvents()
        self._opacity = opacity
        self._users = users
        self._where = where or (lambda at_s: None)
        self._timed = timed or (lambda stage: nullcontext())
        self._presence = 0.0
        self._yuv_for: tuple[Colour, int] | None = None
        self._yuv_colours: dict[str, tuple[int, int, int]] = {}

    def __call__(self, frame: Frame, segmentation: Segmentation | None, dt_s: float) -> Output:
        """Paint one picture; see `Effect`."""
        with self._timed("lanes"):
            lanes = self._finder(frame, segmentation, dt_s)
            users = tuple(self._users(frame, dt_s)) if self._users else ()
            news = tuple(self._placed(event) for event in self.events(lanes, users, frame.seconds))
        with self._timed("draw"):
            planes = frame.planes.copy()
            self.paint(planes, lanes, frame, dt_s)
        return Output(frame.with_picture(planes), Drive(lanes, segmentation, users, news))

    def _placed(self, event: Event) -> Event:
        fix = self._where(event.begin_s)
        return event if fix is None else fix.onto(event)

    def paint(self, planes: Plane, lanes: Lanes, frame: Frame, dt_s: float) -> None:
        """Draw what is known into (H * 3 / 2, W) uint8 planes of the frame's size and colour, in place."""
        known = lanes.left is not None and lanes.right is not None
        if not known:
            self._presence = 0.0
        else:
            self._presence = 1.0 if dt_s <= 0 else min(1.0, self._presence + dt_s / _FADE_S)
        leaving = next((e for e in self.events.open if e.kind in ("departure", "lane change")), None)
        if "road" in self._show and lanes.road is not None:
            _lay_road(planes, lanes.road, self._yuv("road", frame), 0.25)
        if lanes.left is not None and lanes.right is not None:
            if "lane" in self._show:
                warned = leaving is not None and "warning" in self._show
                _fill_lane(
                    planes, lanes.left, lanes.right, self._yuv("warning" if warned else "lane", frame),
                    self._opacity * self._presence,
                )  # fmt: skip
            if "centre" in self._show:
                self._draw_centre(planes, lanes, frame)
            if "lines" in self._show:
                for side, line in (("left", lanes.left), ("right", lanes.right)):
                    name = "line" if line.seen else "guessed"
                    if leaving is not None and leaving.side == side and "warning" in self._show:
                        name = "warning"
                    _draw_line(planes, line, lanes, self._yuv(name, frame), 0.9 * self._presence)
        if "others" in self._show:
            for line in lanes.others:
                _draw_line(planes, line, lanes, self._yuv("other", frame), 0.7)
        if "users" in self._show and self._users is not None:
            self._users.paint(planes, frame, dt_s)
        if "panel" in self._show:
            self._draw_panel(planes, lanes, leaving, frame)

    def _yuv(self, name: str, frame: Frame) -> tuple[int, int, int]:
        key = (frame.colour, frame.height)
        if self._yuv_for != key:
            self._yuv_for = key
            self._yuv_colours = {each: yuv_colour(rgb, *key) for each, rgb in _COLOURS.items()}
        return self._yuv_colours[name]

    def _draw_centre(self, planes: Plane, lanes: Lanes, frame: Frame) -> None:
        """The lane's middle as a thin line, and a tick where the car is at the picture's lower edge."""
        assert lanes.left is not None
        assert lanes.right is not None
        middle = (lanes.left.points + lanes.right.points) / 2
        width_px = max(1, round(frame.height / 360))
        stroke(planes, [middle[: len(middle) * 3 // 4]], self._yuv("text", frame), width_px, 0.6 * self._presence)

    def _draw_panel(self, planes: Plane, lanes: Lanes, leaving: Event | None, frame: Frame) -> None:
        if lanes.offset is None or "warning" not in self._show:
            # Without a lane, nobody knows whether the car is still leaving it.
            leaving = None
        size = max(_LEAST_TEXT_PX, frame.height / 38)
        text = self._lines_of_text(lanes, leaving, self._where(frame.seconds))
        boxes = [text_size(line, size) for line in text]
        pad, step = round(size * 0.8), round(size * 1.9)
        width = max([width for width, _ in boxes] + [round(11 * size)]) + 2 * pad
        gauge = round(size * 1.6) if lanes.offset is not None else 0
        height = len(text) * step + 2 * pad - round(size * 0.5) + gauge
        left = top = round(size)
        corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
        fill_polygons(planes, [np.array(corners, np.float32)], self._yuv("panel", frame), 0.5)
        for number, line in enumerate(text):
            colour = self._yuv("warning" if leaving is not None and number == len(text) - 1 else "text", frame)
            write(planes, line, (left + pad, top + pad + number * step), size, colour)
        if lanes.offset is not None:
            y = top + pad + len(text) * step + gauge * 0.25
            colour = self._yuv("lane" if leaving is None else "warning", frame)
            self._draw_gauge(planes, lanes.offset, (left + pad, left + width - pad), y, colour, frame)

    def _draw_gauge(
        self,
        planes: Plane,
        offset: float,
        ends: tuple[int, int],
        y: float,
        colour: tuple[int, int, int],
        frame: Frame,
    ) -> None:
        """The lane from above: a bar with its lines at the ends, and where the car is, in `colour`."""
        left, right = ends
        half = frame.height / 110
        thin = max(1, round(frame.height / 500))
        bars = [[(left, y), (right, y)]] + [[(x, y - half), (x, y + half)] for x in (left, right)]
        stroke(planes, [np.array(bar, np.float32) for bar in bars], self._yuv("text", frame), thin, 0.8)
        x = left + (right - left) * min(max(offset + 0.5, 0.0), 1.0)
        car = [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
        fill_polygons(planes, [np.array(car, np.float32)], colour)

    def _lines_of_text(self, lanes: Lanes, leaving: Event | None, fix: Fix | None) -> list[str]:
        speed = [] if fix is None else [f"{'about ' if fix.filled else ''}{fix.speed_m_s * 3.6:.0f} km/h"]
        if lanes.offset is None:
            return [*speed, "lane unknown"]
        side = "right" if lanes.offset > 0 else "left"
        offset_m = self._camera.offset_m(lanes) if self._camera else None
        amount = f"{abs(lanes.offset):.0%}" if offset_m is None else f"{abs(offset_m):.2f} m"
        place = "in the centre" if amount in ("0%", "0.00 m") else f"{amount} {side} of centre"
        text = [*speed, place, self._bend(lanes)]
        if leaving is not None:
            text.append(f"{leaving.kind} {leaving.side or ''}".strip())
        return text

    def _bend(self, lanes: Lanes) -> str:
        if self._camera is not None:
            radius = self._camera.radius_m(lanes)
            if radius is None or math.isinf(radius):
                return "straight"
            return f"bend {'right' if radius > 0 else 'left'}, {round(abs(radius), -1):.0f} m"
        if abs(lanes.curvature) < 0.0012:
            return "straight"
        return "bend right" if lanes.curvature > 0 else "bend left"


def _fill_lane(planes: Plane, left: Boundary, right: Boundary, colour: tuple[int, int, int], opacity: float) -> None:
    """The lane in two parts, fainter towards its far end."""
    count = min(len(left.points), len(right.points))
    bounds = (0, count * 3 // 4, count - 1)
    for (first, last), share in zip(itertools.pairwise(bounds), (1.0, 0.6), strict=True):
        part = np.concatenate([left.points[first : last + 1], right.points[first : last + 1][::-1]])
        fill_polygons(planes, [part], colour, opacity * share)


def _draw_line(planes: Plane, line: Boundary, lanes: Lanes, colour: tuple[int, int, int], opacity: float) -> None:
    """A line as wide as paint is, narrower with distance; a dashed one in dashes."""
    points = line.points.astype(np.float64)
    if len(points) < 2:
        return
    height = lanes.frame_wh[1]
    horizon = lanes.horizon_px if lanes.horizon_px is not None else float(points[-1, 1])
    # 15 cm of paint for a camera at 1.3 m; never thinner than can be seen.
    half = np.maximum((points[:, 1] - horizon) * 0.055, height / 900)
    shift = np.stack([half, np.zeros_like(half)], 1)
    pieces = [(0, len(points))]
    if line.kind == "dashed":
        pieces = [(start, min(start + 4, len(points))) for start in range(0, len(points) - 1, 6)]
    shapes = [
        np.concatenate([points[first:last] - shift[first:last], (points[first:last] + shift[first:last])[::-1]])
        for first, last in pieces
        if last - first > 1
    ]
    fill_polygons(planes, shapes, colour, opacity)


def _lay_road(planes: Plane, road: NDArray[np.float32], colour: tuple[int, int, int], opacity: float) -> None:
    rows, width = planes.shape
    # Probabilities about one half make a soft edge when enlarged.
    soft = cv2.convertScaleAbs(np.clip(road * 2 - 0.5, 0, 1), alpha=255)
    coverage = cv2.resize(soft, (width, rows // 3 * 2), interpolation=cv2.INTER_LINEAR)
    fill_mask(planes, coverage, (0, 0), colour, opacity)
