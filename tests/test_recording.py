"""Recordings: nothing is lost or doubled at a cut, names and times are true, disks fill up, runs are killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamseg.engine import Backoff, Reopening
from streamseg.errors import ConfigError, SinkAbsentError, SinkOpenError, SinkWriteError
from streamseg.frame import Frame, Output, Packet, Track, VideoInfo
from streamseg.sinks.kept import KeptTracks
from streamseg.sinks.partial import Named
from streamseg.sinks.recording import RecordingSink
from streamseg.sinks.retention import Recordings
from streamseg.sources import open_source
from streamseg.units import parse_duration_s, parse_size_bytes, size_words
from tests import clips

START_S = 1_795_229_160.25  # 2026-11-21 02:46:00.25 UTC
TICKS = Fraction(1, 90000)


def live_info(**changes: Any) -> VideoInfo:
    return clips.info(**{"live": True, "time_base": TICKS, "rate": Fraction(30), **changes})


def live_frame(index: int, at_s: float, **changes: Any) -> Frame:
    """Captured when it is shown: `recorder` tells the wall time from that."""
    return clips.frame(index, pts=round(at_s * 90000), time_base=TICKS, captured_at=at_s, **changes)


def recorder(path: Path, info: VideoInfo | None = None, **changes: Any) -> RecordingSink:
    values: dict[str, Any] = {
        "min_free_bytes": 0,
        "encoder": "libx264:preset=ultrafast",
        "wall_time_s": lambda at_s: START_S + at_s,
    }
    return RecordingSink(str(path), info or live_info(), **{**values, **changes})


def record(sink: RecordingSink, frames: int, *, per_s: float = 30, first_s: float = 0) -> None:
    for index in range(frames):
        sink.write(Output(live_frame(index, first_s + index / per_s)))


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def seconds(path: Path, kind: str) -> list[Fraction]:
    """Presentation times of a stream's packets, in the order of the file."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [packet.pts * Fraction(packet.time_base) for packet in container.demux(stream) if packet.size]


class Clip:
    """A file's frames and sound as a live source gives them."""

    def __init__(self, path: Path) -> None:
        self.source = open_source(str(path))
        self.info = replace(self.source.info, live=True)
        self.items: list[tuple[Frame, list[Packet]]] = []
        while (frame := self.source.read()) is not None:
            at_s = frame.seconds
            self.items.append((replace(frame, captured_at=at_s), self.source.take_packets()))
        self.rest = self.source.take_packets()


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Clip]]:
    path = tmp_path_factory.mktemp("talk") / "in.mkv"
    clips.make_clip(path, frames=12 * 20, size_wh=(160, 96), rate=Fraction(12), sound="aac")
    clip = Clip(path)
    yield path, clip
    clip.source.close()


@pytest.mark.parametrize(("suffix", "lag"), [("mkv", -5), ("mkv", 0), ("mkv", 6), ("mp4", 6)])
def test_twenty_files_hold_everything_once_and_in_sync(
    suffix: str, lag: int, talk: tuple[Path, Clip], tmp_path: Path
) -> None:
    """The sound travels `lag` frames behind the picture that it belongs to."""
    path, clip = talk
    sink = recorder(tmp_path / f"cam.{suffix}", clip.info, segment_s=1)
    sound = [packet for _, packets in clip.items for packet in packets] + clip.rest
    given = 0
    for frame, _ in clip.items:
        until_s = frame.seconds - lag / 12
        travels = given
        while travels < len(sound) and sound[travels].payload.pts * sound[travels].payload.time_base <= until_s:
            travels += 1
        sink.write(Output(frame), sound[given:travels])
        given = travels
    sink.finish(sound[given:])
    sink.close()
    made = [tmp_path / name for name in files(tmp_path)]
    assert len(made) == 20
    assert sink.counts["files"] == 20
    assert [index for file in made for index in clips.indices(file)] == list(range(len(clip.items)))
    pictures, blocks = seconds(path, "video"), seconds(path, "audio")
    # The encoder's first block begins before the first picture: a file that has begun with that cannot take it.
    left_out = sum(time < pictures[0] for time in blocks) if lag > 0 else 0
    assert sink.counts.get("packets from before the file left out", 0) == left_out <= 1
    blocks = blocks[left_out:]
    assert [packet for file in made for packet in clips.packets(file)] == clips.packets(path)[left_out:]
    tick_s = Fraction(1, 500)
    for file in made:
        shown, heard = seconds(file, "video"), seconds(file, "audio")
        assert shown[0] <= (tick_s if file != made[0] else Fraction(1, 2))
        here = pictures[: len(shown)], blocks[: len(heard)]
        pictures, blocks = pictures[len(shown) :], blocks[len(heard) :]
        origin = here[0][0] - shown[0]
        for got, wanted in ((shown, here[0]), (heard, here[1])):
            assert max(abs(g + origin - w) for g, w in zip(got, wanted, strict=True)) <= tick_s
        with av.open(str(file)) as container:
            assert next(container.demux(video=0)).is_keyframe


