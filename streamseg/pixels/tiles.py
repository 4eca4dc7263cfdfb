"""Do full-scale work in strips, and only where there is something to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Tile", "enlarge", "tiles"]

# Rows of a strip, at full scale: its operands and results then stay in the second-level cache.
_STRIP_ROWS = 128

# Runs of busy cells that are nearer to each other than this are one: a few more calls cost as much as that many pixels.
_JOIN_PX = 128


class Tile(NamedTuple):
    """A block of grid cells, ends exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def cells(self) -> tuple[slice, slice]:
        """The rows and columns of the grid."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def pixels(self, factor: int, shape_hw: tuple[int, ...]) -> tuple[slice, slice]:
        """The rows and columns that the block covers in a picture whose cells are `factor` pixels wide."""
        height, width = shape_hw
        rows = slice(self.top * factor, min(self.bottom * factor, height))
        return rows, slice(self.left * factor, min(self.right * factor, width))


def tiles(busy: NDArray[np.bool_], factor: int) -> Iterator[Tile]:
    """Blocks that together cover the busy cells of a grid, (rows, columns) bool, of `factor` pixels a cell."""
    step = max(1, _STRIP_ROWS // factor)
    for top in range(0, busy.shape[0], step):
        bottom = min(top + step, busy.shape[0])
        columns: NDArray[np.bool_] = np.asarray(busy[top:bottom].any(axis=0))
        changes = np.flatnonzero(columns[1:] != columns[:-1]) + 1
        bounds = [0] * bool(columns[0]) + changes.tolist() + [len(columns)] * bool(columns[-1])
        runs: list[tuple[int, int]] = []
        for left, right in zip(bounds[::2], bounds[1::2], strict=True):
            if runs and (left - runs[-1][1]) * factor < _JOIN_PX:
                runs[-1] = (runs[-1][0], right)
            else:
                runs.append((left, right))
        for left, right in runs:
            yield Tile(top, bottom, left, right)


def enlarge(grid: NDArray[Any], tile: Tile, factor: int) -> NDArray[Any]:
    """The tile's part of `grid`, `factor` times larger, as if the whole were resized bilinearly."""
    top, bottom, left, right = tile
    above, below = max(top - 1, 0), min(bottom + 1, grid.shape[0])
    before, after = max(left - 1, 0), min(right + 1, grid.shape[1])
    part = grid[above:below, before:after]
    full = cv2.resize(part, (part.shape[1] * factor, part.shape[0] * factor), interpolation=cv2.INTER_LINEAR)
    y, x = (top - above) * factor, (left - before) * factor
    return full[y : y + (bottom - top) * factor, x : x + (right - left) * factor]
