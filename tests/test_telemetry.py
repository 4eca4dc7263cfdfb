"""Side files of dashcams, whole and broken."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from streamseg.errors import ConfigError
from streamseg.lanes.telemetry import read_csv, read_gpx, read_nmea

NOON = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC).timestamp()


def point(second: int, latitude: float = 48.0, more: str = "") -> str:
    return f'<trkpt lat="{latitude}" lon="11.0"><time>2024-05-01T12:00:{second:02d}Z</time>{more}</trkpt>'


def gpx(*points: str) -> str:
    return (
        '<gpx xmlns="http://www.topografix.com/GPX/1/1" version="1.1"><trk><trkseg>'
        + "".join(points)
        + "</trkseg></trk></gpx>"
    )


def test_gpx_with_speeds_from_the_places() -> None:
    # 0.0001 degrees of latitude are 11.12 m.
    found = read_gpx(gpx(*(point(second, 48 + second * 1e-4) for second in range(10))))
    fix = found.at(NOON + 4.5)
    assert fix is not None
    assert fix.latitude == pytest.approx(48.00045)
    assert fix.speed_m_s == pytest.approx(11.12, abs=0.01)
    assert not fix.filled
    assert found.at(NOON - 1) is None
    assert found.at(NOON + 10) is None


def test_gaps_are_filled_and_marked() -> None:
    found = read_gpx(gpx(point(0), point(1), point(11, 48.001), point(12, 48.0011)))
    inside, outside = found.at(NOON + 6), found.at(NOON + 11.5)
    assert inside is not None
    assert inside.filled
    assert inside.latitude == pytest.approx(48.0005)
    assert outside is not None
    assert not outside.filled
    at_end = found.at(NOON + 11)
    assert at_end is not None
    assert not at_end.filled


def test_broken_points_are_counted_and_speeds_as_written_are_kept() -> None:
    broken = ['<trkpt lat="x" lon="11"><time>2024-05-01T12:00:00Z</time></trkpt>', '<trkpt lat="48" lon="11"/>']
    more = "<extensions><speed>7.5</speed></extensions>"
    found = read_gpx(gpx(point(0, more=more), *broken, point(1, more=more), point(2, 95)))
    assert len(found) == 2
    assert found.skipped == 3
    assert found.at(NOON + 0.5).speed_m_s == pytest.approx(7.5)
    for text in ("no xml", '<!DOCTYPE x [<!ENTITY a "b">]><gpx/>'):
        with pytest.raises(ConfigError, match="telemetry"):
            read_gpx(text)


def test_nmea() -> None:
    # The example of every manual: 48 07.038 N, 11 31.000 E, 22.4 knots.
    good = "$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A"
    found = read_nmea(f"junk\n{good}\n$GPGGA,123519,4807.038,N*47\n")
    when = datetime(1994, 3, 23, 12, 35, 19, tzinfo=UTC).timestamp()
    fix = found.at(when)
    assert fix is not None
    assert (fix.latitude, fix.longitude) == (pytest.approx(48.1173), pytest.approx(11.516667))
    assert fix.speed_m_s == pytest.approx(22.4 * 0.514444)
    assert found.skipped == 0


@pytest.mark.parametrize(
    "line",
    [
        "$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6B",
        "$GPRMC,123519,V,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W",
        "$GNRMC,123519,A,4807.038,N,011",
        "$GNRMC,993519,A,4807.038,N,01131.000,E,022.4,084.4,230394",
        "$GNRMC,123519,A,4807.038,,01131.000,E,022.4,084.4,230394",
    ],
)
def test_broken_nmea_is_skipped(line: str) -> None:
    found = read_nmea(line)
    assert len(found) == 0
    assert found.skipped == 1
    assert found.at(0) is None


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_of_any_separator_and_clock(separator: str) -> None:
    rows = [["Time", "Lat", "Lon", "Speed_kmh"], ["2024-05-01T14:00:00+02:00", "48", "11", "36"],
            [str(NOON + 1), "48.0001", "11", ""], ["never", "48", "11", "1"]]  # fmt: skip
    found = read_csv("\ufeff" + "\n".join(separator.join(row) for row in rows))
    assert len(found) == 2
    assert found.skipped == 1
    assert found.begin_s == NOON
    assert found.at(NOON).speed_m_s == pytest.approx(10)
    assert found.at(NOON + 1).speed_m_s == pytest.approx(11.12, abs=0.01)


@pytest.mark.parametrize("time", ["1714564800000", "1e300", "-1e14", "9" * 400, "nan", "0001-01-01T00:00:00+14:00"])
def test_times_that_no_calendar_has_are_broken_lines(time: str) -> None:
    found = read_csv(f"time,lat,lon\n{time},48,11\n{NOON},48,11\n")
    assert (len(found), found.skipped, found.begin_s) == (1, 1, NOON)


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot read telemetry as CSV: field larger"):
        read_csv('time,lat,lon\n"' + "x" * 200_000)


def test_csv_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="no column for the latitude; its columns are time, speed"):
        read_csv("time,speed\n1,2\n")
