"""What happened on a drive, as files: tables of events, one HTML page, and a clip of each event. Wired as a `Sink`.

log = EventLog(
    source,                         # FileSource or DriveSource, not wrapped
    Path(url),
    finish=overlay.events.finish,   # LaneOverlay's: ends what still lasts
    tables=["events.csv"], page="drive.html",
    clips=Clips(Path("clips"), legs=legs_of(source, Path(url)), name=...),
    where=telemetry.at,             # seconds of the video -> Fix | None
)
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2

from streamseg.app.clips import Clips
from streamseg.effects.lanes import Drive
from streamseg.effects.privacy import Hidden
from streamseg.errors import ConfigError, SinkWriteError
from streamseg.frame import Frame, Output, Packet, Source
from streamseg.lanes.events import Event, events_csv, events_json
from streamseg.lanes.page import Journey, Shot, drive_page
from streamseg.lanes.telemetry import Fix
from streamseg.libav import unwritten
from streamseg.pixels.letterbox import rgb_from_yuv_matrix
from streamseg.sinks.partial import Partial
from streamseg.sources.drive import DriveSource
from streamseg.sources.grouping import creation_time_s, name_time_s

__all__ = ["EventLog", "began_s"]

_log = logging.getLogger(__name__)
_THUMBNAIL_W = 320
_SPEED_EVERY_S = 0.5
# Of a run that never ends, no more events than these are remembered; its tables hold all.
_MOST_REMEMBERED = 1000


def began_s(source: Source, path: Path) -> float | None:
    """When a file or drive began, as seconds since 1970: by the name, else by the container; None where neither tells.

    The name tells the camera's local time, the container should tell UTC.
    """
    if isinstance(source, DriveSource):
        return source.drive.pieces[0].clock_s
    named = name_time_s(path.stem)
    return creation_time_s(source.info.metadata.get("creation_time", "")) if named is None else named


class EventLog:
    """Gathers the events of a run and writes them when it is over; a `Sink`. Files appear when they are whole.

    Of a live source, which may go on for months, each event is written when it ends, in that order, and what was
    written stays however the run ends, and when the next one begins; the page shows the last thousand.

    Args:
        source: what is read; where there are clips or telemetry a file or a drive, and nothing wrapped around one.
        path: what the user named.
        finish: ends the events that last when the run is over; takes the time in seconds.
        tables: files for the events, ``.csv`` or ``.json``.
        page: HTML file; empty for none.
        clips: cuts the events out.
        where: position and speed at a time of the video, None where they are not known.

    Raises:
        ConfigError: a table ends in something else.
        SinkOpenError: a file cannot be written.
    """

    def __init__(
        self,
        source: Source,
        path: Path,
        *,
        finish: Callable[[float], Sequence[Event]],
        tables: Sequence[str] = (),
        page: str = "",
        clips: Clips | None = None,
        where: Callable[[float], Fix | None] | None = None,
    ) -> None:
        self._source = source
        self._path = path
        self._finish = finish
        self._clips = clips
        self._where = where
        self._ended: list[Event] = []
        self._pictures: dict[tuple[object, ...], bytes] = {}
        self._speeds: list[tuple[float, float, bool]] = []
        self._last_s = 0.0
        self._tables: list[_Table] = []
        self._most = _MOST_REMEMBERED if source.info.live else math.inf
        self._forgotten = 0
        self._page: Partial | None = None
        for table in tables:
            if Path(table).suffix.lower() not in (".csv", ".json"):
                raise ConfigError(f"events are written as .csv or .json, not {table!r}; choose such a name")
        try:
            for table in tables:
                self._tables.append(_Table(Path(table), live=source.info.live))
            if page:
                self._page = Partial(Path(page), numbered=source.info.live)
        except BaseException:
            self.close()
            raise

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        return (
            *(notice for table in self._tables for notice in table.notices),
            *(self._page.notices if self._page else ()),
            *self._remarks,
        )

    @property
    def counts(self) -> Mapping[str, int]:
        """Events that a table lost because it could not be written for too long."""
        lost = sum(table.lost for table in self._tables)
        return {"events lost": lost} if lost else {}

    @property
    def _remarks(self) -> Sequence[str]:
        return self._clips.notices if self._clips else ()

    @property
    def events(self) -> Sequence[Event]:
        """Those that have ended and are remembered, in the order in which they did."""
        return tuple(self._ended)

    def keeps(self, output: Output) -> bool:
        """Whether something happened in it, which is noted however late."""
        drive = _drive_of(output)
        return drive is not None and bool(drive.events)

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        """Take in what the overlay noted on this picture; packets have no place here."""
        drive = _drive_of(output)
        if drive is None:
            return
        now_s = output.frame.seconds
        if self._where and (not self._speeds or now_s - self._speeds[-1][0] >= _SPEED_EVERY_S):
            fix = self._where(now_s)
            if fix is not None:
                self._speeds.append((now_s, fix.speed_m_s, fix.filled))
        for event in drive.events:
            if self._page is not None and (event.end_s is None or _key(event) not in self._pictures):
                self._pictures[_key(event)] = _thumbnail(output.frame)
                if len(self._pictures) > self._most:
                    del self._pictures[next(iter(self._pictures))]
            if event.end_s is not None:
                self._take(event)
        if self._clips:
            self._clips.cut_until(now_s)
        self._last_s = now_s

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        """The run is over: write the tables and the page, cut the last clips."""
        interval_s = float(1 / self._source.info.rate) if self._source.info.rate else 0.0
        for event in self._finish(self._last_s + interval_s):
            fix = self._where(event.begin_s) if self._where else None
            self._take(event if fix is None else fix.onto(event))
        if self._clips:
            self._clips.finish()
        self._ended.sort(key=lambda event: event.begin_s)
        for table in self._tables:
            if self._ended and not self._source.info.live:
                table.add(self._ended)
            table.finish()
        if self._page is not None:
            text = drive_page(self._journey(self._page.final, self._last_s + interval_s))
            with _errors(self._page):
                self._page.path.write_text(text, "utf-8", newline="\n")
                self._page.keep()
        self._page = None

    def close(self) -> None:
        """Let go; without `finish` there is no page and no table but what was written of it, and the clips stay."""
        for table in self._tables:
            table.close()
        if self._page is not None:
            self._page.discard()

    def _take(self, event: Event) -> None:
        if self._source.info.live:
            for table in self._tables:
                table.add([event])
        self._ended.append(event)
        if len(self._ended) > self._most:
            del self._ended[0]
            self._forgotten += 1
        if self._clips:
            self._clips.add(event)

    def _journey(self, page: Path, end_s: float) -> Journey:
        written = self._clips.written if self._clips else {}
        shots = [
            Shot(event, self._pictures.get(_key(event)), [_relative(clip, page) for clip in written.get(event, ())])
            for event in self._ended
        ]
        forgotten = [f"{self._forgotten} earlier events are not shown"] if self._forgotten else []
        files = [(leg.path.name, leg.from_s, leg.to_s) for leg in getattr(self._source, "legs", ())]
        return Journey(
            self._source.info.name,
            end_s,
            shots,
            files=files,
            speeds=self._speeds,
            clock_s=began_s(self._source, self._path),
            remarks=[*self._source.notices, *self._remarks, *forgotten],
        )


def _drive_of(output: Output) -> Drive | None:
    seen = output.segmentation
    drive = seen.seen if isinstance(seen, Hidden) else seen
    return drive if isinstance(drive, Drive) and not output.stands_in else None


def _key(event: Event) -> tuple[object, ...]:
    """The same for what is told several times of one event; a departure may turn out to be a lane change."""
    return (event.begin_s, event.track, event.kind == "lanes lost")


def _thumbnail(frame: Frame) -> bytes:
    """A small JPEG of the picture."""
    width = min(_THUMBNAIL_W, frame.width)
    size_wh = (width, max(1, round(frame.height * width / frame.width)))
    planes = [cv2.resize(plane, size_wh, interpolation=cv2.INTER_AREA) for plane in (frame.y, frame.u, frame.v)]
    rgb = cv2.transform(cv2.merge(planes), rgb_from_yuv_matrix(frame.colour, frame.height))
    encoded, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    assert encoded
    return data.tobytes()


def _relative(clip: Path, page: Path) -> str:
    with contextlib.suppress(ValueError):  # on another drive
        return Path(os.path.relpath(clip, page.parent)).as_posix()
    return clip.absolute().as_posix()


class _Table:
    """A file of events that grows; it has its name when it is whole, and what was written of it stays anyway.

    Attributes:
        lost: events that were let go, because too many waited.
    """

    def __init__(self, path: Path, *, live: bool) -> None:
        self._partial = Partial(path, numbered=live)
        self._live = live
        self._as_csv = path.suffix.lower() == ".csv"
        self._waiting: list[Event] = []
        self._begun = False
        self._size = 0
        self._troubled = False
        self.lost = 0

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        return self._partial.notices

    def add(self, events: Sequence[Event]) -> None:
        """Write these behind what is there; live, those that cannot be written now are tried again with the next.

        Raises:
            SinkWriteError: the run is not live, and they cannot be written.
        """
        self._waiting += events
        try:
            self._write()
        except SinkWriteError as error:
            if not self._live:
                raise
            if not self._troubled:
                _log.warning("%s; tried again with the next event", error)
            self._troubled = True
            while len(self._waiting) > _MOST_REMEMBERED:
                del self._waiting[0]
                self.lost += 1
            return
        if self._troubled:
            _log.info("%s: written again", self._partial.path)
        self._troubled = False

    def finish(self) -> None:
        """It is whole.

        Raises:
            SinkWriteError: it cannot be written.
        """
        self._write(last=True)
        with _errors(self._partial):
            self._partial.keep()

    def close(self) -> None:
        """Let go of it; an empty one goes."""
        if self._begun:
            self._partial.release()
        else:
            self._partial.discard()

    def _write(self, *, last: bool = False) -> None:
        with _errors(self._partial), self._partial.path.open("r+b") as file:
            data = self._next(last).encode()
            file.truncate(self._size)  # half a line, of a disk that was full
            file.seek(self._size)
            file.write(data)
        self._begun |= bool(self._waiting)
        self._size += len(data)
        self._waiting = []

    def _next(self, last: bool) -> str:
        """What goes behind that which is there."""
        if self._as_csv:
            header, _, rows = events_csv(self._waiting).partition("\n")
            return rows if self._begun else f"{header}\n{rows}"
        # Without the brackets and line ends of the list.
        rows = "\n" + events_json(self._waiting)[2:-3] if self._waiting else ""
        text = ("," if self._begun else "[") + rows if rows or not self._begun else ""
        return text + (("\n]\n" if self._begun or rows else "]\n") if last else "")


@contextlib.contextmanager
def _errors(partial: Partial) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SinkWriteError(f"cannot write {partial.path}: {unwritten(error)}") from error
