"""Planar YUV 4:2:0 arrays: views, sizes, colours."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Colour, Frame, Plane

__all__ = [
    "coarse_luma",
    "crop",
    "double",
    "empty",
    "half_luma",
    "halve",
    "rgb_to_planes",
    "shrink",
    "split",
    "yuv_colour",
    "yuv_from_rgb_matrix",
]

_HALF_LUMA = "half luma"
_FINE_FROM_ROWS = 720


def empty(width: int, height: int) -> Plane:
    """An uninitialised (H * 3 / 2, W) I420 array.

    Raises:
        ValueError: a side is odd or not positive.
    """
    if width < 2 or height < 2 or width % 2 or height % 2:
        raise ValueError(f"a 4:2:0 picture has even sides, not {width}x{height}")
    return np.empty((height // 2 * 3, width), np.uint8)


def split(planes: Plane) -> tuple[Plane, Plane, Plane]:
    """Views of Y (H, W), U and V (H / 2, W / 2) of a C-contiguous (H * 3 / 2, W) array."""
    rows, width = planes.shape
    height = rows // 3 * 2
    size = height * width // 4
    flat = planes.reshape(-1)
    shape = (height // 2, width // 2)
    start = height * width
    return planes[:height], flat[start : start + size].reshape(shape), flat[start + size :].reshape(shape)


def crop(planes: Plane, window: tuple[int, int, int, int]) -> Plane:
    """(h * 3 / 2, w) uint8: what lies in `window`, xyxy in whole and even px."""
    x1, y1, x2, y2 = window
    cut = empty(x2 - x1, y2 - y1)
    for plane, part, step in zip(split(planes), split(cut), (1, 2, 2), strict=True):
        part[:] = plane[y1 // step : y2 // step, x1 // step : x2 // step]
    return cut


def yuv_from_rgb_matrix(colour: Colour, height: int) -> NDArray[np.float32]:
    """The (3, 4) affine map from R, G, B in 0..255 to Y, U, V in 0..255 (ITU-T H.273, section 8.3)."""
    kr, kb = colour.luma_weights(height)
    luma = np.array([kr, 1 - kr - kb, kb])
    linear = np.array(
        [luma, (np.array([0, 0, 1]) - luma) / (2 * (1 - kb)), (np.array([1, 0, 0]) - luma) / (2 * (1 - kr))]
    )
    offset = np.array([0.0, 128.0, 128.0])
    if not colour.full_range:
        linear *= np.array([[219 / 255], [224 / 255], [224 / 255]])
        offset[0] = 16.0
    return np.column_stack([linear, offset]).astype(np.float32)


def yuv_colour(rgb: tuple[int, int, int], colour: Colour, height: int) -> tuple[int, int, int]:
    """The Y, U, V sample values (0..255) of an R, G, B colour (0..255).

    >>> yuv_colour((255, 255, 255), Colour(), 480)
    (235, 128, 128)
    """
    y, u, v = np.rint(yuv_from_rgb_matrix(colour, height) @ np.array([*rgb, 1.0])).clip(0, 255)
    return int(y), int(u), int(v)


def rgb_to_planes(rgb: NDArray[np.uint8], colour: Colour) -> Plane:
    """An (H, W, 3) uint8 RGB picture, H and W even, as (H * 3 / 2, W) I420 in `colour`.

    For pictures that are loaded once; chroma is the mean of two by two pixels.
    """
    height, width = rgb.shape[:2]
    planes = empty(width, height)
    y, u, v = split(planes)
    yuv = cv2.transform(rgb, yuv_from_rgb_matrix(colour, height))
    y[:] = yuv[..., 0]
    cv2.resize(yuv[..., 1], (width // 2, height // 2), u, interpolation=cv2.INTER_AREA)
    cv2.resize(yuv[..., 2], (width // 2, height // 2), v, interpolation=cv2.INTER_AREA)
    return planes


def halve(plane: Plane) -> Plane:
    """The mean of every two by two pixels, (H // 2, W // 2); an odd last row or column is left out."""
    height, width = plane.shape[0] // 2, plane.shape[1] // 2
    return cv2.resize(plane[: height * 2, : width * 2], (width, height), interpolation=cv2.INTER_AREA)


def half_luma(frame: Frame) -> Plane:
    """The means of two by two luma samples, (H / 2, W / 2); worked out once a frame, as many stages begin with it."""
    if _HALF_LUMA not in frame.derived:
        frame.derived[_HALF_LUMA] = halve(frame.y)
    return frame.derived[_HALF_LUMA]


def coarse_luma(frame: Frame) -> Plane:
    """The luma for what looks at no detail: that at half size from 720 rows on, else the luma itself."""
    return half_luma(frame) if frame.height >= _FINE_FROM_ROWS else frame.y


def double(plane: Plane) -> Plane:
    """The plane at twice the size, (2 H, 2 W), bilinear: OpenCV's resize to a level, in two thirds of its time."""
    height, width = plane.shape
    # A pixel's two halves on an axis lie a quarter of its side from its centre, towards either neighbour.
    framed = cv2.copyMakeBorder(plane, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    middle = framed[:, 1:-1]
    halves = [cv2.addWeighted(middle, 0.75, side, 0.25, 0) for side in (framed[:, :-2], framed[:, 2:])]
    wide = cv2.merge(halves).reshape(height + 2, 2 * width)
    out = np.empty((2 * height, 2 * width), np.uint8)
    cv2.addWeighted(wide[1:-1], 0.75, wide[:-2], 0.25, 0, out[0::2])
    cv2.addWeighted(wide[1:-1], 0.75, wide[2:], 0.25, 0, out[1::2])
    return out


def shrink(plane: Plane, factor: int) -> Plane:
    """The mean of every `factor` by `factor` pixels (a power of two), (ceil(H / factor), ceil(W / factor)).

    Halving repeatedly is several times faster than one area resize. An incomplete last block repeats its neighbour.
    """
    rows, columns = -(-plane.shape[0] // factor), -(-plane.shape[1] // factor)
    if min(plane.shape) < factor:
        # Too narrow to be halved so often.
        below, right = (max(factor - side, 0) for side in plane.shape)
        plane = cv2.copyMakeBorder(plane, 0, below, 0, right, cv2.BORDER_REPLICATE)
    while factor > 1:
        plane = halve(plane)
        factor //= 2
    if plane.shape != (rows, columns):
        below, right = rows - plane.shape[0], columns - plane.shape[1]
        plane = cv2.copyMakeBorder(plane, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return plane
