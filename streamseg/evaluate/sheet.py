"""A contact sheet: frames side by side, with what was found, missed and made up in colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.errors import SinkWriteError
from streamseg.evaluate.mattes import Mask
from streamseg.libav import unwritten

__all__ = ["overlay", "write_sheet"]

Picture = NDArray[np.uint8]

_TILE_PX = 426
_CAPTION_PX = 24
_COLUMNS = 3
# BGR
_RIGHT, _EXTRA, _MISSED = (80, 170, 60), (60, 60, 220), (230, 140, 40)


def overlay(picture: Picture, found: Mask, truth: Mask | None = None) -> Picture:
    """What was found over the picture: right green, made up red, missed blue; without a truth all green.

    Args:
        picture: (H, W, 3) uint8 BGR, or (H, W) grey.
        found: (H, W) bool.
        truth: (H, W) bool.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    base = picture if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    paint = base.copy()
    known = found if truth is None else truth
    paint[found & known] = _RIGHT
    paint[found & ~known] = _EXTRA
    paint[known & ~found] = _MISSED
    return cv2.addWeighted(base, 0.55, paint, 0.45, 0)


def write_sheet(path: Path, tiles: Sequence[tuple[str, Picture]]) -> None:
    """Write captioned pictures as one PNG, three side by side.

    Args:
        path: where.
        tiles: caption and (H, W, 3) uint8 BGR picture, of any sizes, at least one.

    Raises:
        SinkWriteError: it cannot be written.
    """
    rows = []
    for first in range(0, len(tiles), _COLUMNS):
        row = [_tile(caption, picture) for caption, picture in tiles[first : first + _COLUMNS]]
        row += [np.zeros_like(row[0])] * (min(_COLUMNS, len(tiles)) - len(row))
        height = max(tile.shape[0] for tile in row)
        rows.append(np.hstack([cv2.copyMakeBorder(t, 0, height - t.shape[0], 0, 0, cv2.BORDER_CONSTANT) for t in row]))
    _, code = cv2.imencode(".png", np.vstack(rows))
    try:
        path.write_bytes(code.tobytes())
    except OSError as error:
        raise SinkWriteError(f"cannot write {path}: {unwritten(error)}") from error


def _tile(caption: str, picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    rows = max(1, round(height * _TILE_PX / width))
    tile = cv2.resize(picture, (_TILE_PX, rows), interpolation=cv2.INTER_AREA)
    tile = cv2.copyMakeBorder(tile, _CAPTION_PX, 0, 0, 4, cv2.BORDER_CONSTANT)
    cv2.putText(tile, caption, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return tile
