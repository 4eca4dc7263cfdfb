"""Telemetry for the times of a video: which file, whose clock, and what a camera wrote inside."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamseg.app.telemetry import Where, open_telemetry, read_embedded, side_file, whereabouts
from streamseg.errors import ConfigError, SourceOpenError
from streamseg.lanes.gpmf import gps_samples
from streamseg.sources import open_source
from tests import clips
from tests.test_drive import drained, film

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()


def table(begin_s: float, seconds: int, *, first: float = 0.0, broken: int = 0) -> str:
    """A position a second; the speed in km/h is 36 more each second, so 10 m/s."""
    rows = [f"{begin_s + second},48.0,11.0,{36 * (first + second)}" for second in range(seconds)]
    return "\n".join(["time,lat,lon,speed_kmh", *rows, *["x,y,z"] * broken])


def field(key: bytes, kind: bytes, size: int, data: bytes) -> bytes:
    return struct.pack(">4scBH", key, kind, size, len(data) // size) + data + bytes(-len(data) % 4)


def gpmf(second: int, *, fix: int = 3, nine: bool = False) -> bytes:
    """A payload with two fixes: at 48 degrees north, 10 m/s times the second."""
    places = [(480000000 + half, -110000000, 500000, 10000 * second + 5000 * half, 9999) for half in range(2)]
    scale = [10_000_000, 10_000_000, 1000, 1000, 100]
    if nine:
        scale += [1, 1000, 100, 1]
        data = b"".join(struct.pack(">7l2H", *place, 8887, 43200000, 150, fix) for place in places)
        gps = field(b"TYPE", b"c", 1, b"lllllllSS") + field(b"SCAL", b"l", 4, struct.pack(">9l", *scale))
        gps += field(b"GPS9", b"?", 32, data)
    else:
        data = b"".join(struct.pack(">5l", *place) for place in places)
        gps = field(b"GPSF", b"L", 4, struct.pack(">L", fix)) + field(b"SCAL", b"l", 4, struct.pack(">5l", *scale))
        gps += field(b"GPS5", b"l", 20, data)
    other = field(b"STRM", b"\0", 1, field(b"ACCL", b"s", 6, bytes(12)))
    return field(b"DEVC", b"\0", 1, field(b"DVID", b"L", 4, bytes(4)) + other + field(b"STRM", b"\0", 1, gps))


def camera(path: Path, seconds: int = 3, **more: Any) -> Path:
    """A clip with GPMF beside its picture, as FFmpeg's own muxer writes it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        data = container.add_data_stream("bin_data")
        for index in range(10 * seconds):
            picture = clips.video_frame(index, 64, 64, "yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, 10)
            container.mux(stream.encode(picture))
            if index % 10 == 0:
                packet = av.Packet(gpmf(index // 10, **more))
                packet.pts = packet.dts = index
                packet.time_base, packet.duration, packet.stream = Fraction(1, 10), 10, data
                container.mux_one(packet)
        container.mux(stream.encode(None))
    return path


def where_of(url: Path, *, file: str = "", offset_s: float = 0.0, read: bool = False) -> tuple[Where | None, list[str]]:
    said: list[str] = []
    source = open_source(str(url))
    where = whereabouts(source, url, file=file, offset_s=offset_s, say=said.append)
    if read:
        drained(source)
    source.close()
    return where, said


def speed(where: Where | None, at_s: float) -> float:
    assert where is not None
    fix = where(at_s)
    return np.nan if fix is None else fix.speed_m_s


def test_the_file_beside_is_found_and_its_clock_is_that_of_the_name(tmp_path: Path) -> None:
    clip = film(tmp_path, "20240501_120010.mp4", frames=60)
    (tmp_path / "20240501_120010.CSV").write_text(table(NOON, 30, broken=2))
    (tmp_path / "other.gpx").write_text("<gpx/>")
    where, said = where_of(clip)
    assert speed(where, 0.5) == pytest.approx(105)
    assert np.isnan(speed(where, 25))
    assert said == [
        "telemetry 20240501_120010.CSV: 2 broken lines left out, 30 read",
        "telemetry: 20240501_120010.CSV, 30 positions",
    ]


def test_the_first_kind_wins_and_content_tells_what_it_is(tmp_path: Path) -> None:
    for suffix in (".csv", ".nmea", ".GPX", ".txt", ".mp4"):
        (tmp_path / f"A{suffix}").touch()
    assert side_file(tmp_path / "a.mp4") == tmp_path / "A.GPX"
    assert side_file(tmp_path / "b.mp4") is None
    assert side_file(tmp_path / "gone" / "b.mp4") is None
    strange = tmp_path / "x.dat"
    strange.write_text("[1714564800000]$GPRMC,120000,A,4807.038,N,01131.000,E,022.4,084.4,010524,003.1,W\n")
    assert open_telemetry(strange).begin_s == NOON


def test_the_creation_time_counts_before_a_local_time_in_the_name(tmp_path: Path) -> None:
    clip = film(tmp_path, "20240501_140000.mp4", metadata={"creation_time": "2024-05-01T12:00:00Z"})
    (tmp_path / "20240501_140000.csv").write_text(table(NOON, 5))
    where, _ = where_of(clip)
    assert speed(where, 1) == pytest.approx(10)


def test_another_time_zone_is_told_and_the_offset_helps(tmp_path: Path) -> None:
    clip = film(tmp_path, "20240501_140000.mp4", frames=60)
    track = tmp_path / "track.csv"
    track.write_text(table(NOON + 0.4, 5))
    where, said = where_of(clip, file=str(track))
    assert np.isnan(speed(where, 1))
    assert said == [
        f"telemetry {track} covers 2024-05-01 12:00:00 to 12:00:04, 20240501_140000.mp4 begins at 2024-05-01 14:00:00: "
        "if that is the time zone, add --telemetry-offset -7200"
    ]
    where, said = where_of(clip, file=str(track), offset_s=-7200)
    assert speed(where, 1.4) == pytest.approx(10)
    where, said = where_of(clip, file=str(track), offset_s=90000)
    assert said[0].endswith("and --telemetry-offset is 90000: if that is the time zone, add --telemetry-offset -7200")
    where, said = where_of(film(tmp_path, "20240501_120000.mp4", frames=60), file=str(track), offset_s=90000)
    assert said[0].endswith("and --telemetry-offset is 90000: without the offset they meet; leave it out")


def test_telemetry_of_another_day_is_not_used(tmp_path: Path) -> None:
    clip = film(tmp_path, "20240511_120000.mp4")
    (tmp_path / "20240511_120000.csv").write_text(table(NOON, 5))
    where, said = where_of(clip)
    assert np.isnan(speed(where, 1))
    assert said[0].endswith("it does not fit and is not used")


def test_without_any_clock_both_begin_together(tmp_path: Path) -> None:
    clip = film(tmp_path, "clip.mp4")
    (tmp_path / "clip.csv").write_text(table(NOON, 5))
    where, said = where_of(clip)
    assert speed(where, 0.5) == pytest.approx(5)
    assert said == ["nothing tells when clip.mp4 began: it is taken to begin with clip.csv"]
    where, _ = where_of(clip, offset_s=2)
    assert speed(where, 0.5) == pytest.approx(25)


def test_the_files_of_a_drive_keep_their_own_clocks(tmp_path: Path) -> None:
    for name in ("20240501_120000", "20240501_120002", "20240501_120012"):  # a second is lost between the first two
        film(tmp_path, f"{name}.mp4")
    (tmp_path / "20240501_120000.csv").write_text(table(NOON, 3))
    (tmp_path / "20240501_120012.csv").write_text(table(NOON + 12, 3, first=12))
    where, said = where_of(tmp_path)
    assert speed(where, 0.5) == pytest.approx(5)
    assert where is not None
    # The second file begins after one second, at 12:00:02, where the telemetry has a gap.
    fix = where(1.5)
    assert fix is not None
    assert (fix.speed_m_s, fix.filled) == (pytest.approx(25), True)
    # The third begins after eleven: a second and a gap of nine later, at 12:00:12.
    assert speed(where, 11.5) == pytest.approx(125)
    assert said == ["telemetry: 20240501_120000.csv and 1 more, 6 positions"]


@pytest.mark.parametrize("nine", [False, True])
def test_positions_inside_the_video(tmp_path: Path, nine: bool) -> None:
    clip = camera(tmp_path / "GX010001.mp4", nine=nine)
    where, said = where_of(clip)
    assert said == ["telemetry: 6 positions inside the video"]
    assert [speed(where, at_s) for at_s in (0, 1, 1.25, 2.5)] == pytest.approx([0, 10, 12.5, 25])
    assert where is not None
    fix = where(0.0)
    assert fix is not None
    assert (fix.latitude, fix.longitude) == (48.0, -11.0)
    assert where_of(camera(tmp_path / "nofix.mp4", fix=0, nine=nine))[0] is None


def test_positions_inside_the_files_of_a_drive(tmp_path: Path) -> None:
    for number in (1, 2):
        camera(tmp_path / f"GX0{number}0001.mp4")
    where, said = where_of(tmp_path, read=True)
    assert [speed(where, at_s) for at_s in (1, 4, 5.25)] == pytest.approx([10, 10, 22.5])
    assert said == ["telemetry: 12 positions inside the video"]


def test_broken_packets_are_counted_and_no_telemetry_is_fine(tmp_path: Path) -> None:
    whole = gpmf(1)
    for at in (*range(9, len(whole) - 60, 7), len(whole) - 9):
        with pytest.raises(ValueError, match="longer than what holds it"):
            gps_samples(whole[:at])
    with pytest.raises(ValueError, match="no device"):
        gps_samples(b"ABCD" + whole[4:])
    assert gps_samples(whole) == [(48.0, -11.0, 10.0), (pytest.approx(48.0000001), -11.0, 15.0)]
    plain = film(tmp_path, "plain.mp4", frames=3)
    assert where_of(plain) == (None, [])
    assert len(read_embedded(plain)) == 0
    with pytest.raises(SourceOpenError, match="no such file"):
        read_embedded(tmp_path / "gone.mp4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read telemetry .*: no such file"),
        ("", "telemetry has no column for the time"),
        ("<gpx>", "cannot read telemetry as GPX"),
        ("time,lat,lon\nx,y,z\n", "holds no position with a time, only 1 broken lines"),
        ("$GPRMC,1,V*00\n", "holds no position with a time, only 1 broken lines"),
    ],
)
def test_what_the_user_names_must_hold_something(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "track.dat"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        open_telemetry(file)


def test_a_broken_file_beside_ends_nothing(tmp_path: Path) -> None:
    clip = film(tmp_path, "a.mp4", frames=3)
    (tmp_path / "a.gpx").write_text("nothing")
    where, said = where_of(clip)
    assert where is None
    assert said[0].endswith("it goes on without")


def test_a_broken_file_beside_costs_a_drive_no_more_than_its_part(tmp_path: Path) -> None:
    for second in (0, 2):
        film(tmp_path, f"20240501_12000{second}_F.mp4", frames=60)
    (tmp_path / "20240501_120000_F.gpx").write_text("nothing")
    (tmp_path / "20240501_120002_F.csv").write_text(table(NOON + 2, 3))
    where, said = where_of(tmp_path)
    assert said[0].endswith("it goes on without")
    assert said[1:] == ["telemetry: 20240501_120002_F.csv, 3 positions"]
    assert where is not None
    assert where(1.0) is None
    assert where(3.0) is not None
