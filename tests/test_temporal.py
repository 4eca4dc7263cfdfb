from __future__ import annotations

import numpy as np
import pytest

from streamseg.temporal import FlowFusion, HalfLife, OneEuro, SceneCut, Smoother, Uncertainty

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


def test_one_euro_is_the_published_filter() -> None:
    """Pixel by pixel against the algorithm of the paper's appendix, with uneven time steps."""
    random = np.random.default_rng(6)
    signal, steps_s = random.random((20, 3)).astype(np.float32), random.uniform(0.01, 0.1, 20)

    def low_pass(value: float, kept: float, cut_off_hz: float, dt_s: float) -> float:
        alpha = 1 / (1 + 1 / (2 * np.pi * cut_off_hz) / dt_s)
        return alpha * value + (1 - alpha) * kept

    smoother = OneEuro(still_hz=0.7, rise=3.0, speed_hz=1.2)
    found = [smoother(row.reshape(1, 3), LUMA, dt)[0] for row, dt in zip(signal, steps_s, strict=True)]
    for pixel in range(3):
        raw = smooth = float(signal[0, pixel])
        speed = 0.0
        for n in range(1, 20):
            value, dt = float(signal[n, pixel]), float(steps_s[n])
            speed = low_pass((value - raw) / dt, speed, 1.2, dt)
            smooth = low_pass(value, smooth, 0.7 + 3.0 * abs(speed), dt)
            raw = value
            assert found[n][pixel] == pytest.approx(smooth, abs=1e-5)


def moving(x: int) -> tuple[np.ndarray, np.ndarray]:
    """A textured square over a textured wall, x px further right, and its matte at a quarter of the size."""
    wall, square = (np.kron(np.random.default_rng(n).integers(20, 230, (90, 160)), np.ones((4, 4))) for n in (7, 8))
    luma, matte = wall.copy(), np.zeros((360, 640), np.float32)
    luma[100:260, 200 + x : 360 + x] = square[100:260, 200:360]
    matte[100:260, 200 + x : 360 + x] = 1
    return luma.astype(np.uint8), matte.reshape(90, 4, 160, 4).mean(axis=(1, 3))


@pytest.mark.parametrize("rate", [15, 30])
def test_flow_fusion_moves_half_way_within_a_half_life(rate: int) -> None:
    smoother = FlowFusion(0.2)
    smoother(flat(0.9), LUMA, 0)
    for _ in range(rate // 5):
        value = smoother(flat(0.5), LUMA, 1 / rate)
    assert value == pytest.approx(0.7, abs=0.03)


def test_flow_fusion_takes_the_past_along() -> None:
    """The network misses the square once; the past, moved, stands in for it, where half-life leaves it behind."""
    fusion, plain = FlowFusion(0.1), HalfLife(0.1)
    for n in range(4):
        luma, truth = moving(8 * n)
        seen = truth if n < 3 else np.zeros_like(truth)
        fused, held = fusion(seen, luma, 1 / 30), plain(seen, luma, 1 / 30)
    inside, left = truth > 0.9, np.zeros_like(truth, bool)
    left[26:64, 50:55] = True  # 5 of the 6 cells that the square has left
    assert fused[inside].mean() > 0.6
    assert fused[left].mean() < held[left].mean() / 2


def test_flow_fusion_lets_go_of_another_picture() -> None:
    fusion = FlowFusion(10.0)
    fusion(flat(1), LUMA, 0)
    other = np.random.default_rng(11).integers(0, 256, LUMA.shape, np.uint8)
    assert fusion(flat(0), other, 1 / 30).mean() < 0.15


@pytest.mark.parametrize("make", [HalfLife, Uncertainty, FlowFusion, OneEuro])
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
