"""What cameras write beside picture and sound inside a video file: packets of data and text, with their times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
from av.stream import Discard

from streamseg.errors import SourceOpenError
from streamseg.libav import reason

__all__ = ["timed_metadata"]


def timed_metadata(path: Path) -> Iterator[tuple[float, float, bytes]]:
    """(time, duration, content) of the data and subtitle packets of a file; seconds, on the clock of its pictures.

    Boxes outside of streams, where some dashcams keep their places, are not seen by FFmpeg, so neither here.

    Raises:
        SourceOpenError: it cannot be read.
    """
    try:
        with av.open(f"file:{path}", metadata_errors="surrogateescape") as container:
            wanted = [stream for stream in container.streams if stream.type in ("data", "subtitle")]
            if not wanted:
                return
            for stream in container.streams:
                if stream not in wanted:
                    stream.discard = Discard.all  # pictures are not even read
            for packet in container.demux(wanted):
                if packet.size and packet.pts is not None:
                    duration = packet.duration or 0
                    yield float(packet.pts * packet.time_base), float(duration * packet.time_base), bytes(packet)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SourceOpenError(f"cannot read {path}: {reason(error)}") from error
