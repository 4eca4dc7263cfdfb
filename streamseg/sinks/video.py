"""Video files: encoded pictures and copied sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from streamseg.frame import Colour, Frame, Output, Packet, VideoInfo
from streamseg.libav import Chain, fill_plane, i420_picture, matrix_name, tag
from streamseg.sinks.container import VideoFile
from streamseg.sinks.encoders import choose_container, choose_encoding
from streamseg.sinks.images import without_hidden
from streamseg.sinks.partial import Named

__all__ = ["VideoSink"]

# Encoders that hold nothing but limited range, or RGB.
_LIMITED_ONLY = frozenset({"prores_ks", "dnxhd", "mpeg4"})


class VideoSink:
    """A video file; a `Sink`. It has its name only when it is whole.

    Args:
        url: a path, or "-" for standard output.
        info: what the frames are like; its tracks are copied.
        encoder, quality: as `choose_encoding` takes them.
        container_format: of standard output; of a path, its extension tells.
        alpha: write the frames' opacity.
        threads: of the encoder; 0 lets it choose.
        name, origin_s: as `VideoFile` takes them.

    Raises:
        SinkOpenError: it cannot be opened as asked.
    """

    def __init__(
        self,
        url: str,
        info: VideoInfo,
        *,
        encoder: str | None = None,
        quality: str | int | None = None,
        container_format: str | None = None,
        alpha: bool = False,
        threads: int = 0,
        name: Named | None = None,
        origin_s: Fraction = Fraction(0),
    ) -> None:
        container = choose_container(container_format or Path(url).suffix[1:], url)
        self._size_wh = (info.width, info.height)
        encoding = choose_encoding(
            container,
            "standard output" if url == "-" else url,
            encoder=encoder,
            quality=quality,
            alpha=alpha,
            size_wh=self._size_wh,
            live=info.live,
        )
        self._remarks = [encoding.remark] if encoding.remark else []
        self._alpha = alpha
        self._found = info.colour
        self._colour = _written_colour(info.colour, encoding.codec, encoding.pixel_format)
        self._format = encoding.pixel_format
        self._planar = "yuva420p" if alpha else "yuv420p"
        self._chain: Chain | None = None
        self._resized = 0
        self._file = VideoFile(
            url,
            container,
            encoding,
            info,
            colour=self._colour,
            size_wh=self._size_wh,
            threads=threads,
            name=name,
            origin_s=origin_s,
        )

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        lines = [*self._remarks, *self._file.notices, *self._file.copy_notices]
        if self._resized:
            # Without their number, which goes on growing: each remark is said once.
            lines.append(f"pictures of another size are scaled and framed to {'x'.join(map(str, self._size_wh))}")
        return lines

    @property
    def counts(self) -> Mapping[str, int]:
        """Pictures of another size, where there are any."""
        return {"pictures scaled and framed": self._resized} if self._resized else {}

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        """Encode one picture, copy the packets that travelled with it."""
        frame = output.frame
        picture = self._picture(frame)
        self._file.write(picture, frame.pts, frame.time_base, packets, duration=frame.duration)

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        """Complete the file and give it its name."""
        self._file.finish(packets)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _picture(self, frame: Frame) -> av.VideoFrame:
        resized = (frame.width, frame.height) != self._size_wh
        if resized:
            self._resized += 1
            self._chain = None
        converts = resized or self._format != self._planar or self._colour.full_range != self._found.full_range
        picture = _with_alpha(frame) if self._alpha else i420_picture(frame.planes, self._found, shared=not converts)
        if converts:
            picture = self._convert(picture)
            if resized:
                self._chain = None
        return picture

    def _convert(self, picture: av.VideoFrame) -> av.VideoFrame:
        if self._chain is None:
            width, height = self._size_wh
            name = matrix_name(self._found, height)
            scale = f"scale={width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int:in_color_matrix={name}"
            scale += ":force_original_aspect_ratio=decrease:force_divisible_by=2"
            scale += f":in_range={_range(self._found)}:out_range={_range(self._colour)}"
            if self._format not in ("argb", "rgba", "rgb24", "bgr24", "bgra"):
                scale += f":out_color_matrix={name}"
            frame = f"pad={width}:{height}:-1:-1:color=black{'@0' if self._alpha else ''}"
            steps = [scale, f"format={self._format}"]
            if (picture.width, picture.height) != self._size_wh:
                steps.insert(1, frame)
            self._chain = Chain(picture, steps)
        (converted,) = self._chain.push(picture)
        return converted


def _range(colour: Colour) -> str:
    return "pc" if colour.full_range else "tv"


def _written_colour(colour: Colour, codec: str, pixel_format: str) -> Colour:
    if pixel_format in ("argb", "rgba", "rgb24", "bgr24", "bgra"):
        return replace(colour, full_range=True, matrix=0, siting=0)
    if codec in _LIMITED_ONLY:
        return replace(colour, full_range=False)
    if pixel_format == "yuvj420p":
        return replace(colour, full_range=True)
    return colour


def _with_alpha(frame: Frame) -> av.VideoFrame:
    alpha = frame.alpha
    if alpha is None:
        alpha = np.full((frame.height, frame.width), 255, np.uint8)
    shown = without_hidden(frame, alpha)
    picture = av.VideoFrame(frame.width, frame.height, "yuva420p")
    for target, plane in zip(picture.planes, (shown.y, shown.u, shown.v, alpha), strict=True):
        fill_plane(target, plane)
    tag(picture, frame.colour)
    return picture
