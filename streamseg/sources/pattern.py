"""``test:``: a moving pattern in real time whose frame number stands as bits in the top rows."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from urllib.parse import parse_qsl

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from streamseg.errors import SourceOpenError
from streamseg.frame import Colour, Frame, Origin, Packet, Plane, VideoInfo
from streamseg.sources.address import LiveOptions

__all__ = ["BIT_ROWS", "PatternOpener", "PatternSource", "index_of", "luma", "pattern_planes"]

BIT_ROWS = 16
_COLOUR = Colour(full_range=False, matrix=1, primaries=1, transfer=1, siting=1)
# Bluish: nothing of it can be taken for the red subject.
_ROOM_CHROMA = (150, 105)
_RED = (63, 102, 240)  # BT.709
_KNOWN = ("size", "fps", "frames", "subject")


def luma(index: int, width: int, height: int) -> Plane:
    """(h, w) uint8 in 16..235: the low 16 bits of `index`, most significant first, over a moving ramp."""
    ramp = (32 + (np.arange(width + height - 1) + 3 * index) % 160).astype(np.uint8)
    picture = sliding_window_view(ramp, width).copy()
    for bit in range(16):
        left, right = bit * width // 16, (bit + 1) * width // 16
        picture[:BIT_ROWS, left:right] = 220 if index >> (15 - bit) & 1 else 30
    return picture


def index_of(y: Plane) -> int:
    """The number in the top rows of (h, w) luma."""
    width = y.shape[1]
    # A quarter down, so that pictures scaled to half their size can be read too.
    bits = (y[BIT_ROWS // 4, (2 * bit + 1) * width // 32] > 125 for bit in range(16))
    return sum(int(bit) << (15 - place) for place, bit in enumerate(bits))


def pattern_planes(index: int, width: int, height: int, *, subject: bool = False) -> Plane:
    """(h * 3 / 2, w) I420 with flat, unequal chroma; `subject` adds a red rectangle that moves across."""
    planes = np.empty((height * 3 // 2, width), np.uint8)
    planes[:height] = luma(index, width, height)
    chroma = planes.reshape(-1)[width * height :].reshape(2, height // 2, width // 2)
    chroma[0], chroma[1] = _ROOM_CHROMA
    if subject:
        # A third as wide and half as high; it crosses in 100 frames and leaves the bits alone.
        wide, high = max(2, width // 6 * 2), max(2, height // 4 * 2)
        left = (width - wide) * (index % 100) // 100 // 2 * 2
        top = max(BIT_ROWS, (height - high) // 4 * 2)
        planes[top : min(height, top + high), left : left + wide] = _RED[0]
        rows, columns = slice(top // 2, min(height, top + high) // 2), slice(left // 2, (left + wide) // 2)
        chroma[0, rows, columns], chroma[1, rows, columns] = _RED[1:]
    return planes


@dataclass(frozen=True, slots=True)
class _Pattern:
    size_wh: tuple[int, int] = (1280, 720)
    rate: Fraction = Fraction(30)
    frames: int | None = None
    subject: bool = False


def _parsed(url: str, options: LiveOptions) -> _Pattern:
    """Of ``test:?size=1280x720&fps=30&frames=300&subject=1``."""
    text = url.partition(":")[2]
    if text and not text.startswith("?"):
        raise SourceOpenError(f"cannot open {url}: write test: or test:?size=1280x720&fps=30&frames=300&subject=1")
    asked = dict(parse_qsl(text[1:], keep_blank_values=True))
    for name in asked:
        if name not in _KNOWN:
            raise SourceOpenError(f"cannot open {url}: no setting {name!r}; {', '.join(_KNOWN)} are known")
    size = re.fullmatch(r"(\d{2,5})x(\d{2,5})", asked.get("size", "1280x720"))
    if size is None or int(size[1]) % 2 or int(size[2]) % 2 or int(size[1]) < 32 or int(size[2]) < 32:
        raise SourceOpenError(f"cannot open {url}: size must be WIDTHxHEIGHT, even and at least 32x32")
    try:
        rate = Fraction(asked.get("fps", "30"))
        frames = int(asked["frames"]) if "frames" in asked else None
    except (ValueError, ZeroDivisionError) as error:
        raise SourceOpenError(f"cannot open {url}: fps and frames must be numbers") from error
    if not 0 < rate <= 1000 or (frames is not None and frames < 1):
        raise SourceOpenError(f"cannot open {url}: fps must be above 0 and at most 1000, frames at least 1")
    size_wh = options.size_wh or (int(size[1]), int(size[2]))
    return _Pattern(size_wh, options.rate or rate, frames, asked.get("subject", "0") not in ("", "0"))


class PatternSource:
    """A live source without a camera; a `Source`. A reader that is late misses frames, as with a camera.

    Raises:
        SourceOpenError: the URL has an unknown setting or a value out of range.
    """

    def __init__(self, url: str, options: LiveOptions | None = None) -> None:
        self._pattern = _parsed(url, options or LiveOptions())
        self._counts: Counter[str] = Counter()
        self._began_s: float | None = None
        self._next = 0
        # `interrupt` rings; waiting for a bell or a time needs no thread.
        self._bell, self._button = socket.socketpair()
        width, height = self._pattern.size_wh
        self._info = VideoInfo(
            width=width,
            height=height,
            rate=self._pattern.rate,
            live=True,
            time_base=1 / self._pattern.rate,
            colour=_COLOUR,
            name="test",
            original_wh=(width, height),
            frame_count=self._pattern.frames,
        )

    @property
    def info(self) -> VideoInfo:
        """What is known before the first frame."""
        return self._info

    @property
    def notices(self) -> Sequence[str]:
        """None."""
        return ()

    @property
    def counts(self) -> Mapping[str, int]:
        """Frames that were due while nobody read."""
        return dict(self._counts)

    def read(self) -> Frame | None:
        """The frame that is due, at its time; None after the last and after `interrupt`."""
        now_s = time.monotonic()
        if self._began_s is None:
            self._began_s = now_s
        due = int((now_s - self._began_s) * self._pattern.rate)
        index = max(self._next, due)
        if self._pattern.frames is not None and index >= self._pattern.frames:
            return None
        self._bell.settimeout(max(1e-4, self._began_s + float(index / self._pattern.rate) - now_s))
        try:
            self._bell.recv(1, socket.MSG_PEEK)
            return None
        except (TimeoutError, BlockingIOError):
            pass
        if index > self._next:
            self._counts["frames dropped, newer ones were waiting"] += index - self._next
        self._next = index + 1
        width, height = self._pattern.size_wh
        return Frame(
            planes=pattern_planes(index, width, height, subject=self._pattern.subject),
            pts=index,
            time_base=self._info.time_base,
            index=index,
            captured_at=time.monotonic(),
            colour=_COLOUR,
            origin=Origin("test", self._pattern.size_wh),
        )

    def take_packets(self) -> list[Packet]:
        """It makes no sound."""
        return []

    def interrupt(self) -> None:
        """Make `read` end at once; any thread."""
        with contextlib.suppress(OSError):  # closed meanwhile
            self._button.send(b"!")

    def close(self) -> None:
        """Let go of the bell."""
        self._bell.close()
        self._button.close()


class PatternOpener:
    """Opens test patterns; an `Opener`.

    Raises:
        SourceOpenError: the URL has an unknown setting or a value out of range.
    """

    def __init__(self, url: str, options: LiveOptions | None = None) -> None:
        self._url = url
        self._options = options
        _parsed(url, options or LiveOptions())
        self._source: PatternSource | None = None

    def __call__(self) -> PatternSource:
        """A pattern that begins with its first read."""
        self._source = PatternSource(self._url, self._options)
        return self._source

    def ready(self) -> bool:
        """Always."""
        return True

    def interrupt(self) -> None:
        """Make a read under way end; any thread."""
        if self._source is not None:
            self._source.interrupt()

    def close(self) -> None:
        """Nothing is held."""
