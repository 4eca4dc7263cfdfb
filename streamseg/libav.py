"""What sources and sinks both need of FFmpeg's libraries: its words, its plane memory and its filters."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import BlockingIOError as AgainError

from streamseg.errors import redact
from streamseg.frame import Colour, Packet, Plane, Track

__all__ = [
    "LAMBDA",
    "TS_DISCONT",
    "Chain",
    "Recolour",
    "copied",
    "fill_plane",
    "i420_picture",
    "matrix_name",
    "moved",
    "plane_view",
    "plane_views",
    "reason",
    "set_up",
    "tag",
    "unwritten",
]

TS_DISCONT = 0x0200
"""AVFMT_TS_DISCONT, a flag of containers: their clocks start anywhere, and jump."""

LAMBDA = 118
"""FF_QP2LAMBDA: what a fixed quantiser is multiplied by in the option ``global_quality``."""

_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EACCES: "choose another place",
    errno.EPERM: "choose another place",
    errno.EROFS: "choose another place",
    errno.ENOENT: "choose another place",
    errno.ENAMETOOLONG: "choose a shorter one",
}
_MATRIX_NAMES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}


def reason(error: BaseException) -> str:
    """What a vendor's exception says, on one line, in lower case, without passwords.

    >>> reason(FileNotFoundError(2, "No such file or directory"))
    'no such file or directory'
    """
    text = str(getattr(error, "strerror", None) or error or type(error).__name__)
    log = getattr(error, "log", None)
    if log:
        text = f"{text} ({log[1][1].strip() if isinstance(log[1], tuple) else str(log[-1]).strip()})"
    text = " ".join(redact(text).split()).rstrip(".")
    return text[:1].lower() + text[1:]


def unwritten(error: BaseException) -> str:
    """Why a file cannot be written, as `reason` says it, and what to do next.

    >>> unwritten(OSError(28, "No space left on device"))
    'no space left on device; make room'
    """
    remedy = _REMEDIES.get(getattr(error, "errno", None) or 0)
    return f"{reason(error)}; {remedy}" if remedy else reason(error)


def matrix_name(colour: Colour, height: int) -> str:
    """The scale filter's name for the matrix that is meant in a picture of this height."""
    return _MATRIX_NAMES.get(colour.meant_matrix(height), "bt709")


def copied(payload: Any, data: bytes | None = None) -> Any:
    """A library packet like `payload`, with its own times; `data` replaces its content."""
    copy = av.Packet(payload if data is None else data)
    copy.pts, copy.dts, copy.time_base = payload.pts, payload.dts, payload.time_base
    if payload.duration is not None:
        copy.duration = payload.duration
    copy.is_keyframe = payload.is_keyframe
    if hasattr(payload, "iter_sidedata"):  # since PyAV 16.1
        for side in payload.iter_sidedata():
            copy.set_sidedata(side)
    return copy


def moved(packet: Packet, track: Track, by_s: float) -> Packet:
    """The packet on `track`, `by_s` seconds later."""
    payload = copied(packet.payload)
    if payload.time_base:
        ticks = round(by_s / Fraction(payload.time_base))
        payload.pts = None if payload.pts is None else payload.pts + ticks
        payload.dts = None if payload.dts is None else payload.dts + ticks
    return Packet(track, payload)


def plane_view(picture: av.VideoFrame, index: int) -> Plane:
    """(h, w) uint8 view of a plane with one byte a sample, or (h, w * n) of one with n, without the rows' padding."""
    return _rows(picture.planes[index], picture.format, index)


def plane_views(picture: av.VideoFrame) -> list[Plane]:
    """All planes as `plane_view` gives them; each look at `picture.planes` makes them all anew."""
    pixel_format = picture.format
    return [_rows(plane, pixel_format, index) for index, plane in enumerate(picture.planes)]


def _rows(plane: Any, pixel_format: Any, index: int) -> Plane:
    line = abs(plane.line_size)
    rows = np.frombuffer(plane, np.uint8).reshape(-1, line)[: plane.height]
    if plane.line_size < 0:
        rows = rows[::-1]
    return rows[:, : plane.width * _bytes_per_sample(pixel_format, index)]


def fill_plane(target: Any, plane: Plane) -> None:
    """Copy (h, w) samples into a library plane, whose rows are longer."""
    rows: Plane = np.frombuffer(target, np.uint8).reshape(-1, target.line_size)
    rows[: plane.shape[0], : plane.shape[1]] = plane


