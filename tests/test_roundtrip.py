"""File in, file out: every frame at its time, every packet beside it, read by ffprobe too where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamseg.frame import Output
from streamseg.sinks import open_sink
from streamseg.sources import open_source
from tests import clips

FAST = "libx264:preset=ultrafast"
needs_ffprobe = pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")


def copy(source_path: Path, *sink_paths: Path, encoder: str | None = FAST, **options: Any) -> list[list[str]]:
    """Frames and packets from a file into others, untouched; returns the notices: the source's, then each sink's."""
    source = open_source(str(source_path))
    sinks = []
    for path in sink_paths:
        chosen = None if path.suffix == ".webm" else encoder
        sinks.append(open_sink(str(path), source.info, encoder=chosen, **options))
    while (frame := source.read()) is not None:
        packets = source.take_packets()
        for sink in sinks:
            sink.write(Output(frame), packets)
    packets = source.take_packets()
    for sink in sinks:
        sink.finish(packets)
    notices = [list(source.notices), *(list(sink.notices) for sink in sinks)]
    for sink in sinks:
        sink.close()
    source.close()
    return notices


def probe(path: Path, *entries: str) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-of", "json", *entries, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "", done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def first_times(path: Path) -> dict[str, Fraction]:
    """When the first packets of picture and sound are shown and heard, in seconds."""
    found: dict[str, Fraction] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size and packet.pts is not None:
                kind, time = packet.stream.type, packet.pts * Fraction(packet.time_base)
                found[kind] = min(time, found.get(kind, time))
    return found


@pytest.mark.parametrize("sink", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("source", ["mp4", "mkv", "ts"])
def test_sound_and_picture_stay_together(source: str, sink: str, tmp_path: Path) -> None:
    """With B-frames, from and into containers with other clocks."""
    clip = clips.make_clip(
        tmp_path / f"in.{source}", frames=45, rate=Fraction(30000, 1001), sound="aac", sound_start_s=0.4, sound_s=1.5
    )
    out = tmp_path / f"out.{sink}"
    copy(clip, out, encoder="libx264:preset=veryfast")
    assert clips.indices(out) == list(range(45))
    before, after = first_times(clip), first_times(out)
    apart = (after["audio"] - after["video"]) - (before["audio"] - before["video"])
    assert abs(apart) <= Fraction(1, 500)
    if source != "ts":  # where the source's own clock is kept, both are where they were
        assert abs(after["video"] - before["video"]) <= (Fraction(1, 1000) if sink != "ts" else Fraction(1, 5))


@pytest.mark.parametrize(
    ("codec", "source", "sinks"),
    [
        ("aac", "mp4", ["mp4", "mov", "mkv"]),
        ("libopus", "mkv", ["mkv", "webm", "mp4"]),
        ("libmp3lame", "mp4", ["mp4", "mkv"]),
        ("pcm_s16le", "mkv", ["mkv", "mov"]),
        ("ac3", "mkv", ["mkv", "mp4", "ts"]),
        ("flac", "mkv", ["mkv", "mp4"]),
    ],
)
def test_sound_is_copied_byte_by_byte_into_every_sink(
    codec: str, source: str, sinks: list[str], tmp_path: Path
) -> None:
    clip = clips.make_clip(tmp_path / f"in.{source}", frames=20, sound=codec, sound_s=1.5)
    outs = [tmp_path / f"out.{suffix}" for suffix in sinks]
    copy(clip, *outs)
    joined = b"".join(clips.packets(clip))
    for out in outs:
        assert b"".join(clips.packets(out)) == joined, out
        assert clips.indices(out) == list(range(20))


def test_sound_with_headers_of_its_own_loses_them_where_it_must(tmp_path: Path) -> None:
    """AAC in broadcast streams begins every packet with seven bytes that MP4 has in its index."""
    clip = clips.make_clip(tmp_path / "in.ts", frames=30, sound="aac")
    copy(clip, tmp_path / "out.mp4", tmp_path / "out.mkv")
    raw = clips.packets(clip)
    bare = [packet[7:] if packet[:1] == b"\xff" else packet for packet in raw]
    assert clips.packets(tmp_path / "out.mp4") == bare
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(block.samples for block in container.decode(audio=0)) > 40_000


@pytest.mark.parametrize("sink", ["mp4", "mkv"])
@pytest.mark.parametrize(("start_s", "length_s"), [(0, 6), (0, 0.5), (1.5, 4)])
def test_no_sound_is_lost_before_or_after_the_picture(
    sink: str, start_s: float, length_s: float, tmp_path: Path
) -> None:
    clip = clips.make_clip(tmp_path / "in.mkv", frames=30, sound="aac", sound_start_s=start_s, sound_s=length_s)
    out = tmp_path / f"out.{sink}"
    copy(clip, out)
    assert clips.packets(out) == clips.packets(clip)
    assert clips.indices(out) == list(range(30))


def test_sound_that_begins_long_before_the_picture(tmp_path: Path) -> None:
    """Half a minute: the first read hands it all on, and the first write lets it all through."""
    times = [round((30 + index / 30) * 1000) for index in range(10)]
    clip = clips.make_clip(
        tmp_path / "in.mkv", pts=times, time_base=Fraction(1, 1000), sound="aac", sound_s=31, size_wh=(64, 48)
    )
    for suffix in ("mkv", "mp4"):
        out = tmp_path / f"out.{suffix}"
        copy(clip, out)
        assert clips.packets(out) == clips.packets(clip)
        assert abs(clips.times(out)[0] - clips.times(clip)[0]) <= Fraction(1, 1000)


@pytest.mark.parametrize("sink", ["mp4", "mov"])
def test_ntsc_stays_exact(sink: str, tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "in.mp4", frames=600, rate=Fraction(30000, 1001), size_wh=(64, 48))
    out = tmp_path / f"out.{sink}"
    copy(clip, out, encoder="libx264:preset=veryfast")
    assert clips.times(out) == [Fraction(1001 * index, 30000) for index in range(600)]


@pytest.mark.parametrize("sink", ["mkv", "webm"])
def test_millisecond_clocks_do_not_drift(sink: str, tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "in.mp4", frames=600, rate=Fraction(30000, 1001), size_wh=(64, 48))
    out = tmp_path / f"out.{sink}"
    copy(clip, out)
    for index, time in enumerate(clips.times(out)):
        assert abs(time - Fraction(1001 * index, 30000)) <= Fraction(1, 1000)


@pytest.mark.parametrize("sink", ["mp4", "mov", "mkv", "webm", "ts"])
@pytest.mark.parametrize("source", ["mp4", "mkv"])
def test_variable_rate_stays_as_it_is(source: str, sink: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    times = np.concatenate([[0], np.cumsum(rng.choice([5, 17, 33, 40, 133, 700], 59))]).tolist()
    clip = clips.make_clip(tmp_path / f"in.{source}", pts=times, time_base=Fraction(1, 1000), size_wh=(128, 64))
    out = tmp_path / f"out.{sink}"
    copy(clip, out)
    found = clips.times(out)
    start = found[0] if sink == "ts" else 0
    assert [round((time - start) * 1000) for time in found] == times
    assert clips.indices(out) == list(range(60))


@pytest.mark.parametrize("sink", ["mkv", "ts"])
def test_sound_that_an_edit_list_hides_stays_hidden(sink: str, tmp_path: Path) -> None:
    """A clip that was cut without encoding anew still holds what was said before; no player plays it."""
    clip = clips.make_clip(tmp_path / "in.mp4", frames=30, sound="aac", sound_start_s=-1, sound_s=2)
    with av.open(str(clip)) as container:
        hidden = [packet.is_discard for packet in container.demux(audio=0) if packet.size]
    assert sum(hidden) > 40
    out = tmp_path / f"out.{sink}"
    copy(clip, out, tmp_path / "out.mp4")
    times = first_times(out)
    assert 0 <= times["video"] - times["audio"] <= Fraction(13, 100)  # a tenth, and where its packet begins
    kept = len(clips.packets(out))
    assert len(hidden) - sum(hidden) <= kept <= len(hidden) - sum(hidden) + 6
    assert clips.packets(tmp_path / "out.mp4") == clips.packets(clip)


@pytest.mark.parametrize("sink", ["mp4", "mov"])
def test_late_start_is_kept_to_the_tick(sink: str, tmp_path: Path) -> None:
    unit = Fraction(1, 30000)
    wanted = [2002 + 1001 * index for index in range(9)]
    exactly = {"movie_timescale": "30000"}
    clip = clips.make_clip(
        tmp_path / "in.mp4", rate=1 / (1001 * unit), time_base=unit, pts=wanted, container_options=exactly
    )
    out = tmp_path / f"out.{sink}"
    copy(clip, out)
    assert clips.times(out) == [ticks * unit for ticks in wanted]


@pytest.mark.parametrize("sink", ["mp4", "mkv"])
def test_late_start_is_kept(sink: str, tmp_path: Path) -> None:
    times = [80 + 40 * index for index in range(25)]
    clip = clips.make_clip(tmp_path / "in.mkv", pts=times, time_base=Fraction(1, 1000))
    out = tmp_path / f"out.{sink}"
    copy(clip, out, encoder="libx264:preset=medium")
    assert [round(time * 1000) for time in clips.times(out)] == times


@pytest.mark.parametrize("rate", [Fraction(12), Fraction(30000, 1001)])
@pytest.mark.parametrize("sink", ["mp4", "mov", "mkv"])
def test_last_frame_is_shown_for_its_time(sink: str, rate: Fraction, tmp_path: Path) -> None:
    """An edit list that lacks the last frame's duration cuts the frame off."""
    times = [round((Fraction(1, 100) + index / rate) * 90000) for index in range(25)]
    clip = clips.make_clip(tmp_path / "in.mkv", rate=rate, pts=times, time_base=Fraction(1, 90000), sound="aac")
    out = tmp_path / f"out.{sink}"
    copy(clip, out, encoder="libx264:preset=medium")
    assert clips.indices(out) == list(range(25))
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        if stream.duration:  # Matroska does not say for a stream
            assert abs(stream.duration * stream.time_base - 25 / rate) < Fraction(3, 1000)


