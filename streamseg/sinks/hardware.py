"""Encoders on a graphics card or a chip of their own: which ones really encode a picture here."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from types import MappingProxyType
from typing import Any

import av

from streamseg.libav import LAMBDA, reason

__all__ = ["HARDWARE", "needs", "trouble"]

# By what they make, in the order in which `auto` tries them.
HARDWARE = {
    "h264": ("h264_nvenc", "h264_videotoolbox", "h264_qsv", "h264_amf"),
    "hevc": ("hevc_nvenc", "hevc_videotoolbox", "hevc_qsv", "hevc_amf"),
    "av1": ("av1_nvenc", "av1_qsv", "av1_amf"),
}
_NEEDS = {
    "nvenc": "an NVIDIA card that encodes, with its driver",
    "videotoolbox": "macOS",
    "qsv": "an Intel GPU with its oneVPL runtime",
    "amf": "an AMD GPU with its AMF runtime",
    "vaapi": "a VA-API driver",
    "mf": "Windows",
    "v4l2m2m": "a chip that encodes",
    "vulkan": "a Vulkan driver that encodes",
}
_RATE = Fraction(25)


def needs(codec: str) -> str:
    """What an encoder, by FFmpeg's name, needs besides a processor; empty where nothing."""
    return _NEEDS.get(codec.rpartition("_")[2], "")


def trouble(
    codec: str,
    pixel_format: str,
    size_wh: tuple[int, int],
    options: Mapping[str, str] = MappingProxyType({}),
    quality: int | None = None,
) -> str:
    """Why the encoder does not encode a picture of that size; empty where it does. Found out once in a process.

    Args:
        codec: FFmpeg's name of an encoder that this build has.
        pixel_format: what it is fed.
        size_wh: of the picture.
        options: of the encoder.
        quality: a fixed quantiser, as FFmpeg's ``-q`` means it.
    """
    return _trouble(codec, pixel_format, size_wh, tuple(sorted(options.items())), quality)


@cache
def _trouble(
    codec: str, pixel_format: str, size_wh: tuple[int, int], options: tuple[tuple[str, str], ...], quality: int | None
) -> str:
    try:
        context: Any = av.CodecContext.create(codec, "w")
        context.width, context.height = size_wh
        context.pix_fmt = pixel_format
        context.time_base, context.framerate = 1 / _RATE, _RATE
        given = dict(options)
        if quality is not None:
            context.qscale = True
            given["global_quality"] = str(quality * LAMBDA)
        context.options = given
        picture = av.VideoFrame(*size_wh, pixel_format)
        for plane in picture.planes:
            plane.update(bytes(plane.buffer_size))
        picture.pts, picture.time_base = 0, context.time_base
        packets = [*context.encode(picture), *context.encode(None)]
    except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
        return reason(error)
    return "" if packets else "it gives nothing for a picture"