def i420_picture(planes: Plane, colour: Colour, *, shared: bool = False) -> av.VideoFrame:
    """(H * 3 / 2, W) I420 as a library picture that carries the colour.

    Args:
        planes: the samples.
        colour: of the samples.
        shared: use the array's own memory; for encoders, which copy. Filters read past the end of rows: not for them.
    """
    rows, width = planes.shape
    height = rows // 3 * 2
    # PyAV 18.1 takes the height for that of the next lower multiple of four.
    if shared and height % 4 == 0:
        picture = av.VideoFrame.from_numpy_buffer(planes, format="yuv420p")
    else:
        picture = av.VideoFrame(width, height, "yuv420p")
        flat, size = planes.reshape(-1), height * width
        fill_plane(picture.planes[0], planes[:height])
        chroma = flat[size:].reshape(2, height // 2, width // 2)
        fill_plane(picture.planes[1], chroma[0])
        fill_plane(picture.planes[2], chroma[1])
    tag(picture, colour)
    return picture


def tag(picture: Any, colour: Colour) -> None:
    """Say in the picture what colour it has."""
    picture.color_range = 2 if colour.full_range else 1
    picture.colorspace = colour.matrix
    if hasattr(picture, "color_trc"):  # since PyAV 17
        picture.color_trc = colour.transfer
        picture.color_primaries = colour.primaries


def set_up(
    stream: Any,
    *,
    size_wh: tuple[int, int],
    pixel_format: str,
    time_base: Fraction,
    colour: Colour,
    sample_aspect_ratio: Fraction,
    threads: int,
) -> None:
    """Tell an encoder's stream what pictures it will be given."""
    context = stream.codec_context
    stream.width, stream.height = size_wh
    stream.pix_fmt = pixel_format
    context.time_base = time_base
    context.color_range = 2 if colour.full_range else 1
    context.colorspace = colour.matrix
    context.color_primaries = colour.primaries
    context.color_trc = colour.transfer
    context.sample_aspect_ratio = sample_aspect_ratio
    context.thread_count = threads


class Recolour:
    """Converts I420 samples of one range and matrix into those of another.

    Args:
        colour: of what comes.
        to: what is wanted; range and matrix count.
    """

    def __init__(self, colour: Colour, to: Colour) -> None:
        self._colour = colour
        self._to = to
        self._chain: Chain | None = None

    def __call__(self, planes: Plane) -> Plane:
        """(H * 3 / 2, W) uint8 in, the same shape out; pictures keep the size of the first one."""
        picture = i420_picture(planes, self._colour)
        if self._chain is None:
            steps = f"scale=in_color_matrix={matrix_name(self._colour, picture.height)}"
            steps += f":out_color_matrix={matrix_name(self._to, picture.height)}"
            steps += f":in_range={'pc' if self._colour.full_range else 'tv'}"
            steps += f":out_range={'pc' if self._to.full_range else 'tv'}:flags=bilinear+accurate_rnd"
            self._chain = Chain(picture, [steps, "format=yuv420p"])
        (converted,) = self._chain.push(picture)
        return np.concatenate([plane_view(converted, index).reshape(-1) for index in range(3)]).reshape(planes.shape)


def _bytes_per_sample(pixel_format: Any, index: int) -> int:
    """Bytes that one column of the plane takes: 1 for planar 8 bit, 2 for the chroma of nv12, 3 for rgb24."""
    name = pixel_format.name
    if name in ("nv12", "nv21"):
        return 1 + index
    return {"rgb24": 3, "bgr24": 3, "rgba": 4, "bgra": 4}.get(name, 1)


class Chain:
    """Filters in a row, built for the pictures like the first one.

    Args:
        picture: size, format and colour tags of what will be pushed.
        steps: filters as FFmpeg writes them, such as ``"scale=640:480"``.
        threads: for filters that split a picture in slices.

    Raises:
        av.FFmpegError: the library has no such filter or option.
    """

    def __init__(self, picture: av.VideoFrame, steps: Sequence[str], *, threads: int = 1) -> None:
        self._graph = av.filter.Graph()
        if hasattr(self._graph, "threads"):  # PyAV before 17 leaves the number to the library
            self._graph.threads = threads
        nodes = [
            self._graph.add(
                "buffer",
                f"video_size={picture.width}x{picture.height}:pix_fmt={picture.format.name}:time_base=1/1"
                # Without these two the filters would take every picture for limited range.
                f":pixel_aspect=1/1:colorspace={int(picture.colorspace)}:range={int(picture.color_range)}",
            )
        ]
        for step in steps:
            name, _, arguments = step.partition("=")
            nodes.append(self._graph.add(name, arguments or None))
        nodes.append(self._graph.add("buffersink"))
        self._graph.link_nodes(*nodes)
        self._graph.configure()
        self._pushed = 0

    def push(self, picture: av.VideoFrame | None) -> list[av.VideoFrame]:
        """Give one picture, or None at the end; returns what is ready. Time stamps are not kept."""
        if picture is not None:
            picture.pts = self._pushed
            self._pushed += 1
        self._graph.vpush(picture)
        ready: list[av.VideoFrame] = []
        while True:
            try:
                ready.append(self._graph.vpull())
            except (AgainError, av.error.EOFError):
                return ready
