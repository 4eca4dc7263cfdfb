"""Flow, warping and confidence against movements that are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from streamseg.frame import Plane
from streamseg.pixels.flow import Flow, FlowTracker, Warp, confidence, fit_field, flow_wh, residual, small_luma


def scene(seed: int = 1, height: int = 180, width: int = 320) -> NDArray[np.float64]:
    """Texture of all sizes in 0..255."""
    random = np.random.default_rng(seed)
    layers = [ndimage.gaussian_filter(random.normal(0, 1, (height, width)), s, mode="wrap") * s for s in (1, 3, 9)]
    total = np.sum(layers, axis=0)
    return (total - total.min()) / np.ptp(total) * 255


def as_luma(picture: NDArray[np.float64]) -> Plane:
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)


def moved(picture: NDArray[np.float64], right: float, down: float) -> NDArray[np.float64]:
    return ndimage.shift(picture, (down, right), order=3, mode="wrap")


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.0, 0.0), (-6.5, 2.25), (1.0, -9.0)])
def test_the_field_points_to_where_it_was(shift: tuple[float, float]) -> None:
    there = scene()
    here = as_luma(moved(there, *shift))
    field = Flow()(here, as_luma(there))
    inner = field[20:-20, 20:-20]
    assert np.abs(inner + np.array(shift)).max(axis=2).mean() < 0.15, "what moved right was further left"


def test_ways_are_joined_end_to_end() -> None:
    """A camera that moves right by 4 px and then down by 6: there and back, in px of half the size."""
    first = scene()
    lumas = [as_luma(picture) for picture in (first, moved(first, 4, 0), moved(first, 4, 6))]
    tracker = FlowTracker()
    way = tracker.joined(tracker.way(lumas[2], lumas[1]), tracker.way(lumas[1], lumas[0]))
    for field, sign in ((way.forward, -1), (way.backward, 1), (way.reversed().forward, 1)):
        assert field.shape == (90, 160, 2)
        assert np.median(field[15:-15, 15:-15], axis=(0, 1)) == pytest.approx([2 * sign, 3 * sign], abs=0.1)


def test_flow_refuses_what_it_cannot_search() -> None:
    with pytest.raises(ValueError, match="one size"):
        Flow()(np.zeros((40, 40), np.uint8), np.zeros((40, 41), np.uint8))
    with pytest.raises(ValueError, match="at least 32"):
        Flow()(np.zeros((31, 40), np.uint8), np.zeros((31, 40), np.uint8))
    with pytest.raises(ValueError, match="at least 16"):
        Flow(halved=True)(np.zeros((15, 40), np.uint8), np.zeros((15, 40), np.uint8))
    assert not Flow(halved=True)(np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8)).any()


def test_warping_is_one_interpolated_lookup() -> None:
    random = np.random.default_rng(2)
    plane = random.random((30, 40), np.float32)
    field = random.uniform(-4, 4, (30, 40, 2)).astype(np.float32)
    rows, columns = np.mgrid[:30, :40]
    expected = ndimage.map_coordinates(plane, [rows + field[..., 1], columns + field[..., 0]], order=1, mode="nearest")
    # cv2 interpolates at 1/32 px.
    np.testing.assert_allclose(Warp((40, 30))(plane, field), expected, atol=1 / 16)
    whole = np.rint(field)
    nearest = ndimage.map_coordinates(plane, [rows + whole[..., 1], columns + whole[..., 0]], order=0, mode="nearest")
    np.testing.assert_allclose(Warp((40, 30))(plane, whole), nearest, atol=1e-6)


def test_a_result_is_not_overwritten_by_the_next() -> None:
    warp, field = Warp((8, 8)), np.zeros((8, 8, 2), np.float32)
    first = warp(np.zeros((8, 8), np.float32), field)
    warp(np.ones((8, 8), np.float32), field)
    assert not first.any()


@pytest.mark.parametrize("size_wh", [(160, 90), (80, 45), (640, 360)])
def test_a_fitted_field_means_the_same_movement(size_wh: tuple[int, int]) -> None:
    field = np.broadcast_to(np.float32([8, -4]), (180, 320, 2)).copy()
    fitted = fit_field(field, size_wh)
    assert fitted.shape == (size_wh[1], size_wh[0], 2)
    np.testing.assert_allclose(fitted, np.broadcast_to(np.float32([8, -4]) * size_wh[0] / 320, fitted.shape), rtol=1e-6)
    assert fit_field(field, (320, 180)) is field


def test_confidence_is_high_where_the_flow_is_right_and_low_where_something_appeared() -> None:
    there = scene(3)
    here = moved(there, 4, 1)
    here[60:120, 200:260] = scene(9)[60:120, 200:260]  # was nowhere before
    before, now = as_luma(there), as_luma(here)
    field, trust, along, unmoved = FlowTracker().match(now, before)
    assert trust.shape == along.shape == unmoved.shape == (90, 160)
    assert trust.dtype == np.float32
    assert trust.min() >= 0
    assert trust.max() <= 1
    assert np.median(trust[35:55, 105:125]) < 0.3
    assert np.median(trust[10:80, 10:90]) > 0.9
    assert np.median(field[10:80, 10:90], axis=(0, 1)) == pytest.approx([-2, -0.5], abs=0.05), "in px of half the size"
    assert along[10:80, 10:90].mean() < 0.2 * unmoved[10:80, 10:90].mean()


def test_confidence_follows_its_definition() -> None:
    """exp(-(|f + b|^2 + (residual / 16)^2)); constants make it plain arithmetic."""
    ones = np.ones((40, 40), np.float32)
    forward, backward = np.dstack([3 * ones, -1 * ones]), np.dstack([-1 * ones, 2 * ones])
    unlike = residual(np.full((40, 40), 100, np.uint8), np.full((40, 40), 110, np.uint8))
    trust = confidence(forward, backward, unlike, Warp((40, 40)))
    np.testing.assert_allclose(trust, np.exp(-((2**2 + 1**2) + (10 / 16) ** 2)), rtol=1e-4)


def test_the_small_luma_is_the_mean() -> None:
    luma = as_luma(scene(4, 720, 1280))
    small = small_luma(luma, (320, 180))
    expected = luma.reshape(180, 4, 320, 4).mean(axis=(1, 3))
    assert np.abs(small - expected).max() <= 1
    assert small_luma(small, (320, 180)) is small
    odd = small_luma(luma, (277, 208))
    assert odd.shape == (208, 277)
    assert np.abs(odd.astype(float) - cv2.resize(luma, (277, 208), interpolation=cv2.INTER_AREA)).mean() < 3


@pytest.mark.parametrize("frame_wh", [(1920, 1080), (1080, 1920), (640, 480), (64, 48), (4000, 16)])
def test_the_flow_size_keeps_the_shape_and_never_gets_too_small(frame_wh: tuple[int, int]) -> None:
    width, height = flow_wh(frame_wh)
    assert min(width, height) >= 32
    if frame_wh != (4000, 16):
        assert width * height <= 58_500
        assert width / height == pytest.approx(frame_wh[0] / frame_wh[1], rel=0.01)
