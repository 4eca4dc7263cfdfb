"""What the instances overlay paints."""

from __future__ import annotations

import numpy as np
import pytest

from streamseg.effects.instances import PARTS, InstanceOverlay, InstancePainter, RoadUsers, Tracked
from streamseg.frame import Frame
from streamseg.pixels.letterbox import Placement
from streamseg.pixels.planes import split
from streamseg.segment.result import ClassMap, Instances, Matte
from streamseg.temporal.tracks import BuiltinTracker
from tests.clips import frame as clip_frame

SIZE = (320, 320)
NAMES = ("person", "car")


def grey(index: int = 0) -> Frame:
    planes = np.full((480, 320), 128, np.uint8)
    planes[:320] = 70
    return clip_frame(index, *SIZE, planes=planes)


def seen(boxes: list[tuple[float, float, float, float]], class_ids: list[int], hollow: bool = False) -> Instances:
    """Instances that fill their boxes; `hollow` ones have no mask at all."""
    count = len(boxes)
    prototypes = np.full((1, 80, 80), -9.0 if hollow else 9.0, np.float32)
    return Instances(
        np.array(boxes, np.float32).reshape(-1, 4), np.full(count, 0.9, np.float32), np.array(class_ids, np.int64),
        np.ones((count, 1), np.float32), prototypes, Placement.letterbox(SIZE, SIZE), NAMES,
    )  # fmt: skip


def test_masks_lie_in_their_boxes_and_the_source_is_left_alone() -> None:
    source = grey()
    before = source.planes.copy()
    overlay = InstanceOverlay(InstancePainter(["masks"]))
    out = overlay(source, seen([(40, 60, 140, 200)], [0]), 0.0)
    assert np.array_equal(source.planes, before)
    rows, columns = np.nonzero(split(out.frame.planes)[0] != 70)
    assert (rows.min(), rows.max()) == (pytest.approx(60, abs=1), pytest.approx(199, abs=1))
    assert (columns.min(), columns.max()) == (pytest.approx(40, abs=1), pytest.approx(139, abs=1))


@pytest.mark.parametrize("part", PARTS)
def test_every_part_can_be_switched_off(part: str) -> None:
    found = seen([(40, 60, 140, 200)], [0])
    whole, without, alone = (
        InstanceOverlay(InstancePainter(show))(grey(), found, 0.0).frame.planes
        for show in (None, set(PARTS) - {part}, [part])
    )
    assert not np.array_equal(whole, without)
    assert not np.array_equal(alone, grey().planes)


def test_classes_are_chosen_by_name() -> None:
    overlay = InstanceOverlay(classes=["car"])
    found = seen([(10, 60, 100, 200), (180, 60, 300, 200)], [0, 1])
    out = overlay(grey(), found, 0.0)
    touched = split(out.frame.planes)[0] != 70
    assert not touched[:, :100].any()
    assert touched[100, 250]
    assert isinstance(out.segmentation, Tracked)
    assert out.segmentation.instances.class_ids.tolist() == [1]


def test_colour_by_class_and_by_identity() -> None:
    found = seen([(10, 60, 100, 200), (180, 60, 300, 200)], [1, 1])
    chroma = []
    for colour_by in ("class", "instance"):
        overlay = InstanceOverlay(InstancePainter(["masks"], colour_by=colour_by), tracker=BuiltinTracker())
        u = split(overlay(grey(), found, 0.0).frame.planes)[1]
        chroma.append((u[60, 30], u[60, 120]))
    assert chroma[0][0] == chroma[0][1]
    assert chroma[1][0] != chroma[1][1]


def test_a_mask_that_flickers_is_steadied_by_time() -> None:
    """A mask that is missing in every second frame: its opacity swings less, the more so the higher the rate."""
    swings = []
    for half_life_s in (0.0, 0.08):
        painter = InstancePainter(["masks"], half_life_s=half_life_s)
        levels = []
        for index in range(30):
            found = seen([(40, 60, 140, 200)], [0], hollow=index % 5 == 4)
            planes = grey().planes.copy()
            painter.paint(planes, Tracked(found, np.array([1])), grey(), 1 / 30 if index else 0.0)
            levels.append(float(split(planes)[0][130, 90]))
        swings.append(np.ptp(levels[10:]))
    assert swings[0] > 20
    assert swings[1] < 0.6 * swings[0]


