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
import os
from collections.abc import Callable, Sequence
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
from streamseg.libav import reason
from streamseg.pixels.letterbox import rgb_from_yuv_matrix
from streamseg.sinks.partial import Partial
from streamseg.sources.drive import DriveSource
from streamseg.sources.grouping import creation_time_s, name_time_s

__all__ = ["EventLog", "began_s"]

_THUMBNAIL_W = 320
_SPEED_EVERY_S = 0.5


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

    Args:
        source: a file or a drive; nothing that is wrapped around one.
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
        self._begin_s: float | None = None
        self._last_s = 0.0
        self._tables: list[Partial] = []
        self._page: Partial | None = None
        for table in tables:
            if Path(table).suffix.lower() not in (".csv", ".json"):
                raise ConfigError(f"events are written as .csv or .json, not {table!r}; choose such a name")
        try:
            for table in tables:
                self._tables.append(Partial(Path(table)))
            if page:
                self._page = Partial(Path(page))
        except BaseException:
            self.close()
            raise

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        return tuple(self._clips.notices) if self._clips else ()

    @property
    def events(self) -> Sequence[Event]:
        """Those that have ended, in the order in which they did."""
        return tuple(self._ended)

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        """Take in what the overlay noted on this picture; packets have no place here."""
        seen = output.segmentation
        drive = seen.seen if isinstance(seen, Hidden) else seen
        if output.stands_in or not isinstance(drive, Drive):
            return
        now_s = output.frame.seconds
        if self._where and (not self._speeds or now_s - self._speeds[-1][0] >= _SPEED_EVERY_S):
            fix = self._where(now_s)
            if fix is not None:
                self._speeds.append((now_s, fix.speed_m_s, fix.filled))
        for event in drive.events:
            if event.end_s is None or _key(event) not in self._pictures:
                self._pictures[_key(event)] = _thumbnail(output.frame)
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
            as_text = events_csv if table.final.suffix.lower() == ".csv" else events_json
            _write(table, as_text(self._ended))
        if self._page is not None:
            _write(self._page, drive_page(self._journey(self._page.final, self._last_s + interval_s)))
        self._tables, self._page = [], None

    def close(self) -> None:
        """Let go; without `finish` there is no table and no page, but the clips stay."""
        for partial in [*self._tables, *([self._page] if self._page else [])]:
            partial.discard()

    def _take(self, event: Event) -> None:
        self._ended.append(event)
        if self._clips:
            self._clips.add(event)

    def _journey(self, page: Path, end_s: float) -> Journey:
        written = self._clips.written if self._clips else {}
        shots = [
            Shot(event, self._pictures.get(_key(event)), [_relative(clip, page) for clip in written.get(event, ())])
            for event in self._ended
        ]
        files = [(leg.path.name, leg.from_s, leg.to_s) for leg in getattr(self._source, "legs", ())]
        return Journey(
            self._source.info.name,
            end_s,
            shots,
            files=files,
            speeds=self._speeds,
            clock_s=began_s(self._source, self._path),
            remarks=[*self._source.notices, *self.notices],
        )


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


def _write(partial: Partial, text: str) -> None:
    try:
        partial.path.write_text(text, "utf-8", newline="\n")
        partial.keep()
    except OSError as error:
        raise SinkWriteError(f"cannot write {partial.path}: {reason(error)}") from error