def test_name_and_metadata_say_when_it_began(tmp_path: Path) -> None:
    sink = recorder(tmp_path / "cam.mkv", segment_s=2)
    record(sink, 150, first_s=10)
    sink.finish()
    sink.close()
    assert files(tmp_path) == [
        "cam-20261121T024610Z.mkv",
        "cam-20261121T024612Z.mkv",
        "cam-20261121T024614Z.mkv",
    ]
    for index, name in enumerate(files(tmp_path)):
        with av.open(str(tmp_path / name)) as container:
            assert container.metadata["creation_time"].startswith(f"2026-11-21T02:46:1{2 * index}.25")
            assert container.start_time == 0


def test_default_clock_is_the_one_on_the_wall(tmp_path: Path) -> None:
    """Two seconds ago by the monotonic clock is two seconds ago by `date`."""
    import time

    before_s = time.time()
    sink = recorder(tmp_path / "cam.mkv", wall_time_s=None)
    sink.write(Output(replace(live_frame(0, 0), captured_at=time.monotonic() - 2)))
    sink.finish()
    sink.close()
    made = subprocess.run(["date", "-u", "-d", f"@{int(before_s - 2)}", "+%Y%m%dT%H%M"], capture_output=True, text=True)
    later = subprocess.run(["date", "-u", "-d", f"@{int(time.time() - 2)}", "+%Y%m%dT%H%M"], capture_output=True,
                           text=True)  # fmt: skip
    assert files(tmp_path)[0][4:17] in (made.stdout.strip(), later.stdout.strip())


def test_a_name_that_is_taken_is_not_written_over(tmp_path: Path) -> None:
    for _ in range(2):
        sink = recorder(tmp_path / "cam.mkv")
        record(sink, 5)
        sink.finish()
        sink.close()
    assert files(tmp_path) == ["cam-20261121T024600Z-2.mkv", "cam-20261121T024600Z.mkv"]
    assert all(clips.indices(tmp_path / name) == list(range(5)) for name in files(tmp_path))


def test_file_has_its_name_from_the_first_byte_and_a_failed_run_keeps_it(tmp_path: Path) -> None:
    sink = recorder(tmp_path / "cam.mkv")
    assert files(tmp_path) == []
    record(sink, 20)
    assert files(tmp_path) == ["cam-20261121T024600Z.mkv"]
    sink.close()
    assert clips.indices(tmp_path / "cam-20261121T024600Z.mkv") == list(range(20))


def test_without_a_frame_nothing_is_left(tmp_path: Path) -> None:
    sink = recorder(tmp_path / "cam.mkv")
    sink.finish()
    sink.close()
    assert files(tmp_path) == []
    assert sink.notices == ("no frame came, so nothing was written",)


def test_times_rise_and_keyframes_come_whatever_the_rate(tmp_path: Path) -> None:
    """Bursts within a millisecond, a picture twice at one time, and a slate twice a second."""
    times = [0.0, 0.0001, 0.0002, 0.0002, 0.1] + [0.1 + n / 2 for n in range(1, 20)]
    sink = recorder(tmp_path / "cam.mkv")
    for index, at_s in enumerate(times):
        sink.write(Output(live_frame(index, at_s)))
    sink.finish()
    sink.close()
    (path,) = tmp_path.iterdir()
    found = seconds(path, "video")
    assert all(later > earlier for earlier, later in pairwise(found))
    assert max(abs(float(f) - t) for f, t in zip(found, times, strict=True)) < 0.004
    with av.open(str(path)) as container:
        keys = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.size and p.is_keyframe]
    assert max(b - a for a, b in zip(keys, [*keys[1:], times[-1]], strict=True)) <= 2.01


