"""What a Video4Linux device says of itself: the kernel's structures, read with nothing but ioctl."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

__all__ = ["Capability", "Mode", "capability", "modes", "query"]

# From <linux/videodev2.h>: direction, size, 'V' and number; the sizes are the same on all 32- and 64-bit machines.
_QUERYCAP = 0x80685600
_ENUM_FMT = 0xC0405602
_ENUM_FRAMESIZES = 0xC02C564A
_ENUM_FRAMEINTERVALS = 0xC034564B

_CAPTURE, _OUTPUT = 0x00000001, 0x00000002
_DEVICE_CAPS = 0x80000000
_DISCRETE = 1
_MOST = 256  # a driver that never says "no more" must not hang us

Ask = Callable[[int, bytearray], None]


@dataclass(frozen=True, slots=True)
class Capability:
    """Driver and card name; whether pictures can be read from it, and whether it takes pictures too."""

    driver: str
    name: str
    captures: bool
    outputs: bool


@dataclass(frozen=True, slots=True)
class Mode:
    """One way in which a camera can send pictures.

    Attributes:
        format: the kernel's four characters, such as "MJPG".
        size_wh: the size, or the largest of a range.
        smallest_wh, step_wh: of a range; equal to `size_wh` and (0, 0) where there is one size. A size of (0, 0) means
            that the driver does not tell.
        rates: frames per second, fastest first; of a range, its ends; empty where the driver does not tell.
    """

    format: str
    size_wh: tuple[int, int]
    smallest_wh: tuple[int, int]
    step_wh: tuple[int, int]
    rates: tuple[Fraction, ...]

    def fits(self, size_wh: tuple[int, int]) -> bool:
        """Whether pictures of this size can be had."""
        if self.size_wh == (0, 0):
            return True
        return all(
            small <= side <= large and (not step or (side - small) % step == 0) and (step or side == large)
            for side, small, large, step in zip(size_wh, self.smallest_wh, self.size_wh, self.step_wh, strict=True)
        )


def query(path: Path | str) -> tuple[Capability, list[Mode]]:
    """What the device at `path` is and can do.

    Raises:
        OSError: it cannot be opened, or is no video device.
    """
    import fcntl  # only where there is Video4Linux

    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:

        def ask(request: int, block: bytearray) -> None:
            fcntl.ioctl(descriptor, request, block)

        found = capability(ask)
        return found, modes(ask) if found.captures else []
    finally:
        os.close(descriptor)


def capability(ask: Ask) -> Capability:
    """From VIDIOC_QUERYCAP; `ask(request, block)` fills the block in place."""
    block = bytearray(104)
    ask(_QUERYCAP, block)
    driver, card, _, _, every, device = struct.unpack_from("16s32s32sIII", block)
    able = device if every & _DEVICE_CAPS else every
    return Capability(_text(driver), _text(card), bool(able & _CAPTURE), bool(able & _OUTPUT))


def modes(ask: Ask) -> list[Mode]:
    """All modes, in the driver's order."""
    return [mode for name in _formats(ask) for mode in _sizes(ask, name)]


def _formats(ask: Ask) -> Iterator[bytes]:
    for block in _enumerated(ask, _ENUM_FMT, 64, struct.pack("I", _CAPTURE)):
        yield bytes(block[44:48])


def _sizes(ask: Ask, name: bytes) -> Iterator[Mode]:
    text = name.decode("latin-1").strip()
    none = True
    for block in _enumerated(ask, _ENUM_FRAMESIZES, 44, name):
        none = False
        (kind,) = struct.unpack_from("I", block, 8)
        if kind == _DISCRETE:
            width, height = struct.unpack_from("II", block, 12)
            yield Mode(text, (width, height), (width, height), (0, 0), _rates(ask, name, width, height))
            continue
        least_w, most_w, step_w, least_h, most_h, step_h = struct.unpack_from("6I", block, 12)
        rates = _rates(ask, name, most_w, most_h)
        yield Mode(text, (most_w, most_h), (least_w, least_h), (max(1, step_w), max(1, step_h)), rates)
        return  # a range comes alone
    if none:
        yield Mode(text, (0, 0), (0, 0), (0, 0), ())


def _rates(ask: Ask, name: bytes, width: int, height: int) -> tuple[Fraction, ...]:
    found = set()
    for block in _enumerated(ask, _ENUM_FRAMEINTERVALS, 52, name + struct.pack("II", width, height)):
        (kind,) = struct.unpack_from("I", block, 16)
        count = 1 if kind == _DISCRETE else 2
        for at in range(count):
            numerator, denominator = struct.unpack_from("II", block, 20 + 8 * at)
            if numerator and denominator:
                found.add(Fraction(denominator, numerator))
        if kind != _DISCRETE:
            break
    return tuple(sorted(found, reverse=True))


def _enumerated(ask: Ask, request: int, size: int, after_index: bytes) -> Iterator[bytearray]:
    """The filled blocks for index 0, 1, ... until the driver has no more."""
    for index in range(_MOST):
        block = bytearray(struct.pack("I", index) + after_index).ljust(size, b"\0")
        try:
            ask(request, block)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTTY, errno.ENODATA):
                return
            raise
        yield block


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace").strip()
