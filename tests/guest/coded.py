"""Pictures that say which they are: index and time as black and white blocks, with patches of known colour."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from streamseg.frame import Colour, Frame, Origin, Output, Plane, VideoInfo

__all__ = ["COLOURS", "HEIGHT", "WIDTH", "coded_output", "info", "read_colours", "read_number", "slate"]

WIDTH, HEIGHT = 320, 240
_BLOCK = 16
_BITS = 20
# RGB of the patches in the lower half, and their BT.601 limited-range (Y, U, V), worked out by hand from the standard.
COLOURS = {
    (255, 0, 0): (81, 90, 240),
    (0, 255, 0): (145, 54, 34),
    (0, 0, 255): (41, 240, 110),
    (255, 255, 255): (235, 128, 128),
}


def info(width: int = WIDTH, height: int = HEIGHT, rate: int = 15) -> VideoInfo:
    return VideoInfo(
        width, height, Fraction(rate), True, Fraction(1, 90000), Colour(), "coded", (width, height), varying_size=False
    )


def _blank(luma: int) -> Frame:
    planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
    planes[:HEIGHT] = luma
    return Frame(planes, 0, Fraction(1, 90000), 0, 0.0, Colour(), Origin("coded", (WIDTH, HEIGHT)))


def slate() -> Plane:
    """Grey, without any block."""
    return _blank(100).planes


def coded_output(index: int, stamp_ms: int) -> Output:
    """Row 0 has the index, row 1 the time modulo 2^20 ms, each followed by its complement."""
    frame = _blank(100)
    for row, number in enumerate((index, stamp_ms)):
        for turned in (0, 1):
            for bit in range(_BITS):
                on = (number >> bit & 1) ^ turned
                y, x = (2 * row + turned) * _BLOCK, bit * _BLOCK
                frame.y[y : y + _BLOCK, x : x + _BLOCK] = 235 if on else 16
    step = WIDTH // len(COLOURS)
    for place, (y, u, v) in enumerate(COLOURS.values()):
        columns = slice(place * step, (place + 1) * step)
        half = slice(place * step // 2, (place + 1) * step // 2)
        frame.y[HEIGHT // 2 :, columns] = y
        frame.u[HEIGHT // 4 :, half] = u
        frame.v[HEIGHT // 4 :, half] = v
    return Output(frame)


def read_number(luma: Plane, row: int) -> int | None:
    """The index (row 0) or the time (row 1) of an (H, W) luma or grey picture; None where no blocks are.

    Raises:
        ValueError: the two halves are of different pictures.
    """
    found = []
    for turned in (0, 1):
        y = (2 * row + turned) * _BLOCK + _BLOCK // 2
        levels = [int(luma[y, bit * _BLOCK + _BLOCK // 2]) for bit in range(_BITS)]
        if any(60 < level < 190 for level in levels):
            return None
        found.append(sum((level > 128) << bit for bit, level in enumerate(levels)))
    if found[0] ^ found[1] != (1 << _BITS) - 1:
        raise ValueError(f"torn: {found}")
    return found[0]


def read_colours(rgb: Plane) -> list[tuple[int, int, int]]:
    """(r, g, b) in the middle of each patch of an (H, W, 3) picture."""
    step = WIDTH // len(COLOURS)
    y = HEIGHT * 3 // 4
    return [tuple(int(v) for v in rgb[y, place * step + step // 2]) for place in range(len(COLOURS))]
