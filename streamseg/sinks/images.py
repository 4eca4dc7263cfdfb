"""Pictures as files: one, a numbered sequence, or a folder that keeps the source's names."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.errors import SinkOpenError, SinkWriteError
from streamseg.frame import Frame, Output, Packet, Plane, VideoInfo
from streamseg.libav import Chain, i420_picture, matrix_name, plane_view, reason, unwritten
from streamseg.pixels.blend import blank
from streamseg.pixels.planes import yuv_colour
from streamseg.sinks.partial import Claim, behind_links

__all__ = [
    "SUFFIXES",
    "ImageSink",
    "PictureNames",
    "cut_back",
    "is_picture_name",
    "to_bgr",
    "without_hidden",
    "write_picture",
]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
_ALPHA_SUFFIXES = frozenset({".png", ".webp", ".tif", ".tiff"})
_QUALITY = {"low": 70, "medium": 85, "high": 95}
_PATTERN = re.compile(r"%0?\d*d")


def is_picture_name(url: str) -> bool:
    """Whether `url` asks for pictures: by extension, or as a folder."""
    return Path(url).suffix.lower() in SUFFIXES or url.endswith(("/", os.sep)) or Path(url).is_dir()


class PictureNames:
    """Decides where each frame's picture goes.

    Args:
        url: ``out.png`` for a single picture, ``out_%05d.png`` counted from 1, or a folder (``out/``), in which
            pictures keep the names of their sources and frames of a video are numbered. Of a live source the numbers go
            on behind those that lie there.
        info: of the source.
        suffixes: those that can be written; in a folder, others become ``.png``.

    Raises:
        SinkOpenError: one name for many pictures, a wrong extension, no such folder, or another run is writing there.
    """

    def __init__(self, url: str, info: VideoInfo, *, suffixes: frozenset[str] = SUFFIXES) -> None:
        self._url = url
        self._path = Path(url)
        self._suffixes = suffixes
        self._used: set[str] = set()
        self._written = 0
        self._many = info.frame_count != 1
        self._folder = url.endswith(("/", os.sep)) or self._path.is_dir()
        self._numbered = _PATTERN.search(self._path.name) is not None
        if self._folder:
            try:
                self._path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SinkOpenError(f"cannot write into {url}: {unwritten(error)}") from error
            # Runs of other sources may write into it meanwhile.
            self._claim = Claim(self._path / re.sub(r"[^\w.-]", "_", info.name), url)
            self._first = 1 + (_highest(self._path, re.compile(r".*_(\d+)\.png")) if info.live else 0)
            return
        if self._path.suffix.lower() not in suffixes:
            raise SinkOpenError(
                f"cannot write {url}: {self._path.suffix} does not fit; use {' '.join(sorted(suffixes))}"
            )
        if not self._path.parent.is_dir():
            raise SinkOpenError(f"cannot write {url}: the folder {self._path.parent} does not exist; make it first")
        if self._many and not self._numbered and info.frame_count is not None:
            numbered = f"{self._path.stem}_%05d{self._path.suffix}"
            raise SinkOpenError(
                f"cannot write {url}: one name for {info.frame_count} pictures; use {numbered} or {self._path.stem}/"
            )
        self._claim = Claim(self._path, url)
        before, _, behind = _PATTERN.sub("\0", self._path.name, count=1).partition("\0")
        names = re.compile(rf"{re.escape(before)}(\d+){re.escape(behind)}")
        self._first = 1 + (_highest(self._path.parent, names) if info.live and self._numbered else 0)

    def next(self, frame: Frame) -> Path:
        """The file for this frame's picture.

        Raises:
            SinkWriteError: there is one name and it is taken.
        """
        self._written += 1
        if self._folder:
            return self._path / self._in_folder(frame)
        if self._numbered:
            return self._path.with_name(
                _PATTERN.sub(lambda found: found[0] % (frame.index + self._first), self._path.name, count=1)
            )
        if self._written > 1:
            raise SinkWriteError(f"cannot write a second picture to {self._url}; use a pattern such as out_%05d.png")
        return self._path

    def close(self) -> None:
        """Leave the names to others."""
        self._claim.release()

    def _in_folder(self, frame: Frame) -> str:
        origin = Path(frame.origin.name)
        suffix = origin.suffix.lower()
        if suffix not in SUFFIXES:
            return f"{origin.stem or 'frame'}_{frame.index + self._first:05d}.png"
        name = origin.name if suffix in self._suffixes else f"{origin.stem}.png"
        number = 1
        while name.casefold() in self._used:
            number += 1
            name = f"{origin.stem}_{number}{Path(name).suffix}"
        self._used.add(name.casefold())
        return name


def _highest(folder: Path, names: re.Pattern[str]) -> int:
    """The highest number in the names of a folder's files, as the first group finds it; 0 where there is none."""
    found = (names.fullmatch(file.name) for file in folder.iterdir())
    return max((int(match[1]) for match in found if match), default=0)


