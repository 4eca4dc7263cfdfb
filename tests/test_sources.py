"""Every source keeps one contract; then what each kind of file needs."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from streamseg.errors import SourceOpenError
from streamseg.frame import Colour, Frame, Source
from streamseg.sources import FileSource, open_source
from tests import clips

FRAMES = 12


def read_all(source: Source) -> list[Frame]:
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    return frames


def open_and_read(url: Path | str, **options: object) -> tuple[Source, list[Frame]]:
    source = open_source(str(url), **options)  # type: ignore[arg-type]
    try:
        return source, read_all(source)
    finally:
        source.close()


def _mp4(folder: Path) -> str:
    return str(clips.make_clip(folder / "a.mp4", frames=FRAMES, sound="aac"))


def _mkv(folder: Path) -> str:
    return str(clips.make_clip(folder / "a.mkv", frames=FRAMES, sound="aac"))


def _webm(folder: Path) -> str:
    options = {"deadline": "realtime", "cpu-used": "8"}
    return str(clips.make_clip(folder / "a.webm", frames=FRAMES, codec="libvpx-vp9", options=options))


def _ts(folder: Path) -> str:
    return str(clips.make_clip(folder / "a.ts", frames=FRAMES, sound="aac"))


def _folder(folder: Path) -> str:
    for index in range(FRAMES):
        cv2.imwrite(str(folder / f"{index + 1}.png"), cv2.cvtColor(clips.luma(index, 320, 180), cv2.COLOR_GRAY2BGR))
    return str(folder)


def _glob(folder: Path) -> str:
    return _folder(folder) + "/*.png"


def _drive(folder: Path) -> str:
    for begin, count in ((0, 4), (4, 5), (9, 3)):
        shown = lambda index, begin=begin: clips.video_frame(begin + index, 320, 180, "yuv420p")  # noqa: E731
        clips.make_clip(folder / f"MOVI{begin + 1}.mp4", frames=count, sound="aac", draw=shown)
    return str(folder)


KINDS: dict[str, Callable[[Path], str]] = {
    "mp4": _mp4,
    "mkv": _mkv,
    "webm": _webm,
    "ts": _ts,
    "folder": _folder,
    "glob": _glob,
    "drive": _drive,
}


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return KINDS[request.param](tmp_path)


def test_gives_every_frame_once_in_order(url: str) -> None:
    source, frames = open_and_read(url)
    assert [clips.index_of(frame.y) for frame in frames] == list(range(FRAMES))
    assert [frame.index for frame in frames] == list(range(FRAMES))
    assert source.counts == {}


def test_says_beforehand_what_the_frames_are(url: str) -> None:
    source, frames = open_and_read(url)
    info = source.info
    assert not info.live
    assert info.frame_count is None or abs(info.frame_count - FRAMES) <= 1
    for frame in frames:
        assert (frame.width, frame.height) == (info.width, info.height) == (320, 180)
        assert frame.time_base == info.time_base
        assert frame.colour == info.colour
        assert frame.origin.size_wh == info.original_wh == (320, 180)
        assert frame.origin.name


def test_times_increase_and_arrivals_are_stamped(url: str) -> None:
    _, frames = open_and_read(url)
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert all(a.captured_at <= b.captured_at for a, b in pairwise(frames))


def test_end_stays_the_end(url: str) -> None:
    source = open_source(url)
    read_all(source)
    assert source.read() is None
    assert source.read() is None
    source.close()


def test_interrupt_ends_it(url: str) -> None:
    source = open_source(url)
    assert source.read() is not None
    source.interrupt()
    assert source.read() is None
    source.close()


def test_frames_that_are_held_do_not_change(url: str) -> None:
    source = open_source(url)
    first = source.read()
    assert first is not None
    before = first.planes.copy()
    rest = read_all(source)
    source.close()
    np.testing.assert_array_equal(first.planes, before)
    assert len({frame.planes.ctypes.data for frame in rest}) == len(rest)


def test_frames_outlive_the_source(url: str) -> None:
    _, frames = open_and_read(url)
    assert clips.index_of(frames[-1].y) == FRAMES - 1


def test_ntsc_rate_is_exact(tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "a.mp4", rate=Fraction(30000, 1001), frames=40)
    source, frames = open_and_read(clip)
    assert source.info.rate == Fraction(30000, 1001)
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(1001 * i, 30000) for i in range(40)]


def test_ntsc_rate_is_recognised_behind_a_millisecond_clock(tmp_path: Path) -> None:
    source, _ = open_and_read(clips.make_clip(tmp_path / "a.mkv", rate=Fraction(30000, 1001), frames=60))
    assert source.info.rate == Fraction(30000, 1001)


def test_variable_rate_is_kept_and_named(tmp_path: Path) -> None:
    times = [0, 40, 50, 130, 131, 400, 410, 500, 900, 1000]
    clip = clips.make_clip(tmp_path / "a.mp4", pts=times, time_base=Fraction(1, 1000))
    source, frames = open_and_read(clip)
    assert [frame.pts * frame.time_base * 1000 for frame in frames] == times
    assert source.info.rate is None


def test_broadcast_clock_starts_at_zero_and_sound_with_it(tmp_path: Path) -> None:
    clip = clips.make_clip(
        tmp_path / "a.ts", sound="aac", frames=20, container_options={"output_ts_offset": "5000", "muxdelay": "0"}
    )
    source = open_source(str(clip))
    first = source.read()
    assert first is not None
    assert 0 <= first.seconds < 0.2
    frames = read_all(source)
    assert len(frames) == 19
    sound = [packet.payload for packet in source.take_packets()]
    source.close()
    assert abs(float(sound[0].pts * sound[0].time_base)) < 0.2


def test_broadcast_clock_that_jumps_back_is_bridged(tmp_path: Path) -> None:
    one = clips.make_clip(tmp_path / "1.ts", frames=30, container_options={"output_ts_offset": "100"})
    two = clips.make_clip(tmp_path / "2.ts", frames=30, container_options={"output_ts_offset": "10"})
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    source, frames = open_and_read(both)
    assert len(frames) >= 58
    steps = [float((b.pts - a.pts) * a.time_base) for a, b in pairwise(frames)]
    assert max(steps) < 0.5
    assert min(steps) > 0.005
    assert source.counts["clock jumps bridged"] >= 1


def _sound_and_picture(path: Path) -> tuple[FileSource, list[float], list[float]]:
    """The source, and the times of all frames and of all packets of sound."""
    source, frames = open_and_read(path)
    assert isinstance(source, FileSource)
    sound = [packet.payload for packet in source.take_packets()]
    return source, [frame.seconds for frame in frames], [float(one.pts * one.time_base) for one in sound]


def test_sound_jumps_with_the_picture_where_broadcasts_were_joined(tmp_path: Path) -> None:
    """Each meets the jump at another place of the file."""
    both = tmp_path / "both.ts"
    with both.open("wb") as file:
        for start in ("100", "10"):
            one = clips.make_clip(
                tmp_path / "1.ts", frames=60, sound="mp2", container_options={"output_ts_offset": start}
            )
            file.write(one.read_bytes())
    source, shown, heard = _sound_and_picture(both)
    assert source.counts["clock jumps bridged"] == 1
    assert shown[-1] == pytest.approx(4, abs=0.2)
    assert heard[-1] == pytest.approx(shown[-1], abs=0.1)
    assert max(b - a for a, b in pairwise(heard)) < 0.2


@pytest.mark.parametrize("sound_start_s", [0.0, 0.8])
def test_broadcast_clock_that_runs_over_goes_on(sound_start_s: float, tmp_path: Path) -> None:
    """33 bits last for 26.5 hours; the sound may begin only after that."""
    late = {"output_ts_offset": str(2**33 / 90000 - 0.6), "muxdelay": "0", "muxpreload": "0"}
    clip = clips.make_clip(
        tmp_path / "a.ts",
        frames=60,
        sound="mp2",
        sound_start_s=sound_start_s,
        sound_s=2 - sound_start_s,
        options={"preset": "veryfast"},
        container_options=late,
    )
    source, shown, heard = _sound_and_picture(clip)
    assert shown == pytest.approx([shown[0] + index / 30 for index in range(60)], abs=1e-4)
    assert 0 <= shown[0] < 0.2
    assert heard[0] == pytest.approx(shown[0] + sound_start_s, abs=0.1)
    assert heard[-1] == pytest.approx(shown[-1], abs=0.1)
    assert source.counts == {}


def test_raw_stream_without_times_gets_some(tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "a.h264", frames=10, rate=Fraction(25), options={"bf": "0"})
    _, frames = open_and_read(clip)
    assert [clips.index_of(frame.y) for frame in frames] == list(range(10))
    assert all(a.pts < b.pts for a, b in pairwise(frames))


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(20)])
def test_raw_stream_has_the_rate_that_its_codec_says(rate: Fraction, tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "a.h264", frames=10, rate=rate)
    _, frames = open_and_read(clip)
    assert {(b.pts - a.pts) * a.time_base for a, b in pairwise(frames)} == {1 / rate}


@pytest.mark.parametrize("size_wh", [(321, 181), (320, 181), (321, 180), (33, 35)])
def test_odd_sizes_are_padded_by_repeating_the_edge(tmp_path: Path, size_wh: tuple[int, int]) -> None:
    width, height = size_wh
    clip = clips.make_clip(tmp_path / "a.mkv", frames=3, size_wh=size_wh, codec="ffv1")
    source, frames = open_and_read(clip)
    frame = frames[1]
    assert source.info.original_wh == frame.origin.size_wh == size_wh
    assert (frame.width, frame.height) == (width + width % 2, height + height % 2)
    np.testing.assert_array_equal(frame.y[:height, :width], clips.luma(1, width, height))
    np.testing.assert_array_equal(frame.y[:, -1], frame.y[:, width - 1])
    np.testing.assert_array_equal(frame.y[-1], frame.y[height - 1])
    assert np.all(frame.u == 110)
    assert np.all(frame.v == 150)
    assert any(f"{width}x{height} padded to" in notice for notice in source.notices)


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [
        ("ffv1", "yuv420p"),
        ("ffv1", "yuv422p"),
        ("ffv1", "yuv444p"),
        ("ffv1", "yuv420p10le"),
        ("ffv1", "yuv422p10le"),
        ("ffv1", "yuv444p16le"),
        ("ffv1", "gray"),
        ("rawvideo", "nv12"),
        ("rawvideo", "yuyv422"),
        ("libx264", "yuv420p10le"),
    ],
)
def test_every_layout_gives_the_same_samples(tmp_path: Path, codec: str, pixel_format: str) -> None:
    name = "a.avi" if codec == "rawvideo" else "a.mkv"
    options = {"qp": "0"} if codec == "libx264" else {}
    clip = clips.make_clip(tmp_path / name, frames=3, codec=codec, pixel_format=pixel_format, options=options)
    _, frames = open_and_read(clip)
    assert [clips.index_of(frame.y) for frame in frames] == [0, 1, 2]
    chroma = (128, 128) if pixel_format == "gray" else (110, 150)
    # Ten bits to eight is dithered: one level.
    assert np.abs(frames[1].y.astype(int) - clips.luma(1, 320, 180)).max() <= 2
    assert np.abs(frames[1].u.astype(int) - chroma[0]).max() <= 1
    assert np.abs(frames[1].v.astype(int) - chroma[1]).max() <= 1


def test_ten_bits_are_said_to_be_reduced(tmp_path: Path) -> None:
    source, _ = open_and_read(clips.make_clip(tmp_path / "a.mkv", frames=2, codec="ffv1", pixel_format="yuv420p10le"))
    assert "10-bit picture reduced to 8 bits" in source.notices


def _tagged(colour: Colour) -> Callable[[object, object], None]:
    def set_up(container: object, stream: object) -> None:
        context = stream.codec_context  # type: ignore[attr-defined]
        context.color_range = 2 if colour.full_range else 1
        context.colorspace, context.color_primaries = colour.matrix, colour.primaries
        context.color_trc = colour.transfer
        context.options = {"preset": "ultrafast", "chroma_sample_location": str(colour.siting)}

    return set_up


@pytest.mark.parametrize(
    "colour",
    [Colour(False, 1, 1, 1, 1), Colour(True, 6, 6, 6, 2), Colour(False, 9, 9, 14, 3), Colour(False, 5, 5, 6, 1)],
)
def test_colour_tags_are_read(tmp_path: Path, colour: Colour) -> None:
    clip = clips.make_clip(tmp_path / "a.mp4", frames=2, set_up=_tagged(colour))
    source, frames = open_and_read(clip)
    assert source.info.colour == frames[0].colour == colour


def test_conversion_to_another_colour_keeps_the_light(tmp_path: Path) -> None:
    """A patch of known R, G, B goes through BT.601 full range and must come out as BT.709 limited range has it."""
    rgb = np.array([200, 60, 90])
    source_colour, wanted = Colour(True, 6, 1, 13, 1), Colour(False, 1, 1, 1, 1)

    def yuv(colour: Colour) -> np.ndarray:
        kr, kb = {6: (0.299, 0.114), 1: (0.2126, 0.0722)}[colour.matrix]
        y = np.dot([kr, 1 - kr - kb, kb], rgb)
        u, v = (rgb[2] - y) / (2 * (1 - kb)), (rgb[0] - y) / (2 * (1 - kr))
        if colour.full_range:
            return np.array([y, 128 + u, 128 + v])
        return np.array([16 + y * 219 / 255, 128 + u * 224 / 255, 128 + v * 224 / 255])

    def draw(index: int) -> av.VideoFrame:
        picture = av.VideoFrame(64, 64, "yuv420p")
        for plane, value in zip(picture.planes, yuv(source_colour), strict=True):
            clips.put(plane, np.full((plane.height, plane.width), round(value), np.uint8))
        return picture

    def set_up(container: object, stream: object) -> None:
        _tagged(source_colour)(container, stream)
        stream.codec_context.options = {"qp": "0", "preset": "ultrafast"}  # type: ignore[attr-defined]

    clip = clips.make_clip(tmp_path / "a.mp4", frames=2, size_wh=(64, 64), draw=draw, set_up=set_up)
    source, frames = open_and_read(clip, colour=wanted)
    found = np.array([plane.mean() for plane in (frames[0].y, frames[0].u, frames[0].v)])
    np.testing.assert_allclose(found, yuv(wanted), atol=2.6)
    assert source.info.colour == wanted


@pytest.mark.parametrize(
    ("degrees", "hflip", "turn"),
    [
        (0, False, lambda y: y),
        (90, False, lambda y: np.rot90(y, 1)),
        (180, False, lambda y: np.rot90(y, 2)),
        (270, False, lambda y: np.rot90(y, 3)),
        (0, True, lambda y: y[:, ::-1]),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_rotation_is_applied(
    tmp_path: Path, suffix: str, degrees: int, hflip: bool, turn: Callable[[np.ndarray], np.ndarray]
) -> None:
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a rotation")

    def set_up(container: object, stream: object) -> None:
        stream.set_display_rotation(degrees, hflip=hflip)  # type: ignore[attr-defined]
        stream.codec_context.options = {"qp": "0", "preset": "ultrafast"}  # type: ignore[attr-defined]

    clip = clips.make_clip(tmp_path / f"a.{suffix}", frames=3, size_wh=(322, 182), set_up=set_up)
    source, frames = open_and_read(clip)
    upright = turn(clips.luma(2, 322, 182))
    assert (frames[2].height, frames[2].width) == upright.shape
    np.testing.assert_array_equal(frames[2].y, upright)
    assert source.info.original_wh == upright.shape[::-1]
    assert any("upright" in notice for notice in source.notices) == (degrees != 0 or hflip)


def test_turned_pixels_that_are_not_square_turn_too(tmp_path: Path) -> None:
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a rotation")

    def set_up(container: object, stream: object) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)  # type: ignore[attr-defined]
        stream.set_display_rotation(90)  # type: ignore[attr-defined]

    source, _ = open_and_read(clips.make_clip(tmp_path / "a.mp4", frames=2, set_up=set_up))
    assert source.info.sample_aspect_ratio == Fraction(3, 4)


def test_interlaced_is_deinterlaced_frame_by_frame(tmp_path: Path) -> None:
    """Two fields of a moving bar: woven they comb, deinterlaced they do not."""

    def draw(index: int) -> av.VideoFrame:
        picture = av.VideoFrame(320, 180, "yuv420p")
        y = np.full((180, 320), 40, np.uint8)
        for row in range(180):
            left = 20 + 12 * (2 * index + row % 2)
            y[row, left : left + 30] = 220
        clips.put(picture.planes[0], y)
        for plane in picture.planes[1:]:
            clips.put(plane, np.full((90, 160), 128, np.uint8))
        return picture

    options = {"preset": "ultrafast", "flags": "+ildct+ilme", "x264-params": "tff=1", "qp": "0"}
    clip = clips.make_clip(tmp_path / "a.mp4", frames=10, draw=draw, options=options)
    source, frames = open_and_read(clip)
    assert len(frames) == 10
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(i, 30) for i in range(10)]
    assert any("deinterlaced" in notice for notice in source.notices)

    def combing(y: np.ndarray) -> float:
        middle = y[40:140].astype(int)
        return float(np.abs(2 * middle[1:-1] - middle[:-2] - middle[2:]).mean())

    woven = np.zeros((180, 320), np.uint8)
    woven[:] = draw(5).to_ndarray(format="gray")
    assert combing(frames[5].y) < combing(woven) / 4


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), pytest.param(18, "HLG", marks=pytest.mark.slow)])
def test_hdr_is_tone_mapped_and_said(tmp_path: Path, transfer: int, name: str) -> None:
    """Diffuse white, 203 nits by ITU-R BT.2408, must come out near white, and grey stay grey."""

    def signal(nits: float) -> float:
        if transfer == 18:
            scene = (nits / 1000) ** (1 / 1.2)
            return float(
                np.sqrt(3 * scene) if scene <= 1 / 12 else 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073
            )
        power = (nits / 10000) ** 0.1593017578125
        return float(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)

    def draw(index: int) -> av.VideoFrame:
        picture = av.VideoFrame(64, 64, "yuv420p10le")
        y = np.full((64, 64), round(64 + 876 * signal(203)), np.uint16)
        y[:32] = round(64 + 876 * signal(203 * 0.18))
        clips.put(picture.planes[0], y)
        for plane in picture.planes[1:]:
            clips.put(plane, np.full((32, 32), 512, np.uint16))
        return picture

    def set_up(container: object, stream: object) -> None:
        context = stream.codec_context  # type: ignore[attr-defined]
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = 1, 9, 9, transfer

    clip = clips.make_clip(
        tmp_path / "a.mkv",
        frames=2,
        size_wh=(64, 64),
        codec="ffv1",
        pixel_format="yuv420p10le",
        draw=draw,
        set_up=set_up,
    )
    source, frames = open_and_read(clip)
    assert any(f"HDR ({name})" in notice for notice in source.notices)
    if source.info.colour.transfer == transfer:
        pytest.skip("this FFmpeg cannot tone-map; the source is kept as it is and says so")
    assert source.info.colour == Colour(False, 1, 1, 1, 1)
    white, grey = float(frames[0].y[48].mean()), float(frames[0].y[16].mean())
    assert 195 <= white <= 236
    assert 90 <= grey <= 150
    assert abs(float(frames[0].u.mean()) - 128) <= 2
    assert abs(float(frames[0].v.mean()) - 128) <= 2


def test_size_that_changes_is_scaled_to_the_first(tmp_path: Path) -> None:
    one = clips.make_clip(tmp_path / "1.ts", frames=10)
    two = clips.make_clip(tmp_path / "2.ts", frames=10, size_wh=(640, 360), container_options={"output_ts_offset": "1"})
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    source, frames = open_and_read(both)
    assert {(frame.width, frame.height) for frame in frames} == {(320, 180)}
    assert clips.index_of(frames[-1].y) == 9
    assert source.counts["pictures scaled to the first size"] >= 9
    assert any("640x360" in notice and "scaled to 320x180" in notice for notice in source.notices)


def test_opacity_of_a_source_is_ignored_aloud(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([np.full((8, 8, 3), 200, np.uint8), np.zeros((8, 8), np.uint8)]))
    source, frames = open_and_read(tmp_path / "a.png")
    assert "the opacity of the source is ignored" in source.notices
    assert frames[0].y.mean() == pytest.approx(200, abs=1)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "opaque"),
    [
        ("a.png", None, None, True),
        ("a.png", None, None, False),
        ("a.webp", None, None, True),
        ("a.webp", None, None, False),
        ("a.mov", "prores_ks", "yuva444p10le", True),
        ("a.mov", "prores_ks", "yuva444p10le", False),
        ("a.mkv", "ffv1", "bgra", True),
        ("a.mkv", "ffv1", "bgra", False),
        ("a.gif", "gif", "rgb8", True),
    ],
)
def test_only_opacity_that_shows_through_is_spoken_of(
    name: str, codec: str | None, pixel_format: str | None, opaque: bool, tmp_path: Path
) -> None:
    path = tmp_path / name
    pixels = np.full((32, 32, 4), 200, np.uint8)
    pixels[..., 3] = 255
    if not opaque:
        pixels[:16, :16, 3] = 0
    if codec and pixel_format:
        picture = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pixel_format)
        clips.make_clip(
            path, frames=2, size_wh=(32, 32), codec=codec, pixel_format=pixel_format, draw=lambda index: picture
        )
    else:
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_WEBP_QUALITY, 101] if name == "a.webp" else [])
    source, _ = open_and_read(path)
    assert ("the opacity of the source is ignored" in source.notices) is not opaque


def _wiped(clip: Path, which: list[int]) -> bytes:
    """The file with some of its Motion JPEG pictures overwritten by zeros."""
    with av.open(str(clip)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(clip.read_bytes())
    for number in which:
        start = data.find(b"\xff\xd8\xff", spans[number][0])
        data[start : start + spans[number][1]] = bytes(spans[number][1])
    return bytes(data)


def test_broken_packets_in_the_middle_are_skipped_and_counted(tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "a.mkv", frames=40, codec="mjpeg", pixel_format="yuvj420p")
    broken = tmp_path / "b.mkv"
    broken.write_bytes(_wiped(clip, [20]))
    source, frames = open_and_read(broken)
    found = [clips.index_of(frame.y) for frame in frames]
    assert len(found) == 39
    assert 20 not in found
    assert source.counts["broken packets skipped"] == 1


MISSING = "pictures missing where the time jumps"


def test_what_the_library_passes_over_in_a_damaged_file_is_counted(tmp_path: Path) -> None:
    clip = clips.make_clip(
        tmp_path / "in.mkv", frames=100, options={"g": "5"}, container_options={"cluster_time_limit": "200"}
    )
    data = bytearray(clip.read_bytes())
    data[len(data) // 2 : len(data) * 6 // 10] = bytes(len(data) * 6 // 10 - len(data) // 2)
    clip.write_bytes(data)
    source, frames = open_and_read(clip)
    assert 50 < len(frames) < 98
    # A single picture that lacks is no jump.
    assert 96 <= len(frames) + source.counts[MISSING] + source.counts.get("broken packets skipped", 0) <= 100


@pytest.mark.parametrize("pts", [[*range(20), *range(21, 40)], [0, 1, 5, 6, 10, 11, 15, 16, 20, 21, 25, 26]])
def test_a_beat_that_varies_lacks_nothing(pts: list[int], tmp_path: Path) -> None:
    source, frames = open_and_read(clips.make_clip(tmp_path / "in.mkv", pts=pts))
    assert len(frames) == len(pts)
    assert MISSING not in source.counts


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4"])
def test_truncated_file_gives_what_there_is(tmp_path: Path, suffix: str) -> None:
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    clip = clips.make_clip(tmp_path / f"a.{suffix}", frames=90, container_options=options, options={"g": "10"})
    data = clip.read_bytes()
    (tmp_path / f"b.{suffix}").write_bytes(data[: len(data) // 2])
    source, frames = open_and_read(tmp_path / f"b.{suffix}")
    if suffix != "ts":  # a broadcast stream has no length to compare with
        assert any("ends early" in notice and "of 3.0 s" in notice for notice in source.notices)
    found = [clips.index_of(frame.y) for frame in frames]
    assert 15 < len(found) < 65
    assert found[:15] == list(range(15))


def test_whole_pictures_before_a_torn_one_are_all_there(tmp_path: Path) -> None:
    """With B-frames, the decoder still holds some of them when it meets the torn one."""
    clip = clips.make_clip(
        tmp_path / "a.mp4", frames=60, options={"preset": "medium"}, container_options={"movflags": "faststart"}
    )
    with av.open(str(clip)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    torn_at, size = spans[40]
    (tmp_path / "b.mp4").write_bytes(clip.read_bytes()[: torn_at + size // 2])
    source, frames = open_and_read(tmp_path / "b.mp4")
    assert len(frames) == 40
    assert source.counts["broken packets skipped"] == 1


def _refused(url: Path | str, **options: object) -> str:
    with pytest.raises(SourceOpenError) as caught:
        open_source(str(url), **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert not message.endswith(".")
    assert caught.value.exit_code == 2
    return message


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in _refused(tmp_path / "none.mp4")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert "the file is empty" in _refused(tmp_path / "a.mp4")


def test_no_name() -> None:
    assert "no source" in _refused("")


@pytest.mark.parametrize("name", ["a.txt", "a.mp4", "a.nfo", "a.py", "a.m3u8"])
def test_text_is_no_video(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("#EXTM3U\n" * 500 if name == "a.m3u8" else "the quick brown fox\n" * 500)
    assert name in _refused(tmp_path / name)


def test_subtitles_and_sound_are_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n\n")
    assert "has no video stream, only subtitle" in _refused(tmp_path / "a.srt")
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48000)
        block = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), format="s16", layout="stereo")
        block.sample_rate = 48000
        container.mux(stream.encode(block))
    assert "has no video stream, only audio" in _refused(tmp_path / "a.wav")


def test_file_cut_off_before_its_index(tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "a.mp4", frames=30)
    (tmp_path / "b.mp4").write_bytes(clip.read_bytes()[:2000])
    assert "cut off before its index" in _refused(tmp_path / "b.mp4")


def test_video_without_a_frame(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height = 320, 180
        container.start_encoding()
    assert "it ends before its first picture" in _refused(tmp_path / "a.mkv")
    clip = clips.make_clip(tmp_path / "b.mkv", frames=3, codec="mjpeg", pixel_format="yuvj420p")
    (tmp_path / "c.mkv").write_bytes(_wiped(clip, [0, 1, 2]))
    assert "no picture in it can be decoded; 3 broken packets" in _refused(tmp_path / "c.mkv")


def test_too_many_pixels_are_refused(tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "a.mp4", frames=2)
    assert "320x180, more than 1000 pixels" in _refused(clip, max_pixels=1000)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((100, 100, 3), np.uint8))
    assert "larger than 1000 pixels" in _refused(tmp_path / "a.png", max_pixels=1000)


def test_picture_that_claims_to_be_huge_costs_no_memory(tmp_path: Path) -> None:
    body = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    header = b"IHDR" + body
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "a.png").write_bytes(data + struct.pack(">I", 4) + b"IDAT" + bytes(8))
    assert "larger than 1000000 pixels" in _refused(tmp_path / "a.png", max_pixels=10**6)


def test_folder_without_pictures(tmp_path: Path) -> None:
    assert "the folder is empty" in _refused(tmp_path)
    (tmp_path / "a.txt").touch()
    assert "no pictures" in _refused(tmp_path)
    assert "nothing matches" in _refused(tmp_path / "*.jpg")


def test_network_addresses_are_named_without_their_password() -> None:
    message = _refused("rtsp://me:secret@camera/1")
    assert "secret" not in message
    assert "rtsp" in message


def test_broken_single_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"rubbish" * 20)
    message = _refused(tmp_path / "a.png")
    assert message == f"cannot open {tmp_path / 'a.png'}: broken; save or copy it again"
    (tmp_path / "b.jpg").write_bytes(b"neither a picture nor a video")
    assert "it is neither a video nor a JPEG, PNG" in _refused(tmp_path / "b.jpg")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_picture_too_large_for_the_library_is_not_called_broken(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), np.zeros((17000, 17000), np.uint8))
    assert "larger than 1000000 pixels; scale it down, or raise source.max_pixels" in _refused(path, max_pixels=10**6)


def test_packets_come_with_the_frames_and_none_is_lost(tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "a.mp4", frames=60, sound="aac", sound_s=4)
    source = open_source(str(clip))
    gathered: list[bytes] = []
    portions = []
    while source.read() is not None:
        packets = source.take_packets()
        portions.append(len(packets))
        gathered += [bytes(packet.payload) for packet in packets]
    gathered += [bytes(packet.payload) for packet in source.take_packets()]
    assert gathered == clips.packets(clip)
    assert [track.kind for track in source.info.tracks] == ["audio"]
    # The muxer put the trailing sound before the last picture; all else comes as it is needed.
    assert max(portions[:-1]) < 10
    source.close()


READER = """
import sys
from streamseg.sources import open_source
from streamseg.errors import SourceOpenError
try:
    source = open_source("-")
