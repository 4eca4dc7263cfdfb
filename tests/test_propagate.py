"""What a keyframe says of the pictures near it, on movements that are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from streamseg.frame import Plane
from streamseg.temporal import Propagator, move_boxes


def texture(seed: int, height: int = 360, width: int = 640) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    total = np.sum([ndimage.gaussian_filter(random.normal(0, 1, (height, width)), s) * s for s in (2, 6, 18)], axis=0)
    return (total - total.min()) / np.ptp(total) * 200 + 20


BACK, SUBJECT = texture(1), texture(2)


def scene(x: float) -> tuple[Plane, NDArray[np.float32]]:
    """A textured disk of 80 px at (200 + x, 180) over a textured wall, and its matte at a quarter of the size."""
    rows, columns = np.mgrid[:360, :640]
    inside = np.hypot(columns - 200 - x, rows - 180) < 80
    picture = np.where(inside, np.roll(SUBJECT, round(x), axis=1), BACK)
    matte = inside.reshape(90, 4, 160, 4).mean(axis=(1, 3)).astype(np.float32)
    return np.rint(picture).astype(np.uint8), matte


def iou(found: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    found, truth = found > 0.5, truth > 0.5
    return float(np.count_nonzero(found & truth) / np.count_nonzero(found | truth))


def test_a_matte_follows_its_subject() -> None:
    luma, matte = scene(0)
    later, truth = scene(24)
    propagator = Propagator()
    assert propagator.keyframe(matte, luma) == []
    carried = propagator.carry(later, 0.1)
    assert carried.layers.shape == carried.confidence.shape == matte.shape
    assert carried.layers.dtype == np.float32
    assert iou(matte, truth) < 0.7, "what holding it would give"
    assert iou(carried.layers, truth) > 0.84, "the wall that it uncovered is dragged along a little"
    assert carried.confidence[60:, 120:].mean() > 0.95, "the wall stands still"


def test_stacks_and_class_maps_travel_alike() -> None:
    luma, matte = scene(0)
    later, _ = scene(24)
    propagator = Propagator()
    propagator.keyframe(matte, luma)
    alone = propagator.carry(later, 0.1).layers
    propagator.keyframe(np.stack([1 - matte, matte]), luma)
    pair = propagator.carry(later, 0.1).layers
    np.testing.assert_allclose(pair[1], alone, atol=1e-6)
    np.testing.assert_allclose(pair.sum(axis=0), 1, atol=1e-5)
    propagator.keyframe(np.empty((0, 90, 160), np.float32), luma)
    nothing = propagator.carry(later, 0.1)
    assert nothing.layers.shape == (0, 90, 160)
    assert not nothing.wants_keyframe


def test_another_picture_wants_the_network() -> None:
    luma, matte = scene(0)
    propagator = Propagator()
    propagator.keyframe(matte, luma)
    assert not propagator.carry(luma, 0.1).wants_keyframe
    other = np.rint(texture(8)).astype(np.uint8)
    carried = propagator.carry(other, 0.1)
    assert carried.wants_keyframe
    assert carried.confidence.mean() < 0.5


def test_where_the_flow_is_wrong_and_the_picture_stood_still_the_last_answer_is_held() -> None:
    """A field that is wrong on purpose: everything is said to have come from 10 px of half the size further right."""
    luma, matte = scene(0)
    propagator = Propagator()
    propagator._tracker._flow = lambda here, there: np.broadcast_to(np.float32([10, 0]), (90, 160, 2)).copy()
    propagator.keyframe(matte, luma)
    carried = propagator.carry(luma, 0.1)
    assert iou(carried.layers, matte) > 0.97
    assert iou(np.roll(matte, -10, axis=1), matte) < 0.75, "what the field alone would give"


def test_an_old_keyframe_is_replaced() -> None:
    luma, matte = scene(0)
    propagator = Propagator(longest_s=0.4)
    propagator.keyframe(matte, luma)
    assert not propagator.carry(luma, 0.39).wants_keyframe
    assert propagator.carry(luma, 0.4).wants_keyframe


def test_two_sided_waits_and_then_beats_one_side() -> None:
    places = [0, 22, 44, 66]
    (first, matte), *between, (last, last_matte) = [scene(x) for x in places]
    propagator = Propagator(two_sided=True, unsure_limit=9.0)
    assert propagator.keyframe(matte, first) == []
    previews = [propagator.carry(luma, n / 30).layers for n, (luma, _) in enumerate(between, 1)]
    settled = propagator.keyframe(last_matte, last, 3 / 30)
    assert len(settled) == 2
    one, two = (np.mean([iou(m, t) for m, (_, t) in zip(ms, between, strict=True)]) for ms in (previews, settled))
    assert two > one + 0.05, "what one keyframe had covered the other one shows"
    assert two > 0.9
    assert propagator.flush() == []


def test_two_sided_the_motion_between_neighbours_is_searched_for_once() -> None:
    """Of frames 0 to 3, of which 3 is the next keyframe: three pairs, and nothing across."""
    lumas = [scene(x)[0] for x in (0, 12, 24, 36)]
    matte = scene(0)[1]
    propagator = Propagator(two_sided=True, unsure_limit=9.0)
    searched = []
    search = propagator._tracker.way
    smalls = []

    def counted(here, there):
        for luma in (there, here):
            if not any(luma is known for known in smalls):
                smalls.append(luma)
        places = [next(n for n, known in enumerate(smalls) if known is luma) for luma in (here, there)]
        searched.append(tuple(places))
        return search(here, there)

    propagator._tracker.way = counted
    propagator.keyframe(matte, lumas[0])
    for n, luma in enumerate(lumas[1:3], 1):
        propagator.carry(luma, n / 30)
    propagator.keyframe(matte, lumas[3], 3 / 30)
    assert searched == [(1, 0), (2, 1), (3, 2)]
    # One that wants the network becomes the keyframe: its way is known already.
    searched.clear()
    wanting = np.rint(texture(8)).astype(np.uint8)
    small = propagator._fit(wanting)
    assert propagator.carry(small, 1.0).wants_keyframe
    propagator.keyframe(matte, small, 1.0)
    assert len(searched) == 1


def test_between_two_sure_keyframes_the_nearer_counts_more() -> None:
    luma, _ = scene(0)
    propagator = Propagator(two_sided=True)
    propagator.keyframe(np.zeros((90, 160), np.float32), luma)
    propagator.carry(luma, 0.1)
    propagator.carry(luma, 0.2)
    near, far = propagator.keyframe(np.ones((90, 160), np.float32), luma, 0.4)
    assert near == pytest.approx(0.25, abs=1e-3)
    assert far == pytest.approx(0.5, abs=1e-3)


def test_what_waits_is_not_lost_at_the_end_and_forgotten_on_reset() -> None:
    luma, matte = scene(0)
    propagator = Propagator(two_sided=True)
    propagator.keyframe(matte, luma)
    preview = propagator.carry(luma, 0.1).layers
    assert [layers is preview for layers in propagator.flush()] == [True]
    propagator.carry(luma, 0.1)
    other_shape = propagator.keyframe(np.zeros((45, 80), np.float32), luma, 0.2)
    assert [layers.shape for layers in other_shape] == [(90, 160)], "the earlier keyframe alone"
    propagator.carry(luma, 0.1)
    propagator.reset()
    assert propagator.keyframe(matte, luma, 0.2) == []
    propagator.reset()
    with pytest.raises(ValueError, match="keyframe first"):
        propagator.carry(luma, 0.1)


def test_a_picture_that_wants_a_keyframe_does_not_wait() -> None:
    luma, matte = scene(0)
    propagator = Propagator(two_sided=True, longest_s=0.1)
    propagator.keyframe(matte, luma)
    assert propagator.carry(luma, 0.1).wants_keyframe
    assert propagator.keyframe(matte, luma, 0.1) == []


def test_the_same_pictures_give_the_same_layers() -> None:
    luma, matte = scene(0)
    later, _ = scene(30)

    def run() -> NDArray[np.float32]:
        propagator = Propagator()
        propagator.keyframe(matte, luma)
        propagator.carry(scene(10)[0], 0.03)
        return propagator.carry(later, 0.1).layers

    np.testing.assert_array_equal(run(), run())


def test_boxes_follow_their_masks() -> None:
    before, after = np.zeros((3, 90, 160), np.float32), np.zeros((3, 90, 160), np.float32)
    before[0, 20:40, 30:50] = 1
    after[0, 25:45, 40:60] = 1  # 10 cells right, 5 down
    before[1, 20:40, 30:50] = 1
    after[1, 15:45, 25:55] = 1  # grown by 5 to each side
    before[2, 20:40, 30:50] = 1  # lost
    boxes = np.float32([[120, 80, 200, 160]] * 3)
    moved = move_boxes(boxes, before, after, (640, 360))
    np.testing.assert_allclose(moved[0], [160, 100, 240, 180], atol=0.5)
    np.testing.assert_allclose(moved[1], [100, 60, 220, 180], atol=4.1)
    assert (moved[2] == boxes[2]).all()
