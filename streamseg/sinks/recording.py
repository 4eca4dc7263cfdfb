"""Recordings of what never ends: files of a fixed length, named by the clock on the wall, the oldest removed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from streamseg.errors import ConfigError, SinkAbsentError, SinkOpenError, SinkWriteError
from streamseg.frame import Output, Packet, VideoInfo
from streamseg.libav import unwritten
from streamseg.sinks.encoders import choose_container, choose_encoding
from streamseg.sinks.kept import KeptTracks
from streamseg.sinks.partial import Named
from streamseg.sinks.retention import Recordings
from streamseg.sinks.video import VideoSink
from streamseg.units import size_words

__all__ = ["RecordingSink"]

_TIDY_EVERY_S = 5.0
# How far sound may lag behind the picture and still reach the file it belongs to.
_LATE_S = 2
_SHORTEST_S = 1.0
# The library holds the index of these in memory until the file ends, 72 bytes a picture: 190 MB a day at 30 fps.
_INDEXED, _LONGEST_INDEXED_S = ("mp4", "mov"), 6 * 3600.0


@dataclass(slots=True, eq=False)
class _Segment:
    """A file being written. Once the next one began, what comes late is kept for its end."""

    sink: VideoSink
    path: Path
    begin_s: Fraction
    late: list[Packet] = field(default_factory=list)
    lagging: set[int] = field(default_factory=set)


class RecordingSink:
    """Video files one after the other, each playable by itself; a `Sink`.

    A file has its name, ``cam-20261121T024600Z.mkv`` (UTC), from its first byte and plays whenever the run is killed,
    up to the last second or keyframe; the exact time stands in its metadata as ``creation_time``. The next file begins
    with a keyframe, at the same instant: no picture and no packet is lost or comes twice. When the codec of the sound
    changes, as another camera's after a reconnect may, a new file begins.

    Without an argument for `keep_for_s` or `max_bytes` nothing is ever removed.

    Args:
        path: ``cam.mkv`` or ``cam.mp4``; the folder must exist.
        info: what the frames are like; its tracks are copied.
        segment_s: length of a file; None makes one, of MP4 and QuickTime one for every six hours.
        keep_for_s: files last written to longer ago are removed.
        max_bytes: of all files of this name together; a file ends early when it alone fills a quarter of it.
        min_free_bytes: of the disk, to stay free; the recording ends before, and no file is removed for it.
        encoder, quality: as `choose_encoding` takes them.
        threads: of the encoder; 0 lets it choose.
        wall_time_s: seconds since 1970 of a `Frame.captured_at`.

    Raises:
        ConfigError: a length that cannot be, or a limit of room without a length of files.
        SinkOpenError: the folder, container or encoder is wrong.
        SinkAbsentError: the disk is full.
    """

    def __init__(
        self,
        path: str,
        info: VideoInfo,
        *,
        segment_s: float | None = None,
        keep_for_s: float | None = None,
        max_bytes: int | None = None,
        min_free_bytes: int = 200_000_000,
        encoder: str | None = None,
        quality: str | int | None = None,
        threads: int = 0,
        wall_time_s: Callable[[float], float] | None = None,
    ) -> None:
        if segment_s is not None and segment_s < _SHORTEST_S:
            raise ConfigError(
                f"segments of {segment_s:g} s are too short; take at least {_SHORTEST_S:g} s, such as 10m"
            )
        if max_bytes is not None and segment_s is None:
            raise ConfigError(f"cannot keep {path} below {size_words(max_bytes)}: add --segment 10m; "
                              "only whole files can be removed")  # fmt: skip
        self._path = Path(path)
        container = choose_container(self._path.suffix[1:], path)
        size_wh = info.width, info.height
        choose_encoding(container, path, encoder=encoder, quality=quality, alpha=False, size_wh=size_wh, live=True)
        folder = self._path.parent
        if not folder.is_dir():
            raise SinkOpenError(f"cannot write {path}: the folder {folder} does not exist; make it first")
        if not os.access(folder, os.W_OK):
            raise SinkOpenError(f"cannot write {path}: the folder {folder} is not ours to write; choose another")
        if segment_s is None and container in _INDEXED:
            segment_s = _LONGEST_INDEXED_S
        self._segment_s = None if segment_s is None else Fraction(segment_s)
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._files = Recordings(self._path, keep_for_s=keep_for_s, max_bytes=max_bytes, min_free_bytes=min_free_bytes)
        self._options: dict[str, Any] = {"encoder": encoder, "quality": quality or "medium", "threads": threads}
        self._wall_time_s = wall_time_s or _wall_time_s
        self._info = replace(info, live=True, chapters=())
        self._tracks = KeptTracks(info.tracks)
        self._current: _Segment | None = None
        self._previous: _Segment | None = None
        self._heard: set[int] = set()
        self._tidied_at = time.monotonic()
        self._too_large = False
        self._counts = {"files": 0, "files removed": 0, "packets from before the file left out": 0}
        self._notices: dict[str, None] = {}
        self._tidy()
        if self._files.short_of_room:
            raise SinkAbsentError(self._no_room())

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, each once."""
        self._notices.update(dict.fromkeys(self._tracks.notices))
        for segment in (self._previous, self._current):
            if segment is not None:
                self._notices.update(dict.fromkeys(segment.sink.notices))
        return tuple(self._notices)

    @property
    def counts(self) -> Mapping[str, int]:
        """Files begun and removed, and packets that came too late for the file they belonged to."""
        return {name: count for name, count in self._counts.items() if count}

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        """Write one picture and the packets that travelled with it, beginning a new file where it is time.

        Raises:
            SinkWriteError: the disk is full or gone; what came before plays, and a new sink makes a new file.
        """
        frame = output.frame
        at_s = frame.pts * frame.time_base
        if time.monotonic() - self._tidied_at >= _TIDY_EVERY_S:
            self._tidy()
            if self._files.short_of_room:
                raise SinkWriteError(self._no_room())
        changed = self._tracks.update(packet.track for packet in packets)
        if changed and self._current is not None:
            # What comes from now on does not go into the file that is open.
            self._finish_previous(None)
            current, self._current = self._current, None
            self._complete(current, ())
        if self._current is None or self._is_long_enough(at_s):
            self._begin(at_s, frame.captured_at, packets)
        assert self._current is not None
        self._current.sink.write(output, self._of_current(packets))
        self._finish_previous(at_s)

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        """Complete the file."""
        if self._current is None:
            self._notices["no frame came, so nothing was written"] = None
            return
        trailing = self._of_current(packets)
        self._finish_previous(None)
        current, self._current = self._current, None
        self._complete(current, trailing)

    def close(self) -> None:
        """Let go. What is open is completed as well as it can be: a recording is worth having however the run ends."""
        for segment in (self._previous, self._current):
            if segment is not None:
                with contextlib.suppress(SinkWriteError):  # said already, by write or finish
                    self._complete(segment, segment.late)
        self._previous = self._current = None
        self._tracks.close()

    def _is_long_enough(self, at_s: Fraction) -> bool:
        segment = self._current
        if segment is None or self._segment_s is None:
            return False
        return self._too_large or at_s - segment.begin_s >= self._segment_s

    def _begin(self, at_s: Fraction, captured_at: float, packets: Sequence[Packet]) -> None:
        self._finish_previous(None)
        origin_s = at_s
        if self._current is not None:
            self._current.lagging = set(self._heard)
            self._previous, self._current = self._current, None
            self._tidy()
        else:
            # Sound from before the first picture is part of the recording.
            origin_s = min([at_s, *(time_s for time_s in map(_time_s, packets) if time_s is not None)])
        started_s = self._wall_time_s(captured_at) - float(at_s - origin_s)
        created = datetime.fromtimestamp(started_s, UTC).isoformat(timespec="microseconds")
        metadata = {**self._info.metadata, "creation_time": created.replace("+00:00", "Z")}
        info = replace(self._info, metadata=metadata, tracks=self._tracks.tracks)
        try:
            name = Named(self._files.path_for(started_s))
            sink = VideoSink(str(name.path), info, name=name, origin_s=origin_s, **self._options)
        except SinkOpenError as error:  # it could be opened before: the folder or the room went away
            raise SinkWriteError(str(error)) from error
        self._current = _Segment(sink, name.path, origin_s)
        self._counts["files"] += 1

    def _of_current(self, packets: Sequence[Packet]) -> list[Packet]:
        """Those that belong to the current file; what came late for the previous one is put there."""
        previous = self._previous
        begin_s = self._current.begin_s if self._current is not None else None
        current: list[Packet] = []
        for packet in packets:
            self._heard.add(packet.track.index)
            time_s = _time_s(packet)
            if time_s is None or begin_s is None or time_s >= begin_s:
                current.append(packet)
                if previous is not None:
                    previous.lagging.discard(packet.track.index)
            elif previous is not None:
                previous.late.append(packet)
            else:
                self._counts["packets from before the file left out"] += 1
        return current

    def _finish_previous(self, at_s: Fraction | None) -> None:
        """Complete the previous file once the sound has reached its end, or none is coming; None does not wait."""
        previous = self._previous
        if previous is None:
            return
        late = at_s is None or self._current is None or at_s - self._current.begin_s >= _LATE_S
        if late or not previous.lagging:
            self._previous = None
            self._complete(previous, previous.late)

    def _complete(self, segment: _Segment, packets: Sequence[Packet]) -> None:
        try:
            segment.sink.finish(packets)
        finally:
            self._notices.update(dict.fromkeys(segment.sink.notices))
            segment.sink.close()

    def _tidy(self) -> None:
        self._tidied_at = time.monotonic()
        current = self._current.path if self._current is not None else None
        open_files = [segment.path for segment in (self._previous, self._current) if segment is not None]
        try:
            self._counts["files removed"] += len(self._files.tidy(open_files))
            # Or a single file could outgrow the limit.
            self._too_large = bool(current and self._max_bytes and current.stat().st_size > self._max_bytes // 4)
        except OSError as error:
            raise SinkWriteError(f"cannot write {self._path}: {unwritten(error)}") from error

    def _no_room(self) -> str:
        # Without how much is left: that changes all the time, and each time would be news.
        return (
            f"cannot record to {self._path}: the disk has less than {size_words(self._min_free_bytes)} left, which "
            "stay free; make room, or keep fewer recordings with --keep-for or --max-disk"
        )


def _time_s(packet: Packet) -> Fraction | None:
    payload = packet.payload
    ticks = payload.pts if payload.pts is not None else payload.dts
    return None if ticks is None else ticks * Fraction(payload.time_base)


def _wall_time_s(captured_at: float) -> float:
    return time.time() - (time.monotonic() - captured_at)
