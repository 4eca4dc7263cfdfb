"""The classical lane finder against known geometry: hand-made paint, drawn drives, and pictures without any road."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamseg.frame import Colour, Frame, Origin
from streamseg.lanes.classical import ClassicalLaneFinder
from streamseg.lanes.events import LaneEvents
from streamseg.lanes.follow import LaneFollower
from streamseg.lanes.judge import whole
from streamseg.lanes.line import LineLook
from streamseg.lanes.markings import BirdsEye, Points, together
from streamseg.lanes.model import CURVATURE, HEADING, MIDDLE, PITCH, WIDTH, fit
from streamseg.lanes.result import Lanes
from streamseg.lanes.search import search
from streamseg.lanes.track import START, START_INFORMATION, LaneTrack
from streamseg.lanes.vanishing import VanishingPoint
from streamseg.pixels.planes import rgb_to_planes
from tests.synthetic_drive import Drive, Excursion, Truth, drives

SIZE = (480, 270)
COLOUR = Colour(False, 1, 1, 1, 1)


def frame(planes: np.ndarray, index: int = 0) -> Frame:
    rows, width = planes.shape
    return Frame(planes, index, Fraction(1, 15), index, 0.0, COLOUR, Origin("drive", (width, rows // 3 * 2)))


def follow(drive: Drive) -> list[tuple[Truth, Lanes]]:
    finder = ClassicalLaneFinder()
    small = replace(drive, size_wh=SIZE, rate_fps=15.0)
    return [
        (truth, finder(frame(planes, index), None, 1 / 15 if index else 0.0))
        for index, (planes, truth) in enumerate(small.frames())
    ]


def paint(shape: list[float], *, noise: float = 0.0, dashed: bool = False) -> Points:
    """Places of paint exactly on the two lines of a shape, written out from the definition."""
    middle, width, heading, curvature, pitch = shape
    rng = np.random.default_rng(1)
    y = np.linspace(0.45, 0.05, 60)
    down = y + pitch
    parts = []
    for side in (-0.5, 0.5):
        x = (middle + side * width) * down + heading + curvature / down + rng.normal(0, 1, 60) * noise * down
        seen = np.arange(60) % 12 < 4 if dashed and side > 0 else np.ones(60, bool)
        parts.append((x[seen], y[seen], np.arange(60)[seen]))
    x, y, row = (np.concatenate(values) for values in zip(*parts, strict=True))
    ones = np.ones(len(x), np.float32)
    return Points(x.astype(np.float32), y.astype(np.float32), ones, row, 0 * ones, 60)


@pytest.mark.parametrize(
    "shape", [[0, 2.7, 0, 0, 0], [0.3, 2.4, 0.02, 0.003, 0.01], [-0.4, 3.3, -0.03, -0.004, -0.01]], ids=str
)
def test_the_shape_of_exact_paint_is_found_again(shape: list[float]) -> None:
    points = paint(shape, noise=0.01, dashed=True)
    found = search(points)
    assert found is not None
    fitted = fit(points, found[0], START, START_INFORMATION * 1e-3).shape
    assert fitted[MIDDLE] == pytest.approx(shape[0], abs=0.02)
    assert fitted[WIDTH] == pytest.approx(shape[1], abs=0.03)
    assert fitted[HEADING] == pytest.approx(shape[2], abs=0.003)
    assert fitted[CURVATURE] == pytest.approx(shape[3], abs=0.0004)
    assert fitted[PITCH] == pytest.approx(shape[4], abs=0.003)


def test_a_few_false_places_do_not_move_the_fit() -> None:
    points = paint([0, 2.7, 0, 0, 0])
    x = points.x.copy()
    x[10:16] += 0.2 * points.y[10:16]
    shape = fit(replace(points, x=x), START, START, START_INFORMATION).shape
    assert shape[MIDDLE] == pytest.approx(0, abs=0.01)


def test_a_line_before_a_kerb_is_the_lane() -> None:
    lane, kerb = paint([0, 2.4, 0, 0, 0]), paint([-0.3, 3.0, 0, 0, 0])
    left = kerb.x < 0
    x, y, weight = (np.concatenate([getattr(lane, n), getattr(kerb, n)[left]]) for n in ("x", "y", "weight"))
    both = Points(x, y, weight, np.concatenate([lane.row, kerb.row[left]]), np.zeros_like(x), 60)
    found = search(both)
    assert found is not None
    assert found[0][WIDTH] == pytest.approx(2.4, abs=0.12)


def test_a_lane_with_a_line_in_its_middle_is_two_lanes() -> None:
    shape = np.array([0, 2.7, 0, 0, 0.0])
    outer = paint(shape.tolist(), dashed=True)
    split = paint([1.35, 2.7, 0, 0, 0.0], dashed=True)
    middle = split.x < 0.1 * split.y
    line = Points(*(getattr(split, name)[middle] for name in Points.__slots__[:5]), split.rows)
    assert whole(outer, shape) == 1
    assert whole(together([outer, line]), shape) == 0


def test_the_line_in_the_middle_may_be_between_its_dashes() -> None:
    """The pictures in which a lane is searched lack the middle dashes; what was seen a moment before counts."""
    view = BirdsEye((960, 540), (0.5, 0.5))
    outer, split = paint([0, 2.7, 0, 0, 0.0]), paint([1.35, 2.7, 0, 0, 0.0])
    middle = split.x < 0.1 * split.y
    line = Points(*(getattr(split, name)[middle] for name in Points.__slots__[:5]), split.rows)
    pictures = itertools.cycle([together([outer, line]), together([outer, line]), outer])

    def shown(source: Iterator[Points]) -> int:
        follower = LaneFollower(lambda view, frame, seen: (next(source), lambda shape, score: 1.0), view.vanishing)
        grey = np.full((810, 960), 128, np.uint8)
        return sum(follower(frame(grey, index), None, 0.1).left is not None for index in range(1, 31))

    assert shown(itertools.repeat(outer)) > 20
    assert shown(pictures) == 0


def test_the_filter_follows_time_and_not_frames() -> None:
    """A lane that moves steadily is where it should be, at 10 and at 60 pictures a second."""
    ends = []
    for rate in (10, 60):
        first = fit(paint([0, 2.7, 0, 0, 0]), START, START, START_INFORMATION)
        track = LaneTrack(first)
        for index in range(1, 2 * rate + 1):
            track.step(paint([-0.4 * index / rate, 2.7, 0, 0, 0], noise=0.01), 1 / rate)
        ends.append(track.shape[MIDDLE])
    # Less than 100 ms behind at 0.4 camera heights a second.
    assert ends == pytest.approx([-0.8, -0.8], abs=0.03)


def test_crossing_a_line_leads_into_the_next_lane() -> None:
    track = LaneTrack(fit(paint([-1.2, 2.7, 0, 0, 0]), [-1.2, 2.7, 0, 0, 0], START, START_INFORMATION * 0.01))
    crossed = []
    for step in range(1, 9):
        track.step(paint([-1.2 - 0.05 * step, 2.7, 0, 0, 0]), 0.05)
        crossed.append(track.changed)
        if track.changed:
            break
    assert crossed[-1] == 1
    assert track.shape[MIDDLE] == pytest.approx(-1.2 - 0.05 * len(crossed) + 2.7, abs=0.1)


@pytest.mark.parametrize("kind", ["curve", "night", "departure"])
def test_the_lane_of_a_drawn_drive(kind: str) -> None:
    drive = replace(drives(11)[kind], length_s=2.4)
    seen = follow(drive)
    shown = [(truth, lanes) for truth, lanes in seen if lanes.left is not None]
    assert len(shown) >= 0.95 * len(seen)
    offsets = [abs(truth.offset_lanes - (lanes.offset or 0)) for truth, lanes in shown]
    assert np.median(offsets) < 0.02
    assert np.percentile(offsets, 95) < 0.05
    for truth, lanes in shown[10:]:
        for ours, theirs in ((lanes.left, truth.left), (lanes.right, truth.right)):
            assert ours is not None
            rows = np.linspace(SIZE[1] * 0.95, SIZE[1] * 0.7, 6)
            x, true_x = (np.interp(-rows, -line[:, 1], line[:, 0]) for line in (ours.points, theirs))
            assert np.abs(x - true_x).mean() < 8


@pytest.mark.parametrize(("first", "then", "kind"), [(60, 20, "solid"), (15, 24, "dashed")])
def test_a_line_that_is_worn_for_a_while_does_not_change_its_kind(first: int, then: int, kind: str) -> None:
    points, look = paint([0, 2.7, 0, 0, 0]), LineLook()
    on = points.x > 0
    for painted in (first, then, first):
        for _ in range(60):
            # Sixty rows, of which the nearer 36 count.
            look.look(points, on & (points.row < painted), 1 / 30)
        assert look.kind == kind


def test_solid_dashed_and_yellow_lines_are_told_apart() -> None:
    single = follow(replace(drives(11)["yellow"], length_s=1.2))[-1][1]
    assert single.left is not None
    assert single.right is not None
    assert (single.left.kind, single.left.colour) == ("solid", "yellow")
    assert (single.right.kind, single.right.colour) == ("solid", "white")
    dashed = follow(replace(drives(11)["straight"], length_s=1.2))[-1][1]
    assert dashed.left is not None
    assert (dashed.left.kind, dashed.left.colour) == ("dashed", "white")


def test_a_lane_left_at_a_steep_angle_is_not_lost() -> None:
    # At 12 m/s, changing lanes in three seconds turns the car by ten degrees.
    change = Excursion(0.6, 1.0, 3.0)
    drive = replace(drives(11)["straight"], speed_m_s=12.0, focal=1.0, excursions=(change,), length_s=3.4)
    assert all(lanes.left is not None for _, lanes in follow(drive))


def test_a_road_without_paint_is_said_to_be_unknown() -> None:
    drive = replace(drives(11)["unmarked"], length_s=3.0, unmarked=((1.5, 9.0),))
    seen = follow(drive)
    assert seen[20][1].left is not None
    assert seen[-1][1].left is None
    assert seen[-1][1].confidence == 0


@pytest.mark.parametrize("kind", ["black", "grey", "noise", "upside down", "on its side", "tiny"])
def test_nothing_is_found_where_there_is_no_road(kind: str) -> None:
    finder = ClassicalLaneFinder()
    rng = np.random.default_rng(2)
    size = (64, 36) if kind == "tiny" else SIZE
    source = replace(drives(3)["straight"], size_wh=SIZE).frames()
    for index in range(6):
        planes = np.full((size[1] // 2 * 3, size[0]), 128, np.uint8)
        if kind == "black":
            planes[: size[1]] = 16
        elif kind == "noise":
            planes[: size[1]] = rng.integers(16, 235, (size[1], size[0]))
        elif kind == "upside down":
            planes = next(source)[0]
            planes[: size[1]] = planes[: size[1]][::-1].copy()
        elif kind == "on its side":
            planes, luma = np.full((SIZE[0] * 3 // 2, SIZE[1]), 128, np.uint8), next(source)[0][: SIZE[1]]
            planes[: SIZE[0]] = np.rot90(luma)
        lanes = finder(frame(planes, index), None, 0.3 if index else 0.0)
        assert lanes.left is None
        assert lanes.right is None


def right_or_nothing(seen: list[tuple[Truth, Lanes]], within: float) -> float:
    """The share of frames with a lane, none of which may be another one than the car's."""
    shown = [(truth, lanes) for truth, lanes in seen if lanes.offset is not None]
    assert all(abs(lanes.offset - truth.offset_lanes) < within for truth, lanes in shown)
    return len(shown) / len(seen)


