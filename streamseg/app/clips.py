"""`--clips DIR`: each event as a short file, cut out of the files that the run reads.

    clips = Clips(Path("clips"), legs=lambda: source.legs, name="front", before_s=5, after_s=5)
    clips.add(event)            # as soon as it has ended
    clips.cut_until(now_s)      # now and then: writes those whose last second is known
    clips.finish()              # writes what is left
    clips.written               # {event: [paths]}

Clips show the source as it is: what a run hides or paints is not in them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from streamseg.errors import ConfigError, SinkOpenError, StreamsegError
from streamseg.frame import Output, Packet, Sink, Source, VideoInfo
from streamseg.lanes.events import Event
from streamseg.libav import moved, unwritten
from streamseg.sinks import open_sink
from streamseg.sinks.cut import NotAlikeError, Stretch, copy_cut, cut_suffix, later
from streamseg.sounds import form_of
from streamseg.sources.address import MAX_PIXELS
from streamseg.sources.drive import DriveSource, Leg
from streamseg.sources.file import FileSource
from streamseg.sources.grouping import Piece

__all__ = ["Clips", "clip_name", "legs_of"]


def legs_of(source: Source, path: Path) -> Callable[[], Sequence[Leg]]:
    """Where the files of a source lie on its clock, for `Clips`.

    Args:
        source: a file or a drive; nothing that is wrapped around one.
        path: what the user named.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(source, DriveSource):
        return lambda: source.legs
    if not isinstance(source, FileSource) or not path.is_file():
        raise ConfigError(f"--clips cuts events out of video files, and {source.info.name} is none; leave it out")
    return lambda: (Leg(path, 0.0, 0.0, math.inf),)


def clip_name(event: Event, name: str = "") -> str:
    """Of the clip of an event, without a suffix: sorts by time and says what happened.

    >>> clip_name(Event("lane change", "left", 754.26, 755.0), "front")
    'front_00h12m34.2s_lane-change-left'
    """
    tenths = math.floor(max(0.0, event.begin_s) * 10 + 1e-6)
    hours, minutes = tenths // 36000, tenths // 600 % 60
    at = f"{hours:02d}h{minutes:02d}m{tenths // 10 % 60:02d}.{tenths % 10}s"
    what = re.sub(r"\W+", "-", f"{event.kind} {event.side or ''}".strip())
    return f"{name}_{at}_{what}" if name else f"{at}_{what}"


