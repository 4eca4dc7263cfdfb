"""A room that must never be seen: its pattern is searched for in every picture that leaves the program."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

# A blue that no background in the tests has; the subject is red.
_DARK, _LIGHT, _SUBJECT = (10, 40, 190), (90, 130, 250), (235, 15, 15)
_CELL = 8


def room(index: int, width: int, height: int) -> NDArray[np.uint8]:
    """(h, w, 3) RGB: a blue chequered room with a red subject that walks through it."""
    rows, columns = np.indices((height, width)) // _CELL
    rgb = np.where(((rows + columns) % 2)[..., None], _DARK, _LIGHT).astype(np.uint8)
    wide, high = width // 4, height // 2
    left = (width - wide) * (index % 50) // 50
    rgb[height // 4 : height // 4 + high, left : left + wide] = _SUBJECT
    return rgb


def room_picture(index: int, width: int, height: int, *, glare: bool = False) -> av.VideoFrame:
    """The same as a yuv420p picture; with `glare`, its upper half is white."""
    rgb = room(index, width, height)
    if glare:
        rgb[: height // 2] = 255
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")


def shows_room(rgb: NDArray[np.uint8]) -> bool:
    """Whether the room shows in (h, w, 3) RGB: whether one block of cells in a hundred is of its blue.

    At the subject's edge, where a matte may be a few pixels wide, a single cell is not the room.
    """
    bluish = _exceeds(rgb, 2, (0, 1), 60)
    side = 2 * _CELL
    rows, columns = (length // side for length in bluish.shape)
    blocks = cv2.resize(bluish[: rows * side, : columns * side], (columns, rows), interpolation=cv2.INTER_AREA)
    return bool((blocks > 0.75 * 255).mean() > 0.01)


def shows_subject(rgb: NDArray[np.uint8]) -> bool:
    """Whether the subject shows in (h, w, 3) RGB: an eighth of the room, less where it is fitted into another shape."""
    return bool((_exceeds(rgb, 0, (1, 2), 100) > 0).mean() > 0.04)


def _exceeds(rgb: NDArray[np.uint8], channel: int, others: tuple[int, int], by: int) -> NDArray[np.uint8]:
    """(h, w) uint8: 255 where one channel is larger than both others by more than so much."""
    planes = cv2.split(rgb)
    first, second = (cv2.compare(cv2.subtract(planes[channel], planes[other]), by, cv2.CMP_GT) for other in others)
    return cv2.bitwise_and(first, second)


def pictures(path: Path) -> Iterable[NDArray[Any]]:
    """The pictures of a video file, RGB."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