def test_sound_from_before_the_first_picture(tmp_path: Path) -> None:
    clip = Clip(clips.make_clip(tmp_path / "in.mkv", frames=60, sound="aac"))
    out = tmp_path / "out"
    out.mkdir()
    sink = recorder(out / "cam.mkv", clip.info)
    waiting: list[Packet] = []
    for frame, packets in clip.items:
        waiting += packets
        if frame.index >= 30:  # one second without a picture, while the model warms up
            sink.write(Output(frame), waiting)
            waiting = []
    sink.finish(waiting + clip.rest)
    sink.close()
    clip.source.close()
    (path,) = out.iterdir()
    assert clips.packets(path) == clips.packets(tmp_path / "in.mkv")
    apart = seconds(path, "video")[0] - seconds(path, "audio")[0]
    assert abs(apart - (1 - seconds(tmp_path / "in.mkv", "audio")[0])) <= Fraction(1, 500)
    assert path.name == "cam-20261121T024600Z.mkv"


def shifted(packet: Packet, by_s: int) -> Packet:
    copy = av.Packet(bytes(packet.payload))
    ticks = round(by_s / Fraction(packet.payload.time_base))
    copy.pts, copy.dts = packet.payload.pts + ticks, packet.payload.dts + ticks
    copy.time_base, copy.duration = packet.payload.time_base, packet.payload.duration
    return Packet(packet.track, copy)


def test_reconnect_leaves_a_gap_in_the_sound_and_no_offset(tmp_path: Path) -> None:
    """Seven seconds away: only the slate is shown, then both resume; cuts fall into the gap and behind it."""
    clip = Clip(clips.make_clip(tmp_path / "in.mkv", frames=90, sound="aac"))
    out = tmp_path / "out"
    out.mkdir()
    sink = recorder(out / "cam.mkv", clip.info, segment_s=2)
    waiting: list[Packet] = []
    for frame, packets in clip.items:
        sink.write(Output(frame), packets)
    for slate in range(6):
        at = clip.items[-1][0].pts + (slate + 1) * 1000
        sink.write(Output(replace(clip.items[0][0], pts=at)))
    for frame, packets in clip.items:
        sink.write(
            Output(replace(frame, pts=frame.pts + 10_000, index=frame.index + 90)), [shifted(p, 10) for p in packets]
        )
    sink.finish(waiting)
    sink.close()
    clip.source.close()
    made = sorted(out.iterdir())
    assert sum(len(clips.indices(path)) for path in made) == 186
    given = [p for _, packets in clip.items for p in packets]
    assert sum(len(clips.packets(path)) for path in made if _has_sound(path)) == 2 * len(given)
    last = made[-1]
    with av.open(str(last)) as container:
        heard = [
            block.pts * Fraction(block.time_base) for block in container.demux(audio=0) if block.size
        ]  # every packet's own time, against the pictures' numbers
    first = clips.indices(last)[0]
    shown = seconds(last, "video")[0]
    ends = float(given[-1].payload.pts * given[-1].payload.time_base)
    assert abs(float(heard[-1] - shown) - (ends - first / 30)) <= 0.002


def _has_sound(path: Path) -> bool:
    with av.open(str(path)) as container:
        return any(packet.size for packet in container.demux(audio=0))


def test_sound_of_another_kind_begins_a_new_file(tmp_path: Path) -> None:
    one = Clip(clips.make_clip(tmp_path / "one.mkv", frames=30, sound="aac"))
    two = Clip(clips.make_clip(tmp_path / "two.mkv", frames=30, sound="libopus"))
    out = tmp_path / "out"
    out.mkdir()
    sink = recorder(out / "cam.mkv", one.info)
    for frame, packets in one.items:
        sink.write(Output(frame), packets)
    one.source.close()  # as a reconnect does: what was told of its sound must not be needed any more
    for frame, packets in two.items:
        later = replace(frame, pts=frame.pts + 1000, index=frame.index + 30, captured_at=frame.seconds + 1)
        sink.write(Output(later), [shifted(packet, 1) for packet in packets])
    sink.finish([shifted(packet, 1) for packet in two.rest])
    sink.close()
    two.source.close()
    made = sorted(out.iterdir())
    assert [av.open(str(path)).streams.audio[0].codec.canonical_name for path in made] == ["aac", "opus"]
    assert sum(len(clips.indices(path)) for path in made) == 60
    assert clips.packets(made[1]) == clips.packets(tmp_path / "two.mkv")


