"""A description of streams as bytes, so that another process can have the library's own objects for them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import av

# Without one, readers take the end for a broken file.
_EMPTY_CLUSTER = bytes.fromhex("1f43b675 83 e78100")

__all__ = ["as_header", "from_header"]


def as_header(streams: Sequence[Any]) -> bytes:
    """A Matroska file without content that declares these streams, in order.

    Raises:
        av.FFmpegError, ValueError: Matroska cannot hold one of them.
    """
    header = io.BytesIO()
    header.close = lambda: None  # type: ignore[method-assign]  # the container closes what it is given
    with av.open(header, "w", format="matroska") as container:
        for stream in streams:
            container.add_stream_from_template(stream, opaque=True)
        container.start_encoding()
        # Before the end is written, whose index would make readers find every stream twice.
        begun = header.getvalue()
    return begun + _EMPTY_CLUSTER


def from_header(header: bytes, bare: Sequence[bool]) -> list[Any]:
    """The library's streams of what `as_header` made; they keep their container alive.

    Args:
        header: the file.
        bare: for each stream, whether it really had no configuration, each of its packets bringing its own: the
            Matroska reader makes one up.
    """
    streams = list(av.open(io.BytesIO(header), format="matroska").streams)
    for stream, without in zip(streams, bare, strict=True):
        if without:
            stream.codec_context.extradata = None
    return streams
