"""Where finished pictures go: video files, pictures, the matte, and nowhere."""

from __future__ import annotations

import os

from streamseg.frame import Sink, VideoInfo
from streamseg.sinks.null import NullSink
from streamseg.sinks.video import VideoSink

__all__ = ["NullSink", "VideoSink", "open_sink", "same_file"]


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

    Raises:
        SinkOpenError: it cannot be opened as asked.
    """
    if url == "null:":
        return NullSink()
    return VideoSink(url, info, encoder=encoder, quality=quality, threads=threads)


def same_file(source_url: str, sink_url: str) -> bool:
    """Whether writing to `sink_url` would overwrite the file that `source_url` reads."""
    try:
        return os.path.samefile(source_url, sink_url)
    except OSError:
        return False
