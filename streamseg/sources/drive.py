"""The files of a drive as one source: one after the other, on one clock that keeps the gaps between them.

source = open_drive(video_files("card/"), "card/", max_pixels=MAX_PIXELS)
source.drive    # the files as they were planned, other cameras' too
source.legs     # the files as they were found so far, for whoever wants to find a moment in them
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from streamseg.errors import SourceOpenError
from streamseg.frame import Colour, Frame, Packet, Track, VideoInfo
from streamseg.libav import moved
from streamseg.sounds import form_of
from streamseg.sources.file import FileSource
from streamseg.sources.grouping import SLACK_S, Drive, Piece, group

__all__ = ["DriveSource", "Leg", "open_drive"]

_MILLISECOND = Fraction(1, 1000)


@dataclass(frozen=True, slots=True)
class Leg:
    """Where a file lies in the drive.

    Attributes:
        path: of the file.
        begin_s: the drive's time minus the file's own time.
        from_s, to_s: the drive's time of its first picture and of the end of its last one.
    """

    path: Path
    begin_s: float
    from_s: float
    to_s: float


def open_drive(
    files: Sequence[Path],
    url: str,
    *,
    max_pixels: int,
    threads: int = 2,
    colour: Colour | None = None,
    hwaccel: str = "none",
) -> DriveSource:
    """Open files that are one drive.

    Args:
        files: as `video_files` or `playlist_files` gives them.
        url: what the user named.
        max_pixels: as `FileSource` takes it.
        threads: as `FileSource` takes it.
        colour: as `FileSource` takes it.
        hwaccel: as `FileSource` takes it.

    Raises:
        SourceOpenError: they are several drives, or none can be read.
    """
    remarks: list[str] = []
    drives = group(files, remarks.append)
    if not drives:
        raise SourceOpenError(f"cannot open {url}: none of its {len(files)} videos can be read ({remarks[0]})")
    if len(drives) > 1:
        told = ", ".join(f"{_told(drive)}" for drive in drives[:3]) + (", ..." if len(drives) > 3 else "")
        raise SourceOpenError(
            f"cannot open {url}: it holds {len(drives)} drives ({told}); name one by a glob, "
            "or run `streamseg batch --join` on all"
        )
    return DriveSource(
        drives[0], max_pixels=max_pixels, threads=threads, colour=colour, hwaccel=hwaccel, remarks=remarks
    )


def _told(drive: Drive) -> str:
    more = len(drive.pieces) - 1
    return drive.pieces[0].path.name + (f" and {more} more" if more else "")


class DriveSource:
    """The main camera's files of a drive, as one video; a `Source`.

    A file that follows without a gap begins where the last picture of the one before ends. Sound goes through as long
    as the files have it in the same form. A file that cannot be read is left out, and its time stays empty.

    Args:
        drive: its files.
        max_pixels, threads, colour, hwaccel: as `FileSource` takes them; all files get the colour of the first.
        remarks: one-line remarks for the user from before.

    Raises:
        SourceOpenError: no file can be read.
    """

    def __init__(
        self,
        drive: Drive,
        *,
        max_pixels: int,
        threads: int = 2,
        colour: Colour | None = None,
        hwaccel: str = "none",
        remarks: Sequence[str] = (),
    ) -> None:
        self.drive = drive
        self._options: dict[str, Any] = {"max_pixels": max_pixels, "threads": threads, "hwaccel": hwaccel}
        self._stopped = False
        self._notices = list(remarks)
        self._counts: Counter[str] = Counter()
        self._waiting = list(drive.pieces)
        self._legs: list[Leg] = []
        self._index = 0
        self._last_pts: int | None = None
        self._packets: list[Packet] = []
        self._shift = Fraction(0)  # the drive's time minus that of the file under way
        self._end = Fraction(0)  # of the last picture, on the drive's clock
        self._piece = drive.pieces[0]
        self._source = self._first = self._open_first(colour)
        self._fresh = True  # no picture of the file under way was read yet
        self._tracks: dict[int, Track] = {track.index: track for track in self._first.info.tracks}
        self._info = self._describe()
        for begin_s, end_s in drive.gaps:
            self._notices.append(
                f"nothing was recorded for {end_s - begin_s:.0f} s from {begin_s:.0f} s of the drive on"
            )
        if drive.others:
            told = ", ".join(f"{camera} ({len(pieces)} files)" for camera, pieces in drive.others.items())
            self._notices.append(f"other cameras of this drive are not processed: {told}")

    def _open_first(self, colour: Colour | None) -> FileSource:
        error: SourceOpenError | None = None
        while self._waiting:
            self._piece = self._waiting.pop(0)
            try:
                return FileSource(str(self._piece.path), colour=colour, **self._options)
            except SourceOpenError as why:
                error = error or why
                self._notices.append(f"{why}; left out")
        raise error or SourceOpenError("a drive without files")

    def _describe(self) -> VideoInfo:
        info, drive = self._first.info, self.drive
        filmed_s = sum(piece.duration_s for piece in drive.pieces)
        more = len(drive.pieces) - 1
        return replace(
            info,
            name=info.name + (f" and {more} more" if more else ""),
            # A gap is one very long picture: the rate varies.
            rate=None if drive.gaps else info.rate,
            duration_s=drive.duration_s,
            frame_count=round(filmed_s * info.rate) if info.rate else None,
            chapters=[_chapter(number, piece) for number, piece in enumerate(drive.pieces)] if more else info.chapters,
        )

    @property
    def info(self) -> VideoInfo:
        """What is known before the first frame; there is a chapter for each file."""
        return self._info

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far; what several files say alike stands once."""
        return (*self._notices, *self._remarks())

    @property
    def counts(self) -> Mapping[str, int]:
        """Irregularities so far, by name."""
        return dict(self._counts + Counter(self._source.counts))

    @property
    def legs(self) -> tuple[Leg, ...]:
        """Where the files lie that were begun so far; any thread."""
        return tuple(self._legs)

    def read(self) -> Frame | None:
        """The next frame; None at the end and after `interrupt`."""
        while not self._stopped:
            frame = self._source.read()
            if frame is not None:
                return self._placed(frame)
            if self._stopped or not self._open_next():
                return None
        return None

    def take_packets(self) -> list[Packet]:
        """The packets of the copied tracks since the last call, on the drive's clock."""
        self._gather()
        packets, self._packets = self._packets, []
        return packets

    def interrupt(self) -> None:
        """Make `read` end; from any thread."""
        self._stopped = True
        self._source.interrupt()

    def close(self) -> None:
        """Let go of the files."""
        self._stopped = True
        if self._source is not self._first:
            self._source.close()
        self._first.close()

    def _placed(self, frame: Frame) -> Frame:
        at = frame.pts * frame.time_base
        step = 1 / self._source.info.rate if self._source.info.rate else Fraction(1, 25)
        if self._fresh:
            self._fresh = False
            if self._index:
                self._shift -= at
            begin_s = float(self._shift)
            self._legs.append(Leg(self._piece.path, begin_s, begin_s + float(at), begin_s + float(at)))
        at += self._shift
        self._end = at + step
        self._legs[-1] = replace(self._legs[-1], to_s=float(self._end))
        pts = round(at / self._info.time_base)
        if self._last_pts is not None:
            pts = max(pts, self._last_pts + 1)
        self._last_pts = pts
        placed = replace(frame, pts=pts, time_base=self._info.time_base, duration=None, index=self._index)
        self._index += 1
        return placed

    def _remarks(self) -> list[str]:
        return [remark for remark in self._source.notices if remark not in self._notices]

    def _gather(self) -> None:
        """Take the packets of the file under way."""
        for packet in self._source.take_packets():
            track = self._tracks.get(packet.track.index)
            if track is not None:
                self._packets.append(
                    packet if self._source is self._first else moved(packet, track, float(self._shift))
                )

    def _open_next(self) -> bool:
        self._gather()
        while self._waiting and not self._stopped:
            piece = self._waiting.pop(0)
            try:
                source = FileSource(str(piece.path), colour=self._info.colour, **self._options)
            except SourceOpenError as error:
                self._notices.append(f"{error}; left out")
                continue
            found, wanted = (f"{info.width}x{info.height}" for info in (source.info, self._info))
            if found != wanted:
                self._notices.append(f"{piece.path.name} is {found}, not {wanted}; left out")
                source.close()
                continue
            self._move_on(source, piece)
            return True
        return False

    def _move_on(self, source: FileSource, piece: Piece) -> None:
        pause_s = piece.begin_s - self._piece.end_s
        missing_s = self._piece.duration_s - (self._legs[-1].to_s - self._legs[-1].from_s)
        if missing_s > SLACK_S:  # cut off: the next file does not begin sooner for it
            pause_s += missing_s
        self._shift = self._end + Fraction(pause_s).limit_denominator(1000)
        self._notices += self._remarks()
        self._counts += Counter(self._source.counts)
        # The first stays open: the outputs look at its tracks.
        if self._source is not self._first:
            self._source.close()
        self._source, self._piece, self._fresh = source, piece, True
        tracks = {track.index: track for track in self._first.info.tracks}
        forms = {track.index: form_of(track) for track in source.info.tracks}
        self._tracks = {index: track for index, track in tracks.items() if forms.get(index) == form_of(track)}
        for index in tracks.keys() - self._tracks.keys():
            self._notices.append(f"{piece.path.name} has no {tracks[index].kind} like that before; it is left out")


def _chapter(number: int, piece: Piece) -> dict[str, Any]:
    title = piece.path.stem
    if piece.clock_s is not None:
        title = f"{datetime.fromtimestamp(piece.clock_s, UTC):%Y-%m-%d %H:%M:%S}"
    begin, end = round(piece.begin_s / _MILLISECOND), round(piece.end_s / _MILLISECOND)
    return {"id": number, "start": begin, "end": end, "time_base": _MILLISECOND, "metadata": {"title": title}}