def test_sound_with_headers_of_its_own_behind_a_description_that_was_made_up(tmp_path: Path) -> None:
    """As broadcast sound comes out of another process: by the template's word it has no configuration."""
    sent = Clip(clips.make_clip(tmp_path / "in.ts", frames=60, sound="aac"))
    described = open_source(str(clips.make_clip(tmp_path / "in.mkv", frames=2, sound="aac")))
    template = described.info.tracks[0].template
    template.codec_context.extradata = None
    track = Track(1, "audio", "aac", template)
    out = tmp_path / "out"
    out.mkdir()
    sink = recorder(out / "cam.mkv", replace(sent.info, tracks=(track,)), segment_s=1)
    for frame, packets in sent.items:
        sink.write(Output(frame), [Packet(track, packet.payload) for packet in packets])
    sink.finish([Packet(track, packet.payload) for packet in sent.rest])
    sink.close()
    sent.source.close()
    described.close()
    assert [p for path in sorted(out.iterdir()) for p in clips.packets(path)] == [
        packet[7:] for packet in clips.packets(tmp_path / "in.ts")
    ]


@pytest.mark.parametrize("codec", ["pcm_alaw", "pcm_mulaw"])
def test_telephone_sound_of_network_cameras_is_recorded(codec: str, tmp_path: Path) -> None:
    """The samples are those that FFmpeg's own program decodes."""
    wave = (20_000 * np.sin(np.arange(16_000) / 9)).astype("<i2")
    with av.open(str(tmp_path / "in.mov"), "w") as container:
        picture: Any = container.add_stream("libx264", rate=30)
        picture.width, picture.height, picture.pix_fmt = 320, 180, "yuv420p"
        voice: Any = container.add_stream(codec, rate=8000, layout="mono")
        for index in range(60):
            container.mux(picture.encode(clips.video_frame(index, 320, 180, "yuv420p")))
        for start in range(0, 16_000, 160):
            block = av.AudioFrame.from_ndarray(wave[None, start : start + 160], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = 8000, start, Fraction(1, 8000)
            container.mux(voice.encode(block))
        container.mux([*picture.encode(None), *voice.encode(None)])
    clip = Clip(tmp_path / "in.mov")
    out = tmp_path / "out"
    out.mkdir()
    sink = recorder(out / "cam.mkv", clip.info, segment_s=1)
    for frame, packets in clip.items:
        sink.write(Output(frame), packets)
    sink.finish(clip.rest)
    sink.close()
    clip.source.close()
    assert not sink.notices
    found = []
    for path in sorted(out.iterdir()):
        with av.open(str(path)) as container:
            found += [block.to_ndarray()[0] for block in container.decode(audio=0)]
    with av.open(str(tmp_path / "in.mov")) as container:
        wanted = [block.to_ndarray()[0] for block in container.decode(audio=0)]
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(wanted))
    assert np.abs(np.concatenate(found) - wave).max() < 1000


def old(folder: Path, name: str, *, days: float, size: int = 1000) -> Path:
    path = folder / name
    path.write_bytes(bytes(size))
    when = __import__("time").time() - days * 86400
    os.utime(path, (when, when))
    return path


OTHERS = ["cam.mkv", "cam-1.mkv", "cam-20200101T000000Z.mp4", "cam-front-20200101T000000Z.mkv", "notes.txt",
          "cam-20200101T000000Z.mkv.bak", "cam-20200101T000000.mkv", "xcam-20200101T000000Z.mkv"]  # fmt: skip


def test_old_recordings_go_and_nothing_else(tmp_path: Path) -> None:
    others = [old(tmp_path, name, days=4000) for name in OTHERS]
    link = tmp_path / "cam-20200102T000000Z.mkv"
    link.symlink_to(others[0])
    gone = [old(tmp_path, f"cam-20200103T00000{n}Z.mkv", days=8) for n in range(3)]
    gone.append(old(tmp_path, "cam-20200103T000000Z-2.mkv", days=8))
    stays = old(tmp_path, "cam-20200104T000000Z.mkv", days=6)
    sink = recorder(tmp_path / "cam.mkv", segment_s=600, keep_for_s=7 * 86400)
    record(sink, 3)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in [*others, link, stays])
    assert sink.counts == {"files": 1, "files removed": 4}
    sink.close()


