"""What a file and its streams say of themselves, and do not say plainly."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from streamseg.sources.conform import UPRIGHT, Turn

__all__ = ["lacks_index", "nominal_rate", "stream_duration_s", "turn_of"]

_NO_TIMES = 0x0080  # AVFMT_NOTIMESTAMPS: a bare stream of one codec
_COMMON_RATES = [
    rate for whole in (24, 25, 30, 48, 50, 60, 100, 120) for rate in (Fraction(whole), Fraction(whole * 1000, 1001))
]


def lacks_index(path: Path) -> bool:
    """Whether it is an MP4 or MOV file without the atom that says where everything is."""
    try:
        with path.open("rb") as file:
            kinds: list[bytes] = []
            while len(head := file.read(8)) == 8 and len(kinds) < 100:
                size = int.from_bytes(head[:4], "big")
                kinds.append(head[4:])
                if size == 1:
                    size = int.from_bytes(file.read(8), "big") - 8
                if size < 8:
                    break  # to the end of the file
                file.seek(size - 8, os.SEEK_CUR)
    except OSError:
        return False
    return kinds[:1] == [b"ftyp"] and b"moov" not in kinds


def nominal_rate(stream: Any) -> Fraction | None:
    """Frames per second of a stream with an even beat; None where the beat varies or is not known."""
    average, base = stream.average_rate, stream.base_rate
    bare = stream.container.format.flags & _NO_TIMES  # the average is the library's default of 25, the codec knows
    empty = stream.container.format.name == "avi"  # the average counts packets, and may have an empty one for each
    if bare or empty or not average or average > 1000:
        average = stream.guessed_rate  # the average of two pictures may be anything
    if not average or average > 1000:
        return None
    for rate in _COMMON_RATES:
        # Containers with a millisecond clock report 29.97003 or 30.00009.
        if abs(average / rate - 1) < Fraction(1, 4000):
            return rate
    if base and not bare and abs(average / base - 1) > Fraction(1, 200):
        return None
    return Fraction(average)


def stream_duration_s(stream: Any) -> float | None:
    """How long the container says that this stream is; that of the container may be that of its sound."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    said = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return 3600 * int(said[1]) + 60 * int(said[2]) + float(said[3]) if said else None


def turn_of(picture: Any, codec: str) -> Turn:
    """From the display matrix that the decoder attached; `codec` is FFmpeg's name of it."""
    # To look at what these attach frees the name of a colour profile, which the picture frees again (PyAV 18.1).
    if codec in ("png", "apng"):
        return _rotated(picture.rotation)
    try:
        matrix = picture.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV refuses the whole list where the library knows a kind that PyAV does not.
        return _rotated(picture.rotation)
    if matrix is None:
        return UPRIGHT
    return Turn.of_matrix(tuple(np.frombuffer(bytes(matrix), np.int32).tolist()))


def _rotated(degrees: int) -> Turn:
    """From a rotation to the left, -180 to 180, which does not tell of mirrors."""
    quarters = {90: Turn(True, False, True), -90: Turn(True, True, False), 180: Turn(False, True, True)}
    return quarters.get(abs(degrees) if abs(degrees) == 180 else degrees, UPRIGHT)