def test_a_phone_held_upright() -> None:
    drive = replace(drives(11)["straight"], size_wh=(270, 480), focal=1.8, length_s=2.0, rate_fps=15.0)
    finder = ClassicalLaneFinder()
    seen = [(truth, finder(frame(planes), None, 1 / 15)) for planes, truth in drive.frames()]
    assert right_or_nothing(seen, 0.1) > 0.5


def test_a_parked_car_neither_shakes_nor_reports() -> None:
    planes, truth = next(replace(drives(11)["straight"], size_wh=SIZE).frames())
    finder, events = ClassicalLaneFinder(), LaneEvents()
    seen = []
    for index in range(150):
        lanes = finder(frame(planes, index), None, 0.1 if index else 0.0)
        assert not events(lanes, (), index / 10)
        seen.append((truth, lanes))
    assert right_or_nothing(seen, 0.05) == 1
    assert np.std([lanes.offset for _, lanes in seen[20:]]) < 1e-3


def test_frames_at_uneven_times() -> None:
    """A variable frame rate, from 60 frames a second to 5."""
    drive = replace(drives(11)["departure"], size_wh=SIZE, rate_fps=60.0, length_s=4.0)
    gaps = np.random.default_rng(4).choice([1, 2, 4, 12], 200)
    wanted = set(np.cumsum(gaps).tolist())
    finder, seen, last = ClassicalLaneFinder(), [], None
    for index, (planes, truth) in enumerate(drive.frames()):
        if index in wanted:
            lanes = finder(frame(planes, index), None, 0.0 if last is None else truth.time_s - last)
            seen.append((truth, lanes))
            last = truth.time_s
    assert right_or_nothing(seen, 0.1) > 0.9