def test_room_is_limited_oldest_first(tmp_path: Path) -> None:
    made = [old(tmp_path, f"cam-202001{day:02}T000000Z.mkv", days=1, size=1_000_000) for day in range(1, 6)]
    sink = recorder(tmp_path / "cam.mkv", segment_s=600, max_bytes=3_500_000)
    assert [path.exists() for path in made] == [False, False, True, True, True]
    sink.close()


def test_a_recording_that_another_run_writes_is_not_removed(tmp_path: Path) -> None:
    other = Named(tmp_path / "cam-20200101T000000Z.mkv")
    other.path.write_bytes(bytes(4_000_000))
    done = old(tmp_path, "cam-20200102T000000Z.mkv", days=1)
    recorder(tmp_path / "cam.mkv", segment_s=600, max_bytes=3_500_000).close()
    assert other.path.exists()
    assert not done.exists()
    other.keep()
    recorder(tmp_path / "cam.mkv", segment_s=600, max_bytes=3_500_000).close()
    assert not other.path.exists()


class Clocks:
    """That on the wall, which may be set, and the monotonic one."""

    def __init__(self) -> None:
        self.wall_s, self.passed_s = 1_700_000_000.0, 50.0

    def go(self, seconds: float, *, set_by: float = 0.0) -> None:
        self.passed_s += seconds
        self.wall_s += seconds + set_by

    def recordings(self, folder: Path, **limits: Any) -> Recordings:
        limits = {"keep_for_s": None, "max_bytes": None, **limits}
        clocks = {"now_s": lambda: self.wall_s, "clock": lambda: self.passed_s}
        return Recordings(folder / "cam.mkv", min_free_bytes=0, **limits, **clocks)

    def file(self, folder: Path, name: str, size: int = 0) -> Path:
        path = folder / name
        path.write_bytes(bytes(size))
        os.utime(path, (self.wall_s, self.wall_s))
        return path


@pytest.mark.parametrize("years", [-30, 30])
def test_a_clock_that_is_set_makes_no_recording_old(years: int, tmp_path: Path) -> None:
    clocks, week_s = Clocks(), 7 * 86400
    before = clocks.file(tmp_path, "cam-20231101T000000Z.mkv")
    kept = clocks.recordings(tmp_path, keep_for_s=week_s)
    clocks.go(3600)
    ours = clocks.file(tmp_path, "cam-20231114T230000Z.mkv")
    assert kept.tidy([ours]) == []
    clocks.go(60, set_by=years * 365 * 86400)
    for _ in range(5):
        assert kept.tidy([]) == [], "a moment ago it was recorded"
        clocks.go(3600)
    clocks.go(5, set_by=-years * 365 * 86400)  # it was a mistake
    clocks.go(6 * 86400)
    assert kept.tidy([]) == []
    clocks.go(86400)
    assert kept.tidy([]) == [before, ours], "and a week later they go"


def test_a_clock_that_was_set_is_believed_after_a_day(tmp_path: Path) -> None:
    """It stood in 1970 when the machine was switched on."""
    clocks = Clocks()
    before = clocks.file(tmp_path, "cam-20231101T000000Z.mkv")
    clocks.wall_s = 100.0
    kept = clocks.recordings(tmp_path, keep_for_s=7 * 86400)
    clocks.go(60, set_by=1_700_000_000 + 8 * 86400)
    assert kept.tidy([]) == []
    clocks.go(86400)
    assert kept.tidy([]) == [before]


def test_what_was_just_recorded_is_the_youngest_whatever_its_name_says(tmp_path: Path) -> None:
    clocks = Clocks()
    before = [clocks.file(tmp_path, f"cam-2023110{day}T000000Z.mkv", 1000) for day in range(1, 4)]
    kept = clocks.recordings(tmp_path, max_bytes=3000)
    clocks.wall_s = 100.0
    ours = clocks.file(tmp_path, "cam-19700101T000140Z.mkv", 1000)
    assert kept.tidy([ours]) == before[:1]
    following = clocks.file(tmp_path, "cam-19700101T001140Z.mkv", 1000)
    clocks.go(600)
    assert kept.tidy([following]) == before[1:2]
    assert ours.exists()


