from __future__ import annotations

import numpy as np
import pytest

from streamseg.temporal import HalfLife, SceneCut, Smoother, Uncertainty

LUMA = np.random.default_rng(1).integers(0, 256, (90, 160), np.uint8)


def flat(value: float) -> np.ndarray:
    return np.full((9, 16), value, np.float32)


@pytest.mark.parametrize("rate", [10, 30, 120])
def test_half_life_does_not_depend_on_the_frame_rate(rate: int) -> None:
    smoother = HalfLife(0.2)
    smoother(flat(0), LUMA, 0)
    for _ in range(rate // 5):  # 0.2 s
        value = smoother(flat(1), LUMA, 1 / rate)
    assert value == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("rate", [10, 30, 120])
def test_an_unsure_still_pixel_moves_half_way_within_a_half_life(rate: int) -> None:
    """The uncertainty is that of the newest value; 0.5 is entirely unsure, so its past has the full weight."""
    smoother = Uncertainty(0.2)
    smoother(flat(0.9), LUMA, 0)
    for _ in range(rate // 5):
        value = smoother(flat(0.5), LUMA, 1 / rate)
    assert value == pytest.approx(0.7, abs=2e-3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_certain_pixel_changes_at_once(value: float) -> None:
    smoother = Uncertainty(10.0)
    smoother(flat(1 - value), LUMA, 0)
    assert smoother(flat(value), LUMA, 1 / 30) == pytest.approx(value, abs=1e-3)


def test_a_moving_pixel_is_not_held_back() -> None:
    dark, bright = np.full((90, 160), 60, np.uint8), np.full((90, 160), 140, np.uint8)
    smoother = Uncertainty(10.0)
    smoother(flat(0.9), dark, 0)
    assert smoother(flat(0.5), bright, 1 / 30) == pytest.approx(0.5, abs=1e-3)
    still = Uncertainty(10.0)
    still(flat(0.9), dark, 0)
    assert still(flat(0.5), dark, 1 / 30).mean() > 0.85


def test_sensor_noise_is_not_motion() -> None:
    noise = np.random.default_rng(2).normal(0, 4, (2, 720, 1280))
    scene = np.kron(LUMA, np.ones((8, 8)))
    before, after = (np.clip(scene + n, 0, 255).astype(np.uint8) for n in noise)
    smoother = Uncertainty(10.0)
    smoother(np.full((90, 160), 0.9, np.float32), before, 0)
    assert smoother(np.full((90, 160), 0.5, np.float32), after, 1 / 30).mean() > 0.8


def test_flicker_shrinks() -> None:
    random = np.random.default_rng(3)
    mattes = np.clip(0.5 + random.normal(0, 0.15, (60, 9, 16)), 0, 1).astype(np.float32)
    smoother = Uncertainty(0.15)
    steady = np.stack([smoother(matte, LUMA, 1 / 30) for matte in mattes])
    assert np.abs(np.diff(steady[5:], axis=0)).mean() < 0.4 * np.abs(np.diff(mattes[5:], axis=0)).mean()


@pytest.mark.parametrize("make", [HalfLife, Uncertainty])
def test_the_past_is_forgotten(make: type) -> None:
    smoother: Smoother = make(5.0)
    smoother(flat(0.1), LUMA, 0)
    smoother.reset()
    assert (smoother(flat(0.5), LUMA, 1 / 30) == 0.5).all(), "after a reset"
    assert (smoother(np.full((5, 5), 0.6, np.float32), LUMA, 1 / 30) == np.float32(0.6)).all(), "another size"
    assert (smoother(np.full((5, 5), 0.4, np.float32), LUMA, 0) == np.float32(0.4)).all(), "no time between"
    with pytest.raises(ValueError, match="positive"):
        make(0)


def test_a_cut_is_told_from_motion() -> None:
    random = np.random.default_rng(4)
    wide = np.kron(random.integers(0, 256, (20, 40)), np.ones((24, 24))).astype(np.uint8)
    cut = SceneCut()
    shots = [wide[:360, x : x + 640] for x in range(0, 300, 6)]  # a fast pan: 180 px a second
    found = [cut(shot, 1 / 30) for shot in shots]
    assert found == [True] + [False] * (len(shots) - 1)
    other = np.kron(random.integers(0, 256, (15, 27)), np.ones((24, 24))).astype(np.uint8)[:360, :640]
    assert cut(other, 1 / 30)
    assert not cut(other, 1 / 30)
