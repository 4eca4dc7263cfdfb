"""Files of dashcams: which belong together, in which order, and what a drive looks like as one source."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from streamseg.cli import main
from streamseg.errors import SourceOpenError
from streamseg.frame import Output, Packet, Source
from streamseg.sinks import open_sink
from streamseg.sources import drive_files, open_source
from streamseg.sources.drive import DriveSource
from streamseg.sources.grouping import Drive, group, name_time_s, video_files
from tests import clips

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()


def film(folder: Path, name: str, *, begin: int = 0, frames: int = 30, **more: object) -> Path:
    """A second of video whose pictures are numbered from `begin` on."""
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, object] = {"size_wh": (320, 180), **more}
    width, height = values["size_wh"]  # type: ignore[misc]
    values["draw"] = lambda index: clips.video_frame(begin + index, width, height, "yuv420p")
    return clips.make_clip(folder / name, frames=frames, **values)  # type: ignore[arg-type]


def grouped(folder: Path) -> list[Drive]:
    return group(sorted(folder.rglob("*.mp4"), reverse=True), pytest.fail)


def names(drive: Drive) -> list[str]:
    return [piece.path.name for piece in drive.pieces]


@pytest.mark.parametrize(
    "stem",
    [
        *("20240501_120000_NF", "2024_0501_120000_000123F", "REC_2024_05_01_12_00_00_R", "240501_120000_001_FH"),
        *("2024-05-01_12-00-00-front", "NO20240501-120000-000123B", "20240501120000_000123", "VID 2024-05-01T12.00.00"),
    ],
)
def test_times_in_names(stem: str) -> None:
    assert name_time_s(stem) == NOON


@pytest.mark.parametrize("stem", ["MOVI0001", "20241301_120000", "20240501", "1714564800", "20240501_256000", ""])
def test_names_without_a_time(stem: str) -> None:
    assert name_time_s(stem) is None


def test_files_are_joined_by_the_time_in_their_names(tmp_path: Path) -> None:
    for name in ("20240501_120000_N", "20240501_120001_E", "20240501_120012_N", "20240501_130000_N"):
        film(tmp_path, f"{name}.mp4")
    first, second = grouped(tmp_path)
    assert names(first) == ["20240501_120000_N.mp4", "20240501_120001_E.mp4", "20240501_120012_N.mp4"]
    assert names(second) == ["20240501_130000_N.mp4"]
    assert [round(piece.begin_s, 3) for piece in first.pieces] == [0, 1, 12]
    assert [(round(a, 3), round(b, 3)) for a, b in first.gaps] == [(2, 12)]
    assert first.pieces[2].clock_s == NOON + 12


def test_front_and_rear_are_paired_across_folders(tmp_path: Path) -> None:
    for second in (0, 1):
        film(tmp_path / "Front", f"2024_0501_12000{second}_F.mp4")
    film(tmp_path / "Rear", "2024_0501_120001_R.mp4")
    film(tmp_path / "Rear", "2024_0501_180001_R.mp4")
    both, alone = grouped(tmp_path)
    assert both.camera == "front"
    assert names(both) == ["2024_0501_120000_F.mp4", "2024_0501_120001_F.mp4"]
    (rear,) = both.others["rear"]
    assert (rear.path.name, rear.begin_s) == ("2024_0501_120001_R.mp4", pytest.approx(1))
    assert (alone.camera, names(alone)) == ("rear", ["2024_0501_180001_R.mp4"])


def test_cameras_are_told_by_a_letter_after_the_kind(tmp_path: Path) -> None:
    for name in ("120000_0001_N_A", "120000_0001_N_B", "120001_0002_E_A", "120001_0002_E_B", "120000_0001_N_C"):
        film(tmp_path, f"20240501_{name}.mp4")
    (drive,) = grouped(tmp_path)
    assert names(drive) == ["20240501_120000_0001_N_A.mp4", "20240501_120001_0002_E_A.mp4"]
    assert {camera: len(pieces) for camera, pieces in drive.others.items()} == {"camera B": 2, "camera C": 1}


def test_files_of_one_moment_do_not_follow_each_other(tmp_path: Path) -> None:
    for second in (0, 2, 4):
        for letter in "XY":
            film(tmp_path, f"20240501_12000{second}_{letter}.mp4", frames=60)
    one, two = grouped(tmp_path)
    assert names(one) == [f"20240501_12000{second}_X.mp4" for second in (0, 2, 4)]
    assert names(two) == [f"20240501_12000{second}_Y.mp4" for second in (0, 2, 4)]
    assert [round(piece.begin_s, 3) for piece in two.pieces] == [0, 2, 4]


def test_parts_of_one_file_with_its_creation_time_follow_each_other(tmp_path: Path) -> None:
    for part in range(3):
        film(tmp_path, f"part{part}.mp4", metadata={"creation_time": "2024-05-01T12:00:00Z"})
    (drive,) = grouped(tmp_path)
    assert [round(piece.begin_s, 3) for piece in drive.pieces] == [0, 1, 2]


def test_names_without_a_time_follow_their_numbers(tmp_path: Path) -> None:
    for name in ("MOVI9", "MOVI10", "wedding", "GX010002", "GX020001", "GX010001"):
        film(tmp_path, f"{name}.mp4", frames=3)
    assert [names(drive) for drive in grouped(tmp_path)] == [
        ["GX010001.mp4", "GX020001.mp4", "GX010002.mp4"],
        ["MOVI9.mp4", "MOVI10.mp4"],
        ["wedding.mp4"],
    ]


def test_the_creation_time_counts_where_the_name_tells_none(tmp_path: Path) -> None:
    for name, second in (("MOVI0001", 30), ("MOVI0002", 1), ("MOVI9999", 0)):  # the counter began anew
        film(tmp_path, f"{name}.mp4", metadata={"creation_time": f"2024-05-01T12:00:{second:02d}Z"})
    (drive,) = grouped(tmp_path)
    assert names(drive) == ["MOVI9999.mp4", "MOVI0002.mp4", "MOVI0001.mp4"]
    assert [round(piece.begin_s) for piece in drive.pieces] == [0, 1, 30]


def test_another_size_is_another_drive_and_broken_files_are_told(tmp_path: Path) -> None:
    film(tmp_path, "20240501_120000.mp4")
    film(tmp_path, "20240501_120001.mp4", size_wh=(160, 90))
    (tmp_path / "20240501_120002.mp4").touch()
    (tmp_path / "20240501_120003.mp4").write_bytes(film(tmp_path, "x.mp4").read_bytes()[:900])
    (tmp_path / "x.mp4").unlink()
    said: list[str] = []
    assert len(group(video_files(str(tmp_path)), said.append)) == 2
    assert said == [
        "20240501_120002.mp4 is empty; left out",
        "20240501_120003.mp4 cannot be read: it was cut off before its index was written; left out",
    ]


def opened(url: Path | str) -> DriveSource:
    source = open_source(str(url))
    assert isinstance(source, DriveSource)
    return source


def drained(source: Source) -> tuple[list[int], list[float], list[Packet]]:
    found, times, packets = [], [], []
    while (frame := source.read()) is not None:
        found.append(clips.index_of(frame.y))
        times.append(frame.seconds)
        packets += source.take_packets()
    packets += source.take_packets()
    source.close()
    return found, times, packets


def test_a_drive_is_one_clock_with_its_gaps(tmp_path: Path) -> None:
    film(tmp_path, "20240501_120000.mp4", sound="aac")
    film(tmp_path, "20240501_120001.mp4", begin=30, sound="aac", rate=Fraction(25))
    film(tmp_path, "20240501_120021.mp4", begin=60, sound="aac")
    (tmp_path / "notes.txt").write_text("no video")
    source = opened(tmp_path)
    assert source.info.rate is None
    assert source.info.duration_s == pytest.approx(22, abs=0.3)
    assert [chapter["metadata"]["title"] for chapter in source.info.chapters] == [
        "2024-05-01 12:00:00", "2024-05-01 12:00:01", "2024-05-01 12:00:21"
    ]  # fmt: skip
    found, times, packets = drained(source)
    assert found == list(range(90))
    assert times[:30] == pytest.approx([index / 30 for index in range(30)])
    assert times[30:60] == pytest.approx([1 + index / 25 for index in range(30)], abs=1e-4)
    # Twelve o'clock and 21 s, less the second and 1.2 s that the files before are long.
    assert times[60] == pytest.approx(21, abs=0.05)
    assert times[60:] == pytest.approx([times[60] + index / 30 for index in range(30)], abs=1e-4)
    assert "nothing was recorded for 19 s from 2 s of the drive on" in source.notices
    heard = [float(packet.payload.pts * packet.payload.time_base) for packet in packets]
    assert [leg.begin_s for leg in source.legs] == pytest.approx([0, 1, times[60]], abs=1e-4)
    for leg in source.legs:
        own = [time for time in heard if leg.from_s - 0.025 <= time < leg.to_s]
        assert own[0] == pytest.approx(leg.from_s, abs=0.05)
        assert len(own) == pytest.approx((leg.to_s - leg.from_s) * 48000 / 1024, abs=4)


def test_a_drive_is_written_as_one_file(tmp_path: Path) -> None:
    for number in range(3):
        film(tmp_path / "card", f"MOVI{number}.mp4", begin=30 * number, sound="aac")
    source = opened(tmp_path / "card")
    sink = open_sink(str(tmp_path / "out.mp4"), source.info, quality="lossless")
    while (frame := source.read()) is not None:
        sink.write(Output(frame), source.take_packets())
    sink.finish(source.take_packets())
    sink.close()
    source.close()
    assert sink.notices == []
    assert clips.indices(tmp_path / "out.mp4") == list(range(90))
    times = clips.times(tmp_path / "out.mp4")
    assert {b - a for a, b in pairwise(times)} == {Fraction(1, 30)}
    assert len(clips.packets(tmp_path / "out.mp4")) == pytest.approx(3 * 48, abs=6)


def test_what_cannot_be_read_leaves_its_time_empty(tmp_path: Path) -> None:
    film(tmp_path, "20240501_120000.mp4", frames=90)
    whole = film(tmp_path, "20240501_120003.mp4", frames=90).read_bytes()
    (tmp_path / "20240501_120003.mp4").write_bytes(whole[:200])
    film(tmp_path, "20240501_120006.mp4", begin=180, frames=90)
    source = opened(tmp_path)
    found, times, _ = drained(source)
    assert found == [*range(90), *range(180, 270)]
    assert times[90] == pytest.approx(6)
    assert any("20240501_120003.mp4" in notice and "left out" in notice for notice in source.notices)


def test_a_file_that_ends_early_does_not_move_the_next(tmp_path: Path) -> None:
    for number in range(2):
        film(tmp_path, f"20240501_12000{number * 6}.mkv", begin=180 * number, frames=180, options={"g": "15"})
    torn = tmp_path / "20240501_120000.mkv"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 3])
    source = opened(tmp_path)
    found, times, _ = drained(source)
    first = found.index(180)
    assert first < 120
    assert times[first] == pytest.approx(6, abs=0.05)


def test_sound_in_another_form_is_left_out_and_told(tmp_path: Path) -> None:
    film(tmp_path, "MOVI1.mkv", sound="aac")
    film(tmp_path, "MOVI2.mkv", sound="libmp3lame")
    source = opened(tmp_path)
    _, _, packets = drained(source)
    assert max(float(packet.payload.pts * packet.payload.time_base) for packet in packets) < 1.1
    assert "MOVI2.mkv has no audio like that before; it is left out" in source.notices


def test_several_drives_in_a_folder_are_refused(tmp_path: Path) -> None:
    for name in ("20240501_120000", "20240501_120001", "20240501_180000"):
        film(tmp_path, f"{name}.mp4", frames=3)
    with pytest.raises(SourceOpenError, match=r"2 drives \(20240501_120000.mp4 and 1 more, 20240501_180000.mp4\)"):
        open_source(str(tmp_path))
    source = opened(tmp_path / "20240501_12*")
    assert len(source.drive.pieces) == 2
    source.close()


def test_a_playlist_is_a_drive(tmp_path: Path) -> None:
    for number in (1, 2):
        film(tmp_path / "card", f"MOVI{number}.mp4", begin=30 * number - 30)
    listed = tmp_path / "drive.m3u"
    listed.write_text("#EXTM3U\ncard/MOVI1.mp4\n\ncard/MOVI2.mp4\n", "utf-8")
    assert drained(opened(listed))[0] == list(range(60))
    for text, why in (("#EXTM3U\n", "names no file"), ("http://a/b.mp4", "is no file")):
        listed.write_text(text)
        with pytest.raises(SourceOpenError, match=why):
            open_source(str(listed))
    listed.write_text("gone.mp4\n")
    with pytest.raises(SourceOpenError, match=r"none of its 1 videos can be read \(gone.mp4 cannot be read: no such"):
        open_source(str(listed))


def test_folders_of_pictures_stay_what_they_are(tmp_path: Path) -> None:
    film(tmp_path, "MOVI1.mp4", frames=2)
    assert len(drive_files(tmp_path)) == 1
    (tmp_path / "a.png").touch()
    assert drive_files(tmp_path) == []
    assert drive_files(tmp_path / "MOVI1.mp4") == []
    (tmp_path / "a.png").unlink()
    for name in ("._MOVI1.mp4", "out.partial.mp4"):
        (tmp_path / name).touch()
    assert [path.name for path in drive_files(tmp_path)] == ["MOVI1.mp4"]


def test_no_output_replaces_a_file_of_the_drive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        film(tmp_path / "card", f"MOVI{number}.mp4", frames=3)
    (tmp_path / "drive.m3u").write_text("card/MOVI1.mp4\ncard/MOVI2.mp4\n")
    for source in (tmp_path / "card", tmp_path / "card" / "MOVI*.mp4", tmp_path / "drive.m3u"):
        assert main(["run", str(source), "-o", str(tmp_path / "card" / "MOVI2.mp4"), "--task", "lanes"]) == 2
        assert re.search(r"MOVI2.mp4 is (a file of the source|the source itself); choose", capsys.readouterr().err)
    assert clips.indices(tmp_path / "card" / "MOVI2.mp4") == [0, 1, 2]
