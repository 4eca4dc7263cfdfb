"""Single pictures: recognised by their first bytes, decoded, and which way up they are."""

from __future__ import annotations

import struct
from typing import Any

import av

from streamseg.libav import reason

__all__ = ["PICTURE_HEAD", "decode_picture", "exif_orientation", "picture_codec"]

PICTURE_HEAD = 1 << 20
"""How many bytes of a file `picture_codec` may need."""

_ORIENTATION = 0x0112


def picture_codec(head: bytes) -> str | None:
    """FFmpeg's decoder for a picture that begins with `head`; None where it is none.

    `PICTURE_HEAD` bytes are enough: whether a PNG moves stands behind its colour profile.

    >>> picture_codec(b"BM" + bytes(30))
    'bmp'
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "mjpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return None if _moves(head) else "png"  # a video
    if head.startswith(b"BM") and len(head) > 14:
        return "bmp"
    if head.startswith((b"II*\0", b"MM\0*")):
        return "tiff"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    return None


def decode_picture(data: bytes, max_pixels: int) -> tuple[av.VideoFrame, Any]:
    """The picture in `data` and the context that decoded it.

    Raises:
        ValueError: it is no picture, a broken one, or larger than `max_pixels`; the message says which.
    """
    codec = picture_codec(data)
    if codec is None:
        raise ValueError("an animated PNG; name it by itself" if _moves(data) else "no JPEG, PNG, WebP, BMP or TIFF")
    if codec == "webp" and b"ANIM" in data[:64]:
        raise ValueError("an animated WebP, which cannot be read; convert it to a video")
    context: Any = av.CodecContext.create(codec, "r")
    # The decoder refuses before it allocates. Of a JPEG that was cut off, the rest would be green.
    context.options = {"max_pixels": str(max_pixels)} | ({"err_detect": "explode"} if codec == "mjpeg" else {})
    context.thread_count = 1
    try:
        pictures = context.decode(av.Packet(data)) or context.decode(None)
    except (av.error.InvalidDataError, av.error.ArgumentError) as error:
        # A picture that the library could not even count the bytes of is no valid one, it says.
        if isinstance(error, av.error.ArgumentError) or _pixels(data, codec) > max_pixels:
            raise ValueError(f"larger than {max_pixels} pixels; scale it down, or raise source.max_pixels") from error
        raise ValueError("broken; save or copy it again") from error
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(reason(error)) from error
    if not pictures:
        raise ValueError("broken; save or copy it again")
    return pictures[0], context


def _moves(data: bytes) -> bool:
    """Whether a PNG is animated; the chunk that says so stands before the first that holds samples."""
    return data.startswith(b"\x89PNG") and data.find(b"acTL", 0, data.find(b"IDAT")) > 0


def _pixels(data: bytes, codec: str) -> int:
    """Width times height as the head of a PNG, BMP or JPEG file tells them; 0 where it does not."""
    width = height = 0
    try:
        if codec == "png" and data[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", data, 16)
        elif codec == "bmp":
            width, height = struct.unpack_from("<ii", data, 18)
        elif codec == "mjpeg":
            at = 2
            while data[at] == 0xFF and data[at + 1] != 0xDA and not width:
                if 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC):
                    height, width = struct.unpack_from(">HH", data, at + 5)
                at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    except (struct.error, IndexError):
        return 0
    return abs(width * height)


def exif_orientation(data: bytes) -> int:
    """1 to 8 as EXIF counts; 1, upright, where `data` does not say."""
    codec = picture_codec(data)
    block = data if codec == "tiff" else _exif_block(data, codec)
    try:
        return _orientation(block)
    except struct.error:
        return 1


def _exif_block(data: bytes, codec: str | None) -> bytes:
    """The TIFF structure inside a JPEG, PNG or WebP file; empty where there is none."""
    try:
        if codec == "mjpeg":
            at = 2
            while data[at] == 0xFF and data[at + 1] != 0xDA:
                (size,) = struct.unpack_from(">H", data, at + 2)
                if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
                    return data[at + 10 : at + 2 + size]
                at += 2 + size
        elif codec == "png":
            at = 8
            while at < len(data):
                (size,) = struct.unpack_from(">I", data, at)
                if data[at + 4 : at + 8] == b"eXIf":
                    return data[at + 8 : at + 8 + size]
                at += 12 + size
        elif codec == "webp":
            at = 12
            while at < len(data):
                (size,) = struct.unpack_from("<I", data, at + 4)
                if data[at : at + 4] == b"EXIF":
                    return data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0")
                at += 8 + size + size % 2
    except (struct.error, IndexError):
        pass
    return b""


def _orientation(block: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    (directory,) = struct.unpack_from(order + "I", block, 4)
    (entries,) = struct.unpack_from(order + "H", block, directory)
    for entry in range(entries):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", block, directory + 2 + 12 * entry)
        if tag == _ORIENTATION and kind == 3:
            return int(value) if 1 <= value <= 8 else 1
    return 1
