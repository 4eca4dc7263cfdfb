"""Events as short files: the right pictures with their sound, from one file or across two."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from streamseg.app.clips import Clips, clip_name, legs_of
from streamseg.errors import ConfigError, SinkOpenError, SinkWriteError
from streamseg.lanes.events import Event
from streamseg.sinks.cut import Stretch, copy_cut
from streamseg.sources import open_source
from streamseg.sources.drive import Leg
from streamseg.sources.grouping import Piece
from tests import clips
from tests.test_drive import drained, film

# A keyframe a second, and pictures that are not in the order in which they are coded.
CODING: dict[str, Any] = {
    "options": {"preset": "superfast", "g": "30", "bf": "2", "keyint_min": "30", "sc_threshold": "0"},
    "size_wh": (160, 90),
}


def event(begin_s: float, end_s: float, kind: str = "departure", side: str | None = "left") -> Event:
    return Event(kind, side, begin_s, begin_s, end_s)


def sound_span(path: Path) -> tuple[float, float]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        times = [float(p.pts * p.time_base) for p in container.demux(stream) if p.pts is not None]
    return times[0], times[-1]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
def test_a_cut_begins_at_the_keyframe_before(tmp_path: Path, suffix: str) -> None:
    source = film(tmp_path, f"a.{suffix}", frames=180, **CODING, sound="aac")
    target = tmp_path / f"clip.{'mkv' if suffix == 'ts' else suffix}"
    lead_s = copy_cut([Stretch(source, 2.5, 4.2)], target)
    assert lead_s == pytest.approx(0.5, abs=0.1)
    found = clips.indices(target)
    # What is decoded before the end is in it: with two pictures that overtake, up to three more.
    assert found[0] == 60
    assert found == list(range(60, found[-1] + 1))
    assert 125 <= found[-1] <= 129
    assert [float(b - a) for a, b in zip(clips.times(target), clips.times(target)[1:], strict=False)] == pytest.approx(
        [1 / 30] * (len(found) - 1), abs=2e-3
    )
    first, last = sound_span(target)
    assert first == pytest.approx(float(clips.times(target)[0]), abs=0.06)
    assert last == pytest.approx(2.2, abs=0.1)


def test_nothing_is_encoded(tmp_path: Path) -> None:
    source = film(tmp_path, "a.mp4", frames=90, **CODING)
    copy_cut([Stretch(source, 1.0, 2.0)], tmp_path / "clip.mp4")
    pieces = clips.packets(source, "video")
    for packet in clips.packets(tmp_path / "clip.mp4", "video"):
        assert packet in pieces


def test_a_turned_picture_stays_turned(tmp_path: Path) -> None:
    source = film(tmp_path, "a.mp4", frames=60, **CODING)
    turned = tmp_path / "turned.mp4"
    data = source.read_bytes()
    upright = (0x00010000).to_bytes(4, "big") + bytes(12) + (0x00010000).to_bytes(4, "big")
    quarter = bytes(4) + (0x00010000).to_bytes(4, "big") + bytes(4) + (0xFFFF0000).to_bytes(4, "big") + bytes(4)
    at = data.index(upright, data.index(b"tkhd"))
    turned.write_bytes(data[:at] + quarter + data[at + len(quarter) :])
    copy_cut([Stretch(turned, 0.5, 1.5)], tmp_path / "clip.mp4")
    for path in (turned, tmp_path / "clip.mp4"):
        with av.open(str(path)) as container:
            assert abs(next(container.decode(video=0)).rotation) == 90


@pytest.mark.parametrize("begins_s", [2.0, 1.9], ids=["seamless", "overlapping"])
@pytest.mark.parametrize("overtaking", [0, 3])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_cut_across_two_files(suffix: str, overtaking: int, begins_s: float, tmp_path: Path) -> None:
    coding = {**CODING, "options": {**CODING["options"], "bf": str(overtaking)}}
    one = film(tmp_path, f"1.{suffix}", frames=60, **coding, sound="aac")
    two = film(tmp_path, f"2.{suffix}", begin=60, frames=60, **coding, sound="aac")
    target = tmp_path / ("clip.mkv" if suffix == "ts" else f"clip.{suffix}")
    lead_s = copy_cut([Stretch(one, 1.4, math.inf), Stretch(two, 0.0, 0.5, shift_s=begins_s)], target)
    assert lead_s == pytest.approx(0.4, abs=0.05)
    with av.open(str(target)) as container:
        decoded = [(p.dts, p.pts) for p in container.demux(video=0) if p.size and p.dts is not None]
    steps = [after - before for (before, _), (after, _) in itertools.pairwise(decoded)]
    assert min(steps) > 0, "decoding times only go on"
    assert all(dts <= pts for dts, pts in decoded)
    found = clips.indices(target)
    assert found == list(range(30, found[-1] + 1))
    assert 74 <= found[-1] <= 79
    times = [float(time) for time in clips.times(target)]
    assert times == pytest.approx([times[0] + index / 30 for index in range(len(times))], abs=3e-3)
    assert sound_span(target)[1] == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize("text", ["", "no video"])
def test_a_file_that_is_gone_or_broken_leaves_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.mp4").write_text(text)
    with pytest.raises(SinkWriteError, match="cannot cut clip"):
        copy_cut([Stretch(tmp_path / "a.mp4", 0, 1)], tmp_path / "clip.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_names_sort_by_time_and_say_what_happened() -> None:
    events = [event(3.04, 4), event(71.96, 73, "person in lane", None), event(36000, 36001, "cut-in", "right")]
    names = [clip_name(one) for one in events]
    assert names == ["00h00m03.0s_departure-left", "00h01m11.9s_person-in-lane", "10h00m00.0s_cut-in-right"]
    assert names == sorted(names)


def test_clips_wait_for_the_seconds_after_the_event(tmp_path: Path) -> None:
    source = film(tmp_path, "a.mp4", frames=240, **CODING)
    cutter = Clips(tmp_path / "clips", legs=legs_of(open_closed(source), source), name="a*?", before_s=1.5, after_s=1.0)
    cutter.add(event(3.0, 3.5))
    cutter.add(event(7.0, 7.5, "lane change", "right"))
    cutter.cut_until(4.4)
    assert cutter.written == {}
    cutter.cut_until(4.5)
    ((first,),) = cutter.written.values()
    assert first.name == "a-_00h00m03.0s_departure-left.mp4"
    assert clips.indices(first)[0] == 30
    cutter.finish()
    assert clips.indices(cutter.written[event(7.0, 7.5, "lane change", "right")][0])[-1] == 239
    assert cutter.notices == []


def open_closed(path: Path) -> object:
    source = open_source(str(path))
    source.close()
    return source


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_exact_clips(tmp_path: Path, suffix: str) -> None:
    source = film(tmp_path, f"a.{suffix}", frames=180, **CODING, sound="aac")
    legs = legs_of(open_closed(source), source)
    cutter = Clips(tmp_path / "clips", legs=legs, before_s=0.5, after_s=0.5, exact=True)
    cutter.add(event(2.5, 3.0))
    cutter.finish()
    ((clip,),) = cutter.written.values()
    assert cutter.notices == []
    assert clips.indices(clip) == list(range(60, 105))
    assert float(clips.times(clip)[0]) == pytest.approx(0, abs=0.034)
    first, last = sound_span(clip)
    assert first == pytest.approx(0, abs=0.06)
    assert last == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize("exact", [False, True])
def test_clips_of_a_drive_span_its_files_and_cameras(tmp_path: Path, exact: bool) -> None:
    for second in (0, 2):
        film(tmp_path, f"20240501_12000{second}_F.mp4", begin=30 * second, frames=60, **CODING, sound="aac")
        film(tmp_path, f"20240501_12000{second}_R.mp4", begin=30 * second, frames=60, **CODING)
    source = open_source(str(tmp_path))
    drained(source)
    cutter = Clips(tmp_path / "clips", legs=legs_of(source, tmp_path), before_s=0.5, after_s=0.5, exact=exact,
                   others=source.drive.others)  # fmt: skip
    cutter.add(event(1.6, 2.2))
    cutter.finish()
    assert cutter.notices == []
    ((front, rear),) = cutter.written.values()
    assert (front.name, rear.name) == ("00h00m01.6s_departure-left.mp4", "00h00m01.6s_departure-left_rear.mp4")
    for clip in (front, rear):
        found = clips.indices(clip)
        assert found == list(range(33 if exact else 30, found[-1] + 1))
        assert 80 <= found[-1] <= (80 if exact else 84)


def test_files_coded_in_another_way_are_encoded_anew(tmp_path: Path) -> None:
    one = film(tmp_path, "1.mp4", frames=60, **CODING)
    two = film(tmp_path, "2.mp4", begin=60, frames=60, codec="mpeg4", size_wh=(160, 90))
    legs = [Leg(one, 0, 0, 2), Leg(two, 2, 2, 4)]
    cutter = Clips(tmp_path / "clips", legs=lambda: legs, before_s=0.5, after_s=0.5)
    cutter.add(event(1.5, 2.5))
    cutter.finish()
    ((clip,),) = cutter.written.values()
    assert clips.indices(clip) == list(range(30, 90))
    assert cutter.notices == [f"{clip.name} is encoded anew: it spans two files that are coded differently"]


def test_one_clip_that_fails_does_not_end_the_others(tmp_path: Path) -> None:
    good = film(tmp_path, "a.mp4", frames=60, **CODING)
    others = {"rear": [Piece(tmp_path / "gone.mp4", 0.0, 2.0)]}
    cutter = Clips(tmp_path / "clips", legs=lambda: [Leg(good, 0, 0, 2)], others=others)
    cutter.add(event(0.5, 1.0))
    cutter.finish()
    assert [len(paths) for paths in cutter.written.values()] == [1]
    assert cutter.notices == ["cannot cut 00h00m00.5s_departure-left_rear.mp4: no such file or directory"]


def test_long_events_are_cut_off(tmp_path: Path) -> None:
    source = film(tmp_path, "a.mp4", frames=300, **CODING)
    cutter = Clips(tmp_path / "clips", legs=lambda: [Leg(source, 0, 0, 10)], before_s=0, after_s=1, longest_s=3)
    cutter.add(event(2, 9, "lanes lost", None))
    cutter.finish()
    ((clip,),) = cutter.written.values()
    assert clips.indices(clip)[0] >= 60
    assert clips.indices(clip)[-1] <= 184


def test_what_no_clips_can_be_cut_from(tmp_path: Path) -> None:
    source = open_source("test:?size=64x64&frames=3")
    with pytest.raises(ConfigError, match="--clips cuts events out of video files"):
        legs_of(source, Path("test:"))
    source.close()
    (tmp_path / "file").touch()
    with pytest.raises(SinkOpenError, match="cannot write clips into"):
        Clips(tmp_path / "file", legs=list)


@pytest.mark.parametrize("exact", [False, True])
def test_the_creation_time_moves_with_the_cut(exact: bool, tmp_path: Path) -> None:
    source = film(tmp_path, "a.mp4", frames=180, **CODING, metadata={"creation_time": "2024-05-01T12:00:00Z"})
    cutter = Clips(tmp_path / "clips", legs=lambda: [Leg(source, 0, 0, 6)], before_s=0, after_s=0, exact=exact)
    cutter.add(event(3.0, 4.0))
    cutter.finish()
    ((clip,),) = cutter.written.values()
    with av.open(str(clip)) as container:
        assert container.metadata["creation_time"].startswith("2024-05-01T12:00:03")
        assert container.streams.video[0].average_rate == Fraction(30)
