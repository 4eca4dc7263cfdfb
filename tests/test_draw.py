"""Drawing into planes, against pictures drawn by hand or by another method."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamseg.pixels.draw import fill_mask, fill_polygons, stroke, text_size, write
from streamseg.pixels.planes import split

RED = (81, 90, 240)


def grey(width: int = 64, height: int = 48) -> np.ndarray:
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    planes[:height] = 60
    return planes


def test_a_rectangle_is_filled_in_all_planes_and_nothing_else_changes() -> None:
    planes = grey()
    corners = np.array([[10, 8], [29, 8], [29, 19], [10, 19]], float)
    fill_polygons(planes, [corners], RED)
    y, u, v = split(planes)
    assert (y[9:19, 11:29] == 81).all()
    assert (u[5:9, 6:14] == 90).all()
    assert (v[5:9, 6:14] == 240).all()
    outside = np.ones_like(y, bool)
    outside[6:22, 8:32] = False
    assert (y[outside] == 60).all()
    assert (u[:3] == 128).all()
    assert (u[11:] == 128).all()


def test_opacity_mixes_linearly_and_overlaps_are_laid_once() -> None:
    planes = grey()
    square = np.array([[8, 8], [40, 8], [40, 40], [8, 40]], float)
    fill_polygons(planes, [square, square], (200, 100, 150), 0.5)
    y, u, v = split(planes)
    assert y[20, 20] == pytest.approx(130, abs=1)
    assert u[10, 10] == pytest.approx(114, abs=1)
    assert v[10, 10] == pytest.approx(139, abs=1)


def test_edges_are_anti_aliased() -> None:
    planes = grey()
    fill_polygons(planes, [np.array([[5, 5], [50, 20], [5, 40]], float)], (235, 128, 128))
    between = np.unique(split(planes)[0])
    assert len(between) > 20


def test_the_area_of_a_polygon_is_kept_to_the_fraction_of_a_pixel() -> None:
    """Against the exact area: coverage sums to it, whatever the sub-pixel position."""
    for shift in (0.0, 0.25, 0.6):
        planes = grey(256, 256)
        planes[:256] = 0
        triangle = np.array([[20.0, 30], [220, 60], [90, 210]]) + shift
        fill_polygons(planes, [triangle], (255, 128, 128))
        # A filled contour of the library includes its border, half a pixel wide.
        perimeter = np.linalg.norm(triangle - np.roll(triangle, 1, 0), axis=1).sum()
        area = cv2.contourArea(triangle.astype(np.float32))
        assert split(planes)[0].sum() / 255 == pytest.approx(area + perimeter / 2, rel=0.015)


@pytest.mark.parametrize("offset", [(-5, -7), (60, 44), (3, 5), (-200, 0), (0, 300)])
def test_masks_are_cut_off_at_the_border(offset: tuple[int, int]) -> None:
    planes = grey()
    fill_mask(planes, np.full((9, 11), 255, np.uint8), offset, RED)
    expected = np.full((48, 64), 60, np.uint8)
    x, y = offset
    expected[max(0, y) : max(0, y + 9), max(0, x) : max(0, x + 11)] = 81
    assert np.array_equal(split(planes)[0], expected)


def test_lines_far_outside_do_no_harm() -> None:
    planes = grey()
    stroke(planes, [np.array([[-1e7, 20.0], [1e7, 20.0]])], RED, 3)
    assert split(planes)[0][20, 30] == 81
    before = planes.copy()
    stroke(planes, [np.array([[np.nan, 20.0], [30, 20.0]])], RED, 3)
    stroke(planes, [], RED, 3)
    stroke(planes, [np.array([[900.0, 20.0], [950, 20.0]])], RED, 3)
    assert np.array_equal(planes, before)


def test_text_stays_in_its_box() -> None:
    planes = grey(320, 64)
    width, height = text_size("Lane 0.3 m, gy", 16)
    write(planes, "Lane 0.3 m, gy", (20, 10), 16, (235, 128, 128))
    rows, columns = np.nonzero(split(planes)[0] > 100)
    assert len(rows) > 100
    assert columns.min() >= 18
    assert columns.max() <= 20 + width + 2
    assert rows.min() >= 9
    assert rows.max() <= 10 + height + 2
