"""Video files: demultiplexed, decoded and handed on with their sound."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from streamseg.errors import SourceOpenError, redact
from streamseg.frame import Colour, Frame, Origin, Packet, Plane, Track, VideoInfo

__all__ = ["FileSource"]


class FileSource:
    """A video file; a `Source`."""

    def __init__(self, url: str, *, max_pixels: int, threads: int = 2, colour: Colour | None = None) -> None:
        try:
            self._container = av.open(url, metadata_errors="surrogateescape")
        except (OSError, av.FFmpegError) as error:
            raise SourceOpenError(redact(f"cannot open {url}: {error}")) from error
        if not self._container.streams.video:
            self._container.close()
            raise SourceOpenError(redact(f"{url} has no video stream"))
        stream = self._stream = self._container.streams.video[0]
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        self._name = url
        self._tracks = {
            other.index: Track(other.index, other.type, other.codec_context.name, other)
            for other in self._container.streams
            if other.type in ("audio", "subtitle") and other.codec_context is not None
        }
        context = stream.codec_context
        self._colour = Colour(context.color_range == 2, context.colorspace, context.color_primaries, context.color_trc)
        width, height = context.width + context.width % 2, context.height + context.height % 2
        self._info = VideoInfo(
            width=width,
            height=height,
            rate=stream.average_rate,
            live=False,
            time_base=stream.time_base or Fraction(1, 90000),
            colour=self._colour,
            name=Path(url).name,
            original_wh=(context.width, context.height),
            frame_count=stream.frames or None,
            sample_aspect_ratio=stream.sample_aspect_ratio or Fraction(1),
            tracks=tuple(self._tracks.values()),
            metadata=dict(self._container.metadata),
        )
        self._packets: list[Packet] = []
        self._decoded: deque[av.VideoFrame] = deque()
        self._demuxed: Iterator[av.Packet] = self._container.demux(
            [stream, *(track.template for track in self._tracks.values())]
        )
        self._index = 0
        self._stopped = False
        self._counts: Counter[str] = Counter()
        self._notices: list[str] = []

    @property
    def info(self) -> VideoInfo:
        return self._info

    @property
    def notices(self) -> Sequence[str]:
        return tuple(self._notices)

    @property
    def counts(self) -> Mapping[str, int]:
        return dict(self._counts)

    def read(self) -> Frame | None:
        while not self._decoded:
            if self._stopped:
                return None
            packet = next(self._demuxed, None)
            if packet is None:
                return None
            track = self._tracks.get(packet.stream_index)
            if track is None:
                self._decoded.extend(self._stream.decode(packet))
            elif packet.size:
                self._packets.append(Packet(track, packet))
        return self._frame(self._decoded.popleft())

    def _frame(self, picture: av.VideoFrame) -> Frame:
        if picture.format.name not in ("yuv420p", "yuvj420p"):
            picture = picture.reformat(format="yuv420p")
        planes = _copy(picture)
        frame = Frame(
            planes=planes,
            pts=picture.pts or 0,
            time_base=self._info.time_base,
            index=self._index,
            captured_at=time.monotonic(),
            colour=self._colour,
            origin=Origin(self._info.name, self._info.original_wh),
        )
        self._index += 1
        return frame

    def take_packets(self) -> list[Packet]:
        packets, self._packets = self._packets, []
        return packets

    def interrupt(self) -> None:
        self._stopped = True

    def close(self) -> None:
        self._stopped = True
        self._container.close()


def _copy(picture: av.VideoFrame) -> Plane:
    """The planes of a yuv420p picture as (H * 3 / 2, W), padded to even by edge replication."""
    width, height = picture.width, picture.height
    padded_width, padded_height = width + width % 2, height + height % 2
    planes = np.empty((padded_height * 3 // 2, padded_width), np.uint8)
    flat = planes.reshape(-1)
    start = 0
    for plane, (target_width, target_height) in zip(
        picture.planes,
        (
            (padded_width, padded_height),
            (padded_width // 2, padded_height // 2),
            (padded_width // 2, padded_height // 2),
        ),
        strict=True,
    ):
        target = flat[start : start + target_width * target_height].reshape(target_height, target_width)
        start += target_width * target_height
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        target[: plane.height, : plane.width] = rows
        if plane.width < target_width:
            target[:, plane.width :] = target[:, plane.width - 1 : plane.width]
        if plane.height < target_height:
            target[plane.height :] = target[plane.height - 1]
    return planes
