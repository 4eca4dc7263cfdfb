"""Lanes from a network's line and road classes: lines in the bird's-eye view take the place of paint."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.errors import ConfigError
from streamseg.frame import Frame
from streamseg.lanes.follow import Judge, LaneFollower
from streamseg.lanes.markings import BirdsEye, Points
from streamseg.lanes.model import CURVATURE, HEADING, MIDDLE, PITCH, WIDTH, line_place
from streamseg.lanes.result import Lanes
from streamseg.segment.result import Segmentation

__all__ = ["NetworkLaneFinder", "without_border_lines"]

Floats = NDArray[np.float32]

# Class names that mean lines and road, where the user does not say.
_LINES = {"line", "lane", "lanes", "lane line", "lane marking", "lane_line", "marking", "solid", "dashed"}
_ROADS = {"road", "drivable", "drivable area", "drivable_area", "driveable", "street"}

# Of drivable area: what is less probable is no road, and pieces smaller than this share of the picture are none.
_DOUBT, _SPECK = 0.25, 0.01
# Bands along the border are no thicker than so many margins.
_THICK = 3


class NetworkLaneFinder:
    """Finds lanes with the lines and the road of a network: a semantic one, or YOLO-seg trained on them.

    Args:
        class_names: of the network, by index.
        lines: names of the classes that are lines; None takes the usual ones.
        roads: names of the classes that are drivable; None takes the usual ones, if there are any.
        vanishing: (x, y) of the vanishing point as shares of the picture's size; None estimates it from the clip.
        bonnet: where the car's own bonnet begins, as a share of the picture's height; 1: it is not in sight.

    Raises:
        ConfigError: a name is no class of the network, or none of its classes is a line.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        lines: Collection[str] | None = None,
        roads: Collection[str] | None = None,
        vanishing: tuple[float, float] | None = None,
        bonnet: float = 1.0,
    ) -> None:
        self._lines = _indices(class_names, lines, _LINES, "lines")
        self._roads = _indices(class_names, roads, _ROADS, "roads")
        if not self._lines:
            raise ConfigError(
                f"none of the network's classes is known to be a lane line ({', '.join(class_names)}); "
                "name them in lanes.lines"
            )
        self._road: Floats | None = None
        self._bonnet = bonnet
        self._follow = LaneFollower(self._see, vanishing, bonnet=bonnet, paint=False)

    def __call__(self, frame: Frame, segmentation: Segmentation | None, dt_s: float) -> Lanes:
        """Look at one picture and what the network gave for it. See `LaneFinder`."""
        self._road = None
        if segmentation is not None and self._roads:
            self._road = _without_specks(_without_bands(segmentation.matte(self._roads), 1))
            self._road[round(self._bonnet * len(self._road)) :] = 0
        return replace(self._follow(frame, segmentation, dt_s), road=self._road)

    def _see(self, view: BirdsEye, frame: Frame, segmentation: Segmentation | None) -> tuple[Points, Judge]:
        if segmentation is None:
            return _no_points(view), lambda shape, score: 0.0
        lines = view.of_map(without_border_lines(segmentation.matte(self._lines)))
        points = _find_lines(view, lines)
        road = None if self._road is None else view.of_map(self._road)
        return points, lambda shape, score: _quality(view, points, road, shape)


def without_border_lines(lines: Floats) -> Floats:
    """The map without the bands that some networks draw along the picture's border: (h, w) float32 in [0, 1]."""
    cleaned = lines.copy()
    near_x, near_y = _margins(lines)
    # First the border itself, for bands there hang together with the real lines that leave the picture.
    cleaned[:near_y] = cleaned[-near_y:] = 0
    cleaned[:, :near_x] = cleaned[:, -near_x:] = 0
    return _without_bands(cleaned, 2)


