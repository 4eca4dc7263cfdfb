"""Bring a picture of one size onto a picture of another."""

from __future__ import annotations

from typing import Literal

import cv2

from streamseg.frame import Plane
from streamseg.pixels.planes import empty, split

__all__ = ["Fit", "fit_planes"]

Fit = Literal["cover", "contain", "stretch"]


def fit_planes(planes: Plane, size_wh: tuple[int, int], fit: Fit, border_yuv: tuple[int, int, int]) -> Plane:
    """Resize an I420 picture to another size.

    Args:
        planes: (h * 3 / 2, w) uint8.
        size_wh: (W, H), both even.
        fit: ``cover`` fills the size and cuts off what stands out, ``contain`` shows all and adds a border,
            ``stretch`` ignores the proportions.
        border_yuv: sample values of the border.

    Returns:
        (H * 3 / 2, W) uint8.
    """
    width, height = size_wh
    from_width, from_height = planes.shape[1], planes.shape[0] // 3 * 2
    across, down = width / from_width, height / from_height
    if fit == "cover":
        across = down = max(across, down)
    elif fit == "contain":
        across = down = min(across, down)
    # What is taken from the picture and where it goes, in even numbers so that chroma stays aligned.
    take_w, take_h = _even(width / across, from_width), _even(height / down, from_height)
    put_w, put_h = _even(from_width * across, width), _even(from_height * down, height)
    take_x, take_y = (from_width - take_w) // 4 * 2, (from_height - take_h) // 4 * 2
    put_x, put_y = (width - put_w) // 4 * 2, (height - put_h) // 4 * 2
    out = empty(width, height)
    shrinks = across < 1 or down < 1
    for index, (source, target) in enumerate(zip(split(planes), split(out), strict=True)):
        target[:] = border_yuv[index]
        step = 1 if index == 0 else 2
        part = source[take_y // step : (take_y + take_h) // step, take_x // step : (take_x + take_w) // step]
        sized = cv2.resize(
            part, (put_w // step, put_h // step), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        )
        target[put_y // step : (put_y + put_h) // step, put_x // step : (put_x + put_w) // step] = sized
    return out


def _even(length: float, most: int) -> int:
    return max(2, min(round(length / 2) * 2, most))
