"""Decoding on a graphics card: a device that opens, and what becomes of its pictures.

hardware = Hardware("auto", notices.append)     # raises where one that is asked for by name does not open
container = av.open(path, hwaccel=hardware.accel)
hardware.meet(stream.codec_context)
for picture in context.decode(packet):
    hardware.take(picture)                      # downloaded already, in main memory; mended in place
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import av
import numpy as np
from av.codec.hwaccel import HWAccel, hwdevices_available

from streamseg.errors import SourceLostError, SourceOpenError

__all__ = ["KINDS", "Hardware", "probe"]

# FFmpeg's names of what its own decoders can hand their work to, in the order in which `auto` tries them.
KINDS = ("cuda", "videotoolbox", "d3d11va", "d3d12va", "dxva2", "vaapi", "vulkan", "vdpau", "qsv")
_NEEDS = {
    "cuda": "it needs an NVIDIA card and its driver",
    "videotoolbox": "it is a part of macOS",
    "d3d11va": "it is a part of Windows",
    "d3d12va": "it is a part of Windows",
    "dxva2": "it is a part of Windows",
    "vaapi": "it needs a VA-API driver, and permission on /dev/dri/renderD128",
    "vulkan": "it needs a Vulkan driver that decodes video",
    "vdpau": "it needs a VDPAU driver and a display",
    "qsv": "it needs an Intel GPU and its oneVPL runtime",
}
_SOFTWARE = "choose --hwaccel none"
# Nothing is compressed in them.
_RAW = frozenset({"rawvideo", "wrapped_avframe"})
# A damaged stream has broken packets here and there; a card that is gone fails at every one.
_MOST_FAILED_PACKETS = 30
# What `probe` decodes: FFmpeg's decoder and an encoder that makes something for it.
_SAMPLES = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "mjpeg": "mjpeg", "mpeg4": "mpeg4"}
_SAMPLE_WH = (256, 256)


class Hardware:
    """What decodes one stream.

    Args:
        asked: "none", "auto", or one of `KINDS`, with a device behind a colon: ``cuda:1``.
        say: receives one-line remarks for the user.

    Attributes:
        accel: for `av.open`; None decodes in software.

    Raises:
        SourceOpenError: what was asked for by name does not open here.
    """

    def __init__(self, asked: str, say: Callable[[str], None]) -> None:
        self._auto = asked == "auto"
        self._say = say
        self._kind, self._device = "", None
        self._surface: str | None = None  # the pixel format that says a picture came from the card
        self._context: Any = None
        self._taken = False
        self._failed = 0
        if self._auto:
            self._kind = next((kind for kind in _built_in() if not _trouble(kind, None)), "")
            if not self._kind:
                say(f"no device for hardware decoding opens here ({', '.join(_built_in())}); decoded in software")
        elif asked != "none":
            self._kind, _, device = asked.partition(":")
            self._device = device or None
            if trouble := _trouble(self._kind, self._device):
                raise SourceOpenError(f"cannot decode with {asked}: {trouble}; {_SOFTWARE}")
        # The library goes to software where the card does not take the stream; `take` sees that, and says so.
        self.accel = HWAccel(self._kind, self._device, allow_software_fallback=True) if self._kind else None

    def meet(self, context: Any) -> None:
        """The decoder of the stream that was chosen.

        Raises:
            SourceOpenError: it does not know the device that was asked for by name.
        """
        self._context = context
        if self.accel is None or context.codec.name in _RAW:
            return
        found = _surfaces(context.codec)
        self._surface = found.get(self._kind)
        if self._surface is None:
            known = f"it knows {', '.join(found)}" if found else "it knows no hardware"
            self._go_on(f"the decoder {context.codec.name} cannot use {self._kind}; {known}")

    @property
    def decoder(self) -> str:
        """What decodes, for reports: ``h264``, or ``h264 on cuda``."""
        name = self._context.codec.name
        return f"{name} on {self._kind}" if self._surface else str(name)

    def size_wh(self, picture: Any) -> tuple[int, int]:
        """That of a picture without what a surface of the card has to even it up."""
        width, height = picture.width, picture.height
        if self._surface is None:
            return width, height
        return _less_one(width, self._context.width), _less_one(height, self._context.height)

    def take(self, picture: Any) -> None:
        """Look at a decoded picture, and fill in place what its download left open.

        Raises:
            SourceOpenError: the card does not take the stream, and was asked for by name.
            SourceLostError: it no longer does.
        """
        self._failed = 0
        if self._surface is None:
            return
        if self._context.pix_fmt != self._surface:
            self._surface = None
            self._go_on(f"{self._kind} opens, but does not decode this {self._context.codec.name}")
            return
        size_wh = self.size_wh(picture)
        if not self._taken:
            self._taken = True
            if self._auto:
                self._say(f"decoded by {self.decoder}")
            if size_wh != (self._context.width, self._context.height):
                self._say(f"{self._kind} does not crop this picture at its left and top; {_SOFTWARE} for that")
        if size_wh != (picture.width, picture.height):
            _fill(picture, *size_wh)

    def failed(self) -> None:
        """A packet could not be decoded.

        Raises:
            SourceOpenError, SourceLostError: none of so many, from the start or in a row, that it must be the card.
        """
        self._failed += 1
        if self._surface is not None and self._failed > _MOST_FAILED_PACKETS:
            error = SourceLostError if self._taken else SourceOpenError
            raise error(f"{self._kind} decoded none of the last {self._failed} packets; {_SOFTWARE}")

    def _go_on(self, why: str) -> None:
        """In software where that may be chosen."""
        if self._auto:
            self._say(f"{why}; decoded in software")
        elif self._taken:
            raise SourceLostError(f"{why} any more; {_SOFTWARE}, or auto")
        else:
            raise SourceOpenError(f"cannot decode with {self._kind}: {why}; {_SOFTWARE}")


def probe() -> list[tuple[str, list[str], str]]:
    """Each device that this FFmpeg knows, the codecs that it really decoded a picture of, and else why none."""
    found = []
    for kind in _built_in():
        trouble = _trouble(kind, None)
        codecs = [] if trouble else [name for name, encoder in _SAMPLES.items() if _decodes(kind, encoder)]
        found.append((kind, codecs, trouble or ("" if codecs else "it opens, but decodes nothing that was tried")))
    return found


def _built_in() -> list[str]:
    available = set(hwdevices_available())
    return [kind for kind in KINDS if kind in available and _decoder(kind) is not None]


def _decoder(kind: str) -> Any:
    """A decoder that can use the device; None without."""
    codecs = (av.codec.Codec(name, "r") for name in _SAMPLES)
    return next((codec for codec in codecs if kind in _surfaces(codec)), None)


def _surfaces(codec: Any) -> dict[str, str]:
    """The pixel format of its pictures for each device that the decoder can use."""
    return {
        config.device_type.name: config.format.name
        for config in codec.hardware_configs or ()
        if config.is_supported and config.format is not None
    }


def _trouble(kind: str, device: str | None) -> str:
    """Why the device does not open; empty where it does."""
    if kind not in hwdevices_available():
        there = ", ".join(_built_in()) or "none"
        return f"this FFmpeg was built without {kind}; it has {there}"
    codec = _decoder(kind)
    if codec is None:
        return f"FFmpeg's own decoders know no {kind}; they know {', '.join(_built_in()) or 'none'}"
    try:
        HWAccel(kind, device).create(codec)
    except (av.FFmpegError, OSError, ValueError, NotImplementedError):
        # The library's error is a number that means something else: "operation not permitted" for a missing driver.
        return f"device {device} does not open; {_NEEDS[kind]}" if device else f"it does not open; {_NEEDS[kind]}"
    return ""


def _decodes(kind: str, encoder: str) -> bool:
    if encoder not in av.codecs_available:
        return False
    sample = io.BytesIO()
    sample.close = lambda: None  # type: ignore[method-assign]  # the container closes what it is given
    try:
        with av.open(sample, "w", format="matroska") as container:
            stream: Any = container.add_stream(encoder, rate=25)
            stream.width, stream.height = _SAMPLE_WH
            stream.pix_fmt = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
            stream.options = {"x265-params": "log-level=error"} if encoder == "libx265" else {}
            picture = av.VideoFrame(*_SAMPLE_WH, "yuv420p")
            for plane in picture.planes:
                plane.update(bytes(plane.buffer_size))
            container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        sample.seek(0)
        with av.open(sample, "r", hwaccel=HWAccel(kind, allow_software_fallback=True)) as written:
            stream = written.streams.video[0]
            surface = _surfaces(stream.codec_context.codec).get(kind)
            next(written.decode(stream))
            return surface is not None and stream.codec_context.pix_fmt == surface
    except (av.FFmpegError, OSError, ValueError, StopIteration):
        return False


def _less_one(found: int, said: int) -> int:
    return said if found == said + 1 else found


def _fill(picture: Any, width: int, height: int) -> None:
    """Repeat the last column and row behind `width` and `height`.

    A surface of odd size is one larger than its picture, and FFmpeg downloads neither that column and row nor the last
    row of halved chroma, so that this one is lost.
    """
    form = picture.format
    sample_bytes = 2 if max(part.bits for part in form.components) > 8 else 1
    for index, plane in enumerate(picture.planes):
        pairs = index == 1 and len(picture.planes) == 2
        down, across = (form.chroma_height(2) == 1, form.chroma_width(2) == 1) if index else (False, False)
        rows, columns = height >> down, (width + across) >> across
        unit = sample_bytes * (2 if pairs else 1)
        lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width * unit]
        lines = lines.reshape(plane.height, plane.width, unit)
        lines[rows:] = lines[rows - 1]
        lines[:, columns:] = lines[:, columns - 1 : columns]