class ImageSink:
    """Pictures as files; a `Sink`. Each appears whole; sizes that were padded to even are cut back.

    Args:
        url: as `PictureNames` takes it.
        info: of the source.
        quality: ``low``, ``medium``, ``high`` or a number up to 100, for JPEG and WebP.
        alpha: write the frames' opacity.

    Raises:
        SinkOpenError: it cannot be written as asked.
    """

    def __init__(self, url: str, info: VideoInfo, *, quality: str | int | None = None, alpha: bool = False) -> None:
        if alpha and Path(url).suffix.lower() in SUFFIXES - _ALPHA_SUFFIXES:
            raise SinkOpenError(f"cannot write opacity to {url}: use .png, .webp or .tif")
        self._alpha = alpha
        self._quality = _quality(quality, url)
        self._names = PictureNames(url, info, suffixes=_ALPHA_SUFFIXES if alpha else SUFFIXES)
        self._chains: dict[tuple[int, int], Chain] = {}
        self._notices: list[str] = []
        if info.tracks:
            self._notices.append("pictures have no sound: tracks beside the picture are left out")

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        return tuple(self._notices)

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        """Write one picture; packets have no place here."""
        frame = output.frame
        alpha = frame.alpha if self._alpha else None
        if self._alpha and alpha is None:
            alpha = np.full((frame.height, frame.width), 255, np.uint8)
        key = (frame.width, frame.height)
        if key not in self._chains:
            self._chains.clear()
            self._chains[key] = _rgb_chain(frame)
        shown = frame if alpha is None else without_hidden(frame, alpha)
        bgr = to_bgr(shown, self._chains[key])
        picture = bgr if alpha is None else np.dstack([bgr, alpha])
        write_picture(self._names.next(frame), cut_back(picture, frame), self._quality)

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        """Nothing is left to do: every picture is whole."""

    def close(self) -> None:
        """Leave the names to others; nothing else is open between pictures."""
        self._names.close()


def cut_back(picture: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
    """Without the row and column that padded the source to even sides."""
    width, height = frame.origin.size_wh
    if (width + width % 2, height + height % 2) == (frame.width, frame.height):
        return picture[:height, :width]
    return picture


def without_hidden(frame: Frame, alpha: Plane) -> Frame:
    """The frame with black where (H, W) uint8 `alpha` is 0: whoever ignores straight alpha would see the room there."""
    return frame.with_picture(blank(frame.planes, alpha, yuv_colour((0, 0, 0), frame.colour, frame.height)))


def to_bgr(frame: Frame, chain: Chain | None = None) -> NDArray[np.uint8]:
    """The picture as (H, W, 3) uint8, blue first, by the frame's own matrix and range."""
    (picture,) = (chain or _rgb_chain(frame)).push(i420_picture(frame.planes, frame.colour))
    view = plane_view(picture, 0)
    return view.reshape(frame.height, frame.width, 3)


def _rgb_chain(frame: Frame) -> Chain:
    range_name = "pc" if frame.colour.full_range else "tv"
    scale = f"scale=flags=bicubic+accurate_rnd+full_chroma_int:in_range={range_name}"
    scale += f":in_color_matrix={matrix_name(frame.colour, frame.height)}:out_range=pc"
    return Chain(i420_picture(frame.planes, frame.colour), [scale, "format=bgr24"])


def write_picture(path: Path, picture: NDArray[np.uint8] | Plane, quality: int = 95) -> None:
    """Encode by the extension; the file appears whole or not at all.

    Args:
        path: of the file.
        picture: (H, W), (H, W, 3) or (H, W, 4) uint8, blue first.
        quality: 1 to 100 for JPEG and WebP, 101 for a WebP that loses nothing; other kinds never do.

    Raises:
        SinkWriteError: it cannot be written.
    """
    final = behind_links(path)
    partial = final.with_name(f".{final.name}.partial")
    option = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".jpeg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
    kind = option.get(path.suffix.lower())
    try:
        encoded, data = cv2.imencode(path.suffix, picture, [] if kind is None else [kind, min(quality, _best(kind))])
        if not encoded:
            raise SinkWriteError(f"cannot write {path}: OpenCV cannot encode {path.suffix}")
        partial.write_bytes(data.tobytes())
        os.replace(partial, final)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise SinkWriteError(f"cannot write {path}: {unwritten(error)}") from error
    except cv2.error as error:
        raise SinkWriteError(f"cannot write {path}: {reason(error)}") from error


def _best(kind: int) -> int:
    return 101 if kind == cv2.IMWRITE_WEBP_QUALITY else 100


def _quality(quality: str | int | None, url: str) -> int:
    word = str(quality or "high").strip().lower()
    if word == "lossless":
        if Path(url).suffix.lower() in (".jpg", ".jpeg"):
            raise SinkOpenError(f"cannot write {url}: JPEG is never lossless; use .png")
        return 101
    try:
        number = _QUALITY.get(word) or int(float(word))
    except (ValueError, OverflowError):
        raise SinkOpenError(
            f"cannot write {url}: quality {word!r} is neither low, medium, high, lossless nor a number"
        ) from None
    if not 1 <= number <= 100:
        raise SinkOpenError(f"cannot write {url}: quality {number} is not between 1 and 100")
    return number