def test_without_a_limit_nothing_is_removed_however_full_the_disk(tmp_path: Path) -> None:
    made = old(tmp_path, "cam-20200101T000000Z.mkv", days=4000)
    with pytest.raises(
        SinkAbsentError, match=r"the disk has less than .* left, which stay free; make room, or keep fewer .*--keep"
    ):
        recorder(tmp_path / "cam.mkv", segment_s=600, min_free_bytes=10**18)
    assert made.exists()


def test_nothing_is_removed_to_make_room(tmp_path: Path) -> None:
    """Something else fills the disk: only what is older than the user said goes."""
    aged = old(tmp_path, "cam-20200101T000000Z.mkv", days=8)
    young = [old(tmp_path, f"cam-20200102T00000{n}Z.mkv", days=6) for n in range(3)]
    with pytest.raises(SinkAbsentError, match="make room"):
        recorder(tmp_path / "cam.mkv", segment_s=600, min_free_bytes=10**18, max_bytes=10**15, keep_for_s=7 * 86400)
    assert not aged.exists()
    assert all(path.exists() for path in young)


def test_a_file_that_waits_for_its_sound_is_not_removed(talk: tuple[Path, Clip], tmp_path: Path) -> None:
    """Room for nothing: the file of before goes only once it is complete."""
    _, clip = talk
    sink = recorder(tmp_path / "cam.mkv", clip.info, segment_s=1, max_bytes=1)
    sound = [packet for _, packets in clip.items[:12] for packet in packets]
    for index, (frame, _) in enumerate(clip.items[:12]):
        sink.write(Output(frame), sound[index : index + 1])
    (first,) = files(tmp_path)
    sink.write(Output(clip.items[12][0]))
    sink.write(Output(clip.items[13][0]), sound[12:])
    assert first in files(tmp_path)
    assert not sink.counts.get("files removed")
    sink.close()
    assert clips.indices(tmp_path / first) == list(range(12))
    begin = clip.items[12][0].seconds
    wanted = [packet for packet in sound if packet.payload.pts * packet.payload.time_base < begin]
    assert len(seconds(tmp_path / first, "audio")) == len(wanted) > 40


def test_room_that_runs_out_meanwhile_ends_the_recording_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamseg.sinks.recording._TIDY_EVERY_S", 0.0)
    free = [10**9]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 0, free[0]))  # type: ignore[attr-defined]
    older = old(tmp_path, "cam-20200101T000000Z.mkv", days=1)
    sink = recorder(tmp_path / "cam.mkv", segment_s=600, max_bytes=10**9, min_free_bytes=10**8)
    record(sink, 10)
    assert older.exists()
    free[0] = 10**7
    with pytest.raises(SinkWriteError, match=r"the disk has less than 100.0 MB left, which stay free; make room"):
        sink.write(Output(live_frame(10, 1)))
    sink.close()
    assert older.exists()
    assert clips.indices(tmp_path / "cam-20261121T024600Z.mkv") == list(range(10))


