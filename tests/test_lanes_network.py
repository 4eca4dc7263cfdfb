"""Lanes from a network's classes: the maps are drawn here, from the true geometry of drawn drives."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from streamseg.errors import ConfigError
from streamseg.lanes.network import NetworkLaneFinder, without_border_lines
from streamseg.segment.result import ClassMap
from tests.clips import frame as clip_frame
from tests.synthetic_drive import Drive, Truth, drives

SIZE = (480, 270)
NAMES = ("background", "road", "line")


def seen(drive: Drive, truth: Truth, *, border: bool = False) -> ClassMap:
    """What a perfect network would give at 320 x 192: all lines of the road 4 px wide, the lane as road."""
    line, road = np.zeros((192, 320), np.float32), np.zeros((192, 320), np.float32)
    scale = np.array([320 / SIZE[0], 192 / SIZE[1]])
    lane_px = truth.right - truth.left
    cv2.fillPoly(road, [np.rint(np.concatenate([truth.left, truth.right[::-1]]) * scale).astype(np.int32)], 1.0)
    for number in (-1, 0, 1, 2):
        points = np.rint((truth.left + number * lane_px) * scale).astype(np.int32)
        cv2.polylines(line, [points], False, 1.0, 4)
    if border:
        line[-5:], line[:, :3], line[:4] = 1.0, 1.0, 1.0
    return ClassMap(np.stack([1 - np.maximum(line, road), road, line]), NAMES, SIZE)


@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("kind", ["straight", "curve"])
def test_the_own_lane_and_the_lines_beside_it(kind: str, border: bool) -> None:
    drive = replace(drives(12)[kind], size_wh=SIZE, rate_fps=10.0, length_s=1.2, height_m=1.45, lane_m=3.4)
    finder = NetworkLaneFinder(NAMES)
    for index, (planes, truth) in enumerate(drive.frames()):
        frame = clip_frame(index, *SIZE, planes=planes)
        lanes = finder(frame, seen(drive, truth, border=border), 0.1 if index else 0.0)
    assert lanes.offset == pytest.approx(truth.offset_lanes, abs=0.03)
    assert lanes.left is not None
    assert lanes.left.kind == "unknown"
    for ours, theirs in ((lanes.left, truth.left), (lanes.right, truth.right)):
        rows = np.linspace(SIZE[1] * 0.9, SIZE[1] * 0.65, 6)
        x, true_x = (np.interp(-rows, -line[:, 1], line[:, 0]) for line in (ours.points, theirs))
        assert np.abs(x - true_x).mean() < 6
    # The outer lines of the neighbouring lanes, and no line where only the border was drawn.
    assert len(lanes.others) == 2
    assert lanes.road is not None


def test_the_road_ends_at_the_bonnet_and_has_no_specks() -> None:
    maps = np.zeros((3, 192, 320), np.float32)
    maps[1, 100:, 80:240] = 1
    maps[1, 90:100, 20:30] = 1
    road = NetworkLaneFinder(NAMES, bonnet=0.75)(clip_frame(0, *SIZE), ClassMap(maps, NAMES, SIZE), 0.0).road
    assert road is not None
    assert (road[100:144, 80:240] == 1).all()
    assert road.sum() == 44 * 160


def test_without_an_answer_of_the_network_nothing_is_known() -> None:
    finder = NetworkLaneFinder(NAMES)
    assert finder(clip_frame(0, *SIZE), None, 0.0).left is None
    nothing = ClassMap(np.zeros((3, 192, 320), np.float32), NAMES, SIZE)
    assert finder(clip_frame(1, *SIZE), nothing, 0.1).left is None


def test_bands_along_the_border_go_and_lines_that_leave_the_picture_stay() -> None:
    lines = np.zeros((100, 200), np.float32)
    lines[97:] = 1
    lines[10:90, 198:] = 1
    cv2.line(lines, (60, 99), (100, 40), 1.0, 3)
    cleaned = without_border_lines(lines)
    assert cleaned[:, 198:].max() == 0
    assert cleaned[97:].max() == 0
    assert cleaned[60, 80:95].max() == 1


def test_classes_by_name() -> None:
    assert NetworkLaneFinder(("solid", "dashed", "car"))
    assert NetworkLaneFinder(("a", "b"), lines=["b"], roads=[])
    with pytest.raises(ConfigError, match="names 'kerb', which is no class of the network: a, b"):
        NetworkLaneFinder(("a", "b"), lines=["kerb"])
    with pytest.raises(ConfigError, match=r"none of the network's classes is known to be a lane line \(person, car\)"):
        NetworkLaneFinder(("person", "car"))
