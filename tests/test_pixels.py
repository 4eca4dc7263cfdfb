"""Pixel functions against slow, independent references and hand-drawn cases."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from streamseg.frame import Colour, Frame, Origin, Plane
from streamseg.pixels.blend import blank, light_wrap, over
from streamseg.pixels.blur import blur_background
from streamseg.pixels.decontaminate import decontaminate
from streamseg.pixels.guided import edge_curve, fit_grid, guided_upsample, plain_upsample
from streamseg.pixels.planes import double, empty, half_luma, halve, rgb_to_planes, shrink, split, yuv_colour


def noise(seed: int, width: int, height: int) -> Plane:
    return np.random.default_rng(seed).integers(0, 256, (height // 2 * 3, width), np.uint8)


@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("full_range", [False, True])
def test_primary_colours_follow_h273(matrix: int, full_range: bool) -> None:
    """E'Y = KR R + KG G + KB B, E'PB = (B - Y) / (2 (1 - KB)), quantised by equations 8-... of H.273."""
    kr, kb = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    for rgb in [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (12, 200, 99)]:
        r, g, b = (value / 255 for value in rgb)
        y = kr * r + (1 - kr - kb) * g + kb * b
        pb, pr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
        if full_range:
            expected = (255 * y, 255 * pb + 128, 255 * pr + 128)
        else:
            expected = (219 * y + 16, 224 * pb + 128, 224 * pr + 128)
        assert yuv_colour(rgb, Colour(full_range, matrix), 720) == pytest.approx(np.clip(expected, 0, 255), abs=0.51)


def test_an_unspecified_matrix_goes_by_the_height() -> None:
    red = (255, 0, 0)
    assert yuv_colour(red, Colour(), 576) == yuv_colour(red, Colour(matrix=6), 576)
    assert yuv_colour(red, Colour(), 720) == yuv_colour(red, Colour(matrix=1), 720)


def test_rgb_to_planes_agrees_with_opencv_for_bt601() -> None:
    rgb = cv2.resize(np.random.default_rng(3).integers(0, 256, (6, 8, 3), np.uint8), (64, 48))
    ours, theirs = rgb_to_planes(rgb, Colour(matrix=6)), cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    assert np.abs(split(ours)[0].astype(int) - split(theirs)[0]).max() <= 1
    # OpenCV takes one of the four pixels' chroma where we take the mean: near on a smooth picture.
    assert np.abs(split(ours)[1].astype(int) - split(theirs)[1]).mean() < 4


def test_planes_have_even_sides() -> None:
    with pytest.raises(ValueError, match="even sides, not 5x4"):
        empty(5, 4)


def test_halve_is_the_mean_of_two_by_two() -> None:
    plane = np.array([[0, 4, 9], [8, 12, 9], [1, 1, 1]], np.uint8)
    assert halve(plane).tolist() == [[6]]


@pytest.mark.parametrize("size_wh", [(64, 32), (7, 5), (1, 1)])
def test_double_is_the_bilinear_resize(size_wh: tuple[int, int]) -> None:
    width, height = size_wh
    plane = np.random.default_rng(2).integers(0, 256, (height, width), np.uint8)
    expected = cv2.resize(plane.astype(np.float64), (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    assert np.abs(double(plane) - expected).max() <= 1


def test_the_half_luma_is_worked_out_once_a_picture() -> None:
    frame = Frame(noise(20, 16, 8), 0, Fraction(1, 30), 0, 0.0, Colour(), Origin("drawn", (16, 8)))
    assert (half_luma(frame) == halve(frame.y)).all()
    assert half_luma(frame) is half_luma(frame)
    other = frame.with_picture(255 - frame.planes)
    assert (half_luma(other) == halve(other.y)).all(), "another picture has another"


@pytest.mark.parametrize("size_wh", [(64, 32), (66, 34), (70, 62)])
def test_shrink_covers_the_whole_plane(size_wh: tuple[int, int]) -> None:
    width, height = size_wh
    plane = np.full((height, width), 77, np.uint8)
    assert shrink(plane, 8).shape == (-(-height // 8), -(-width // 8))
    assert (shrink(plane, 8) == 77).all()


def logistic(x: NDArray[np.float64]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-x))).astype(np.float32)


def test_fit_grid_keeps_positions() -> None:
    """A ramp of logits in picture coordinates stays one, whatever the two grids are."""
    width, height = 854, 480
    at_px = (np.arange(200) + 0.5) * width / 200
    matte = np.repeat(logistic((at_px - 427) / 120)[None], 90, axis=0)
    grid = fit_grid(matte, (width, height), 4, (120, 214))
    expected = logistic(((np.arange(214) + 0.5) * 4 - 427) / 120)
    # What lies beyond 1 % and 99 % counts as certain, and the rest is stretched to fill 0..1.
    assert np.abs(grid[60, 2:-2] - (expected[2:-2] - 0.01) / 0.98).max() < 2e-3


@pytest.mark.parametrize("angle", [0.1, 0.35, 0.7])
def test_fit_grid_draws_slanted_edges_without_steps(angle: float) -> None:
    """The half-way contour of a slanted, nearly binary edge is a line, though the cells are eight pixels wide."""
    x, y = np.meshgrid((np.arange(160) + 0.5) * 8, (np.arange(90) + 0.5) * 8)
    edge_px = (x - 640) * np.cos(angle) + (y - 360) * np.sin(angle)
    grid = fit_grid(logistic(edge_px / 2), (1280, 720), 4, (180, 320))
    rows, columns = np.nonzero(np.diff(grid > 0.5, axis=1))
    low, high = grid[rows, columns], grid[rows, columns + 1]
    crossing_px = (columns + 0.5 + (0.5 - low) / (high - low)) * 4
    error_px = (crossing_px - 640) * np.cos(angle) + ((rows + 0.5) * 4 - 360) * np.sin(angle)
    assert len(rows) > 100
    assert np.abs(error_px).max() < 1.0, "a resample of the probabilities themselves is off by up to 2 px"


def reference_guided(matte: NDArray[np.float32], luma: Plane, radius: int, epsilon: float) -> NDArray[np.float64]:
    """The guided filter's definition with scipy, coefficients at the matte's scale, upsampled by spline order 1."""
    factor = luma.shape[0] // matte.shape[0]
    guide = luma.reshape(matte.shape[0], factor, matte.shape[1], factor).mean((1, 3)) / 255

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return ndimage.uniform_filter(values, 2 * radius + 1, mode="mirror")

    cov = mean(guide * matte) - mean(guide) * mean(matte)
    slope = cov / (mean(guide**2) - mean(guide) ** 2 + epsilon)
    offset = mean(matte) - slope * mean(guide)
    rows = (np.arange(luma.shape[0]) + 0.5) / factor - 0.5
    columns = (np.arange(luma.shape[1]) + 0.5) / factor - 0.5
    at = np.meshgrid(rows, columns, indexing="ij")
    sure = ndimage.uniform_filter(matte, 3, mode="mirror")
    trust = 4 * sure * (1 - sure)
    slope, offset = mean(slope) * trust, mean(offset) * trust + (1 - trust) * matte
    fine = [ndimage.map_coordinates(values, at, order=1, mode="nearest") for values in (slope, offset)]
    smooth = ndimage.uniform_filter(luma.astype(float), 2 * round(luma.shape[0] / 360) + 1, mode="mirror")
    return np.clip(255 * (fine[0] * smooth / 255 + fine[1]), 0, 255)


def test_guided_upsample_is_the_guided_filter() -> None:
    luma = cv2.GaussianBlur(noise(1, 512, 480)[:480], (0, 0), 6)
    luma = cv2.normalize(luma, None, 0, 255, cv2.NORM_MINMAX)
    matte = (cv2.GaussianBlur(noise(2, 128, 120)[:120], (0, 0), 9).astype(np.float32) - 110) / 30
    # Within what counts as unsure, at the coefficients' own scale: resampling is then the identity but for a stretch.
    matte = np.clip(matte, 0.02, 0.98)
    ours = guided_upsample(matte, luma, radius=3 * 4 / 480, epsilon=1e-3)
    expected = reference_guided((matte - 0.01) / 0.98, luma, 3, 1e-3)
    assert 0.2 < matte.mean() < 0.8, "the case must have both sides"
    # Halving twice rounds the guide to 8 bits twice.
    assert np.abs(ours - expected).max() <= 6
    assert np.abs(ours - expected).mean() < 1.0


@pytest.mark.parametrize("size_wh", [(640, 360), (854, 480), (638, 478), (1922, 1082), (64, 48)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_flat_matte_stays_flat_at_any_size(size_wh: tuple[int, int], value: float) -> None:
    luma = noise(4, *size_wh)[: size_wh[1]]
    matte = np.full((90, 160), value, np.float32)
    assert (guided_upsample(matte, luma) == round(255 * value)).all()
    assert (plain_upsample(matte, size_wh) == round(255 * value)).all()


def test_the_guide_moves_an_imprecise_edge_onto_the_pictures() -> None:
    luma = np.full((480, 640), 40, np.uint8)
    luma[:, 323:] = 210
    truth = luma > 100
    matte = np.zeros((60, 80), np.float32)
    matte[:, 41:] = 1  # five pixels too far right, and only to the next eight
    guided = guided_upsample(matte, luma, radius=0.03, curve=edge_curve()) > 127
    plain = plain_upsample(matte, (640, 480), curve=edge_curve()) > 127
    assert (guided != truth).sum() < 0.5 * (plain != truth).sum()


@pytest.mark.parametrize("height", [480, 720])
def test_a_hole_in_a_full_picture_leaves_the_rest_opaque(height: int) -> None:
    """The work at full scale is done in tiles, and a tile reaches further than the edge within it."""
    matte = np.ones((90, 160), np.float32)
    matte[70:80, 60:100] = 0
    alpha = guided_upsample(matte, noise(13, 1280, height)[:height], curve=edge_curve())
    assert (alpha[: height * 3 // 4] == 255).all()
    assert alpha.min() == 0


def test_texture_beyond_the_edge_stays_out() -> None:
    """Dark cloth before grass: some blades are as dark as the cloth, but lie where the matte is sure."""
    random = np.random.default_rng(12)
    luma = np.clip(cv2.GaussianBlur(random.normal(0, 1, (720, 1280)), (0, 0), 1.2) * 210 + 110, 0, 255).astype(np.uint8)
    luma[:, :640] = 30
    x = (np.arange(160) + 0.5) * 8 - 640
    matte = np.repeat(logistic(-x / 10)[None], 90, axis=0)
    alpha = guided_upsample(matte, luma, curve=edge_curve()) > 127
    last = alpha.shape[1] - np.argmax(alpha[:, ::-1], axis=1)  # the rightmost opaque column of every row
    assert np.abs(last - 640).max() <= 3
    assert np.abs(np.diff(last)).mean() < 0.2, "the contour is ragged"


def test_edge_curve_is_monotone_and_reaches_both_ends() -> None:
    for threshold, feather in [(0.5, 0.5), (0.5, 0.0), (0.3, 0.2), (0.7, 1.0)]:
        curve = edge_curve(threshold, feather).astype(int)
        assert (np.diff(curve) >= 0).all()
    assert edge_curve(0.5, 0.9)[[0, 255]].tolist() == [0, 255]
    assert set(edge_curve(0.5, 0.0).tolist()) == {0, 255}


def test_over_is_the_straight_alpha_formula() -> None:
    fore, back = noise(5, 130, 98), noise(6, 130, 98)
    alpha = noise(7, 130, 98)[:98]
    out = over(fore, back, alpha, np.empty_like(fore))
    share = alpha / 255
    assert np.abs(split(out)[0] - (share * split(fore)[0] + (1 - share) * split(back)[0])).max() <= 1
    share = alpha.reshape(49, 2, 65, 2).mean((1, 3)) / 255
    for plane in (1, 2):
        assert np.abs(split(out)[plane] - (share * split(fore)[plane] + (1 - share) * split(back)[plane])).max() <= 1.5


def test_over_keeps_clear_and_opaque_pixels_to_the_bit() -> None:
    fore, back = noise(8, 64, 48), noise(9, 64, 48)
    assert (over(fore, back, np.full((48, 64), 255, np.uint8), np.empty_like(fore)) == fore).all()
    assert (over(fore, back, np.zeros((48, 64), np.uint8), np.empty_like(fore)) == back).all()


def test_over_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        over(noise(1, 8, 8), noise(1, 8, 8), np.zeros((8, 6), np.uint8), noise(1, 8, 8))


def test_blur_has_no_halo_of_the_subject() -> None:
    planes = rgb_to_planes(np.full((360, 640, 3), (40, 90, 60), np.uint8), Colour())
    alpha = np.zeros((360, 640), np.uint8)
    alpha[80:280, 200:440] = 255
    room = split(planes)[0][0, 0]
    split(planes)[0][80:280, 200:440] = 235
    out = blur_background(planes, alpha, 0.5, np.empty_like(planes))
    assert np.abs(split(out)[0][alpha == 0].astype(int) - int(room)).max() <= 2
    plain = cv2.GaussianBlur(split(planes)[0], (0, 0), 11)
    assert np.abs(plain[alpha == 0].astype(int) - int(room)).max() > 40, "a plain blur has the halo"


@pytest.mark.parametrize(("size_wh", "strength"), [((640, 360), 0.5), ((1280, 720), 0.5), ((1282, 722), 1.0)])
def test_blur_is_near_a_gaussian_where_there_is_no_subject(size_wh: tuple[int, int], strength: float) -> None:
    width, height = size_wh
    planes = noise(10, width, height)
    planes = np.ascontiguousarray(cv2.GaussianBlur(planes, (0, 0), 5))
    # Something of a room's size to blur, where noise alone would leave a flat grey.
    cv2.circle(planes, (width // 2, height // 2), height // 5, 255, -1)
    alpha = np.zeros((height, width), np.uint8)
    out = blur_background(planes, alpha, strength, np.empty_like(planes))
    expected = cv2.GaussianBlur(split(planes)[0], (0, 0), strength * 0.06 * height)
    inner = (slice(height // 6, -height // 6), slice(height // 6, -height // 6))
    off = np.abs(split(out)[0][inner].astype(int) - expected[inner])
    assert off.mean() < 1
    assert off.max() <= 4


@pytest.mark.parametrize("size_wh", [(642, 362), (1282, 722), (66, 50)])
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_blur_fills_any_size(size_wh: tuple[int, int], strength: float) -> None:
    planes = np.full((size_wh[1] // 2 * 3, size_wh[0]), 99, np.uint8)
    out = np.zeros_like(planes)
    blur_background(planes, np.zeros(size_wh[::-1], np.uint8), strength, out)
    assert np.abs(out.astype(int) - 99).max() <= 1


def test_light_wrap_brightens_the_rim_only() -> None:
    picture, back = np.full((72, 64), 60, np.uint8), np.full((72, 64), 200, np.uint8)
    alpha = np.zeros((48, 64), np.uint8)
    alpha[:, 32:] = 255
    alpha[:, 30:32] = 200
    before = picture.copy()
    light_wrap(picture, back, alpha, 0.3)
    y = split(picture)[0]
    assert (y[:, 32:] == 60).all()
    assert (y[:, 30:32] > 60).all()
    assert before[0, 0] == 60


def test_decontaminate_gives_the_soft_edge_the_subjects_colour() -> None:
    """A grey subject before a white wall: half-transparent pixels are half white until they are cleaned."""
    alpha = np.zeros((360, 640), np.uint8)
    cv2.circle(alpha, (320, 180), 100, 255, -1)
    alpha = cv2.GaussianBlur(alpha, (0, 0), 3)
    share = alpha / 255
    planes = np.full((540, 640), 128, np.uint8)
    split(planes)[0][:] = np.rint(share * 90 + (1 - share) * 235)
    cleaned = decontaminate(planes, alpha)
    soft = (alpha > 20) & (alpha < 235)
    assert np.abs(split(cleaned)[0][soft].astype(int) - 90).max() < 12
    assert np.abs(split(planes)[0][soft].astype(int) - 90).max() > 100
    untouched = cv2.erode(alpha, np.ones((3, 3), np.uint8)) == 255
    assert (split(cleaned)[0][untouched] == split(planes)[0][untouched]).all()


@pytest.mark.parametrize("size_wh", [(642, 362), (1282, 722), (66, 50)])
@pytest.mark.parametrize("opacity", [0, 128, 255])
def test_decontaminate_without_an_edge_changes_nothing(size_wh: tuple[int, int], opacity: int) -> None:
    planes = noise(11, *size_wh)
    assert (decontaminate(planes, np.full(size_wh[::-1], opacity, np.uint8)) == planes).all()


def test_blank_hides_what_is_transparent_and_nothing_else() -> None:
    rng = np.random.default_rng(5)
    planes = rng.integers(30, 200, (12, 8), np.uint8)
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:5, 3] = 1
    out = blank(planes, alpha, (16, 128, 128))
    y, u, _ = split(out)
    before_y, before_u, _ = split(planes)
    assert (y[alpha > 0] == before_y[alpha > 0]).all()
    assert (y[alpha == 0] == 16).all()
    shown = np.zeros((4, 4), bool)
    shown[1:3, 1] = True
    assert (u[shown] == before_u[shown]).all()
    assert (u[~shown] == 128).all()