def test_a_time_lapse_of_a_frame_a_second() -> None:
    drive = replace(drives(11)["curve"], size_wh=SIZE, rate_fps=1.0, length_s=10.0)
    finder = ClassicalLaneFinder()
    seen = [(truth, finder(frame(planes), None, 1.0 if i else 0.0)) for i, (planes, truth) in enumerate(drive.frames())]
    assert right_or_nothing(seen, 0.15) > 0.5


def test_a_fisheye() -> None:
    """A picture that bends straight lines: what is drawn is the car's lane, or nothing is drawn."""
    drive = replace(drives(11)["straight"], size_wh=SIZE, length_s=2.0, rate_fps=15.0)
    x, y = np.meshgrid(np.arange(SIZE[0]) - SIZE[0] / 2, np.arange(SIZE[1]) - SIZE[1] / 2)
    # Equidistant projection of 120 degrees across: radius over the focal length is the angle.
    focal = SIZE[0] / np.radians(120)
    angle = np.hypot(x, y) / focal
    scale = (np.tan(np.minimum(angle, 1.4)) / np.maximum(angle, 1e-6) * 0.9 * SIZE[0] / focal).astype(np.float32)
    maps = [(side * scale + size / 2).astype(np.float32) for side, size in ((x, SIZE[0]), (y, SIZE[1]))]
    finder, seen = ClassicalLaneFinder(), []
    for planes, truth in drive.frames():
        bent = np.full_like(planes, 128)
        bent[: SIZE[1]] = cv2.remap(planes[: SIZE[1]], *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        seen.append((truth, finder(frame(bent), None, 1 / 15)))
    right_or_nothing(seen, 0.15)


@pytest.mark.parametrize(("horizon", "in_sight"), [(0.5, True), (0.06, False)])
def test_from_a_bridge_no_vanishing_point_is_in_sight(horizon: float, in_sight: bool) -> None:
    """The camera hangs high and looks down: the lines meet at the picture's upper edge, and no lane begins."""
    drive = Drive(size_wh=SIZE, height_m=7.0, focal=1.2, horizon=horizon, lanes=4)
    planes, _ = next(drive.frames())
    assert (VanishingPoint()(planes[: SIZE[1]], 0.0)[2] > 0) == in_sight
    if not in_sight:
        assert ClassicalLaneFinder()(frame(planes), None, 0.0).left is None


def test_nothing_is_looked_for_on_the_bonnet() -> None:
    """A bright bonnet with stripes hides the road's lower fifth; lines end above it."""
    planes, truth = next(replace(drives(11)["straight"], size_wh=SIZE).frames())
    bonnet = round(0.8 * SIZE[1])
    planes[bonnet : SIZE[1]] = np.where(np.arange(SIZE[0]) % 40 < 4, 235, 90)
    lanes = ClassicalLaneFinder(bonnet=0.8)(frame(planes), None, 0.0)
    assert lanes.left is not None
    assert lanes.right is not None
    for ours, theirs in ((lanes.left.points, truth.left), (lanes.right.points, truth.right)):
        assert ours[:, 1].max() == pytest.approx(bonnet, abs=1)
        rows = np.linspace(0.78, 0.65, 6) * SIZE[1]
        x, true_x = (np.interp(-rows, -line[:, 1], line[:, 0]) for line in (ours, theirs))
        assert np.abs(x - true_x).mean() < 8


def test_another_size_starts_anew() -> None:
    finder = ClassicalLaneFinder()
    for size in ((640, 360), (480, 270)):
        planes, _ = next(replace(drives(11)["straight"], size_wh=(size[0], size[1] // 2 * 2)).frames())
        assert finder(frame(planes), None, 0.0).frame_wh == (size[0], size[1] // 2 * 2)


def test_nothing_is_carried_across_a_cut() -> None:
    """The next shot's camera hangs higher: its lane is that of a finder that has seen nothing before."""
    planes, _ = next(replace(drives(11)["straight"], size_wh=SIZE).frames())
    other, _ = next(replace(drives(11)["straight"], size_wh=SIZE, horizon=0.38).frames())
    finder = ClassicalLaneFinder()
    for index in range(10):
        assert finder(frame(planes, index), None, 1 / 15 if index else 0.0).left is not None
    after, alone = (find(frame(other, 10), None, 0.0).left for find in (finder, ClassicalLaneFinder()))
    assert after is not None
    assert alone is not None
    assert np.array_equal(after.points, alone.points)


@pytest.mark.material
def test_nothing_is_found_in_photographs_of_people(material: Path) -> None:
    found = []
    for path in sorted((material / "media" / "people").glob("*.jpg")):
        picture = cv2.imread(str(path))[..., ::-1]
        picture = np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2])
        lanes = ClassicalLaneFinder()(frame(rgb_to_planes(picture, COLOUR)), None, 0.0)
        found += [path.name] if lanes.left is not None else []
    assert found == []


@pytest.mark.material
def test_lines_of_real_frames_are_found_and_better_than_by_the_tutorials_script(
    material: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    hough = importlib.import_module("hough")
    scores = importlib.import_module("lane_scores")
    finder, ours, theirs = ClassicalLaneFinder(), np.zeros(3, int), np.zeros(3, int)
    for index, path in enumerate(sorted((material / "datasets" / "culane").glob("*.jpg"))):
        picture = cv2.imread(str(path))
        rows = path.with_name(path.stem + ".lines.txt").read_text().splitlines()
        truth = [np.array(row.split(), float).reshape(-1, 2) for row in rows if row.strip()]
        size = (picture.shape[1], picture.shape[0])
        planes = rgb_to_planes(np.ascontiguousarray(picture[..., ::-1]), COLOUR)
        lanes = finder(frame(planes, index), None, 1.0 if index else 0.0)
        found = [line.points for line in (lanes.left, lanes.right) if line is not None]
        ours += scores.culane_counts(found, truth, size, 0.5)
        theirs += scores.culane_counts(hough.hough_lanes(picture), truth, size, 0.5)
    assert scores.f1(*ours) > 0.8
    assert scores.f1(*ours) >= scores.f1(*theirs) + 0.15
