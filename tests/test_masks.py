"""Masks from prototypes, against slow references that know nothing of windows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from streamseg.pixels.letterbox import Placement
from streamseg.pixels.masks import box_mask, box_probability, boxes_in_cells, fill_unsure, fit_frame, sigmoid

SIZES = [
    ((1280, 720), (640, 640)),
    ((1280, 720), (640, 384)),
    ((1920, 1080), (640, 640)),
    ((640, 428), (640, 640)),
    ((500, 374), (640, 640)),
    ((854, 480), (640, 384)),
    ((1366, 768), (640, 384)),
    ((720, 1280), (384, 640)),
    ((100, 50), (640, 640)),
    ((480, 640), (640, 640)),
    ((427, 640), (640, 640)),
    ((333, 251), (640, 640)),
]


def prototypes_for(input_wh, seed=0, count=8):
    rng = np.random.default_rng(seed)
    rows, columns = input_wh[1] // 4, input_wh[0] // 4
    coarse = rng.standard_normal((count, rows // 8 + 2, columns // 8 + 2))
    y, x = np.meshgrid(np.arange(rows) / 8, np.arange(columns) / 8, indexing="ij")
    planes = [map_coordinates(plane, [y, x], order=1) for plane in coarse]
    return np.stack(planes).astype(np.float32), rng.standard_normal(count).astype(np.float32)


def logits_at_frame(prototypes, coefficients, place):
    """Every pixel of the frame looked up in the whole plane of logits, bilinearly between the cells' centres."""
    plane = np.tensordot(coefficients.astype(float), prototypes.astype(float), 1)
    (width, height), (scale_x, scale_y) = place.frame_wh, place.scale_xy
    x = ((np.arange(width) + 0.5) * scale_x + place.left) / 4 - 0.5
    y = ((np.arange(height) + 0.5) * scale_y + place.top) / 4 - 0.5
    return map_coordinates(plane, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest")


def placed(frame_wh, input_wh):
    """The odd sizes among them are padded, and their padding is no part of what the network sees."""
    return Placement.letterbox(tuple(side + side % 2 for side in frame_wh), input_wh, frame_wh)


@pytest.mark.parametrize(("picture_wh", "input_wh"), SIZES)
@pytest.mark.parametrize("part", [(0.0, 0.0, 1.0, 1.0), (0.21, 0.13, 0.47, 0.88), (0.6, 0.5, 1.0, 0.97)])
def test_box_mask_equals_upsampling_the_whole_plane(picture_wh, input_wh, part):
    place = placed(picture_wh, input_wh)
    frame_wh = place.frame_wh
    prototypes, coefficients = prototypes_for(input_wh)
    box = (np.array(part) * np.array(frame_wh * 2)).astype(np.float32)
    (x, y), mask = box_mask(prototypes, coefficients, box, place)
    logits = logits_at_frame(prototypes, coefficients, place)
    columns, rows = np.arange(frame_wh[0]), np.arange(frame_wh[1])
    inside = ((columns >= box[0]) & (columns < box[2]))[None] & ((rows >= box[1]) & (rows < box[3]))[:, None]
    expected = (logits > 0) & inside
    full = np.zeros(inside.shape, bool)
    full[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    assert mask.shape == (inside.any(axis=1).sum(), inside.any(axis=0).sum())
    union = (full | expected).sum()
    assert union > 100
    assert (full & expected).sum() / union > 0.99
    if frame_wh in ((1280, 720), (1920, 1080), (640, 428), (480, 640)):
        # Where the cells begin on whole pixels there is no difference but in logits that are 0 for float32.
        assert not ((full != expected) & (np.abs(logits) > 1e-4)).any()


@pytest.mark.parametrize("box", [(10, 10, 10, 50), (20, 20, 10, 30), (700, 10, 800, 50), (5, 470, 50, 900)])
def test_boxes_without_pixels_or_across_the_border(box):
    place = Placement.letterbox((640, 480), (640, 640))
    prototypes, coefficients = prototypes_for((640, 640))
    (x, y), mask = box_mask(prototypes, coefficients, np.array(box, np.float32), place)
    width, height = max(0, min(640, box[2]) - box[0]), max(0, min(480, box[3]) - box[1])
    assert mask.shape[0] == height
    assert mask.shape[1] == width
    assert x >= 0
    assert y >= 0


def test_threshold_comes_after_upsampling():
    """A diagonal edge is a smooth line at the frame's scale, not stairs of one cell (8 px at 720p)."""
    place = Placement.letterbox((1280, 720), (640, 640))
    y, x = np.meshgrid(np.arange(160) + 0.5, np.arange(160) + 0.5, indexing="ij")
    prototypes = (x - 2 * (y - 35))[None].astype(np.float32)
    (_, _), mask = box_mask(prototypes, np.ones(1, np.float32), np.array([0, 0, 1280, 720], np.float32), place)
    rows = np.arange(100, 600)
    edge = mask[rows].argmax(axis=1)
    assert np.abs(edge - 2 * (rows + 0.5)).max() <= 1.0


def test_half_precision_prototypes_give_the_same_mask():
    place = Placement.letterbox((640, 480), (640, 640))
    prototypes, coefficients = prototypes_for((640, 640))
    box = np.array([30, 40, 400, 420], np.float32)
    single = box_mask(prototypes.astype(np.float16).astype(np.float32), coefficients, box, place)[1]
    half = box_mask(prototypes.astype(np.float16), coefficients, box, place)[1]
    assert np.array_equal(single, half)


def test_opacity_is_cut_at_the_exact_edge_of_the_box():
    """Cells of 5 x 5, all opaque, and a box from 1.25 to 3.5 across, from 0 to 2.75 down."""
    prototypes = np.full((1, 5, 5), 100, np.float32)
    box = np.array([1.25, 0, 3.5, 2.75], np.float32)
    (rows, columns), opacity = box_probability(prototypes, np.ones(1, np.float32), box)
    full = np.zeros((5, 5))
    full[rows, columns] = opacity
    across, down = np.array([0, 0.75, 1, 0.5, 0]), np.array([1, 1, 0.75, 0, 0])
    assert np.allclose(full, np.outer(down, across))


@pytest.mark.parametrize("box", [(2, 2, 2, 4), (-5, -5, -1, -1), (7, 1, 9, 3), (4, 4, 1, 1)])
def test_opacity_of_an_empty_box_is_empty(box):
    _, opacity = box_probability(np.ones((1, 5, 5), np.float32), np.ones(1, np.float32), np.array(box, np.float32))
    assert opacity.sum() == 0


def test_boxes_near_the_border_go_on_across_it():
    place = Placement.letterbox((1280, 720), (640, 640))  # 8 px a cell, 35 rows of padding
    boxes = np.array([[5, 400, 640, 712], [200, 100, 1270, 400]], np.float32)
    assert boxes_in_cells(boxes, place, (160, 160)).tolist() == [
        [0.625, 85, 80, 124],
        [25, 47.5, 158.75, 85],
    ]
    assert boxes_in_cells(boxes, place, (160, 160), snap=0.02).tolist() == [[0, 85, 80, 160], [25, 47.5, 160, 85]]


@pytest.mark.parametrize(("picture_wh", "input_wh"), SIZES)
def test_fit_frame_covers_exactly_the_frame(picture_wh, input_wh):
    """A ramp over the input, read at the centres of the result's samples, is where the frame's own ramp is."""
    place = placed(picture_wh, input_wh)
    frame_wh = place.frame_wh
    rows, columns = input_wh[1] // 4, input_wh[0] // 4
    y, x = np.meshgrid((np.arange(rows) + 0.5) * 4, (np.arange(columns) + 0.5) * 4, indexing="ij")
    width, height = frame_wh[0] * place.scale_xy[0], frame_wh[1] * place.scale_xy[1]
    for ramp, axis, start, length in ((x, 1, place.left, width), (y, 0, place.top, height)):
        fitted = fit_frame(ramp.astype(np.float32), place)
        size = fitted.shape[axis]
        assert size == max(1, round(length / 4))
        centres = start + (np.arange(size) + 0.5) * length / size
        got = fitted.mean(axis=1 - axis)
        # Within half a cell of the plane's end there is nothing to interpolate with.
        known = (centres >= 2) & (centres <= ramp.max())
        # Four input pixels a cell; OpenCV before 5 reads between cells in steps of a thirty-second.
        assert np.abs(got - centres)[known].max() < 0.07


def test_sigmoid_neither_overflows_nor_saturates_early():
    values = np.array([[-1e30, -90, -5, 0, 5, 90, 1e30]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        got = sigmoid(values)
    assert np.allclose(got, [[0, 0, 1 / (1 + np.exp(5)), 0.5, 1 / (1 + np.exp(-5)), 1, 1]], atol=1e-6)


def body(part: np.ndarray, x: int = 26, y: int = 20) -> np.ndarray:
    """A sure subject, 32 cells wide, with an unsure rim in a clear picture of 40 by 60 cells, and a part in it."""
    opacity = np.zeros((40, 60), np.float32)
    opacity[3:40, 13:47] = 0.6
    opacity[4:40, 14:46] = 1
    opacity[y : y + part.shape[0], x : x + part.shape[1]] = part
    return opacity


@pytest.mark.parametrize(
    "badge",
    [
        pytest.param(np.array([[0.8, 0.7, 0.8], [0.7, 0.3, 0.6]], np.float32), id="unsure"),
        pytest.param(np.array([[0.8, 0.6, 0.8], [0.4, 0.06, 0.4], [0.3, 0.2, 0.6]], np.float32), id="nearly clear"),
        pytest.param(np.full((6, 3), 0.4, np.float32), id="long"),
        pytest.param(np.full((3, 3), 0.6, np.float32), id="half sure"),
    ],
)
def test_a_badge_on_a_chest_is_filled(badge: np.ndarray) -> None:
    opacity = body(badge)
    fill_unsure(opacity)
    assert (opacity == body(np.ones_like(badge))).all(), "and all else stays"


def test_a_badge_is_filled_on_one_whose_outline_is_unsure_far_in() -> None:
    """A lanyard joins the badge to the unsure rim, as it does on webcams: no single unsure part is enclosed."""
    badge = body(np.full((4, 3), 0.3, np.float32))
    badge[3:20, 27] = 0.7
    fill_unsure(badge)
    assert (badge[20:24, 26:29] == 1).all()
    assert (badge[3:5, 27] == np.float32(0.7)).all(), "the rim stays soft"


@pytest.mark.parametrize(
    "opacity",
    [
        pytest.param(body(np.array([[0.3, 0.3, 0.3], [0.3, 0.01, 0.3]], np.float32)), id="clear within"),
        pytest.param(body(np.full((2, 3), 0.4, np.float32), x=44), id="open to the side"),
        pytest.param(body(np.full((8, 2), 0.4, np.float32), x=15), id="behind a thin arm"),
        pytest.param(body(np.full((5, 5), 0.4, np.float32)), id="large"),
        pytest.param(body(np.full((8, 2), 0.4, np.float32), y=32), id="cut off by the picture"),
        pytest.param(np.zeros((30, 40), np.float32), id="nobody"),
        pytest.param(np.ones((30, 40), np.float32), id="somebody everywhere"),
        pytest.param(np.full((30, 40), 0.4, np.float32), id="nothing sure"),
    ],
)
def test_what_may_show_the_background_stays(opacity: np.ndarray) -> None:
    filled = opacity.copy()
    fill_unsure(filled)
    assert (filled == opacity).all()