def test_what_the_tracker_has_not_confirmed_is_told_and_not_painted() -> None:
    overlay = InstanceOverlay(InstancePainter(["masks"]), tracker=BuiltinTracker(sure=0.4))
    unsure = seen([(40, 60, 140, 200)], [0]).pick(np.array([True]))
    unsure.scores[:] = 0.3
    overlay(grey(), unsure, 0.0)
    for index in range(1, 4):
        out = overlay(grey(index), unsure, 1 / 30)
        assert np.array_equal(out.frame.planes, grey().planes)
        assert isinstance(out.segmentation, Tracked)
        assert out.segmentation.numbers.tolist() == [0]
    assert not np.array_equal(InstanceOverlay()(grey(), unsure, 0.0).frame.planes, grey().planes)


def test_what_is_missing_for_a_moment_is_drawn_where_it_should_be() -> None:
    painter = InstancePainter(["masks"])

    def painted(box: tuple[float, float, float, float] | None, dt_s: float) -> np.ndarray:
        planes = grey().planes.copy()
        found = seen([box] if box else [], [0] if box else [])
        painter.paint(planes, Tracked(found, np.array([1] if box else [], np.int64), followed=True), grey(), dt_s)
        return np.flatnonzero((split(planes)[0] != 70).any(axis=0))

    for index in range(10):
        there = painted((40 + 6 * index, 60, 100 + 6 * index, 200), 1 / 30 if index else 0.0)
    for missing in (1, 2, 3):
        columns = painted(None, 1 / 30)
        assert (columns.min(), columns.max()) == pytest.approx(
            (there.min() + 6 * missing, there.max() + 6 * missing), abs=2
        )
    assert not painted(None, 1 / 30).size
    painted((40, 60, 100, 200), 1 / 30)
    # A cut begins anew.
    assert not painted(None, 0.0).size


def test_a_semantic_network_is_painted_in_areas() -> None:
    probabilities = np.zeros((3, 40, 40), np.float32)
    probabilities[1, :, :20] = 1
    probabilities[2, :, 20:] = 1
    found = ClassMap(probabilities, ("none", "road", "sky"), SIZE)
    v = split(InstanceOverlay()(grey(), found, 0.0).frame.planes)[2]
    assert v[80, 40] != v[80, 120]
    only = split(InstanceOverlay(classes=["sky"])(grey(), found, 0.0).frame.planes)[2]
    assert only[80, 40] == 128
    assert only[80, 120] == v[80, 120]


def test_what_has_no_instances_is_passed_on() -> None:
    source = grey()
    for found in (None, Matte(np.ones((4, 4), np.float32), SIZE)):
        assert InstanceOverlay()(source, found, 0.0).frame is source
    empty = InstanceOverlay(tracker=BuiltinTracker())(source, seen([], []), 0.0)
    assert np.array_equal(empty.frame.planes, source.planes)


def test_boxes_at_the_border_and_of_no_size() -> None:
    found = seen([(0, 0, 320, 320), (319, 319, 320, 320), (50, 50, 50, 50)], [0, 1, 0])
    out = InstanceOverlay(tracker=BuiltinTracker())(grey(), found, 0.0)
    assert split(out.frame.planes)[0][160, 160] != 70


def test_the_cars_own_bonnet_is_no_road_user() -> None:
    bonnet, ahead, lorry = (10, 270, 310, 314), (120, 120, 200, 180), (60, 40, 260, 318)
    users = RoadUsers(lambda frame: seen([bonnet, ahead, lorry], [1, 1, 1]))
    users(grey(), 0.0)
    found = users(grey(3), 0.1)
    assert sorted(user.box_xyxy for user in found) == [lorry, ahead]


def test_road_users_keep_their_numbers_and_are_painted() -> None:
    def segment(frame: Frame) -> Instances:
        return seen([(40 + frame.index, 60, 140 + frame.index, 200)], [1])

    users = RoadUsers(segment, painter=InstancePainter())
    for index in range(31):
        found = users(grey(index), 1 / 30 if index else 0.0)
        assert [(user.track, user.class_name) for user in found] == [(1, "car")]
    planes = grey().planes.copy()
    users.paint(planes, grey(), 1 / 30)
    assert not np.array_equal(planes, grey().planes)


def test_an_object_that_is_called_something_else_for_a_moment_keeps_its_class() -> None:
    said = [1] * 6 + [0, 0, 1, 0]

    def segment(frame: Frame) -> Instances:
        return seen([(40 + frame.index, 60, 140 + frame.index, 200)], [said[frame.index]])

    users, overlay = RoadUsers(segment), InstanceOverlay(tracker=BuiltinTracker())
    for index in range(len(said)):
        dt_s = 1 / 30 if index else 0.0
        assert [(user.track, user.class_name) for user in users(grey(index), dt_s)] == [(1, "car")]
        followed = overlay(grey(index), segment(grey(index)), dt_s).segmentation
        assert isinstance(followed, Tracked)
        assert followed.instances.class_ids.tolist() == [1]
