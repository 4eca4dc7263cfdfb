"""Where frames come from: video files, pictures, folders of pictures and containers on standard input."""

from __future__ import annotations

from streamseg.frame import Colour, Source
from streamseg.sources.file import FileSource

__all__ = ["MAX_PIXELS", "FileSource", "open_source"]

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
        url: a video file.
        max_pixels: width times height of the largest picture that is accepted.
        threads: of the decoder; 0 takes one for every core.
        colour: convert every picture to this colour.

    Raises:
        SourceOpenError: it cannot be opened or holds no picture.
    """
    return FileSource(url, max_pixels=max_pixels, threads=threads, colour=colour)
