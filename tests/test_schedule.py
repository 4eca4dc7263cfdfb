"""When the network looks, and where."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from streamseg.temporal.roi import SubjectBox, Window, paste
from streamseg.temporal.schedule import AutoInterval, StillScene

PERIOD_S = 1 / 30


def run(auto: AutoInterval, inference_s: float, seconds: float, other_s: float = 0.005) -> list[int]:
    intervals = []
    for _ in range(round(seconds / PERIOD_S)):
        auto.inferred(inference_s)
        auto.processed(other_s, PERIOD_S)
        intervals.append(auto.interval)
    return intervals


@pytest.mark.parametrize(
    ("inference_s", "expected"),
    [(0.020, 1), (0.030, 2), (0.060, 3), (0.098, 4), (1.0, 6)],
)
def test_auto_finds_the_least_interval_that_keeps_up(inference_s: float, expected: int) -> None:
    """0.9 * 33.3 ms - 5 ms = 25 ms are left of each frame."""
    assert run(AutoInterval(PERIOD_S), inference_s, 5)[-1] == expected


def test_auto_needs_two_agreeing_checks() -> None:
    auto = AutoInterval(PERIOD_S, check_s=1.0)
    intervals = run(auto, 0.060, 2.5)
    assert intervals[int(1.5 / PERIOD_S)] == 1, "one check is not enough"
    assert intervals[-1] == 3


def test_auto_does_not_hunt() -> None:
    """The need goes to and fro across a limit; the dead band keeps N where it is."""
    auto = AutoInterval(PERIOD_S)
    run(auto, 0.051, 5)
    seen = set()
    for _ in range(10):
        seen |= set(run(auto, 0.048, 2)) | set(run(auto, 0.052, 2))
    assert seen == {3}
    assert run(auto, 0.030, 5)[-1] == 2, "a real change is followed"
    assert run(auto, 0.010, 5)[-1] == 1


def test_auto_keeps_the_longest_where_nothing_is_left() -> None:
    assert run(AutoInterval(PERIOD_S, longest=4), 0.01, 5, other_s=0.05)[-1] == 4
    with pytest.raises(ValueError, match="positive"):
        AutoInterval(0)


def picture(seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(random.normal(0, 1, (360, 640)), 6) * 6
    return np.clip(128 + 60 * rough, 0, 255)


def noisy(clean: np.ndarray, seed: int) -> np.ndarray:
    return np.clip(np.rint(clean + np.random.default_rng(seed).normal(0, 4, clean.shape)), 0, 255).astype(np.uint8)


def test_a_still_scene_is_still_despite_noise_until_the_bound() -> None:
    clean = picture()
    still = StillScene(bound_s=1.0)
    assert not still(noisy(clean, 0), PERIOD_S), "nothing is known yet"
    still.segmented(noisy(clean, 0))
    answers = [still(noisy(clean, n), 0.125) for n in range(1, 11)]
    assert answers == [True] * 7 + [False] * 3


def test_a_hand_that_moves_a_little_is_motion() -> None:
    clean = picture()
    before, after = clean.copy(), clean.copy()
    before[100:140, 200:230] = 200
    after[100:140, 204:234] = 200  # 4 px of 640
    still = StillScene()
    still.segmented(noisy(before, 0))
    assert still(noisy(before, 1), PERIOD_S)
    assert not still(noisy(after, 2), PERIOD_S)
    assert not still(noisy(before, 3)[:180], PERIOD_S), "another size"


def blob(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    """A subject in frame px of 640x360, as a matte of 160x90."""
    matte = np.zeros((90, 160), np.float32)
    matte[y1 // 4 : y2 // 4, x1 // 4 : x2 // 4] = 1
    return matte


LUMA = picture().astype(np.uint8)


def looking(matte: np.ndarray, **options: float) -> tuple[SubjectBox, Window]:
    box = SubjectBox((640, 360), **options)
    assert box.window(LUMA, PERIOD_S) is None, "the whole picture first"
    box.seen(matte, LUMA, None)
    window = box.window(LUMA, PERIOD_S)
    assert window is not None
    return box, window


def test_the_window_is_padded_and_even() -> None:
    _, window = looking(blob(200, 100, 300, 300))
    assert window == (184, 84, 316, 316)  # 8 % of 200 px all round
    _, wide = looking(blob(200, 100, 300, 300), aspect=640 / 384)
    assert (wide[1], wide[3]) == (84, 316)
    assert (wide[2] - wide[0]) / 232 == pytest.approx(640 / 384, abs=0.02)
    _, corner = looking(blob(540, 160, 640, 360), aspect=640 / 384)
    assert (corner[2], corner[3]) == (640, 360), "moved into the picture"


def test_a_trembling_subject_leaves_the_window_alone() -> None:
    box, window = looking(blob(200, 100, 300, 300))
    for tremble in (4, -4, 8, 0):
        box.seen(blob(200 + tremble, 100, 300 + tremble, 300), LUMA, window)
        assert box.window(LUMA, PERIOD_S) == window
    box.seen(blob(212, 100, 312, 300), LUMA, window)
    moved = box.window(LUMA, PERIOD_S)
    assert moved is not None
    assert moved[2] > window[2], "1.9 % outwards: the side follows"
    assert moved[0] == window[0], "1.9 % inwards: it stays"


def test_the_whole_picture_is_looked_at_in_time() -> None:
    box, window = looking(blob(200, 100, 300, 300), full_look_s=1.0)
    looks = []
    for _ in range(25):
        looks.append(box.window(LUMA, 0.125))
        box.seen(blob(200, 100, 300, 300), LUMA, looks[-1])
    gaps = np.diff([n for n, look in enumerate(looks) if look is None])
    assert set(gaps) == {8}
    assert looks.count(window) == 25 - looks.count(None)


def test_a_change_outside_is_looked_at() -> None:
    box, window = looking(blob(200, 100, 300, 300))
    someone = LUMA.copy()
    someone[100:300, 420:560] = 255 - someone[100:300, 420:560] // 2
    assert box.window(someone, PERIOD_S) is None
    inside = LUMA.copy()
    inside[100:300, 200:300] = 255 - inside[100:300, 200:300]
    assert box.window(inside, PERIOD_S) == window


def test_a_subject_that_is_lost_or_reaches_the_border_is_looked_for() -> None:
    box, window = looking(blob(200, 100, 300, 300))
    box.seen(np.zeros((90, 160), np.float32), LUMA, window)
    assert box.window(LUMA, PERIOD_S) is None
    box, window = looking(blob(200, 100, 300, 300))
    box.seen(blob(200, 100, 316, 300), LUMA, window)
    assert box.window(LUMA, PERIOD_S) is None
    box = SubjectBox((640, 360))
    box.seen(blob(40, 20, 600, 340), LUMA, None)
    assert box.window(LUMA, PERIOD_S) is None, "nearly the whole picture is no gain"


def test_pasting_puts_the_window_where_it_was() -> None:
    window = (160, 80, 480, 280)
    full = np.zeros((90, 160), np.float32)
    full[30:60, 60:100] = 1
    ramp = np.add.outer(np.linspace(0, 0.5, 90), np.linspace(0, 0.5, 160)).astype(np.float32)
    for truth in (full, ramp):
        cut = truth[20:70, 40:120]  # the window at the same scale
        pasted = paste(np.ascontiguousarray(cut), window, (640, 360), (90, 160))
        np.testing.assert_allclose(pasted[20:70, 40:120], cut, atol=1e-6)
        outside = np.ones((90, 160), bool)
        outside[20:70, 40:120] = False
        assert not pasted[outside].any()


def test_pasting_to_a_finer_grid_is_an_upsampling() -> None:
    cut = np.random.default_rng(3).random((25, 40), np.float32)
    pasted = paste(cut, (160, 80, 480, 280), (640, 360), (90, 160))
    rows, columns = np.mgrid[20:70, 40:120]
    expected = ndimage.map_coordinates(
        cut, [(rows + 0.5 - 20) / 2 - 0.5, (columns + 0.5 - 40) / 2 - 0.5], order=1, mode="nearest"
    )
    # cv2 interpolates at 1/32 of a sample.
    np.testing.assert_allclose(pasted[20:70, 40:120], expected, atol=0.02)
