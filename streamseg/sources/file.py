"""Video files and containers on standard input: demultiplexed, decoded, handed on with their sound."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from streamseg.errors import SourceOpenError, redact
from streamseg.frame import Colour, Frame, Origin, Packet, Plane, Track, VideoInfo
from streamseg.libav import TS_DISCONT, Chain, reason
from streamseg.sources.broadcast import BroadcastClock
from streamseg.sources.conform import UPRIGHT, Conformer, Turn, colour_of
from streamseg.sources.hardware import Hardware
from streamseg.sources.pipe import Pipe
from streamseg.sources.probe import lacks_index, nominal_rate, stream_duration_s, turn_of
from streamseg.sources.siting import chroma_siting
from streamseg.sources.timeline import Timeline

__all__ = ["FileSource"]

# Demultiplexers that make a "video" of any text or of a list of other files.
_NOT_VIDEO = {"tty", "bin", "xbin", "adf", "idf", "concat", "hls", "dash", "image2", "sdp", "rtp"}
_MOST_FAILED_READS = 100
# Said of the picture as it lies in the file; the time code goes to the container's metadata.
_OF_THE_STORED_PICTURE = frozenset({"alpha_mode", "rotate", "timecode"})


class FileSource:
    """A video file, or a container on standard input; a `Source`.

    Args:
        path: of the file; "-" reads standard input.
        max_pixels: width times height of the largest picture that is accepted.
        threads: of the decoder; 0 takes one for every core.
        colour: convert every picture to this colour.
        hwaccel: as `Hardware` takes it.

    Raises:
        SourceOpenError: there is no such file, or no picture in it can be decoded.
    """

    def __init__(
        self, path: str, *, max_pixels: int, threads: int = 2, colour: Colour | None = None, hwaccel: str = "none"
    ) -> None:
        self._name = "standard input" if path == "-" else Path(path).name
        self._stopped = False
        self._counts: Counter[str] = Counter()
        self._notices: list[str] = []
        self._hardware = Hardware(hwaccel, self._notices.append)
        self._pipe = Pipe(sys.stdin.fileno()) if path == "-" else None
        self._container = self._open(path, max_pixels)
        try:
            self._stream = self._choose_stream(path)
            self._prepare_decoder(path, max_pixels, threads)
            self._tracks = {track.index: track for track in self._choose_tracks()}
            self._start(path, colour, threads)
        except BaseException:
            self._container.close()
            raise

    def _open(self, path: str, max_pixels: int) -> Any:
        if self._pipe is None:
            file = Path(path)
            if not file.exists():
                raise SourceOpenError(f"cannot open {path}: no such file; check the spelling")
            if file.is_file() and not file.stat().st_size:
                raise SourceOpenError(f"cannot open {path}: the file is empty; copy it again")
        # The prefix keeps a colon or a leading dash in a name from being read as something else.
        target: Any = self._pipe or f"file:{path}"
        # A clock that jumps back would be taken for one that ran over after 26 hours; `BroadcastClock` tells better.
        options = {"max_pixels": str(max_pixels), "correct_ts_overflow": "0"}
        try:
            return av.open(target, options=options, metadata_errors="surrogateescape", hwaccel=self._hardware.accel)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise SourceOpenError(self._explain(path, error)) from error

    def _explain(self, path: str, error: BaseException) -> str:
        if self._pipe is not None:
            return _cannot_be_piped(reason(error))
        if lacks_index(Path(path)):
            return f"cannot open {path}: it was cut off before its index was written; copy or record it again"
        if isinstance(error, EOFError):
            return f"cannot open {path}: it ends before its first picture; copy it again"
        return redact(f"cannot open {path}: {reason(error)}; is it a video file?")

    def _choose_stream(self, path: str) -> Any:
        if self._container.format.name.split(",")[0] in _NOT_VIDEO:
            raise SourceOpenError(
                f"cannot open {path}: it is neither a video nor a JPEG, PNG, WebP, BMP or TIFF; choose another file"
            )
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        usable = [s for s in streams if s.codec_context is not None]
        if not streams:
            kinds = sorted({s.type for s in self._container.streams if s.type != "video"})
            only = f", only {' and '.join(kinds)}" if kinds else ""
            raise SourceOpenError(f"{path} has no video stream{only}; choose another file")
        if not usable:
            raise SourceOpenError(f"{path} has a video stream that this FFmpeg cannot decode; convert it")
        if len(streams) > 1:
            self._notices.append(f"{len(streams)} video streams: only the first is processed, the others are left out")
        if len(streams) < len(self._container.streams.video):
            self._notices.append("the cover picture is left out: it would show the original")
        return usable[0]

    def _prepare_decoder(self, path: str, max_pixels: int, threads: int) -> None:
        context = self._stream.codec_context
        width, height = context.width, context.height
        if width * height > max_pixels:
            raise SourceOpenError(f"{path} is {width}x{height}, more than {max_pixels} pixels; raise source.max_pixels")
        self._hardware.meet(context)
        context.options = {"max_pixels": str(max_pixels)}
        context.thread_type = "AUTO"
        context.thread_count = threads

    def _choose_tracks(self) -> Iterator[Track]:
        for stream in self._container.streams:
            if stream.type not in ("audio", "subtitle", "data", "attachment"):
                continue
            # Chapters, which the library reads by itself and discards, and time codes travel as metadata.
            if stream.type == "data" and (int(stream.discard) >= 48 or "timecode" in stream.metadata):
                continue
            context = stream.codec_context
            codec = getattr(stream, "name", None) if context is None else context.codec.canonical_name
            yield Track(stream.index, stream.type, codec or "unknown", stream)

    def _start(self, path: str, colour: Colour | None, threads: int) -> None:
        stream = self._stream
        self._time_base = Fraction(stream.time_base or Fraction(1, 90000))
        rate = nominal_rate(stream)
        self._has_beat = rate is not None
        self._step = round(1 / ((rate or Fraction(25)) * self._time_base))
        self._timeline = Timeline(self._step, self._counts)
        self._clock = self._broadcast_clock()
        self._demuxed: Iterator[Any] | None = self._demux()
        self._failed_reads = 0
        self._decoding_delay: int | None = None
        self._counted_to = 0
        self._end: int | None = None
        self._packets: list[Packet] = []
        self._deinterlacer: Chain | None = None
        self._waiting: deque[int | None] = deque()  # times of the pictures inside the deinterlacer
        self._ready: deque[tuple[int | None, Any]] = deque()
        self._index = 0
        self._said_s = stream_duration_s(stream)
        # The second picture is needed only where the first has no time.
        while not self._ready and self._advance():
            pass
        while self._ready and self._ready[0][0] is None and len(self._ready) < 2 and self._advance():
            pass
        if not self._ready:
            # The index of an ordinary MP4 comes last: whoever has read that far cannot go back for the pictures.
            if self._pipe is not None and not self._counts["broken packets skipped"]:
                raise SourceOpenError(_cannot_be_piped("its pictures come before their index"))
            raise SourceOpenError(f"{path}: no picture in it can be decoded" + self._why_nothing())
        first = self._ready[0][1]
        turn = turn_of(first, stream.codec_context.name)
        context = stream.codec_context
        self._size_wh, self._true_wh = (first.width, first.height), self._hardware.size_wh(first)
        self._conformer = Conformer(
            first,
            colour_of(first, context, chroma_siting(stream)),
            size_wh=self._size_wh,
            turn=turn,
            colour=colour,
            threads=threads,
        )
        self._notices += self._conformer.remarks
        if stream.metadata.get("alpha_mode") == "1" and "the opacity of the source is ignored" not in self._notices:
            self._notices.append("the opacity of the source is ignored")
        self._info = self._describe(rate, turn)

    def _broadcast_clock(self) -> BroadcastClock | None:
        """None where times are good as they are: they say when the picture begins."""
        if not self._container.format.flags & TS_DISCONT:
            return None
        timed = [s for s in self._container.streams if s.type in ("video", "audio") and s.start_time is not None]
        return BroadcastClock([s.start_time * Fraction(s.time_base) for s in timed], self._counts)

    def _why_nothing(self) -> str:
        broken = self._counts["broken packets skipped"]
        return f"; {broken} broken packets" if broken else "; it holds no frames"

    def _describe(self, rate: Fraction | None, turn: Turn) -> VideoInfo:
        stream, container = self._stream, self._container
        original_wh = turn.size(self._true_wh)
        width, height = (side + side % 2 for side in original_wh)
        if (width, height) != original_wh:
            self._notices.append(f"{original_wh[0]}x{original_wh[1]} padded to {width}x{height}")
        if turn != UPRIGHT:
            self._notices.append("the picture is turned upright; the output needs no rotation")
        ratio = Fraction(stream.sample_aspect_ratio or 1)
        duration_s = self._said_s or (container.duration / av.time_base if container.duration else None)
        return VideoInfo(
            width=width,
            height=height,
            rate=rate,
            live=False,
            time_base=self._time_base,
            colour=self._conformer.colour,
            name=self._name,
            original_wh=original_wh,
            duration_s=duration_s,
            frame_count=stream.frames or (round(duration_s * rate) if duration_s and rate else None),
            sample_aspect_ratio=1 / ratio if turn.transpose else ratio,
            tracks=tuple(self._tracks.values()),
            metadata={k: v for k, v in stream.metadata.items() if k == "timecode"} | dict(container.metadata),
            chapters=container.chapters(),
            picture_metadata={k: v for k, v in stream.metadata.items() if k not in _OF_THE_STORED_PICTURE},
            disposition=int(stream.disposition),
            decoder=self._hardware.decoder,
        )

    @property
    def info(self) -> VideoInfo:
        """What is known before the first frame."""
        return self._info

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        return tuple(self._notices)

    @property
    def counts(self) -> Mapping[str, int]:
        """Irregularities so far, by name."""
        return dict(self._counts)

    def read(self) -> Frame | None:
        """The next frame; None at the end and after `interrupt`."""
        while not self._ready and not self._stopped and self._advance():
            pass
        if self._stopped:
            return None
        if not self._ready:
            self._remark_on_the_end()
            return None
        pts, picture = self._ready.popleft()
        following = self._ready[0][0] if pts is None and self._ready else None
        if (picture.width, picture.height) != self._size_wh and not self._counts["pictures scaled to the first size"]:
            self._notices.append(
                f"the picture changes to {picture.width}x{picture.height} at frame {self._index}; "
                f"scaled to {self._size_wh[0]}x{self._size_wh[1]}"
            )
        if (picture.width, picture.height) != self._size_wh:
            self._counts["pictures scaled to the first size"] += 1
        planes: Plane = self._conformer(picture)
        frame = Frame(
            planes=planes,
            pts=self._timeline.place(pts, following),
            time_base=self._time_base,
            index=self._index,
            captured_at=time.monotonic(),
            colour=self._conformer.colour,
            origin=Origin(self._name, self._info.original_wh),
            duration=None if self._deinterlacer else picture.duration or None,
        )
        self._end = frame.pts + (frame.duration or 0)
        self._index += 1
        return frame

    def seek(self, to_s: float) -> None:
        """Go on from a picture at or before `to_s`, which is on the clock of the frames; not for standard input."""
        # Containers seek by decoding times and guesses, so that the picture found may be a later one.
        for back_s in (0, 2, 10, to_s):
            self._seek(max(0.0, to_s - back_s))
            while not self._ready and self._advance():
                pass
            first = self._ready[0][0] if self._ready else None
            if first is not None and first * self._time_base <= to_s:
                return

    def _seek(self, to_s: float) -> None:
        shift_s = self._clock.shift_s if self._clock else 0
        self._container.seek(round((Fraction(to_s) - shift_s) / self._time_base), stream=self._stream)
        self._stream.codec_context.flush_buffers()
        self._ready.clear()
        self._waiting.clear()
        self._packets.clear()
        if self._clock:
            self._clock.forget()
        self._deinterlacer = None
        self._timeline.last = None
        self._demuxed = self._demux()

    def take_packets(self) -> list[Packet]:
        """The packets of the copied tracks since the last call."""
        packets, self._packets = self._packets, []
        return packets

    def interrupt(self) -> None:
        """Make `read` end; from any thread."""
        self._stopped = True
        if self._pipe is not None:
            self._pipe.stop()

    def close(self) -> None:
        """Let go of the file."""
        self.interrupt()
        self._demuxed = None
        self._container.close()

    def _demux(self) -> Iterator[Any]:
        copied = [track.template for track in self._tracks.values() if track.kind != "attachment"]
        return iter(self._container.demux([self._stream, *copied]))

    def _advance(self) -> bool:
        """Read one packet; False at the end."""
        if self._demuxed is None:
            return False
        try:
            packet = next(self._demuxed)
        except StopIteration:
            self._demuxed = None
            self._flush_deinterlacer()
            return False
        except (av.FFmpegError, OSError) as error:
            return self._read_failed(error)
        self._failed_reads = 0
        if self._clock and packet.size:
            self._clock.straighten(packet)
        # Not packet.stream_index: that is 0 in the empty packets which flush the decoders at the end.
        track = self._tracks.get(packet.stream.index)
        if track is None:
            self._decode(packet)
        elif packet.size:
            self._packets.append(Packet(track, packet))
        return True

    def _remark_on_the_end(self) -> None:
        # What a demultiplexer passes over in a damaged file it does not tell.
        lacking = self._timeline.lacking - self._counts["broken packets skipped"]
        if self._has_beat and lacking > 0:
            self._counts["pictures missing where the time jumps"] = lacking
        said_s, self._said_s = self._said_s, None
        # Broadcast containers do not say it: the library guesses from the clocks at both ends.
        if said_s is None or self._clock or self._end is None:
            return
        found_s = float(self._end * self._time_base)
        if found_s < said_s - max(1.0, said_s / 20):
            self._notices.append(f"{self._name} ends early: {found_s:.1f} s of {said_s:.1f} s could be read")

    def _read_failed(self, error: BaseException) -> bool:
        """A failed read ends the iterator; go on behind it, unless it fails again and again."""
        self._failed_reads += 1
        if self._failed_reads == 1:
            self._counts["failed reads"] += 1
        if self._failed_reads < _MOST_FAILED_READS and not self._stopped:
            self._demuxed = self._demux()
            return True
        self._notices.append(f"reading {self._name} stopped at frame {self._index}: {reason(error)}")
        self._demuxed = None
        self._drain()
        return False

    def _decode(self, packet: Any) -> None:
        # Cut off with the file; in broadcasts the word means less. Were it decoded, the whole pictures that the decoder
        # still holds would be lost with its failure.
        if packet.is_corrupt and self._clock is None:
            self._counts["broken packets skipped"] += 1
            return
        try:
            pictures = self._stream.codec_context.decode(packet)
        except (av.FFmpegError, ValueError):
            self._counts["broken packets skipped"] += 1
            self._hardware.failed()
            return
        for picture in pictures:
            self._deinterlace(picture)

    def _drain(self) -> None:
        try:
            for picture in self._stream.codec_context.decode(None):
                self._deinterlace(picture)
        except (av.FFmpegError, ValueError):
            self._counts["broken packets skipped"] += 1
        self._flush_deinterlacer()

    def _deinterlace(self, picture: Any) -> None:
        self._hardware.take(picture)
        if picture.is_corrupt:
            self._counts["damaged pictures"] += 1
        size_wh = (picture.width, picture.height)
        if self._deinterlacer is not None and size_wh != self._deinterlaced_wh:
            self._flush_deinterlacer()
            self._deinterlacer = self._new_deinterlacer(picture)
        if self._deinterlacer is None:
            if not picture.interlaced_frame:
                self._ready.append((self._time_of(picture), picture))
                return
            self._notices.append("interlaced: deinterlaced with bwdif, one frame out for each frame in")
            self._deinterlacer = self._new_deinterlacer(picture)
        self._waiting.append(self._time_of(picture))
        for result in self._deinterlacer.push(picture):
            self._ready.append((self._waiting.popleft(), result))

    def _new_deinterlacer(self, picture: Any) -> Chain:
        self._deinterlaced_wh = (picture.width, picture.height)
        return Chain(picture, ["bwdif=mode=send_frame:parity=auto:deint=interlaced"])

    def _time_of(self, picture: Any) -> int | None:
        """When it is shown; AVI knows only when a packet is decoded, one picture a tick, and is counted from there."""
        if self._container.format.name != "avi":
            return picture.pts if picture.pts is not None else picture.dts
        if picture.dts is None:  # one of those that the decoder still held at the end
            self._counted_to += self._step
            return self._counted_to
        if self._decoding_delay is None:
            self._decoding_delay = picture.dts - (self._stream.start_time or 0)
        self._counted_to = int(picture.dts - self._decoding_delay)
        return self._counted_to

    def _flush_deinterlacer(self) -> None:
        if self._deinterlacer is not None:
            for result in self._deinterlacer.push(None):
                self._ready.append((self._waiting.popleft(), result))


def _cannot_be_piped(why: str) -> str:
    return (
        f"standard input holds no video that can be read as it comes: {why}; send Matroska, MPEG-TS or a fragmented MP4"
    )
