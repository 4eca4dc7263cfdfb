"""A room that must never be seen: its pattern is searched for in every picture that leaves the program."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
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


def room_picture(index: int, width: int, height: int) -> av.VideoFrame:
    """The same as a yuv420p picture."""
    return av.VideoFrame.from_ndarray(room(index, width, height), format="rgb24").reformat(format="yuv420p")


def shows_room(rgb: NDArray[np.uint8]) -> bool:
    """Whether the room shows in (h, w, 3) RGB: whether one block of cells in a hundred is of its blue.

    At the subject's edge, where a matte may be a few pixels wide, a single cell is not the room.
    """
    red, green, blue = (rgb[..., channel].astype(np.int16) for channel in range(3))
    bluish = (blue > green + 60) & (blue > red + 60)
    side = 2 * _CELL
    height, width = (length // side * side for length in bluish.shape)
    blocks = bluish[:height, :width].reshape(height // side, side, width // side, side).mean(axis=(1, 3))
    return bool((blocks > 0.75).mean() > 0.01)


def pictures(path: Path) -> Iterable[NDArray[Any]]:
    """The pictures of a video file, RGB."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
