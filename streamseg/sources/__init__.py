"""Where frames come from: files, pictures, standard input, cameras, the screen, networks and a test pattern."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from streamseg.errors import SourceOpenError, shown
from streamseg.frame import Colour, Opener, Source
from streamseg.sources.address import MAX_PIXELS, LiveOptions, is_live_url
from streamseg.sources.drive import open_drive
from streamseg.sources.file import FileSource
from streamseg.sources.grouping import playlist_files, video_files
from streamseg.sources.images import ImageSource, has_pictures, is_picture, picture_files
from streamseg.sources.live import LiveOpener, open_live
from streamseg.sources.pattern import PatternOpener, PatternSource

__all__ = [
    "MAX_PIXELS",
    "FileSource",
    "ImageSource",
    "LiveOptions",
    "drive_files",
    "is_live_url",
    "live_opener",
    "local_path",
    "open_source",
]


def open_source(
    url: str,
    *,
    max_pixels: int = MAX_PIXELS,
    threads: int = 2,
    colour: Colour | None = None,
    live: LiveOptions | None = None,
    hwaccel: str = "none",
) -> Source:
    """Open whatever `url` names.

    Args:
        url: a video file, a picture, a folder or glob of pictures, a drive (see `drive_files`), "-" for a container on
            standard input, or whatever `live_opener` knows.
        max_pixels: width times height of the largest picture that is accepted; checked before memory is taken.
        threads: of the decoder; 0 takes one for every core.
        colour: convert every picture to this colour.
        live: how a live source is opened; the settings here go before its own.
        hwaccel: what decodes videos: "none" (software), "auto" or one of `hardware.KINDS`, ``:DEVICE`` behind it.

    Raises:
        SourceOpenError: it cannot be opened or holds no picture.
        SourceAbsentError: a live source is not there now.
    """
    if is_live_url(url):
        options = replace(live or LiveOptions(), max_pixels=max_pixels, threads=threads, colour=colour, hwaccel=hwaccel)
        return PatternSource(url, options) if _is_pattern(url) else open_live(url, options)
    if url == "-":
        return FileSource(url, max_pixels=max_pixels, threads=threads, colour=colour, hwaccel=hwaccel)
    path = local_path(url)
    files = drive_files(path)
    if files:
        return open_drive(files, str(path), max_pixels=max_pixels, threads=threads, colour=colour, hwaccel=hwaccel)
    if path.exists() and not path.is_file() and not path.is_dir():
        # It is looked into before it is read, and whoever writes a pipe writes once.
        raise SourceOpenError(
            f"cannot open {url}: it is a pipe or a device; give it as standard input: streamseg run - < {url}"
        )
    if _names_many(path):
        return ImageSource(picture_files(str(path)), str(path), max_pixels=max_pixels, colour=colour)
    if is_picture(path):
        return ImageSource([path], str(path), max_pixels=max_pixels, colour=colour)
    return FileSource(str(path), max_pixels=max_pixels, threads=threads, colour=colour, hwaccel=hwaccel)


def drive_files(path: Path) -> list[Path]:
    """The videos of a drive where `path` names one: a folder or glob of videos without pictures, or an M3U playlist.

    Raises:
        SourceOpenError: a playlist cannot be read.
    """
    if path.suffix.lower() == ".m3u" and path.is_file():
        return playlist_files(path)
    if not _names_many(path) or has_pictures(str(path)):
        return []
    return video_files(str(path))


def _names_many(path: Path) -> bool:
    return path.is_dir() or (not path.exists() and re.search(r"[*?\[]", str(path)) is not None)


def live_opener(url: str, options: LiveOptions | None = None) -> Opener:
    """What opens a live source again and again.

    Args:
        url: ``0``, ``/dev/video2`` or ``camera:NAME``; ``rtsp://``, ``rtsps://``, ``rtmp://``, ``http://``,
            ``https://`` or ``srt://``; ``screen:``; ``test:``.
        options: how it is opened.

    Raises:
        SourceOpenError: the URL can never work.
    """
    if _is_pattern(url):
        return PatternOpener(url, options)
    if not is_live_url(url):
        raise SourceOpenError(f"{shown(url)} is no live source")
    return LiveOpener(url, options)


def _is_pattern(url: str) -> bool:
    return url.lower().startswith("test:")


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
    raise SourceOpenError(
        f"cannot open {shown(url)}: no source of kind {scheme[1]}; files, cameras, rtsp, rtmp, http and srt are known"
    )
