"""A container being written: one encoded picture stream, copied tracks, and a name it gets at the end."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition
from av.video.frame import PictureType

from streamseg.errors import SinkOpenError, SinkWriteError, redact
from streamseg.frame import Colour, Packet, VideoInfo
from streamseg.libav import LAMBDA, reason, set_up, unwritten
from streamseg.sinks.encoders import Encoding
from streamseg.sinks.hardware import needs
from streamseg.sinks.partial import Named, Partial
from streamseg.sinks.tracks import CopiedTracks, stream_metadata

__all__ = ["VideoFile"]

# Fragments while it is written, so that a kill leaves a playable file; at the end the header is rewritten to that of
# an ordinary file. The index waits for the first packets: only then are the edit lists right that make up for B-frames.
# Fragments end before keyframes: in FFmpeg 8.1, ones of a fixed length lose the duration of the last frame to B-frames.
_HYBRID = {"movflags": "+hybrid_fragmented+delay_moov+frag_keyframe"}
_FRAGMENTED = {"movflags": "+frag_keyframe+empty_moov+default_base_moof+delay_moov"}
_KEYFRAME_S = 2
_CLUSTERS = {"cluster_time_limit": "1000"}
# The keys that MP4 and MOV have fixed places for; with any other, all go into a list of free keys.
_BOTH_KEYS = frozenset(
    {"title", "artist", "album", "date", "comment", "genre", "copyright", "encoder", "creation_time", "timecode"}
)
_FIXED_KEYS = {
    "mp4": _BOTH_KEYS
    | {
        *("album_artist", "composer", "grouping", "lyrics", "description", "synopsis", "show", "episode_id"),
        *("network", "keywords", "track", "disc", "season_number", "episode_sort"),
    },
    "mov": _BOTH_KEYS | {"make", "model", "location"},
}
_CODECS_WITH_SHAPE = frozenset({"h264", "hevc", "mpeg4"})  # that say the shape of pixels themselves
_BROADCAST_KEYS = frozenset({"service_name", "service_provider"})
_BRANDS = frozenset({"major_brand", "minor_version", "compatible_brands"})
# Finer clocks than this overflow what containers and encoders hold.
_FINEST = Fraction(1, 1_000_000)
_FINEST_MOVIE_CLOCK = 120_000  # half a day fits into the 32 bits that older players read


class VideoFile:
    """Writes encoded pictures and copied packets, under a temporary name where no other is given.

    Args:
        url: a path, or "-" for standard output.
        format_name: FFmpeg's name of the container.
        encoding: of the pictures.
        info: of the pictures; tracks, metadata and chapters are taken from it where `copy` is true.
        colour: the pictures' colour as it is written.
        size_wh: of the pictures.
        threads: of the encoder; 0 lets it choose.
        copy: take over what travels beside the picture.
        name: of the file while it is written; None takes a temporary one. Of a live source the final one does not
            replace a file of that name; see `Partial`.
        origin_s: the time, on the clock of pictures and packets, that is 0 in the file.

    Raises:
        SinkOpenError: the file or the encoder cannot be opened.
    """

    def __init__(
        self,
        url: str,
        format_name: str,
        encoding: Encoding,
        info: VideoInfo,
        *,
        colour: Colour,
        size_wh: tuple[int, int],
        threads: int = 0,
        copy: bool = True,
        name: Named | None = None,
        origin_s: Fraction = Fraction(0),
    ) -> None:
        self._url = "standard output" if url == "-" else url
        self._partial = name or (None if url == "-" else Partial(Path(url), numbered=info.live))
        self._origin_s = origin_s
        self.notices = list(self._partial.notices) if self._partial else []
        self._last_pts: int | None = None
        self._keyframe_pts: int | None = None
        self._written = 0
        self._finished = False
        self._container: Any = None
        try:
            self._open(format_name, encoding, info, colour, size_wh, threads, copy)
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, ValueError, av.FFmpegError)):
                raise SinkOpenError(self._explain(encoding, error)) from error
            raise

    def _open(
        self,
        format_name: str,
        encoding: Encoding,
        info: VideoInfo,
        colour: Colour,
        size_wh: tuple[int, int],
        threads: int,
        copy: bool,
    ) -> None:
        metadata = {k: v for k, v in stream_metadata(dict(info.metadata)).items() if k.lower() not in _BRANDS}
        options = dict(_CLUSTERS) if format_name in ("matroska", "webm") else {}
        if format_name in ("mp4", "mov"):
            options = dict(_HYBRID if self._partial else _FRAGMENTED)
            options["movie_timescale"] = str(_movie_clock(_clock(info.time_base, encoding.codec)))
            if copy and not {key.lower() for key in metadata} <= _FIXED_KEYS[format_name]:
                options["movflags"] += "+use_metadata_tags"
        options["flush_packets"] = "1"  # or a kill loses what waits in the library's buffer
        target: Any = f"file:{self._partial.path}" if self._partial else _StandardOutput()
        self._container = av.open(
            target, "w", format=format_name, container_options=options, metadata_errors="surrogateescape"
        )
        self._time_base = _clock(info.time_base, encoding.codec)
        rate = _rate(info)
        self._even = info.rate is not None and not info.live
        self._live = info.live and encoding.predicts
        self._duration = max(1, round(1 / (rate * self._time_base)))
        self._stream: Any = self._container.add_stream(encoding.codec, rate=rate)
        self._prepare(encoding, info, colour, size_wh, threads)
        shape, codec = info.sample_aspect_ratio, self._stream.codec_context.codec.canonical_name
        # Matroska has a place for it, which PyAV does not reach; MP4 and MOV take it from the encoder.
        if shape != 1 and format_name in ("matroska", "webm") and codec not in _CODECS_WITH_SHAPE:
            self.notices.append(
                f"pixels of {shape.numerator}:{shape.denominator} will be shown square: "
                f"{codec} in {format_name} cannot say their shape; write .mov or .mp4"
            )
        self._copies = CopiedTracks(self._container, info.tracks if copy else (), origin_s=self._origin_s)
        if copy and format_name == "mpegts" and not info.live:
            self._name_what_is_lost(metadata, len(info.chapters))
        if copy:
            self._container.metadata.update(metadata)
            self._stream.metadata.update(stream_metadata(dict(info.picture_metadata), format_name))
            self._stream.disposition = Disposition(info.disposition)
            if info.chapters:
                self._container.set_chapters(list(info.chapters))
        self._container.start_encoding()
        # Two pictures within one tick of the container would have one time.
        self._step = max(1, math.ceil(Fraction(self._stream.time_base) / self._time_base))

    def _name_what_is_lost(self, metadata: Mapping[str, str], chapters: int) -> None:
        """A broadcast stream has a place for the name of its service, and none for other words and chapters."""
        lost = [f"{chapters} chapters"] if chapters else []
        keys = sorted(key for key in metadata if key.lower() not in _BROADCAST_KEYS)
        if keys:
            lost.append(f"metadata ({', '.join(keys)})")
        if lost:
            self.notices.append(f"{' and '.join(lost)} left out: mpegts cannot hold that; write .mkv to keep it")

    def _prepare(
        self, encoding: Encoding, info: VideoInfo, colour: Colour, size_wh: tuple[int, int], threads: int
    ) -> None:
        set_up(
            self._stream,
            size_wh=size_wh,
            pixel_format=encoding.pixel_format,
            time_base=self._time_base,
            colour=colour,
            sample_aspect_ratio=info.sample_aspect_ratio,
            threads=threads,
        )
        context = self._stream.codec_context
        options = dict(encoding.options)
        if encoding.predicts:
            # What a kill may cost, and how finely players can seek.
            options.setdefault("g", str(max(1, round(_KEYFRAME_S * context.framerate))))
        if colour.siting:
            options["chroma_sample_location"] = str(colour.siting)
        if encoding.qscale is not None:
            context.qscale = True
            options["global_quality"] = str(encoding.qscale * LAMBDA)
        context.options = options

    def _explain(self, encoding: Encoding, error: BaseException) -> str:
        why = reason(error)
        if needed := needs(encoding.codec):
            return (
                f"cannot write {self._url}: encoder {encoding.codec} does not open on this machine ({why}); "
                f"it needs {needed}; choose auto, or libx264"
            )
        return redact(f"cannot write {self._url} with {encoding.codec}: {why}")

    def write(
        self,
        picture: av.VideoFrame,
        pts: int,
        time_base: Fraction,
        packets: Sequence[Packet],
        *,
        duration: int | None = None,
    ) -> None:
        """Encode a picture that is shown at `pts`, for `duration` where that is known; copy the packets.

        Raises:
            SinkWriteError: it cannot be written.
        """
        with self._errors():
            self._copies.mux(packets)
            exact = time_base == self._time_base and not self._origin_s
            place = pts if exact else round((pts * time_base - self._origin_s) / self._time_base)
            since = 0
            if self._last_pts is not None:
                place = max(place, self._last_pts + self._step)
                since = place - self._last_pts
            if not self._even and (lasting := round((duration or 0) * time_base / self._time_base) or since):
                self._duration = lasting
            self._last_pts = place
            picture.pts, picture.time_base = place, self._time_base
            if self._live and self._is_keyframe(place, since):
                picture.pict_type = PictureType.I
            self._mux(self._stream.encode(picture))
            self._written += 1

    def finish(self, packets: Sequence[Packet]) -> None:
        """Write what the encoder still holds and the trailing packets, then take the final name.

        Raises:
            SinkWriteError: it cannot be completed.
        """
        if not self._written:
            self.close()
            self.notices.append("no frame came, so nothing was written")
            return
        with self._errors():
            self._mux(self._stream.encode(None))
            self._copies.mux(packets)
            self._container.close()
            self._finished = True
            if self._partial is not None:
                self._partial.keep()

    def _is_keyframe(self, place: int, since: int) -> bool:
        """Whether the next picture would come too late for one: where the rate varies, a count says nothing of time."""
        if self._keyframe_pts is None or (place + since - self._keyframe_pts) * self._time_base > _KEYFRAME_S:
            self._keyframe_pts = place
            return True
        return False

    def _mux(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            # Only that of the last picture counts, but nobody knows which is: without it an edit list would cut it off.
            packet.duration = self._duration
            self._container.mux_one(packet)

    def close(self) -> None:
        """Let go; what was written without `finish` stays playable under the temporary name."""
        if self._finished:
            return
        self._finished = True
        if self._written:
            with contextlib.suppress(OSError, ValueError, av.FFmpegError):
                self._mux(self._stream.encode(None))  # the encoder looks ahead: half a second is still in it
        if self._container is not None:
            with contextlib.suppress(OSError, ValueError, av.FFmpegError):
                self._container.close()
        if self._partial is not None and self._written:
            self._partial.release()
        elif self._partial is not None:
            self._partial.discard()

    @property
    def copy_notices(self) -> list[str]:
        """About tracks that are left out."""
        return self._copies.notices

    @contextlib.contextmanager
    def _errors(self) -> Any:
        try:
            yield
        except BrokenPipeError as error:
            raise SinkWriteError(f"cannot write {self._url}: nobody reads it any more") from error
        except (OSError, ValueError, av.FFmpegError) as error:
            where = self._partial.path if self._partial else self._url
            kept = "; what came before stays there" if self._written and self._partial else ""
            raise SinkWriteError(redact(f"cannot write {where}: {unwritten(error)}{kept}")) from error


class _StandardOutput:
    """Standard output as the library writes it: no seeking."""

    name = "standard output"

    def __init__(self) -> None:
        self._descriptor = sys.stdout.fileno()  # whatever takes its place meanwhile

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        return len(data)


def _rate(info: VideoInfo) -> Fraction:
    """For the encoder's rate control and the header; the pictures' own times decide when they are shown."""
    if info.rate:
        return info.rate
    if info.frame_count and info.duration_s and info.frame_count > 1:
        return Fraction(info.frame_count / info.duration_s).limit_denominator(1001)
    return Fraction(30)


def _movie_clock(time_base: Fraction) -> int:
    """Ticks a second of MP4's edit lists: with the picture's own, one that begins late begins at the very tick."""
    ticks = time_base.denominator * math.ceil(1000 / time_base.denominator)
    return ticks if ticks <= _FINEST_MOVIE_CLOCK else 1000


def _clock(time_base: Fraction, codec: str) -> Fraction:
    """The encoder's time base: that of the frames, where it can have it."""
    if codec == "mpeg4" and time_base.denominator > 65535:
        return Fraction(1, 60000)
    return time_base if time_base >= _FINEST and time_base.denominator <= 2**31 - 1 else _FINEST