def _slides(path: Path) -> Path:
    """Three pictures for 1, 0.5 and 7 seconds."""
    brief = clips.make_clip(path.with_name("brief.mkv"), pts=[0, 1000, 1500], time_base=Fraction(1, 1000))
    with av.open(str(brief)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet, duration in zip(source.demux(video=0), (1000, 500, 7000), strict=False):
            packet.stream, packet.duration = stream, duration
            container.mux(packet)
    return path


@pytest.mark.parametrize("sink", ["mp4", "mov", "mkv"])
def test_a_last_picture_that_is_shown_for_long_stays_so(sink: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{sink}"
    (notices, _) = copy(_slides(tmp_path / "in.mp4"), out)
    assert not any("ends early" in notice for notice in notices)
    with av.open(str(out)) as container:
        assert container.duration == 8_500_000


def test_pictures_that_an_avi_decoder_held_back_come_in_step(tmp_path: Path) -> None:
    """The library knows no time of them; FFmpeg 5 wrote such files with a clock twice as fast, too."""
    clip = clips.make_clip(
        tmp_path / "in.avi", frames=20, rate=Fraction(25), options={"preset": "medium", "bf": "3", "b-adapt": "0"}
    )
    out = tmp_path / "out.mp4"
    copy(clip, out)
    assert clips.indices(out) == list(range(20))
    assert clips.times(out) == [Fraction(index, 25) for index in range(20)]


def test_clock_of_nanoseconds(tmp_path: Path) -> None:
    """Finer than a container or an encoder takes."""
    info = clips.info(time_base=Fraction(1, 1_000_000_000), rate=None)
    for suffix in ("mp4", "mkv"):
        sink = open_sink(str(tmp_path / f"a.{suffix}"), info, encoder=FAST)
        for index in range(90):
            sink.write(Output(clips.frame(index, pts=round(index * 1e9 / 30), time_base=info.time_base)))
        sink.finish()
        sink.close()
        for index, time in enumerate(clips.times(tmp_path / f"a.{suffix}")):
            assert abs(time - Fraction(index, 30)) <= Fraction(1, 1000)


def _subtitled(path: Path, codec: str) -> Path:
    if not hasattr(av.container.OutputContainer, "add_mux_stream"):
        pytest.skip("this PyAV cannot write subtitles")

    def draw(index: int) -> av.VideoFrame:
        return clips.video_frame(index, 320, 180, "yuv420p")

    clip = clips.make_clip(path.with_name("plain.mkv"), frames=30, sound="aac")
    source = open_source(str(clip))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width, stream.height = 320, 180
        voice = container.add_stream_from_template(source.info.tracks[0].template, opaque=True)
        voice.metadata["language"] = "fra"
        words = container.add_mux_stream(codec)
        words.metadata.update({"language": "deu", "title": "Worte"})
        words.disposition = av.stream.Disposition.forced
        container.start_encoding()
        for index in range(30):
            container.mux(stream.encode(draw(index)))
            if index in (3, 18):
                packet = av.Packet(b"hello" if codec == "subrip" else b"\x00\x05hello")
                packet.time_base = Fraction(1, 1000)
                packet.pts = packet.dts = index * 33
                packet.duration = 400
                packet.stream = words
                container.mux(packet)
            source.read()
            for sound in source.take_packets():
                sound.payload.stream = voice
                container.mux(sound.payload)
        container.mux(stream.encode(None))
    source.close()
    return path


def _streams(path: Path) -> list[tuple[str, str, str | None, bool]]:
    """Type, codec, language and whether it is forced, of every stream."""
    with av.open(str(path)) as container:
        return [(s.type, s.name or "", s.language, bool(int(s.disposition) & 0x40)) for s in container.streams]


@pytest.mark.parametrize(("codec", "source", "sink"), [("subrip", "mkv", "mkv"), ("mov_text", "mp4", "mp4")])
def test_subtitles_languages_and_dispositions(codec: str, source: str, sink: str, tmp_path: Path) -> None:
    clip = _subtitled(tmp_path / f"in.{source}", codec)
    out = tmp_path / f"out.{sink}"
    _, notices = copy(clip, out)
    assert notices == []
    assert _streams(out)[1:] == _streams(clip)[1:]
    assert [packet for packet in clips.packets(out, "subtitle") if b"hello" in packet] == [
        packet for packet in clips.packets(clip, "subtitle") if b"hello" in packet
    ]


def test_what_a_container_cannot_hold_is_named(tmp_path: Path) -> None:
    clip = _subtitled(tmp_path / "in.mkv", "subrip")
    outs = [tmp_path / "out.mp4", tmp_path / "out.webm"]
    _, mp4, webm = copy(clip, *outs)
    assert mp4 == ["subtitle track 2 (subrip, deu) is left out: mp4 cannot hold it; write .mkv to keep it"]
    assert webm[0] == "audio track 1 (aac, fra) is left out: webm cannot hold it; write .mkv to keep it"
    assert webm[1].startswith("subtitle track 2 (subrip, deu) is left out")
    assert clips.packets(outs[0]) == clips.packets(clip)


METADATA = {"title": "Ein Täst", "comment": "two words", "artist": "x", "date": "2024-01-02"}


def test_only_a_container_that_holds_a_track_is_advised(tmp_path: Path) -> None:
    def set_up(container: Any, stream: Any) -> None:
        container.streams.audio[0].bit_rate = 128_000

    words = _subtitled(tmp_path / "words.mp4", "mov_text")
    sound = clips.make_clip(tmp_path / "sound.asf", codec="wmv2", sound="wmav2", set_up=set_up)
    begin = "subtitle track 2 (mov_text, deu) is left out:"
    assert copy(words, tmp_path / "a.mkv")[1] == [f"{begin} matroska cannot hold it; write .mp4 to keep it"]
    assert copy(words, tmp_path / "a.webm")[1][1] == f"{begin} webm cannot hold it; write .mp4 to keep it"
    begin = "audio track 1 (wmav2) is left out:"
    assert copy(sound, tmp_path / "b.mkv")[1] == [f"{begin} matroska cannot hold it; nor can .mp4 .mov"]
    assert copy(sound, tmp_path / "b.mp4")[1] == [f"{begin} mp4 cannot hold it; nor can .mkv .mov"]


@pytest.mark.parametrize("sink", ["mp4", "mov", "mkv", "webm"])
def test_metadata_travels(sink: str, tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "in.mkv", frames=3, metadata=METADATA)
    out = tmp_path / f"out.{sink}"
    copy(clip, out)
    with av.open(str(out)) as container:
        found = {key.lower(): value for key, value in container.metadata.items()}
    assert METADATA.items() <= found.items()


@pytest.mark.parametrize("sink", ["mp4", "mov"])
def test_metadata_that_mp4_and_mov_have_no_place_for_travels_too(sink: str, tmp_path: Path) -> None:
    wanted = {**METADATA, "camera_owner": "me", "com.apple.quicktime.make": "Apple"}
    clip = clips.make_clip(tmp_path / "in.mkv", frames=3, metadata=wanted)
    copy(clip, tmp_path / f"out.{sink}")
    with av.open(str(tmp_path / f"out.{sink}")) as container:
        found = {key.lower(): value for key, value in container.metadata.items()}
    assert wanted.items() <= found.items()


@pytest.mark.parametrize("sink", ["mkv", "mp4", "mov"])
def test_languages_that_quicktime_spells_otherwise(sink: str, tmp_path: Path) -> None:
    def set_up(container: Any, stream: Any) -> None:
        for each in container.streams:
            each.metadata["language"] = "deu"

    clip = clips.make_clip(tmp_path / "in.mkv", frames=3, sound="aac", set_up=set_up)
    copy(clip, tmp_path / f"out.{sink}")
    with av.open(str(tmp_path / f"out.{sink}")) as container:
        assert {stream.language for stream in container.streams} == {"ger" if sink == "mov" else "deu"}


def test_metadata_and_chapters_that_a_broadcast_stream_cannot_hold_are_named(tmp_path: Path) -> None:
    chapters = [{"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}]
    clip = clips.make_clip(tmp_path / "in.mkv", frames=3, metadata={"title": "x"}, chapters=chapters)
    _, notices = copy(clip, tmp_path / "out.ts")
    assert notices == ["1 chapters and metadata (title) left out: mpegts cannot hold that; write .mkv to keep it"]


@pytest.mark.parametrize(
    ("source", "sink"), [("mkv", "mkv"), ("mkv", "mp4"), ("mp4", "mkv"), ("mp4", "mp4"), ("mkv", "mov")]
)
def test_what_is_said_of_the_picture_travels(source: str, sink: str, tmp_path: Path) -> None:
    def set_up(container: Any, stream: Any) -> None:
        stream.metadata.update({"language": "fra", "title": "Bild"})
        stream.disposition = av.stream.Disposition.default

    clip = clips.make_clip(tmp_path / f"in.{source}", frames=3, set_up=set_up)
    copy(clip, tmp_path / f"out.{sink}")
    with av.open(str(tmp_path / f"out.{sink}")) as container:
        picture = container.streams.video[0]
        assert picture.language == "fra"
        assert picture.disposition & av.stream.Disposition.default
        assert picture.metadata.get("title", picture.metadata.get("name")) == "Bild"


def test_brands_and_statistics_of_the_source_do_not_travel(tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "in.mp4", frames=3, sound="aac")
    copy(clip, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert not {"major_brand", "compatible_brands"} & {key.lower() for key in container.metadata}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "webm"])
def test_chapters_travel(suffix: str, tmp_path: Path) -> None:
    chapters = [
        {"id": 1, "start": 0, "end": 400, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}},
        {"id": 2, "start": 400, "end": 1000, "time_base": Fraction(1, 1000), "metadata": {"title": "Two"}},
    ]
    for source in ("mkv", "mp4"):
        clip = clips.make_clip(tmp_path / f"in.{source}", frames=30, chapters=chapters)
        out = tmp_path / f"{source}.{suffix}"
        _, notices = copy(clip, out)
        assert notices == []
        with av.open(str(out)) as container:
            found = [
                (round(chapter["start"] * chapter["time_base"], 3), chapter["metadata"].get("title"))
                for chapter in container.chapters()
            ]
        assert found == [(0, "One"), (Fraction(2, 5), "Two")]


def test_attachments_travel(tmp_path: Path) -> None:
    def set_up(container: Any, stream: Any) -> None:
        container.add_attachment("font.ttf", "font/ttf", b"\x00\x01\x00\x00glyphs")

    clip = clips.make_clip(tmp_path / "in.mkv", frames=3, set_up=set_up)
    _, mkv, mp4 = copy(clip, tmp_path / "out.mkv", tmp_path / "out.mp4")
    assert mkv == []
    assert len(mp4) == 1
    assert "attachment" in mp4[0]
    with av.open(str(tmp_path / "out.mkv")) as container:
        attachment: Any = next(stream for stream in container.streams if stream.type == "attachment")
        assert (attachment.name, attachment.data[:10]) == ("font.ttf", b"\x00\x01\x00\x00glyphs")


def test_odd_and_turned_and_deep_pictures_come_out_upright_and_even(tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "in.mkv", frames=4, size_wh=(321, 181), codec="ffv1", pixel_format="yuv420p10le")
    source_notices, _ = copy(clip, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        picture = next(container.decode(video=0))
    assert (picture.width, picture.height) == (322, 182)
    assert any("321x181 padded to 322x182" in notice for notice in source_notices)


def test_pictures_in_pictures_out(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "in").mkdir()
    for index, size in enumerate([(64, 48), (33, 21), (48, 64)]):
        picture = cv2.resize(np.random.default_rng(index).integers(40, 200, (3, 4, 3), dtype=np.uint8), size)
        cv2.imwrite(str(tmp_path / "in" / f"{index}.png"), picture)
    source = open_source(str(tmp_path / "in"))
    sink = open_sink(f"{tmp_path}/out/", source.info)
    while (frame := source.read()) is not None:
        sink.write(Output(frame))
    sink.finish()
    sink.close()
    for index in range(3):
        before = cv2.imread(str(tmp_path / "in" / f"{index}.png"))
        after = cv2.imread(str(tmp_path / "out" / f"{index}.png"))
        assert before.shape == after.shape
        assert np.abs(before.astype(int) - after).mean() < 6


def test_packets_are_not_changed_by_a_sink(tmp_path: Path) -> None:
    """Another sink, or a test, sees them as they came."""
    clip = clips.make_clip(tmp_path / "in.mp4", frames=10, sound="aac")
    source = open_source(str(clip))
    sinks = [open_sink(str(tmp_path / name), source.info, encoder=FAST) for name in ("a.mkv", "b.ts", "c.mp4")]
    frame = source.read()
    assert frame is not None
    packets = source.take_packets()
    before = [(p.payload.pts, p.payload.dts, p.payload.time_base, p.payload.stream_index) for p in packets]
    assert before
    for sink in sinks:
        sink.write(Output(frame), packets)
        sink.finish()
        sink.close()
    assert [(p.payload.pts, p.payload.dts, p.payload.time_base, p.payload.stream_index) for p in packets] == before
    source.close()


def test_sound_whose_times_run_backwards_does_not_end_the_run(tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "in.mkv", frames=20, sound="aac")
    source = open_source(str(clip))
    sink = open_sink(str(tmp_path / "out.mp4"), source.info, encoder=FAST)
    count = 0
    while (frame := source.read()) is not None:
        packets = source.take_packets()
        for packet in packets:
            packet.payload.pts -= 200 * (count % 2)
            packet.payload.dts = packet.payload.pts
            count += 1
        sink.write(Output(frame), packets)
    sink.finish(source.take_packets())
    sink.close()
    source.close()
    assert len(clips.packets(tmp_path / "out.mp4")) == len(clips.packets(clip))


@needs_ffprobe
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
def test_ffprobe_reads_the_same(suffix: str, tmp_path: Path) -> None:
    codec = "libopus" if suffix == "webm" else "aac"
    clip = clips.make_clip(tmp_path / "in.mkv", frames=60, rate=Fraction(30000, 1001), sound=codec, metadata=METADATA)
    out = tmp_path / f"out.{suffix}"
    copy(clip, out, encoder="libx264:preset=veryfast")
    found = probe(out, "-show_streams", "-show_format", "-count_frames")
    video, sound = found["streams"]
    assert video["nb_read_frames"] == "60"
    assert video["r_frame_rate"] == "30000/1001"
    assert float(video["start_time"]) == 0
    assert video["pix_fmt"] == "yuv420p"
    assert video.get("color_range", "tv") == "tv"
    assert abs(float(sound["start_time"])) < 0.03
    assert abs(float(found["format"]["duration"]) - 60 * 1.001 / 30) < 0.07
    if suffix in ("mp4", "mov"):
        assert video["nb_frames"] == "60"
        assert float(Fraction(video["avg_frame_rate"])) == pytest.approx(30 / 1.001, rel=0.001)


@needs_ffprobe
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_finished_files_can_be_sought(suffix: str, tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "in.mp4", frames=300, size_wh=(128, 64), sound="aac")
    out = tmp_path / f"out.{suffix}"
    copy(clip, out, encoder="libx264:preset=veryfast,g=30")
    found = probe(out, "-read_intervals", "8%+#1", "-select_streams", "v", "-show_entries", "frame=pts_time")
    assert 7 <= float(found["frames"][0]["pts_time"]) <= 8.1


@needs_ffprobe
def test_siting_as_ffprobe_reads_it(tmp_path: Path) -> None:
    for siting, name in {1: "left", 2: "center", 3: "topleft"}.items():

        def set_up(container: Any, stream: Any, siting: int = siting) -> None:
            stream.codec_context.options = {"preset": "ultrafast", "chroma_sample_location": str(siting)}

        clip = clips.make_clip(tmp_path / "in.mp4", frames=3, set_up=set_up)
        copy(clip, tmp_path / "out.mkv", tmp_path / "out.mp4")
        for suffix in ("mkv", "mp4"):
            found = probe(tmp_path / f"out.{suffix}", "-show_entries", "stream=chroma_location")
            assert found["streams"][0]["chroma_location"] == name


@pytest.mark.material
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_real_clip_with_sound(material: Path, suffix: str, tmp_path: Path) -> None:
    clip = material / "media" / "dash_saber_road.mp4"
    out = tmp_path / f"out.{suffix}"
    _, notices = copy(clip, out)
    assert notices == []
    assert clips.packets(out) == clips.packets(clip)
    before, after = clips.times(clip), clips.times(out)
    assert len(before) == len(after)
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= (0 if suffix == "mp4" else Fraction(1, 1000))
