"""Clips made on the spot; the frame's number stands as bits in the top rows, so that order and loss are seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Colour, Frame, Origin, VideoInfo
from streamseg.sources.pattern import index_of, luma, pattern_planes

__all__ = [
    "Picture",
    "flat",
    "frame",
    "index_of",
    "indices",
    "info",
    "luma",
    "make_clip",
    "packets",
    "planes",
    "put",
    "times",
    "video_frame",
]

Picture = NDArray[np.uint8]


def planes(index: int, width: int, height: int) -> Picture:
    """(h * 3 / 2, w) I420: `luma` with flat, unequal chroma; sides are even."""
    return pattern_planes(index, width, height)


def put(plane: Any, values: NDArray[Any]) -> None:
    """Write rows into a library plane with padded rows."""
    itemsize = values.dtype.itemsize
    rows = np.frombuffer(plane, values.dtype).reshape(-1, plane.line_size // itemsize)
    rows[: values.shape[0], : values.shape[1]] = values


def video_frame(index: int, width: int, height: int, pixel_format: str) -> av.VideoFrame:
    """A library frame of any size and planar format, odd sizes too."""
    picture = av.VideoFrame(width, height, "yuv420p")
    put(picture.planes[0], luma(index, width, height))
    half = ((height + 1) // 2, (width + 1) // 2)
    put(picture.planes[1], np.full(half, 110, np.uint8))
    put(picture.planes[2], np.full(half, 150, np.uint8))
    if pixel_format == "yuv420p":
        return picture
    if pixel_format == "gray":
        grey = av.VideoFrame(width, height, "gray")
        put(grey.planes[0], luma(index, width, height))
        return grey
    return picture.reformat(format=pixel_format, src_color_range=1, dst_color_range=1)


def flat(luma: int, width: int, height: int) -> av.VideoFrame:
    """A grey yuv420p picture; sides are even."""
    picture = np.full((height * 3 // 2, width), 128, np.uint8)
    picture[:height] = luma
    return av.VideoFrame.from_ndarray(picture, format="yuv420p")


def make_clip(
    path: Path | str,
    *,
    frames: int = 30,
    size_wh: tuple[int, int] = (320, 180),
    rate: Fraction = Fraction(30),
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    sound: str | None = None,
    sound_s: float | None = None,
    sound_start_s: float = 0,
    metadata: Mapping[str, str] | None = None,
    chapters: Sequence[dict[str, Any]] = (),
    container_options: Mapping[str, str] | None = None,
    container_format: str | None = None,
    set_up: Callable[[Any, Any], None] | None = None,
    draw: Callable[[int], av.VideoFrame] | None = None,
    wave: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> Path:
    """Write a clip; `pts` are in `time_base`, one frame each; `set_up(container, stream)` may change anything.

    `wave` gives the sound, in -1..1, at times in seconds; a rising tone by default.
    """
    path = Path(path)
    time_base = time_base or 1 / rate
    times = list(range(frames)) if pts is None else list(pts)
    defaults = {"preset": "ultrafast"} if codec in ("libx264", "libx265") else {}
    with av.open(str(path), "w", format=container_format, container_options=dict(container_options or {})) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size_wh
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = time_base
        stream.codec_context.options = {**defaults, **(options or {})}
        container.metadata.update(metadata or {})
        if chapters:
            container.set_chapters(list(chapters))
        voice: Any = container.add_stream(sound, rate=48000, layout="stereo") if sound else None
        if set_up:
            set_up(container, stream)
        length_s = sound_s if sound_s is not None else float((times[-1] - times[0]) * time_base + 1 / rate)
        spoken = 0
        for index, place in enumerate(times):
            picture = draw(index) if draw else video_frame(index, *size_wh, pixel_format)
            picture.pts, picture.time_base = place, time_base
            if voice is not None:
                until = min(length_s, float(place * time_base) + 0.1 - sound_start_s)
                spoken = _speak(container, voice, spoken, until, sound_start_s, wave or _rising)
            container.mux(stream.encode(picture))
        if voice is not None:
            _speak(container, voice, spoken, length_s, sound_start_s, wave or _rising)
            container.mux(voice.encode(None))
        container.mux(stream.encode(None))
    return path


def _rising(t: NDArray[Any]) -> NDArray[Any]:
    return 0.3 * np.sin(2 * np.pi * (300 + 20 * t) * t)


def _speak(
    container: Any,
    voice: Any,
    spoken: int,
    until_s: float,
    start_s: float,
    wave: Callable[[NDArray[Any]], NDArray[Any]],
) -> int:
    """Sound in blocks of 1,024 samples."""
    layout = voice.codec_context.layout.name
    kind = voice.codec_context.format.name
    while spoken < until_s * 48000:
        heard = wave((spoken + np.arange(1024)) / 48000)
        scale, kind_of_number = {"s16": (32767, np.int16), "s32": (2147483000, np.int32)}.get(
            kind.removesuffix("p"), (1, np.float32)
        )
        samples = np.repeat((heard * scale).astype(kind_of_number)[None, :], 2, 0)
        samples = samples if kind.endswith("p") else samples.T.reshape(1, -1)
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=kind, layout=layout)
        block.sample_rate, block.time_base = 48000, Fraction(1, 48000)
        block.pts = spoken + round(start_s * 48000)
        container.mux(voice.encode(block))
        spoken += 1024
    return spoken


def packets(path: Path | str, kind: str = "audio") -> list[bytes]:
    """The encoded packets of the first stream of a kind, in order."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def times(path: Path | str) -> list[Fraction]:
    """Presentation times of the decoded pictures, in seconds."""
    with av.open(str(path)) as container:
        return [Fraction(frame.pts) * frame.time_base for frame in container.decode(video=0)]


def indices(path: Path | str, *, torn: bool = False) -> list[int]:
    """The numbers in the pictures; of a `torn` file, those before its last, broken packet."""
    found = []
    with av.open(str(path)) as container:
        try:
            for frame in container.decode(video=0):
                found.append(index_of(frame.to_ndarray(format="gray")))
        except av.error.InvalidDataError:
            if not torn:
                raise
    return found


def frame(index: int, width: int = 320, height: int = 180, **changes: Any) -> Frame:
    """A frame as a source gives it, 30 a second."""
    values: dict[str, Any] = {
        "planes": planes(index, width, height),
        "pts": index,
        "time_base": Fraction(1, 30),
        "index": index,
        "captured_at": 0.0,
        "colour": Colour(False, 1, 1, 1, 1),
        "origin": Origin("clip.mp4", (width, height)),
    }
    return Frame(**{**values, **changes})


def info(width: int = 320, height: int = 180, **changes: Any) -> VideoInfo:
    """What a source says of such frames."""
    values: dict[str, Any] = {
        "width": width,
        "height": height,
        "rate": Fraction(30),
        "live": False,
        "time_base": Fraction(1, 30),
        "colour": Colour(False, 1, 1, 1, 1),
        "name": "clip.mp4",
        "original_wh": (width, height),
    }
    return VideoInfo(**{**values, **changes})
