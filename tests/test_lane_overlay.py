"""What the lane overlay paints, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamseg.effects.lanes import PARTS, Drive, LaneOverlay
from streamseg.frame import Frame
from streamseg.lanes import LaneFinder
from streamseg.lanes.camera import Camera
from streamseg.lanes.classical import ClassicalLaneFinder
from streamseg.lanes.events import LaneEvents, Thresholds
from streamseg.lanes.result import Boundary, Lanes
from streamseg.lanes.telemetry import Fix
from streamseg.pixels.planes import split
from tests.clips import frame as clip_frame
from tests.synthetic_drive import drives
from tests.test_lane_events import lanes as straight_lanes

SIZE = (640, 360)


def grey(index: int = 0) -> Frame:
    planes = np.full((540, 640), 128, np.uint8)
    planes[:360] = 70
    return clip_frame(index, *SIZE, planes=planes)


def found(lanes: Lanes) -> LaneFinder:
    return lambda frame, segmentation, dt_s: lanes


def changed(before: Frame, after: Frame) -> np.ndarray:
    return split(before.planes)[0] != split(after.planes)[0]


def test_the_lane_is_filled_between_its_lines_and_nowhere_else() -> None:
    lanes = straight_lanes(0.0)
    source = grey()
    before = source.planes.copy()
    out = LaneOverlay(found(lanes), show=["lane"])(source, None, 0.0)
    assert np.array_equal(source.planes, before)
    touched = changed(source, out.frame)
    assert touched[300, 320]
    rows, columns = np.nonzero(touched)
    for row in (200, 280, 350):
        inside = columns[rows == row]
        reach = 200 * (row - 165) / (359 - 165)
        assert inside.min() == pytest.approx(320 - reach, abs=3)
        assert inside.max() == pytest.approx(320 + reach, abs=3)
    assert rows.min() >= 160
    assert isinstance(out.segmentation, Drive)
    assert out.segmentation.lanes is lanes


def test_without_a_lane_nothing_but_the_panel_is_painted() -> None:
    source = grey()
    out = LaneOverlay(found(Lanes(SIZE)))(source, None, 0.0)
    rows, columns = np.nonzero(changed(source, out.frame))
    assert rows.max() < 90
    assert columns.max() < 260
    bare = LaneOverlay(found(Lanes(SIZE)), show=set(PARTS) - {"panel"})(source, None, 0.0)
    assert np.array_equal(bare.frame.planes, source.planes)


@pytest.mark.parametrize("part", ["lane", "lines", "centre", "panel"])
def test_every_part_can_be_switched_off(part: str) -> None:
    source = grey()
    lanes = straight_lanes(0.1)
    whole = LaneOverlay(found(lanes))(source, None, 0.0).frame.planes
    without = LaneOverlay(found(lanes), show=set(PARTS) - {part})(source, None, 0.0).frame.planes
    alone = LaneOverlay(found(lanes), show=[part])(source, None, 0.0).frame.planes
    assert not np.array_equal(whole, without)
    assert not np.array_equal(alone, source.planes)


def test_leaving_the_lane_changes_its_colour() -> None:
    overlay = LaneOverlay(found(straight_lanes(0.4)), show=["lane", "warning"])
    first = overlay(grey(0), None, 0.0)
    later = overlay(grey(12), None, 0.4)
    v = [split(out.frame.planes)[2][150, 160] for out in (first, later)]
    assert v[1] > v[0] + 10
    assert [event.kind for event in later.segmentation.events] == ["departure"]


def test_the_panel_warns_only_while_the_lane_is_known() -> None:
    seen = iter([straight_lanes(0.4), straight_lanes(0.4), Lanes(SIZE)])
    overlay = LaneOverlay(lambda frame, segmentation, dt_s: next(seen), show=["panel", "warning"])
    outputs = [overlay(grey(index), None, 0.4) for index in (0, 12, 13)]
    unknown = LaneOverlay(found(Lanes(SIZE)), show=["panel"])(grey(13), None, 0.0)
    assert [event.kind for event in overlay.events.open] == ["departure"]
    # The tint of the warning is in V.
    assert split(outputs[1].frame.planes)[2].max() > 150
    assert np.array_equal(outputs[2].frame.planes, unknown.frame.planes)


def test_the_gauge_warns_when_the_thresholds_say_so() -> None:
    """And not from an offset of its own, which the user cannot set."""
    for depart, warns in ((0.3, True), (0.45, False)):
        events = LaneEvents(Thresholds(depart=depart, back=0.2))
        overlay = LaneOverlay(found(straight_lanes(0.4)), show=["panel", "warning"], events=events)
        outputs = [overlay(grey(index), None, 0.4) for index in (0, 12)]
        assert (split(outputs[1].frame.planes)[2].max() > 150) == warns


def test_dashes_have_gaps() -> None:
    lanes = straight_lanes(0.0)
    assert lanes.left is not None
    y = np.linspace(359, 165, 40)
    points = np.stack([320 - 200 * (y - 165) / 194, y], 1).astype(np.float32)
    solid, dashed = (
        LaneOverlay(found(replace(lanes, left=Boundary(points, 1.0, kind))), show=["lines"])(grey(), None, 0.0)
        for kind in ("solid", "dashed")
    )
    painted = [changed(grey(), out.frame)[:, :320].any(axis=1).sum() for out in (solid, dashed)]
    assert 0.4 * painted[0] < painted[1] < 0.9 * painted[0]


def test_the_road_of_a_network_is_tinted() -> None:
    road = np.zeros((90, 160), np.float32)
    road[60:, 40:120] = 1
    source = grey()
    out = LaneOverlay(found(Lanes(SIZE, road=road)), show=["road"])(source, None, 0.0)
    touched = split(source.planes)[1] != split(out.frame.planes)[1]
    assert touched[150, 160]
    assert not touched[100, 160]


def test_metres_from_the_camera() -> None:
    camera = Camera(height_m=1.3, view_deg=60)
    lanes = replace(straight_lanes(0.1), width=2.7, vanishing_px=(320.0, 160.0))
    assert camera.offset_m(lanes) == pytest.approx(0.351)
    assert camera.width_m(lanes) == pytest.approx(3.51)
    assert camera.radius_m(lanes) == float("inf")
    focal = 320 / np.tan(np.radians(30))
    # A point 2 m to the right, 20 m ahead, seen by a pinhole 1.3 m above the road.
    point = np.array([[320 + focal * 2 / 20, 160 + focal * 1.3 / 20]], np.float32)
    assert camera.on_road(point, lanes)[0] == pytest.approx([2, 20], rel=1e-3)


def test_the_radius_of_a_drawn_bend() -> None:
    # 1 / 800 m to the right, in a drive of known optics.
    drive = replace(drives(11)["straight"], curvature=lambda t: 1 / 800, size_wh=SIZE, rate_fps=15.0, length_s=2.0)
    finder, radius = ClassicalLaneFinder(), []
    camera = Camera(drive.height_m, 2 * np.degrees(np.arctan(0.5 / drive.focal)))
    for index, (planes, _) in enumerate(drive.frames()):
        lanes = finder(clip_frame(index, *SIZE, planes=planes), None, 1 / 15 if index else 0.0)
        if lanes.left is not None:
            radius.append(camera.radius_m(lanes))
    assert np.median(radius[10:]) == pytest.approx(800, rel=0.25)


def test_letters_of_the_panel_are_as_large_in_a_small_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr("streamseg.effects.lanes.write", lambda planes, text, at, size, colour: sizes.append(size))
    small = clip_frame(0, 256, 144, planes=np.full((216, 256), 70, np.uint8))
    LaneOverlay(found(Lanes((256, 144))), show=["panel"])(small, None, 0.0)
    assert sizes == [9.0]


@pytest.mark.parametrize(
    ("offset", "words"), [(0.004, "in the centre"), (-0.004, "in the centre"), (-0.02, "2% left of centre")]
)
def test_a_car_in_the_centre_is_on_no_side(offset: float, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr("streamseg.effects.lanes.write", lambda planes, text, at, size, colour: said.append(text))
    LaneOverlay(found(straight_lanes(offset)), show=["panel"])(grey(), None, 0.0)
    assert said[0] == words


def test_speed_and_place_go_into_events_and_the_panel() -> None:
    where = {0.0: Fix(0.0, 48.0, 11.0, 20.0), 1 / 30: Fix(1 / 30, 48.0, 11.0, 21.0, filled=True)}.get
    overlay = LaneOverlay(found(straight_lanes(0.4)), show=["panel"], where=where)
    plain = LaneOverlay(found(straight_lanes(0.4)), show=["panel"])
    known, unknown = (one(grey(0), None, 0.0).frame for one in (overlay, plain))
    assert not np.array_equal(known.planes, unknown.planes)
    overlay(grey(1), None, 1 / 30)
    drive = overlay(grey(2), None, 1 / 30).segmentation
    assert isinstance(drive, Drive)
    (event,) = drive.events
    assert (event.kind, event.speed_m_s, event.latitude, event.filled) == ("departure", 20.0, 48.0, False)