def _margins(lines: Floats) -> tuple[int, int]:
    height, width = lines.shape
    return max(2, width // 60), max(3, height // 32)


def _without_bands(values: Floats, reach: int) -> Floats:
    """The map without thin parts along the border, which begin within `reach` margins of it."""
    near_x, near_y = _margins(values)
    cleaned = values.copy()
    for side, near in (
        (cleaned, near_y), (cleaned[::-1], near_y), (cleaned.T, near_x), (cleaned.T[::-1], near_x),
    ):  # fmt: skip
        # What reaches farther into the picture than this strip is no band.
        _clear_bands(side[: (reach + _THICK) * near + 1], reach * near, _THICK * near)
    return cleaned


def _without_specks(road: Floats) -> Floats:
    """The map without pieces smaller than `_SPECK` of the picture: the network's doubt, not a road."""
    on = np.ascontiguousarray(road > _DOUBT).view(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(on)
    small = stats[:, cv2.CC_STAT_AREA] < _SPECK * road.size
    small[0] = False
    return np.where(small[labels], np.float32(0), road) if count > 1 else road


def _clear_bands(strip: Floats, reach: int, thick: int) -> None:
    """Take parts away that begin within `reach` rows of the strip's first, are long, and at most `thick` rows high."""
    on = np.ascontiguousarray(strip > 0.3).view(np.uint8)
    if not on.any():
        return
    count, labels, stats, _ = cv2.connectedComponentsWithStats(on)
    for label in range(1, count):
        x, y, columns, rows, _ = stats[label].tolist()
        if y <= reach and columns > 4 * rows and rows <= thick:
            part = strip[y : y + rows, x : x + columns]
            part[labels[y : y + rows, x : x + columns] == label] = 0


def _find_lines(view: BirdsEye, lines: Floats) -> Points:
    """The middles of lines, row by row."""
    on = np.zeros((lines.shape[0], lines.shape[1] + 2), np.int8)
    on[:, 1:-1] = lines > 0.4
    step = np.diff(on, axis=1)
    (row, first), (_, end) = np.nonzero(step == 1), np.nonzero(step == -1)
    # What is wider than half a lane is no line but a zebra crossing or a mistake.
    narrow = (end - first) * (view.across[1] - view.across[0]) < 1.2
    row, first, end = row[narrow], first[narrow], end[narrow]
    middle = (first + end - 1) / 2
    y = view.y[row]
    across = view.across[0] + middle.astype(np.float32) * (view.across[1] - view.across[0])
    weight = np.clip((lines[row, np.rint(middle).astype(np.intp)] - 0.3) / 0.5, 0, 1).astype(np.float32)
    return Points(across * y, y, weight, row, np.zeros(len(row), np.float32), len(view.y))


def _no_points(view: BirdsEye) -> Points:
    none = np.zeros(0, np.float32)
    return Points(none, none, none, np.zeros(0, np.intp), none, len(view.y))


def _quality(view: BirdsEye, points: Points, road: Floats | None, shape: NDArray[np.float64]) -> float:
    """As `judge.quality`: how many of the lines within the lane are its own, and whether there is road between."""
    place = line_place(shape, points) / shape[WIDTH]
    inside = np.abs(place) < 0.62
    on = inside & (np.abs(np.abs(place) - 0.5) < 0.09)
    total = float(points.weight[inside].sum())
    if total < 6:
        return 0.0
    share = float(points.weight[on].sum()) / total
    if road is None:
        return 2 * share
    rows = np.arange(0, len(view.y) * 8 // 10, 4)
    down = np.maximum(view.y[rows] + shape[PITCH], 0.02)
    middle = (shape[MIDDLE] * down + shape[HEADING] + shape[CURVATURE] / down) / view.y[rows]
    columns = np.searchsorted(view.across, middle).clip(0, len(view.across) - 1)
    return 2 * share * min(1.0, 2 * float((road[rows, columns] > 0.4).mean()))


def _indices(
    class_names: Sequence[str], wanted: Collection[str] | None, usual: Collection[str], setting: str
) -> list[int]:
    if wanted is None:
        return [index for index, name in enumerate(class_names) if name.lower() in usual]
    missing = [name for name in wanted if name not in class_names]
    if missing:
        raise ConfigError(
            f"lanes.{setting} names {missing[0]!r}, which is no class of the network: {', '.join(class_names)}"
        )
    return [index for index, name in enumerate(class_names) if name in wanted]
