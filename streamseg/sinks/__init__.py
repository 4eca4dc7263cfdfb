"""Where finished pictures go: video files, recordings, pictures, the matte, lines of results, and nowhere."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from streamseg.errors import SinkOpenError
from streamseg.frame import Sink, VideoInfo
from streamseg.sinks.images import SUFFIXES, ImageSink, is_picture_name
from streamseg.sinks.lines import LinesSink
from streamseg.sinks.matte import MatteSink
from streamseg.sinks.null import NullSink
from streamseg.sinks.recording import RecordingSink
from streamseg.sinks.video import VideoSink

__all__ = ["ImageSink", "LinesSink", "MatteSink", "NullSink", "RecordingSink", "VideoSink", "open_sink", "same_file"]


def open_sink(
    url: str,
    info: VideoInfo,
    *,
    encoder: str | None = None,
    quality: str | int | None = None,
    container_format: str | None = None,
    alpha: bool = False,
    threads: int = 0,
) -> Sink:
    """Open whatever `url` names, for frames like those of `info`.

    Args:
        url: a video file by extension, ``out.png``, ``out_%05d.png``, a folder ``out/``, ``null:``, or "-" for
            standard output.
        info: of the source, which must still be open: its tracks are copied.
        encoder: FFmpeg's name or a short one, options behind a colon: ``libx264:preset=ultrafast``.
        quality: low, medium, high (the default), lossless, or the encoder's own number.
        container_format: of standard output, such as matroska or mpegts.
        alpha: write the frames' opacity.
        threads: of the encoder; 0 lets it choose.

    Raises:
        SinkOpenError: it cannot be opened as asked.
    """
    if url == "null:":
        return NullSink()
    if not url:
        raise SinkOpenError("no output given; name a file, a folder, null: or -")
    if url == "-" and not container_format:
        raise SinkOpenError("standard output needs a container: add --format matroska (or mp4, webm, mpegts)")
    if url != "-" and is_picture_name(url):
        if encoder:
            raise SinkOpenError(f"cannot write {url} with encoder {encoder}: pictures need none; leave it out")
        return ImageSink(url, info, quality=quality, alpha=alpha)
    return VideoSink(
        url,
        info,
        encoder=encoder,
        quality=quality,
        container_format=container_format if url == "-" else None,
        alpha=alpha,
        threads=threads,
    )


def same_file(source_url: str, sink_url: str) -> bool:
    """Whether writing to `sink_url` would touch what `source_url` reads: also through links and under another case.

    A folder of pictures is touched by a folder or numbered pictures inside it.
    """
    if "-" in (source_url, sink_url) or sink_url == "null:":
        return False
    if source_url.lower().startswith("file://"):
        source_url = unquote(urlsplit(source_url).path)
    source, sink = Path(source_url), Path(sink_url)
    if _same(source, sink):
        return True
    sources = [source] if source.exists() else [Path(name) for name in glob.glob(source_url, recursive=True)]
    folders = {path if path.is_dir() else path.parent for path in sources}
    if any(_same(path, sink) for path in sources):
        return True
    if source.is_file() or sink.suffix.lower() not in SUFFIXES:
        # A video, or a single picture, lies safely beside what is written into its folder, unless names are kept.
        return (
            is_picture_name(sink_url)
            and sink.is_dir()
            and any(
                _same(folder, sink) for folder in folders if not source.is_file() or source.suffix.lower() in SUFFIXES
            )
        )
    return any(_same(folder, sink.parent) for folder in folders)


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
