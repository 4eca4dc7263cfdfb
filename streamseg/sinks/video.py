"""Video files: encoded pictures and copied sound."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av

from streamseg.errors import SinkOpenError, SinkWriteError, redact
from streamseg.frame import Output, Packet, VideoInfo

__all__ = ["VideoSink"]


class VideoSink:
    """A video file; a `Sink`. It has its name only when it is whole."""

    def __init__(
        self,
        url: str,
        info: VideoInfo,
        *,
        encoder: str | None = None,
        quality: str | int | None = None,
        threads: int = 0,
    ) -> None:
        self._path = Path(url)
        self._partial = self._path.with_name(f"{self._path.stem}.partial{self._path.suffix}")
        options = {"movflags": "hybrid_fragmented"} if self._path.suffix.lower() in (".mp4", ".mov", ".m4v") else {}
        try:
            self._container = av.open(str(self._partial), "w", container_options=options)
            stream = self._container.add_stream(encoder or "libx264", rate=info.rate or Fraction(30))
        except (OSError, ValueError, av.FFmpegError) as error:
            raise SinkOpenError(redact(f"cannot write {url}: {error}")) from error
        stream.width, stream.height = info.width, info.height
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = info.time_base
        context.color_range = 2 if info.colour.full_range else 1
        context.colorspace = info.colour.matrix
        context.color_primaries = info.colour.primaries
        context.color_trc = info.colour.transfer
        context.sample_aspect_ratio = info.sample_aspect_ratio
        context.thread_count = threads
        context.options = {"preset": "veryfast", "crf": str(quality or 19)}
        self._stream = stream
        self._copies = {track.index: self._container.add_stream_from_template(track.template) for track in info.tracks}
        self._container.metadata.update(info.metadata)
        self._container.start_encoding()

    @property
    def notices(self) -> Sequence[str]:
        return ()

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        try:
            self._copy(packets)
            frame = output.frame
            picture = av.VideoFrame.from_numpy_buffer(frame.planes, format="yuv420p")
            picture.pts = frame.pts
            picture.time_base = frame.time_base
            self._container.mux(self._stream.encode(picture))
        except (OSError, av.FFmpegError) as error:
            raise SinkWriteError(redact(f"cannot write {self._partial}: {error}")) from error

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        try:
            self._copy(packets)
            self._container.mux(self._stream.encode(None))
            self._container.close()
            os.replace(self._partial, self._path)
        except (OSError, av.FFmpegError) as error:
            raise SinkWriteError(redact(f"cannot write {self._partial}: {error}")) from error

    def close(self) -> None:
        self._container.close()

    def _copy(self, packets: Sequence[Packet]) -> None:
        for packet in packets:
            stream = self._copies.get(packet.track.index)
            if stream is not None:
                copy = av.Packet(bytes(packet.payload))
                copy.pts, copy.dts, copy.duration = packet.payload.pts, packet.payload.dts, packet.payload.duration
                copy.time_base = packet.payload.time_base
                copy.is_keyframe = packet.payload.is_keyframe
                copy.stream = stream
                self._container.mux(copy)
