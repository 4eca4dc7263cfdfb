"""A picture, or a folder or glob of pictures, as frames."""

from __future__ import annotations

import glob
import re
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from streamseg.errors import SourceOpenError
from streamseg.frame import Colour, Frame, Origin, Packet, VideoInfo
from streamseg.libav import reason
from streamseg.sources.conform import PICTURE_COLOUR, Conformer, Turn, colour_of
from streamseg.sources.pictures import PICTURE_HEAD, decode_picture, exif_orientation, picture_codec

__all__ = ["ImageSource", "has_pictures", "is_picture", "named", "natural_key", "picture_files"]

_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff"})
_RATE = Fraction(25)


def is_picture(path: Path) -> bool:
    """Whether the file begins like a picture."""
    try:
        with path.open("rb") as file:
            return picture_codec(file.read(PICTURE_HEAD)) is not None
    except OSError:
        return False


def picture_files(url: str) -> list[Path]:
    """The pictures that a folder or glob names, "2" before "10".

    Raises:
        SourceOpenError: there are none.
    """
    found = named(url)
    if not found:
        what = "the folder is empty; name another" if Path(url).is_dir() else "nothing matches; check the pattern"
        raise SourceOpenError(f"cannot open {url}: {what}")
    files = [path for path in found if _is_picture_name(path)]
    if not files:
        raise SourceOpenError(
            f"cannot open {url}: no pictures or videos among {len(found)} names; known are jpg png webp bmp tiff"
        )
    return sorted(files, key=natural_key)


def has_pictures(url: str) -> bool:
    """Whether a folder or glob names a picture."""
    return any(map(_is_picture_name, named(url)))


def named(url: str) -> list[Path]:
    """What lies in a folder, or what a glob names, in any order."""
    folder = Path(url)
    return list(folder.iterdir()) if folder.is_dir() else [Path(name) for name in glob.glob(url, recursive=True)]


def _is_picture_name(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


class ImageSource:
    """Pictures one after the other, 25 a second; a `Source`.

    A picture that cannot be read is skipped and counted, unless it is the only one. All have one colour, that of JPEG
    unless another is asked for; sizes are left as they are.

    Args:
        files: in the order in which they are shown.
        url: what the user named.
        max_pixels: width times height of the largest picture that is accepted.
        colour: convert every picture to this colour.

    Raises:
        SourceOpenError: not one can be read.
    """

    def __init__(self, files: Sequence[Path], url: str, *, max_pixels: int, colour: Colour | None = None) -> None:
        self._max_pixels = max_pixels
        self._colour = colour or PICTURE_COLOUR
        self._waiting = deque(enumerate(files))
        self._counts: Counter[str] = Counter()
        self._notices: list[str] = []
        self._index = 0
        self._stopped = False
        self._first: Frame | None = self._next()
        if self._first is None:
            why = self._notices[0].removeprefix(f"{files[0].name} cannot be read: ")
            if len(files) > 1:
                why = f"none of its {len(files)} pictures can be read ({self._notices[0]})"
            raise SourceOpenError(f"cannot open {url}: {why}")
        first = self._first
        self._info = VideoInfo(
            width=first.width,
            height=first.height,
            rate=_RATE if len(files) > 1 else None,
            live=False,
            time_base=1 / _RATE,
            colour=self._colour,
            name=files[0].name if len(files) == 1 else url,
            original_wh=first.origin.size_wh,
            duration_s=float(len(files) / _RATE),
            frame_count=len(files),
            varying_size=len(files) > 1,
        )
        width, height = first.origin.size_wh
        if len(files) == 1 and (width % 2 or height % 2):
            self._notices.append(f"{width}x{height} padded to {first.width}x{first.height}")

    @property
    def info(self) -> VideoInfo:
        """What is known before the first frame."""
        return self._info

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        return tuple(self._notices)

    @property
    def counts(self) -> Mapping[str, int]:
        """Irregularities so far, by name."""
        return dict(self._counts)

    def read(self) -> Frame | None:
        """The next frame; None at the end and after `interrupt`."""
        if self._stopped:
            return None
        frame, self._first = self._first, None
        return frame or self._next()

    def take_packets(self) -> list[Packet]:
        """The packets of the copied tracks since the last call."""
        return []

    def interrupt(self) -> None:
        """Make `read` end; from any thread."""
        self._stopped = True

    def close(self) -> None:
        """Let go of the file."""
        self._stopped = True

    def _next(self) -> Frame | None:
        while self._waiting and not self._stopped:
            position, path = self._waiting.popleft()
            try:
                return self._frame(position, path)
            except (OSError, ValueError) as error:
                self._counts["unreadable pictures skipped"] += 1
                self._notices.append(f"{path.name} cannot be read: {reason(error)}")
        return None

    def _frame(self, position: int, path: Path) -> Frame:
        data = path.read_bytes()
        picture, context = decode_picture(data, self._max_pixels)
        turn = Turn.of_exif(exif_orientation(data))
        conform = Conformer(
            picture, colour_of(picture, context, PICTURE_COLOUR.siting), turn=turn, colour=self._colour, still=True
        )
        for remark in conform.remarks:
            # JPEG has no opacity; the library gives CMYK a fourth plane.
            if remark not in self._notices and not (context.name == "mjpeg" and "opacity" in remark):
                self._notices.append(remark)
        frame = Frame(
            planes=conform(picture),
            # A picture that is left out leaves its time: the others stay in step with their numbers.
            pts=position,
            time_base=1 / _RATE,
            index=self._index,
            captured_at=time.monotonic(),
            colour=self._colour,
            origin=Origin(path.name, turn.size((picture.width, picture.height))),
        )
        self._index += 1
        width, height = frame.origin.size_wh
        if width % 2 or height % 2:
            self._counts["odd sizes padded to even"] += 1
        return frame


def natural_key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """For sorting: numbers inside names count by their value; equal names by their exact text."""
    pieces = re.findall(r"(\d+)|(\D+)", str(path).casefold())
    return [(0, int(number), "") if number else (1, 0, text) for number, text in pieces], str(path)
