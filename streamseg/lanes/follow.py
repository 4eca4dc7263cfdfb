"""A lane from its first sight to its last: what every finder does once it knows where the paint is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Frame
from streamseg.lanes.judge import plausible, whole
from streamseg.lanes.line import LineLook
from streamseg.lanes.markings import BirdsEye, Points, together
from streamseg.lanes.model import CURVATURE, HEADING, MIDDLE, PITCH, WIDTH, Fit, fit, line_place, line_x
from streamseg.lanes.result import Boundary, Lanes
from streamseg.lanes.search import score, search
from streamseg.lanes.track import START, START_INFORMATION, LaneTrack, confidences
from streamseg.lanes.vanishing import VanishingPoint
from streamseg.segment.result import Segmentation

__all__ = ["Judge", "LaneFollower", "See"]

# A lane appears at this confidence of its weaker line, and goes below the other.
_APPEAR, _VANISH = 0.5, 0.2
_VANISHING_EVERY_S = 0.25
_SEARCH_EVERY_S = 0.3
# Qualities, see `lanes.judge`: taken at once, taken when seen twice, and given up when it lasts.
_GOOD, _FAIR, _BAD = 1.5, 0.9, 0.4
# Rows of paint that make a line beside the car's lane.
_FEWEST_ROWS = 14
# A lane that is seen on one side only is drawn for this long.
_ONE_SIDED_S = 2.0
# Paint is gathered from pictures of so many seconds, so far apart; gaps between dashes are passed in less.
_MOMENT_S, _MOMENT_EVERY_S = 0.5, 0.1


# How good a shape with a score is, see `lanes.judge`.
Judge = Callable[[NDArray[np.float64], float], float]
See = Callable[[BirdsEye, Frame, Segmentation | None], tuple[Points, Judge]]


class LaneFollower:
    """Finds the car's lane among places of paint, and follows it.

    Args:
        see: gives the places of paint in a bird's-eye view of a frame, and the judge of what is made of them.
        vanishing: (x, y) of the vanishing point as shares of the picture's size; None estimates it from the clip.
        bonnet: where the car's own bonnet begins, as a share of the picture's height; 1: it is not in sight.
        paint: places are of paint itself: unbroken and dashed lines look different, and so do white and yellow ones.
            Networks draw all lines unbroken, but more surely: with them, the lines of other lanes are told too.
    """

    def __init__(
        self, see: See, vanishing: tuple[float, float] | None = None, *, bonnet: float = 1.0, paint: bool = True
    ) -> None:
        self._see = see
        self._given = vanishing
        self._bonnet = bonnet
        self._paint = paint
        self._start()

    def _start(self) -> None:
        self._estimate = VanishingPoint()
        self._view: BirdsEye | None = None
        self._ahead = True
        self._track: LaneTrack | None = None
        self._since_vanishing_s = 0.0
        self._since_search_s = 0.0
        self._one_sided_s = 0.0
        self._shown = False
        self._challenged_s = self._doubtful_s = 0.0
        self._candidate: NDArray[np.float64] | None = None
        self._lines = (LineLook(), LineLook())
        self._past: list[tuple[float, Points]] = []

    def __call__(self, frame: Frame, segmentation: Segmentation | None, dt_s: float) -> Lanes:
        """Look at one picture; see `LaneFinder`."""
        if dt_s <= 0 or (self._view is not None and self._view.size_wh != (frame.width, frame.height)):
            self._start()
        view = self._look_ahead(frame, dt_s)
        points, judge = self._see(view, frame, segmentation)
        found = self._follow(points, self._gather(points, dt_s), judge, dt_s)
        return self._lanes(view, points, found, frame, dt_s)

    def _look_ahead(self, frame: Frame, dt_s: float) -> BirdsEye:
        """The view from the present estimate of the vanishing point."""
        size_wh = (frame.width, frame.height)
        if self._given is not None:
            self._view = self._view or BirdsEye(size_wh, self._given, self._bonnet)
            return self._view
        self._since_vanishing_s += dt_s
        if self._view is None or self._since_vanishing_s >= _VANISHING_EVERY_S:
            elapsed_s = 0.0 if self._view is None else self._since_vanishing_s
            self._since_vanishing_s = 0.0
            x, y, clear = self._estimate(frame.y, elapsed_s)
            self._ahead = clear > 0
            old = self._view.vanishing if self._view else None
            if self._view is None or old is None:
                self._view = BirdsEye(size_wh, (x, y), self._bonnet)
            else:
                right, down = (x - old[0]) * frame.width / frame.height, y - old[1]
                if abs(right) > 0.02 or abs(down) > 0.015:
                    self._view = BirdsEye(size_wh, (x, y), self._bonnet)
                    self._past = []
                    if self._track is not None:
                        self._track.move(right, down)
        return self._view

    def _gather(self, points: Points, dt_s: float) -> Points:
        """The paint of the last moment: what lies between the dashes of one picture is seen in another."""
        self._past = [(age_s + dt_s, past) for age_s, past in self._past if age_s + dt_s <= _MOMENT_S]
        moment = together([*(past for _, past in self._past), points])
        if not self._past or self._past[-1][0] >= _MOMENT_EVERY_S:
            self._past.append((0.0, points))
        return moment

    def _follow(self, points: Points, moment: Points, judge: Judge, dt_s: float) -> Fit | None:
        found = self._track.step(points, dt_s) if self._track else None
        self._since_search_s += dt_s
        if 0 < self._since_search_s < _SEARCH_EVERY_S:
            return found
        elapsed_s = min(self._since_search_s, 2 * _SEARCH_EVERY_S)
        self._since_search_s = 0.0
        own = 0.0
        if self._track is not None:
            own = score(points, self._track.shape, held=True)
            doubtful = not self._ahead or judge(self._track.shape, own) * whole(moment, self._track.shape) < _BAD
            self._doubtful_s = self._doubtful_s + elapsed_s if doubtful else 0.0
            if self._doubtful_s >= 3 * _SEARCH_EVERY_S:
                self._track = found = None
        # Where no road leads to a horizon, no lane begins.
        best = search(points) if self._ahead else None
        fresh = fit(points, best[0], START, START_INFORMATION) if best else None
        if fresh is None or not plausible(fresh.shape) or min(confidences(fresh)) < _APPEAR:
            self._candidate = None
            return found
        rated = score(points, fresh.shape)
        good = judge(fresh.shape, rated) * whole(moment, fresh.shape)
        if self._track is None or found is None:
            again = self._candidate is not None and abs(self._candidate[MIDDLE] - fresh.shape[MIDDLE]) < 0.4
            self._candidate = fresh.shape if good >= _FAIR else None
            # A still picture must be judged at once; in a clip, what is not clear must be seen twice.
            if good >= _GOOD or (good >= _FAIR and (again or elapsed_s == 0)):
                self._track = LaneTrack(fresh)
                return fresh
            return found
        # Another lane must be clearly better, and stay so, before the present one is given up.
        better = rated > 1.25 * own and good >= _FAIR
        self._challenged_s = self._challenged_s + elapsed_s if better else 0.0
        if self._challenged_s >= 2 * _SEARCH_EVERY_S:
            self._track, self._challenged_s = LaneTrack(fresh), 0.0
            return fresh
        return found

    def _lanes(self, view: BirdsEye, points: Points, found: Fit | None, frame: Frame, dt_s: float) -> Lanes:
        track, size_wh = self._track, (frame.width, frame.height)
        if track is None or found is None:
            return Lanes(size_wh)
        weaker, stronger = min(track.sides), max(track.sides)
        self._one_sided_s = self._one_sided_s + dt_s if weaker < _VANISH else 0.0
        lost = stronger < _VANISH or self._one_sided_s > _ONE_SIDED_S or not plausible(track.shape, held=True)
        if lost:
            self._track, self._shown = None, False
            self._lines = (LineLook(), LineLook())
            return Lanes(size_wh)
        if track.changed:
            self._lines = (self._lines[1], LineLook()) if track.changed > 0 else (LineLook(), self._lines[0])
        self._shown = stronger >= _APPEAR and (weaker >= _APPEAR or self._shown)
        for line, side in zip(self._lines, (-1, 1), strict=True):
            line.look(points, found.sides == side, dt_s)
        if not self._shown:
            return Lanes(size_wh)
        shape = track.shape
        left, right = (
            Boundary(
                boundary_points(view, shape, side * shape[WIDTH] / 2),
                round(confidence, 3),
                line.kind if self._paint else "unknown",
                line.colour if self._paint else "unknown",
                seen=confidence >= _VANISH,
            )
            for side, confidence, line in zip((-1, 1), track.sides, self._lines, strict=True)
        )
        height = frame.height
        horizon = (view.vanishing[1] - float(shape[PITCH])) * height
        ahead = view.vanishing[0] * frame.width + float(shape[HEADING]) * height
        return Lanes(
            size_wh,
            left,
            right,
            tuple(_lines_beside(view, shape, points)) if not self._paint else (),
            offset=float(-shape[MIDDLE] / shape[WIDTH]),
            width=float(shape[WIDTH]),
            curvature=float(shape[CURVATURE]),
            horizon_px=horizon,
            vanishing_px=(ahead, horizon),
        )


def boundary_points(view: BirdsEye, shape: NDArray[np.float64], place: float) -> NDArray[np.float32]:
    """(n, 2) px of a line, from the picture's lower edge, or the bonnet, to where lines can no longer be told apart.

    Args:
        view: of the road.
        shape: of the car's lane, which all lines share.
        place: of the line across the road, in camera heights from the lane's middle.
    """
    width, height = view.size_wh
    nearest = view.bonnet - view.vanishing[1]
    farthest = max(0.045 - shape[PITCH], 0.02)
    y = np.linspace(np.sqrt(nearest), np.sqrt(min(farthest, nearest)), 40) ** 2
    x = line_x(shape, place, y)
    return np.stack([view.vanishing[0] * width + x * height, (view.vanishing[1] + y) * height], 1).astype(np.float32)


def _lines_beside(view: BirdsEye, shape: NDArray[np.float64], points: Points) -> list[Boundary]:
    """Lines of other lanes: clusters of paint across the road, once heading and bend are taken out."""
    place = line_place(shape, points)
    beside = np.flatnonzero((np.abs(place) > 0.75 * shape[WIDTH]) & (np.abs(place) < 2.8 * shape[WIDTH]))
    beside = beside[np.argsort(place[beside])]
    found = []
    for cluster in np.split(beside, np.flatnonzero(np.diff(place[beside]) > 0.25) + 1):
        rows = len(np.unique(points.row[cluster]))
        if rows < _FEWEST_ROWS:
            continue
        middle = float(np.median(place[cluster]))
        # A line is narrow at every distance; a hedge is not.
        if float(np.median(np.abs(place[cluster] - middle))) > 0.15:
            continue
        found.append(Boundary(boundary_points(view, shape, middle), round(min(1.0, rows / 40), 3)))
    return found