def test_one_file_never_outgrows_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit smaller than a file of full length ends files early."""
    monkeypatch.setattr("streamseg.sinks.recording._TIDY_EVERY_S", 0.0)
    sink = recorder(tmp_path / "cam.mkv", segment_s=3600, max_bytes=1_000_000)
    rng = np.random.default_rng(0)
    largest = 0
    for index in range(200):
        planes = np.minimum(clips.planes(index, 320, 180) // 2 + rng.integers(0, 20, (270, 320), np.uint8), 235)
        sink.write(Output(live_frame(index, index / 30, planes=planes)))
        largest = max(largest, sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert sink.counts["files removed"] > 2
    assert 500_000 < largest < 1_300_000  # up to what the encoder puts out in a second, while a cluster is open
    sink.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk: mounting a tmpfs needs root on Linux")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_full_disk_ends_the_file_and_a_new_sink_goes_on(suffix: str, small_disk: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 60, (540, 640), np.uint8) for _ in range(4)]

    def picture(index: int) -> Output:
        planes = np.minimum(clips.planes(index, 640, 360), 190) + noise[index % 4]
        return Output(live_frame(index, index / 30, planes=planes))

    sink = recorder(small_disk / f"cam.{suffix}", live_info(width=640, height=360), segment_s=2)
    with pytest.raises(SinkWriteError, match="no space left on device") as caught:  # noqa: PT012
        for index in range(3000):
            sink.write(picture(index))
        sink.finish()
    sink.close()
    assert "\n" not in str(caught.value)
    made = files(small_disk)
    found = [number for name in made for number in clips.indices(small_disk / name, torn=True)]
    assert len(found) > 20
    assert found == list(range(len(found)))
    (small_disk / made[0]).unlink()
    left = set(files(small_disk))
    again = recorder(small_disk / f"cam.{suffix}", live_info(width=640, height=360), segment_s=2)
    for later in range(10):
        again.write(picture(index + 1 + later))
    again.finish()
    again.close()
    (new,) = set(files(small_disk)) - left
    assert clips.indices(small_disk / new) == list(range(index + 1, index + 11))


def fill(disk: Path) -> Path:
    """Leave not a byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_disk_that_is_full_when_the_file_is_completed(suffix: str, small_disk: Path) -> None:
    sink = recorder(small_disk / f"cam.{suffix}", quality="low")
    record(sink, 140)
    (path,) = small_disk.iterdir()
    size = path.stat().st_size
    fill(small_disk)
    with pytest.raises(SinkWriteError, match="no space left on device"):
        sink.finish()
    sink.close()
    assert path.stat().st_size >= size
    found = clips.indices(path, torn=True)
    assert found == list(range(len(found)))
    assert len(found) >= (90 if suffix == "mkv" else 60)


def test_recording_goes_on_by_itself_when_there_is_room_again(small_disk: Path) -> None:
    sink = Reopening(
        lambda _: recorder(small_disk / "cam.mkv"), name="cam.mkv", backoff=Backoff(first_s=1e-6, longest_s=1e-6)
    )
    filler = None
    for index in range(600):
        sink.write(Output(live_frame(index, index / 30)))
        if index == 150:
            filler = fill(small_disk)
        if filler is not None and filler.exists() and sink.counts.get("lost", 0) >= 1:
            filler.unlink()
    sink.finish()
    sink.close()
    made = [small_disk / name for name in files(small_disk)]
    found = [clips.indices(path, torn=True) for path in made]
    assert len(made) == 2
    assert found[0] == list(range(len(found[0])))
    assert len(found[0]) >= 90
    assert found[1] == list(range(found[1][0], 600))
    assert found[1][0] < 250


