"""The network's input out of the planes, against a slow reference of our own and against OpenCV's full-size RGB."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from streamseg.frame import Colour, Frame, Origin
from streamseg.pixels.letterbox import ModelInput, Placement, best_rectangle, picture_size, rgb_from_yuv_matrix
from streamseg.pixels.planes import rgb_to_planes

BT601 = Colour(matrix=6)
BT709 = Colour(matrix=1)


def frame_of(rgb: np.ndarray, colour: Colour = BT709) -> Frame:
    planes = rgb_to_planes(np.ascontiguousarray(rgb), colour)
    return Frame(planes, 0, Fraction(1, 30), 0, 0.0, colour, Origin("test", (rgb.shape[1], rgb.shape[0])))


def smooth_picture(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def bilinear(plane: np.ndarray, size_wh: tuple[int, int], extent_wh: tuple[float, float]) -> np.ndarray:
    """The upper left `extent_wh` of a plane scaled between pixel centres, one output pixel at a time."""
    width, height = size_wh
    out = np.empty((height, width))
    for j in range(height):
        for i in range(width):
            x = min(max((i + 0.5) * extent_wh[0] / width - 0.5, 0), plane.shape[1] - 1)
            y = min(max((j + 0.5) * extent_wh[1] / height - 0.5, 0), plane.shape[0] - 1)
            x0, y0 = int(x), int(y)
            x1, y1 = min(x0 + 1, plane.shape[1] - 1), min(y0 + 1, plane.shape[0] - 1)
            fx, fy = x - x0, y - y0
            top = plane[y0, x0] * (1 - fx) + plane[y0, x1] * fx
            out[j, i] = top * (1 - fy) + (plane[y1, x0] * (1 - fx) + plane[y1, x1] * fx) * fy
    return out


@pytest.mark.parametrize(
    ("frame_wh", "input_wh", "left", "top", "width", "height"),
    [
        # From ultralytics' LetterBox: scale to the nearest pixel, then half the padding, the odd pixel at the far end.
        ((1280, 720), (640, 640), 0, 140, 640, 360),
        ((1280, 720), (640, 384), 0, 12, 640, 360),
        ((640, 426), (640, 640), 0, 107, 640, 426),
        ((640, 427), (640, 640), 0, 106, 640, 427),
        ((500, 374), (640, 640), 0, 80, 640, 479),
        ((480, 640), (640, 640), 80, 0, 480, 640),
        ((2000, 2), (640, 640), 0, 319, 640, 1),
    ],
)
def test_letterbox_lies_where_ultralytics_puts_it(frame_wh, input_wh, left, top, width, height):
    place = Placement.letterbox(frame_wh, input_wh)
    assert (place.left, place.top, *place.inner_wh) == (left, top, width, height)


@pytest.mark.parametrize(
    ("frame_wh", "expected"),
    [((1280, 720), (640, 384)), ((640, 480), (640, 480)), ((720, 1280), (384, 640)), ((3840, 1080), (640, 192))],
)
def test_best_rectangle_is_the_smallest_that_holds_the_frame(frame_wh, expected):
    assert best_rectangle(frame_wh) == expected


def test_boxes_come_back_to_the_frame_and_are_clipped():
    place = Placement.letterbox((1280, 720), (640, 640))
    boxes = np.array([[0, 140, 640, 500], [100, 150, 200, 250], [-5, 100, 700, 600]], np.float32)
    assert place.to_frame(boxes).tolist() == [[0, 0, 1280, 720], [200, 20, 400, 220], [0, 0, 1280, 720]]


@pytest.mark.parametrize("colour", [BT601, BT709, Colour(full_range=True, matrix=6), Colour(matrix=9)])
@pytest.mark.parametrize("rgb", [(255, 255, 255), (0, 0, 0), (200, 30, 60), (10, 200, 90), (40, 60, 220)])
def test_a_plain_colour_arrives_as_it_was(colour, rgb):
    picture = np.full((48, 64, 3), rgb, np.uint8)
    blob = ModelInput(Placement.letterbox((64, 48), (32, 32)))(frame_of(picture, colour))
    inner = blob[0, :, 4:28]
    assert np.abs(inner - np.array(rgb).reshape(3, 1, 1) / 255).max() < 2 / 255
    assert (blob[0, :, :4] == np.float32(114 / 255)).all()
    assert (blob[0, :, 28:] == np.float32(114 / 255)).all()


def test_an_unspecified_matrix_follows_the_height():
    """As players do: BT.601 up to 576 lines, BT.709 above."""
    red = np.array([81.0, 90.0, 240.0, 1.0])  # pure red in BT.601, limited range
    assert np.abs(rgb_from_yuv_matrix(Colour(), 480) @ red - [255, 0, 0]).max() < 1.5
    assert np.abs(rgb_from_yuv_matrix(Colour(), 720) @ red - [255, 0, 0]).max() > 10


@pytest.mark.parametrize(
    ("picture_wh", "input_wh"),
    [((128, 72), (64, 64)), ((96, 54), (64, 64)), ((50, 70), (64, 96)), ((125, 71), (64, 64)), ((53, 90), (64, 96))],
)
def test_planes_are_sampled_at_pixel_centres(picture_wh, input_wh):
    """Of odd pictures the padding is left out, and chroma, whose last sample it shares, stays on luma."""
    width, height = picture_wh
    rgb = smooth_picture(width + width % 2, height + height % 2)
    frame = replace(frame_of(rgb), origin=Origin("odd", picture_wh))
    place = Placement.letterbox((frame.width, frame.height), input_wh, picture_size(frame))
    assert place.picture_wh == picture_wh
    blob = ModelInput(place)(frame)
    inner_wh = place.inner_wh
    yuv = np.stack([bilinear(frame.y, inner_wh, picture_wh)] + [
        bilinear(plane, inner_wh, (width / 2, height / 2)) for plane in (frame.u, frame.v)
    ], axis=-1)  # fmt: skip
    matrix = rgb_from_yuv_matrix(frame.colour, frame.height)
    expected = np.clip(yuv @ matrix[:, :3].T + matrix[:, 3], 0, 255).transpose(2, 0, 1) / 255
    inner = blob[0, :, place.top : place.top + inner_wh[1], place.left : place.left + inner_wh[0]]
    # Planes and RGB are rounded once each, and half a step of chroma is a whole one of blue. The last row or column of
    # an odd picture may look into its padding, which repeats it.
    assert np.abs(inner - expected)[:, :-1, :-1].max() < 3 / 255
    assert np.abs(inner - expected).mean() < 0.7 / 255


@pytest.mark.parametrize("frame_wh", [(1280, 720), (1920, 1080), (640, 360)])
def test_equals_converting_the_whole_frame_first(frame_wh):
    """OpenCV knows one matrix, BT.601 in limited range; its conversion repeats chroma, so the picture is smooth."""
    frame = frame_of(smooth_picture(*frame_wh), BT601)
    place = Placement.letterbox(frame_wh, (320, 192))
    blob = ModelInput(place)(frame)
    rgb = cv2.cvtColor(frame.planes, cv2.COLOR_YUV2RGB_I420)
    small = cv2.resize(rgb, place.inner_wh, interpolation=cv2.INTER_LINEAR)
    inner = blob[0, :, place.top : place.top + place.inner_wh[1]]
    assert np.abs(inner * 255 - small.transpose(2, 0, 1).astype(np.float32)).max() < 4


def test_chroma_lies_on_luma():
    """A vertical edge between two colours stands at the same place in every channel after a large reduction."""
    picture = np.zeros((360, 640, 3), np.uint8)
    picture[:, :320], picture[:, 320:] = (200, 60, 60), (60, 60, 200)
    blob = ModelInput(Placement.letterbox((640, 360), (160, 96)))(frame_of(picture))
    red, blue = blob[0, 0, 48], blob[0, 2, 48]
    assert np.flatnonzero(np.abs(np.diff(red)) > 0.1).tolist() == [79]
    assert np.flatnonzero(np.abs(np.diff(blue)) > 0.1).tolist() == [79]


def test_channels_last_and_half_precision_hold_the_same_picture():
    frame = frame_of(smooth_picture(256, 144))
    place = Placement.stretch((256, 144), (64, 64))
    first = ModelInput(place)(frame)
    last = ModelInput(place, channels_last=True)(frame)
    half = ModelInput(place, dtype=np.float16)(frame)
    assert last.shape == (1, 64, 64, 3)
    assert np.array_equal(last[0].transpose(2, 0, 1), first[0])
    assert half.dtype == np.float16
    assert np.abs(half.astype(np.float32) - first).max() < 5e-4


def test_smooth_scaling_averages_what_plain_scaling_skips():
    """Stripes of one pixel are grey when every pixel counts."""
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[:, ::2] = 255
    frame = frame_of(picture)
    place = Placement.stretch((256, 256), (64, 64))
    smooth = ModelInput(place, smooth=True)(frame)[0]
    assert np.abs(smooth - 0.5).max() < 0.02


def test_a_second_frame_leaves_nothing_of_the_first():
    place = Placement.letterbox((64, 48), (64, 64))
    fill = ModelInput(place)
    fill(frame_of(np.full((48, 64, 3), 255, np.uint8)))
    twice = fill(frame_of(np.full((48, 64, 3), 20, np.uint8), BT601)).copy()
    once = ModelInput(place)(frame_of(np.full((48, 64, 3), 20, np.uint8), BT601))
    assert np.array_equal(twice, once)


@pytest.mark.parametrize(
    ("origin_wh", "expected"),
    [((64, 48), (64, 48)), ((63, 47), (63, 47)), ((64, 47), (64, 47)), ((1280, 960), (64, 48)), ((62, 48), (64, 48))],
)
def test_only_padding_to_even_sides_is_left_out(origin_wh, expected):
    frame = replace(frame_of(np.zeros((48, 64, 3), np.uint8)), origin=Origin("test", origin_wh))
    assert picture_size(frame) == expected


def test_a_frame_of_another_size_is_refused():
    with pytest.raises(ValueError, match="64x48"):
        ModelInput(Placement.letterbox((32, 32), (64, 64)))(frame_of(np.zeros((48, 64, 3), np.uint8)))