class Clips:
    """Cuts events out of files.

    Args:
        folder: where the clips go; made where it is missing.
        legs: gives the files that were begun so far, and where they lie on the events' clock.
        name: begins the names of the clips, so that those of several drives can share a folder.
        before_s: seconds kept before the event.
        after_s: and after it.
        longest_s: an event that lasts longer is cut off after so many seconds.
        exact: encode the picture anew, so that the clip begins exactly; otherwise it begins at a keyframe.
        others: files of other cameras by camera; each event is cut out of them, too.

    Attributes:
        written: clips by event, in the order in which they were written.
        notices: a line for each clip that could not be written as asked.

    Raises:
        SinkOpenError: the folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        *,
        legs: Callable[[], Sequence[Leg]],
        name: str = "",
        before_s: float = 5.0,
        after_s: float = 5.0,
        longest_s: float = 120.0,
        exact: bool = False,
        others: Mapping[str, Sequence[Piece]] | None = None,
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkOpenError(f"cannot write clips into {folder}: {unwritten(error)}") from error
        self._folder = folder
        self._legs = legs
        self._name = re.sub(r"[^\w.+-]+", "-", name)  # a glob may have named the drive
        self._before_s, self._after_s, self._longest_s = before_s, after_s, longest_s
        self._exact = exact
        self._others = others or {}
        self._waiting: list[tuple[float, float, Event]] = []
        self._taken: set[str] = set()
        self.written: dict[Event, list[Path]] = {}
        self.notices: list[str] = []

    def add(self, event: Event) -> None:
        """Take in an event that has ended."""
        end_s = min(event.begin_s if event.end_s is None else event.end_s, event.begin_s + self._longest_s)
        self._waiting.append((max(0.0, event.begin_s - self._before_s), end_s + self._after_s, event))

    def cut_until(self, now_s: float) -> None:
        """Write the clips that end before `now_s`: their files are known by then."""
        ready = [one for one in self._waiting if one[1] <= now_s]
        self._waiting = [one for one in self._waiting if one[1] > now_s]
        for from_s, to_s, event in ready:
            self._cut(from_s, to_s, event)

    def finish(self) -> None:
        """Write all that wait; they may end with the run."""
        self.cut_until(math.inf)

    def _cut(self, from_s: float, to_s: float, event: Event) -> None:
        stem = clip_name(event, self._name)
        while stem in self._taken:
            stem += "+"
        self._taken.add(stem)
        cameras = {"": _stretches(self._legs(), from_s, to_s)}
        for camera, pieces in self._others.items():
            legs = [Leg(piece.path, piece.begin_s, piece.begin_s, piece.end_s) for piece in pieces]
            cameras[camera] = _stretches(legs, from_s, to_s)
        for camera, stretches in cameras.items():
            if not stretches:
                continue
            name = stem + (f"_{camera.replace(' ', '-')}" if camera else "")
            target = self._folder / (name + cut_suffix(stretches[0].path))
            try:
                self._write(stretches, target)
            except StreamsegError as error:
                self.notices.append(str(error))
            else:
                self.written.setdefault(event, []).append(target)

    def _write(self, stretches: Sequence[Stretch], target: Path) -> None:
        if not self._exact:
            try:
                copy_cut(stretches, target)
            except NotAlikeError:
                self.notices.append(f"{target.name} is encoded anew: it spans two files that are coded differently")
            else:
                return
        _encode_cut(stretches, target)


def _stretches(legs: Sequence[Leg], from_s: float, to_s: float) -> list[Stretch]:
    return [
        Stretch(leg.path, max(from_s, leg.from_s) - leg.begin_s, min(to_s, leg.to_s) - leg.begin_s, leg.begin_s)
        for leg in legs
        if leg.from_s < to_s and leg.to_s > from_s
    ]


def _encode_cut(stretches: Sequence[Stretch], target: Path) -> None:
    """Decode, and encode exactly what lies in the stretches; sound in the form of the first file's is copied."""
    origin_s = stretches[0].from_s + stretches[0].shift_s
    with closing(FileSource(str(stretches[0].path), max_pixels=MAX_PIXELS)) as first:
        made = later(first.info.metadata.get("creation_time", ""), stretches[0].from_s)
        metadata = {key: value for key, value in first.info.metadata.items() if key != "creation_time"}
        if made:
            metadata["creation_time"] = made
        info = replace(first.info, metadata=metadata, chapters=(), frame_count=None, duration_s=None)
        sink = open_sink(str(target), info)
        try:
            last = -1
            for stretch in stretches:
                with closing(FileSource(str(stretch.path), max_pixels=MAX_PIXELS, colour=info.colour)) as source:
                    source.seek(stretch.from_s)
                    last = _copy_stretch(source, stretch, stretch.shift_s - origin_s, info, sink, last)
            sink.finish()
        finally:
            sink.close()


def _copy_stretch(source: FileSource, stretch: Stretch, by_s: float, info: VideoInfo, sink: Sink, last: int) -> int:
    """Write the stretch `by_s` seconds later than the file has it; returns the last time, in ticks of `info`."""
    tracks = {track.index: track for track in info.tracks}
    alike = {t.index: tracks[t.index] for t in source.info.tracks if form_of(t) in map(form_of, info.tracks)}
    packets: list[Packet] = []
    # Half a millisecond, so that no picture is lost or won by rounding.
    while (frame := source.read()) is not None and frame.seconds < stretch.to_s - 5e-4:
        packets += [
            moved(packet, alike[packet.track.index], by_s)
            for packet in source.take_packets()
            if packet.track.index in alike and _lies_in(packet, stretch)
        ]
        if frame.seconds < stretch.from_s - 5e-4:
            continue
        last = max(last + 1, round((frame.pts * frame.time_base + Fraction(by_s)) / info.time_base))
        sink.write(Output(replace(frame, pts=last, time_base=info.time_base)), packets)
        packets = []
    return last


def _lies_in(packet: Packet, stretch: Stretch) -> bool:
    payload = packet.payload
    return payload.pts is not None and stretch.from_s <= payload.pts * payload.time_base < stretch.to_s
