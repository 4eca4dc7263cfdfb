"""GPS in GoPro's metadata format (GPMF): keys of four letters, a type, a size, a count, big-endian values, nested.

Layout after the format's public description: github.com/gopro/gpmf-parser.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["gps_samples"]

# Latitude, longitude, altitude, speed over ground, speed in space; GPS9 adds days, seconds, precision, fix.
_GPS5, _GPS9 = b"GPS5", b"GPS9"
_FIX_PLACE = 8


def gps_samples(payload: bytes) -> list[tuple[float, float, float]]:
    """(latitude, longitude in degrees, m/s) of the fixes in one payload, evenly spread over its time; may be empty.

    Raises:
        ValueError: it is no GPMF, or a broken one.
    """
    samples: list[tuple[float, float, float]] = []
    try:
        for key, _, _, content in _fields(payload):
            if key == b"DEVC":
                for inner, _, _, stream in _fields(content):
                    if inner == b"STRM":
                        samples += _stream(stream)
            else:
                raise ValueError(f"no device at its beginning, but {key!r}")
    except struct.error as error:
        raise ValueError("it ends within a field") from error
    return samples


def _stream(content: bytes) -> list[tuple[float, float, float]]:
    scale: list[int] = []
    fixed = True
    samples = []
    for key, kind, size, data in _fields(content):
        if key == b"SCAL":
            scale = [value for (value,) in struct.iter_unpack({b"l": ">l", b"s": ">h"}[kind], data)]
        elif key == b"GPSF":
            fixed = struct.unpack(">L", data[:4])[0] >= 2
        elif key in (_GPS5, _GPS9):
            form = ">5l" if key == _GPS5 else ">7l2H"
            if size != struct.calcsize(form) or len(scale) < 4 or 0 in scale:
                raise ValueError(f"{key.decode()} of {size} bytes with {len(scale)} scales")
            for row in struct.iter_unpack(form, data):
                # Without a fix the place is that where there was one last.
                if fixed and (key == _GPS5 or row[_FIX_PLACE] >= 2):
                    samples.append((row[0] / scale[0], row[1] / scale[1], row[3] / scale[3]))
    return samples


def _fields(data: bytes) -> Iterator[tuple[bytes, bytes, int, bytes]]:
    """(key, type, size of one, content)."""
    at = 0
    while at + 8 <= len(data):
        key, kind, size, count = struct.unpack_from(">4scBH", data, at)
        if key == bytes(4):
            return
        length = size * count
        if at + 8 + length > len(data):
            raise ValueError(f"{key!r} is longer than what holds it")
        yield key, kind, size, data[at + 8 : at + 8 + length]
        at += 8 + -(-length // 4) * 4
