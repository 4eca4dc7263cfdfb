"""Durations and sizes as people write them."""

from __future__ import annotations

import math
import re

__all__ = ["parse_duration_s", "parse_size_bytes", "size_words"]

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
          "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def parse_duration_s(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``10m``, ``1h30m``, ``7d`` or ``2w``; more than 0.

    Raises:
        ValueError: it is none; the message says what one looks like.

    >>> parse_duration_s("1h30m")
    5400.0
    """
    low = text.strip().lower()
    if low.replace(".", "", 1).isdecimal():
        low += "s"
    parts = _PART.findall(low)
    if not parts or _PART.sub("", low) or any(unit not in _SECONDS for _, unit in parts):
        raise ValueError(f"{text!r} is no duration; write 30s, 10m, 1h30m, 7d or 2w")
    total_s = math.fsum(float(number) * _SECONDS[unit] for number, unit in parts)
    if total_s <= 0:
        raise ValueError(f"the duration {text!r} must be more than 0")
    return total_s


def parse_size_bytes(text: str) -> int:
    """Bytes of ``500MB``, ``50GB`` or ``1.5TB`` (thousands) or ``50GiB`` (1024s); a bare letter is as with a B behind.

    Raises:
        ValueError: it is none; the message says what one looks like.

    >>> parse_size_bytes("50GB")
    50000000000
    """
    found = _SIZE.fullmatch(text.strip().lower())
    unit = found[2] if found else ""
    unit = unit if unit in _BYTES else f"{unit}b"
    if not found or unit not in _BYTES:
        raise ValueError(f"{text!r} is no size; write 500MB, 50GB or 1.5TB")
    size = round(float(found[1]) * _BYTES[unit])
    if size <= 0:
        raise ValueError(f"the size {text!r} must be more than 0")
    return size


def size_words(size: int) -> str:
    """A size for people.

    >>> size_words(1_500_000_000)
    '1.5 GB'
    """
    for unit, length in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size} bytes"
