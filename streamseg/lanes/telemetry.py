"""What dashcams write beside the picture: places and speeds from GPX, NMEA and CSV, over time, with gaps filled."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from streamseg.errors import ConfigError
from streamseg.lanes.events import Event

__all__ = ["Fix", "Telemetry", "read_csv", "read_gpx", "read_nmea"]

_EARTH_M = 6_371_009.0
_KNOT_M_S = 0.514444
# Longer than this between two fixes is a gap.
_GAP_S = 3.0
# The year 10000, where calendars end: later seconds are milliseconds, or nonsense.
_NO_YEAR_S = 253_402_300_800.0
# Column names that are understood, and what a value is worth in m/s.
_TIME = ("time", "timestamp", "utc", "datetime", "date_time")
_LATITUDE = ("latitude", "lat")
_LONGITUDE = ("longitude", "lon", "lng", "long")
_SPEED = {"speed_m_s": 1.0, "speed_mps": 1.0, "speed_kmh": 1 / 3.6, "speed_kph": 1 / 3.6, "speed_mph": 0.44704,
          "speed_knots": _KNOT_M_S, "speed": 1.0}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fix:
    """Where the car was, and how fast.

    Attributes:
        time_s: seconds since 1970, UTC.
        latitude, longitude: degrees.
        speed_m_s: as it was written, or from the places.
        filled: it lies in a gap and was made up between its ends.
    """

    time_s: float
    latitude: float
    longitude: float
    speed_m_s: float
    filled: bool = False

    def onto(self, event: Event) -> Event:
        """The event with this place and speed."""
        return replace(
            event,
            speed_m_s=self.speed_m_s,
            latitude=self.latitude,
            longitude=self.longitude,
            filled=self.filled,
        )


class Telemetry:
    """Fixes in order of time.

    Args:
        rows: (time_s, latitude, longitude, speed_m_s or nan), in any order.
        skipped: lines that could not be read.
    """

    def __init__(self, rows: Iterable[tuple[float, float, float, float]], *, skipped: int = 0) -> None:
        table = np.array(sorted({row[0]: row for row in rows}.values()), np.float64).reshape(-1, 4)
        self.skipped = skipped
        self._time_s: NDArray[np.float64] = table[:, 0]
        self._place: NDArray[np.float64] = table[:, 1:3]
        self._speed = _speeds(table)

    def __len__(self) -> int:
        return len(self._time_s)

    @property
    def begin_s(self) -> float:
        """Of the first fix, seconds since 1970."""
        return float(self._time_s[0])

    @property
    def end_s(self) -> float:
        """Of the last fix, seconds since 1970."""
        return float(self._time_s[-1])

    @classmethod
    def joined(cls, parts: Sequence[Telemetry]) -> Telemetry:
        """The fixes of several files together."""
        rows = [
            (float(time_s), float(place[0]), float(place[1]), float(speed))
            for part in parts
            for time_s, place, speed in zip(part._time_s, part._place, part._speed, strict=True)
        ]
        return cls(rows, skipped=sum(part.skipped for part in parts))

    def at(self, time_s: float) -> Fix | None:
        """The fix of a moment, between those around it; None before the first and after the last."""
        if not len(self) or not self._time_s[0] <= time_s <= self._time_s[-1]:
            return None
        after = int(np.searchsorted(self._time_s, time_s))
        gap = self._time_s[after] != time_s and self._time_s[after] - self._time_s[after - 1] > _GAP_S
        latitude, longitude = (float(np.interp(time_s, self._time_s, self._place[:, axis])) for axis in (0, 1))
        return Fix(time_s, latitude, longitude, float(np.interp(time_s, self._time_s, self._speed)), filled=bool(gap))


def read_gpx(text: str) -> Telemetry:
    """Track points of a GPX file; points without a time or with a broken one are skipped.

    Raises:
        ConfigError: it is no GPX.
    """
    # Entities could blow a small file up to gigabytes; GPX has no use for them.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ConfigError("cannot read telemetry: a GPX file declares no document type; remove that line")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ConfigError(f"cannot read telemetry as GPX: {error}") from error
    rows, skipped = [], 0
    for point in root.iter():
        if point.tag.rsplit("}", 1)[-1] != "trkpt":
            continue
        inner = {child.tag.rsplit("}", 1)[-1]: (child.text or "").strip() for child in point.iter()}
        try:
            speed = float(inner["speed"]) if inner.get("speed") else math.nan
            rows.append(_checked(_utc(inner["time"]), float(point.attrib["lat"]), float(point.attrib["lon"]), speed))
        except (KeyError, ValueError):
            skipped += 1
    return Telemetry(rows, skipped=skipped)


def read_nmea(text: str) -> Telemetry:
    """RMC sentences of an NMEA log, of any talker; broken ones, wrong checksums and fixes marked void are skipped."""
    rows, skipped = [], 0
    for line in text.splitlines():
        start = line.find("$")
        if start < 0 or line[start + 3 : start + 6] != "RMC":
            continue
        body, _, checksum = line[start + 1 :].strip().partition("*")
        try:
            if checksum and int(checksum[:2], 16) != _xor(body):
                raise ValueError("checksum")
            part = body.split(",")
            if part[2] != "A":
                raise ValueError("void")
            when = datetime.strptime(part[9] + part[1][:6], "%d%m%y%H%M%S").replace(tzinfo=UTC).timestamp()
            when += float("0" + part[1][6:]) if part[1][6:] else 0.0
            latitude = _degrees(part[3], part[4], "NS")
            longitude = _degrees(part[5], part[6], "EW")
            speed = float(part[7]) * _KNOT_M_S if part[7] else math.nan
            rows.append(_checked(when, latitude, longitude, speed))
        except (IndexError, ValueError):
            skipped += 1
    return Telemetry(rows, skipped=skipped)


def read_csv(text: str) -> Telemetry:
    """A table with a header: a time (ISO 8601, or seconds since 1970), latitude, longitude and perhaps a speed.

    Raises:
        ConfigError: a column is missing, or it is no table.
    """
    first = text.lstrip("\ufeff").split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    table = _table_rows(text.lstrip("\ufeff"), separator)
    header = [name.strip().lower().replace(" ", "_") for name in next(table, [])]

    def column(names: Iterable[str], what: str) -> int:
        found = next((header.index(name) for name in names if name in header), None)
        if found is None:
            known = ", ".join(name[:30] for name in header[:12] if name.isprintable()) or "none"
            raise ConfigError(f"telemetry has no column for the {what}; its columns are {known}")
        return found

    time = column(_TIME, "time")
    latitude, longitude = column(_LATITUDE, "latitude"), column(_LONGITUDE, "longitude")
    speed_name = next((name for name in _SPEED if name in header), None)
    rows, skipped = [], 0
    for row in table:
        if not any(row):
            continue
        try:
            speed = math.nan
            if speed_name is not None and row[header.index(speed_name)].strip():
                speed = float(row[header.index(speed_name)]) * _SPEED[speed_name]
            rows.append(_checked(_utc(row[time].strip()), float(row[latitude]), float(row[longitude]), speed))
        except (IndexError, ValueError):
            skipped += 1
    return Telemetry(rows, skipped=skipped)


def _table_rows(text: str, separator: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(text), delimiter=separator)
    except csv.Error as error:
        raise ConfigError(f"cannot read telemetry as CSV: {error}") from error


def _speeds(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """As written; where it was not, from the places before and after."""
    speed: NDArray[np.float64] = table[:, 3].copy()
    unknown = np.isnan(speed)
    if len(table) < 2:
        return np.nan_to_num(speed)
    latitude = np.radians(table[:, 1])
    north = np.diff(latitude) * _EARTH_M
    east = np.diff(np.radians(table[:, 2])) * np.cos((latitude[1:] + latitude[:-1]) / 2) * _EARTH_M
    leg = np.hypot(north, east) / np.diff(table[:, 0])
    both = np.concatenate([leg[:1], (leg[1:] + leg[:-1]) / 2, leg[-1:]])
    speed[unknown] = both[unknown]
    return speed


def _checked(time_s: float, latitude: float, longitude: float, speed: float) -> tuple[float, float, float, float]:
    if not (0 <= time_s < _NO_YEAR_S and abs(latitude) <= 90 and abs(longitude) <= 180):
        raise ValueError("out of range")
    return time_s, latitude, longitude, speed if math.isfinite(speed) and speed >= 0 else math.nan


def _utc(text: str) -> float:
    """Seconds since 1970; a time without a zone is UTC."""
    try:
        return float(text)
    except ValueError:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _degrees(text: str, hemisphere: str, letters: str) -> float:
    """NMEA's degrees and minutes, dddmm.mmmm."""
    whole, minutes = divmod(float(text), 100)
    if hemisphere not in letters or not hemisphere or minutes >= 60:
        raise ValueError("no place")
    return (whole + minutes / 60) * (1 if hemisphere == letters[0] else -1)


def _xor(body: str) -> int:
    total = 0
    for letter in body.encode("ascii", "replace"):
        total ^= letter
    return total