except SourceOpenError as error:
    sys.exit(f"refused: {error}")
count = 0
while source.read() is not None:
    count += 1
    if count == int(sys.argv[1]):
        source.interrupt()
source.close()
print(count, source.info.name)
"""


def _read_from_pipe(data: bytes, stop_at: int = 0, keep_open: bool = False) -> tuple[int, str, str]:
    child = subprocess.Popen(
        [sys.executable, "-c", READER, str(stop_at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=False,
    )
    assert child.stdin is not None
    try:
        child.stdin.write(data)
        child.stdin.flush()
        if keep_open:
            child.wait(120)
    except BrokenPipeError:
        pass
    try:
        out, err = child.communicate(timeout=120)
    finally:
        child.kill()
    return child.returncode, out.decode(), err.decode()


def test_container_on_standard_input(tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "a.mkv", frames=20, sound="aac")
    code, out, err = _read_from_pipe(clip.read_bytes())
    assert (code, out.split(None, 1)) == (0, ["20", "standard input\n"]), err


def test_no_container_on_standard_input() -> None:
    code, _, err = _read_from_pipe(b"rubbish " * 1000)
    assert code == 1
    assert err.startswith("refused: standard input holds no video")
    assert err.count("\n") == 1


def _noise(index: int) -> av.VideoFrame:
    samples = np.random.default_rng(index).integers(0, 256, (72, 64), np.uint8)
    return av.VideoFrame.from_ndarray(samples, format="yuv420p")


def test_pictures_before_their_index_cannot_be_piped(tmp_path: Path) -> None:
    """More of them than the library keeps to look back at."""
    clip = clips.make_clip(tmp_path / "a.mp4", frames=40, size_wh=(64, 48), options={"qp": "0"}, draw=_noise)
    assert clip.stat().st_size > 100_000
    code, _, err = _read_from_pipe(clip.read_bytes())
    assert code == 1
    assert err.startswith("refused: standard input holds no video that can be read as it comes: ")


def test_interrupt_does_not_wait_for_standard_input(tmp_path: Path) -> None:
    """The writer keeps the pipe open and silent; the reader must end all the same."""
    clip = clips.make_clip(tmp_path / "a.ts", frames=120, options={"bf": "0", "tune": "zerolatency"})
    code, out, err = _read_from_pipe(clip.read_bytes(), stop_at=5, keep_open=True)
    assert (code, out.split()[0]) == (0, "5"), err


@pytest.mark.material
@pytest.mark.parametrize(("name", "count"), [("webcam_intel_asl_book.mkv", 109), ("portrait_wokada_couple.mp4", 300)])
def test_real_clips_give_every_frame(material: Path, name: str, count: int) -> None:
    source, frames = FileSource(str(material / "media" / name), max_pixels=10**8), 0
    while source.read() is not None:
        frames += 1
    source.close()
    assert frames == count
    assert source.counts == {}


def test_in_memory_clip_helper_writes_what_it_says(tmp_path: Path) -> None:
    """The bits in the pictures are the measure of all the tests: they must survive a lossy encoder."""
    clip = clips.make_clip(tmp_path / "a.mp4", frames=300, size_wh=(128, 64), options={"crf": "35"})
    assert clips.indices(clip) == list(range(300))


@pytest.mark.parametrize("name", ["100%.mp4", "a:b.mp4", "-x.mp4", "sp ace ü.mp4", "x_%03d.mp4", "[1].mp4"])
def test_strange_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.name == "nt" and ":" in name:
        pytest.skip("Windows has no such names")
    clips.make_clip(tmp_path / "plain.mp4", frames=3)
    (tmp_path / "plain.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    _, frames = open_and_read(name)
    assert len(frames) == 3
