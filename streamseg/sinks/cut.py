"""Cutting a stretch out of video files without encoding anything: from the keyframe before it, sound and all.

wanted = [Stretch(Path("front.mp4"), from_s=55.0, to_s=60.0), Stretch(Path("next.mp4"), 0.0, 7.0, shift_s=60.0)]
lead_s = copy_cut(wanted, Path("clip.mp4"))
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from streamseg.errors import SinkWriteError
from streamseg.frame import Packet, Track
from streamseg.libav import TS_DISCONT, moved, reason
from streamseg.sinks.partial import Partial
from streamseg.sinks.tracks import CopiedTracks, stream_metadata

__all__ = ["NotAlikeError", "Stretch", "copy_cut", "cut_suffix", "later"]

# Sound lies this far behind its picture in the file, at most.
_INTERLEAVED_S = 1.0


class NotAlikeError(SinkWriteError):
    """The files are coded in different ways: one stream cannot hold both."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a file.

    Attributes:
        path: of the file.
        from_s, to_s: on the clock of the frames that the file gives.
        shift_s: added to that clock, where several files follow each other.
    """

    path: Path
    from_s: float
    to_s: float
    shift_s: float = 0.0


def cut_suffix(path: Path) -> str:
    """Of a clip that holds the same streams as a file."""
    return path.suffix.lower() if path.suffix.lower() in (".mp4", ".mov", ".m4v", ".mkv") else ".mkv"


def copy_cut(stretches: Sequence[Stretch], target: Path) -> float:
    """Copy what lies in the stretches into a file of its own, which has its name only when it is whole.

    Args:
        stretches: at least one, in order of time; the clip begins at the last keyframe before the first.
        target: `cut_suffix` tells what it may end in.

    Returns:
        how much earlier than wanted it begins, seconds.

    Raises:
        NotAlikeError: a later file is coded in another way than the first.
        SinkOpenError: the folder does not exist or cannot be written.
        SinkWriteError: a file cannot be read, or the clip not be written.
    """
    partial = Partial(target)
    try:
        with _Writer(partial.path) as writer:
            for stretch in stretches:
                writer.copy(stretch)
            lead_s = writer.lead_s
    except BaseException as error:
        partial.discard()
        if isinstance(error, (av.FFmpegError, OSError, ValueError, StopIteration)):
            raise SinkWriteError(f"cannot cut {target.name}: {reason(error)}") from error
        raise
    partial.keep()
    return lead_s


class _Writer:
    """One container being written; the first stretch decides what is in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: contextlib.ExitStack = contextlib.ExitStack()
        self._out: Any = None
        self._form: tuple[object, ...] = ()
        self._origin_s = Fraction(0)
        self._last_dts: int | None = None
        self._last_s = self._until_s = Fraction(0)  # when the last picture begins and ends, on the clip's clock
        self.lead_s = 0.0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *failure: object) -> None:
        self._open.close()

    def copy(self, stretch: Stretch) -> None:
        # Every file stays open to the end: the streams written are modelled on the first one's.
        source: Any = self._open.enter_context(av.open(f"file:{stretch.path}", metadata_errors="surrogateescape"))
        video = next(s for s in source.streams.video if not s.disposition & Disposition.attached_pic)
        zero = Fraction(source.start_time or 0, av.time_base) if source.format.flags & TS_DISCONT else Fraction(0)
        shift = Fraction(stretch.shift_s) - zero
        tracks = [
            Track(s.index, s.type, "" if s.codec_context is None else s.codec_context.codec.canonical_name, s)
            for s in source.streams
            if s.type in ("audio", "subtitle") and s.codec_context is not None
        ]
        begin, seek_s = _keyframe_before(source, video, stretch.from_s + zero)
        if self._out is None:
            self._origin_s = begin + shift
            self.lead_s = max(0.0, float(stretch.from_s + zero - begin))
            self._start(source, video, tracks, stretch.from_s)
        elif self._form != _form(video):
            raise NotAlikeError(
                f"cannot cut {stretch.path.name} together with the file before: they are coded otherwise"
            )
        elif begin + shift - self._origin_s <= self._last_s:
            # It, or its keyframe, lies before the end of the file before: what is in both comes twice.
            shift = self._until_s + self._origin_s - begin
        source.seek(round(seek_s / video.time_base), stream=video)
        for packet in _between(source, video, tracks, begin, stretch.to_s + zero):
            if packet.stream.index == video.index:
                self._write(packet, shift)
            else:
                track = next(track for track in tracks if track.index == packet.stream.index)
                self._copies.mux([moved(Packet(track, packet), track, float(shift))])

    def _start(self, source: Any, video: Any, tracks: Sequence[Track], from_s: float) -> None:
        faststart = {"movflags": "+faststart"} if self._path.suffix in (".mp4", ".mov", ".m4v") else {}
        out: Any = av.open(f"file:{self._path}", "w", options=faststart, metadata_errors="surrogateescape")
        self._out = self._open.enter_context(out)
        self._stream = out.add_stream_from_template(video, opaque=True)
        self._stream.metadata.update(stream_metadata(dict(video.metadata)))
        self._form = _form(video)
        self._copies = CopiedTracks(out, tracks, origin_s=self._origin_s)
        made = later(source.metadata.get("creation_time", ""), from_s - self.lead_s)
        if made:
            out.metadata["creation_time"] = made
        out.start_encoding()

    def _write(self, packet: Any, shift: Fraction) -> None:
        move = round((shift - self._origin_s) / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + move
        packet.dts = None if packet.dts is None else packet.dts + move
        if packet.pts is None:
            packet.pts = packet.dts
        if self._last_dts is not None and (packet.dts is None or packet.dts <= self._last_dts):
            # Where a file begins, pictures are decoded before the last one of the file before is shown; Matroska says
            # nothing of when. It takes one tick of the clip's clock.
            packet.dts = self._last_dts + math.ceil(self._stream.time_base / packet.time_base)
        self._last_dts = packet.dts if packet.dts is not None else self._last_dts
        shown_s = packet.pts * packet.time_base
        self._last_s, self._until_s = max(
            (self._last_s, self._until_s), (shown_s, shown_s + (packet.duration or 1) * packet.time_base)
        )
        packet.stream = self._stream
        self._out.mux_one(packet)


def _keyframe_before(source: Any, video: Any, from_s: Fraction | float) -> tuple[Fraction, float]:
    """The time of the last keyframe that is not later, or of the first one that there is; and where to seek for it."""
    wanted = float(from_s)
    # Containers seek by decoding times and guesses, so that what is found may be later.
    for back_s in (0, 1, 4, 20, wanted):
        seek_s = max(0.0, wanted - back_s)
        source.seek(round(seek_s / video.time_base), stream=video)
        found = None
        for packet in source.demux(video):
            if packet.size and packet.is_keyframe:
                if found is not None and _time(packet) > wanted:
                    break
                found = _time(packet)
        if found is not None and (found <= wanted or back_s == wanted):
            return found, seek_s
    raise ValueError("it holds no keyframe")


def _between(
    source: Any, video: Any, tracks: Sequence[Track], begin: Fraction, to_s: Fraction | float
) -> Iterator[Any]:
    """The packets from a keyframe on; of the picture in the order of decoding."""
    begun, latest = False, begin
    for packet in source.demux([video, *(track.template for track in tracks)]):
        if not packet.size or (packet.dts is None and packet.pts is None):
            continue
        at = _time(packet)
        if packet.stream.index == video.index:
            begun = begun or (packet.is_keyframe and at >= begin)
            decoded = (packet.dts if packet.dts is not None else packet.pts) * packet.time_base
            if decoded >= to_s + _INTERLEAVED_S:
                return
            # Pictures before the first keyframe that are decoded after it need what is not there; those before the last
            # that are decoded after the end belong to it.
            if begun and at >= begin and (decoded < to_s or at < latest):
                latest = max(latest, at)
                yield packet
        elif begin <= at < to_s:
            yield packet


def _time(packet: Any) -> Fraction:
    return Fraction((packet.pts if packet.pts is not None else packet.dts) * packet.time_base)


def _form(video: Any) -> tuple[object, ...]:
    context = video.codec_context
    return (context.name, context.width, context.height, bytes(context.extradata or b""), video.time_base)


def later(creation_time: str, by_s: float) -> str:
    """A `creation_time` of a container, moved by seconds; empty where it is none."""
    try:
        return (datetime.fromisoformat(creation_time) + timedelta(seconds=by_s)).isoformat()
    except (ValueError, OverflowError):
        return ""
