"""Where frames come from: video files, pictures, folders of pictures and containers on standard input."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from streamseg.errors import SourceOpenError, redact
from streamseg.frame import Colour, Source
from streamseg.sources.file import FileSource
from streamseg.sources.images import ImageSource, is_picture, picture_files

__all__ = ["MAX_PIXELS", "FileSource", "ImageSource", "open_source"]

# 16k by 8k and a little: larger pictures are taken for an attack or a mistake.
MAX_PIXELS = 16384 * 8640


def open_source(
    url: str,
    *,
    max_pixels: int = MAX_PIXELS,
    threads: int = 2,
    colour: Colour | None = None,
) -> Source:
    """Open whatever `url` names.

    Args:
        url: a video file, a picture, a folder or glob of pictures, or "-" for a container on standard input.
        max_pixels: width times height of the largest picture that is accepted; checked before memory is taken.
        threads: of the decoder; 0 takes one for every core.
        colour: convert every picture to this colour.

    Raises:
        SourceOpenError: it cannot be opened or holds no picture.
    """
    if url == "-":
        return FileSource(url, max_pixels=max_pixels, threads=threads, colour=colour)
    path = local_path(url)
    if path.is_dir() or (not path.exists() and re.search(r"[*?\[]", str(path))):
        return ImageSource(picture_files(str(path)), str(path), max_pixels=max_pixels, colour=colour)
    if is_picture(path):
        return ImageSource([path], str(path), max_pixels=max_pixels, colour=colour)
    return FileSource(str(path), max_pixels=max_pixels, threads=threads, colour=colour)


def local_path(url: str) -> Path:
    """The file or folder that `url` names.

    Raises:
        SourceOpenError: it names something on a network, or nothing.
    """
    if not url:
        raise SourceOpenError("no source given; name a video file, a picture, a folder of pictures or -")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", url)
    if scheme is None:
        return Path(url)
    if scheme[1].lower() == "file":
        return Path(unquote(urlsplit(url).path))
    raise SourceOpenError(redact(f"cannot open {url}: no source of kind {scheme[1]}; files and folders are known"))