def test_folder_that_goes_away_is_a_failed_write(tmp_path: Path) -> None:
    folder = tmp_path / "usb"
    folder.mkdir()
    sink = recorder(folder / "cam.mkv", segment_s=1)
    record(sink, 3)
    shutil.rmtree(folder)
    with pytest.raises(SinkWriteError, match="no such file or directory"):
        sink.write(Output(live_frame(9, 5)))
    sink.close()
    with pytest.raises(SinkOpenError, match="does not exist; make it first"):
        recorder(folder / "cam.mkv")


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.test_recording import *
sink = recorder(Path(sys.argv[2]), segment_s=4)
record(sink, 330)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_killed_run_leaves_files_that_play(suffix: str, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", WRITER, root, str(tmp_path / f"cam.{suffix}")])
    assert done.returncode == -signal.SIGKILL
    made = files(tmp_path)
    assert made == [f"cam-20261121T02460{second}Z.{suffix}" for second in (0, 4, 8)]
    assert clips.indices(tmp_path / made[0]) == list(range(120))
    assert clips.indices(tmp_path / made[1]) == list(range(120, 240))
    found = clips.indices(tmp_path / made[2], torn=True)
    # Of 90 pictures, what stood in the open cluster of a second is gone; MP4 loses up to a keyframe, two seconds.
    assert found == list(range(240, 240 + len(found)))
    assert len(found) >= (59 if suffix == "mkv" else 60)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_ffprobe_reads_every_file_without_a_word(talk: tuple[Path, Clip], tmp_path: Path) -> None:
    _, clip = talk
    sink = recorder(tmp_path / "cam.mkv", clip.info, segment_s=7)
    for frame, packets in clip.items:
        sink.write(Output(frame), packets)
    sink.finish(clip.rest)
    sink.close()
    for path in sorted(tmp_path.iterdir()):
        done = subprocess.run(
            ["ffprobe", "-v", "warning", "-of", "json", "-show_streams", "-show_format", str(path)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        told = json.loads(done.stdout)
        assert [stream["codec_name"] for stream in told["streams"]] == ["h264", "aac"]
        starts = [float(stream["start_time"]) for stream in told["streams"]]
        assert max(starts) < 0.05
        assert abs(float(told["format"]["duration"]) - (7 if path.name < "cam-20261121T024614Z" else 6)) < 0.1


@pytest.mark.parametrize(
    ("path", "changes", "kind", "message"),
    [
        ("cam.mkv", {"segment_s": 0.1}, ConfigError, "segments of 0.1 s are too short; take at least 1 s, such as 10m"),
        ("cam.mkv", {"max_bytes": 10**9}, ConfigError, "below 1.0 GB: add --segment 10m; only whole files can be"),
        ("cam.xyz", {}, SinkOpenError, "unknown container 'xyz'"),
        ("cam.mkv", {"encoder": "libx265x"}, SinkOpenError, "no encoder 'libx265x' here"),
        ("cam.mkv", {"encoder": "libx264:foo=bar"}, SinkOpenError, "it has no option 'foo'"),
        ("no/cam.mkv", {}, SinkOpenError, "the folder .*no does not exist; make it first"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    path: str, changes: dict[str, Any], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message) as caught:
        recorder(tmp_path / path, **changes)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == []


def test_durations() -> None:
    cases = {"90": 90, "30s": 30, "10m": 600, "1h30m": 5400, "7d": 604800, "2w": 1209600, "1.5h": 5400, " 5 min ": 300,
             "500ms": 0.5}  # fmt: skip
    assert {text: parse_duration_s(text) for text in cases} == cases
    for wrong in ("", "m", "10 parsecs", "-5s", "0", "1h,30m", "10m!", "1..5s", "inf", "nan"):
        with pytest.raises(ValueError, match=r"is no duration; write|must be more than 0"):
            parse_duration_s(wrong)


def test_sizes() -> None:
    cases = {"50GB": 5 * 10**10, "500 MB": 5 * 10**8, "1.5TB": 15 * 10**11, "2GiB": 2**31, "100": 100, "3k": 3000}
    assert {text: parse_size_bytes(text) for text in cases} == cases
    for wrong in ("", "GB", "50 gigs", "-1GB", "0", "1e9", "50GBs"):
        with pytest.raises(ValueError, match=r"is no size; write|must be more than 0"):
            parse_size_bytes(wrong)
    assert [size_words(n) for n in (999, 1000, 2_500_000, 5 * 10**10, 2 * 10**12)] == [
        "999 bytes", "1.0 kB", "2.5 MB", "50.0 GB", "2.0 TB",
    ]  # fmt: skip


def test_copies_of_tracks_that_come_and_go_for_months_do_not_add_up(tmp_path: Path) -> None:
    opened = [
        av.open(str(clips.make_clip(tmp_path / f"{codec}.mkv", frames=3, sound=codec))) for codec in ("aac", "mp3")
    ]
    tracks = [Track(1, "audio", one.streams.audio[0].codec_context.name, one.streams.audio[0]) for one in opened]
    kept = KeptTracks()
    for number in range(200):
        assert kept.update([replace(tracks[number % 2])])
        assert not kept.update([replace(tracks[number % 2])])
    (last,) = kept.tracks
    assert last.codec.startswith("mp3")
    held = [value for value in vars(kept).values() if isinstance(value, list | dict)]
    assert sum(map(len, held)) < 10
    kept.close()
    for one in opened:
        one.close()


@pytest.mark.parametrize(("suffix", "count"), [("mkv", 1), ("mp4", 3), ("mov", 3)])
def test_an_index_in_memory_does_not_grow_for_ever(suffix: str, count: int, tmp_path: Path) -> None:
    sink = recorder(tmp_path / f"cam.{suffix}")
    for index, hours in enumerate((0, 3, 5.9, 6.1, 12, 12.3)):
        sink.write(Output(live_frame(index, hours * 3600)))
    sink.finish()
    sink.close()
    assert len(files(tmp_path)) == count
