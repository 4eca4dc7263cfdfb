"""Where a video stream has its chroma samples."""

from __future__ import annotations

import io
from typing import Any

import av

__all__ = ["chroma_siting"]

# (horizontal, vertical) as Matroska writes them, 1 co-sited and 2 half way, to FFmpeg's AVChromaLocation.
_LOCATIONS = {(1, 2): 1, (2, 2): 2, (1, 1): 3, (2, 1): 4}
_HORIZONTAL, _VERTICAL = b"\x55\xb7\x81", b"\x55\xb8\x81"


def chroma_siting(stream: Any) -> int:
    """FFmpeg's AVChromaLocation of a video stream; 0 where unknown.

    PyAV has no getter for it. The library's Matroska writer tells: it puts the two numbers into the header of a file
    that is never finished.
    """
    header = io.BytesIO()
    header.close = lambda: None  # type: ignore[method-assign]  # the container closes what it is given
    try:
        with av.open(header, "w", format="matroska") as container:
            container.add_stream_from_template(stream, opaque=True)
            container.start_encoding()
    except (av.FFmpegError, ValueError, RuntimeError):
        return 0
    text = header.getvalue()
    across, down = text.find(_HORIZONTAL), text.find(_VERTICAL)
    if across < 0 or down < 0:
        return 0
    return _LOCATIONS.get((text[across + 3], text[down + 3]), 0)
