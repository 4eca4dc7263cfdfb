"""Every sink keeps one contract; then encoders, opacity, pictures, the matte, lines, and what cannot be opened."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from streamseg.errors import SinkOpenError, SinkWriteError
from streamseg.frame import Colour, Origin, Output, Sink
from streamseg.sinks import LinesSink, MatteSink, open_sink, same_file
from tests import clips

FRAMES = 12


def outputs(count: int = FRAMES, **changes: object) -> list[Output]:
    ramp = np.tile(np.linspace(0, 255, 320).astype(np.uint8), (180, 1))
    return [Output(clips.frame(index, **changes), matte=np.roll(ramp, index, 1)) for index in range(count)]


def write_all(sink: Sink, given: list[Output]) -> None:
    for output in given:
        sink.write(output)
    sink.finish()
    sink.close()


FAST = {"encoder": "libx264:preset=ultrafast"}
FAST_WEBM = {"encoder": "libvpx-vp9:cpu-used=8"}
KINDS: dict[str, Callable[[Path], Sink]] = {
    "out.mp4": lambda path: open_sink(str(path), clips.info(), **FAST),
    "out.mkv": lambda path: open_sink(str(path), clips.info(), **FAST),
    "out.mov": lambda path: open_sink(str(path), clips.info(), **FAST),
    "out.ts": lambda path: open_sink(str(path), clips.info(), **FAST),
    "out.webm": lambda path: open_sink(str(path), clips.info(), **FAST_WEBM),
    "matte.mkv": lambda path: MatteSink(str(path), clips.info()),
    "matte.mov": lambda path: MatteSink(str(path), clips.info()),
    "matte.mp4": lambda path: MatteSink(str(path), clips.info()),
    "matte.webm": lambda path: MatteSink(str(path), clips.info()),
    "lines.jsonl": lambda path: LinesSink(str(path), lambda output: {"index": output.frame.index}),
}
VIDEOS = [name for name in KINDS if name.startswith("out")]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_has_its_name_only_when_it_is_whole(kind: str, tmp_path: Path) -> None:
    final = tmp_path / kind
    sink = KINDS[kind](final)
    for output in outputs():
        sink.write(output)
        assert not final.exists()
    sink.finish()
    sink.close()
    assert final.stat().st_size > 0
    assert os.listdir(tmp_path) == [kind]
    assert not sink.notices


def test_what_has_the_name_stays_until_then(kind: str, tmp_path: Path) -> None:
    final = tmp_path / kind
    final.write_text("older")
    sink = KINDS[kind](final)
    sink.write(outputs()[0])
    assert final.read_text() == "older"
    sink.finish()
    sink.close()
    assert b"older" not in final.read_bytes()[:5]


@pytest.mark.parametrize("there", [False, True])
def test_a_link_stays_one_and_is_written_through(kind: str, there: bool, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / f"whole-{kind}", tmp_path / kind
    if there:
        target.write_text("older")
    link.symlink_to(target)
    sink = KINDS[kind](link)
    for output in outputs():
        sink.write(output)
    sink.finish()
    sink.close()
    assert link.is_symlink()
    assert target.stat().st_size > 5
    assert os.listdir(target.parent) == [target.name]


def test_without_finish_nothing_has_the_name(kind: str, tmp_path: Path) -> None:
    sink = KINDS[kind](tmp_path / kind)
    for output in outputs():
        sink.write(output)
    sink.close()
    assert not (tmp_path / kind).exists()
    stem, suffix = kind.split(".")
    assert os.listdir(tmp_path) == [f"{stem}.partial.{suffix}"]


def test_without_a_frame_nothing_is_left(kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / kind).close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", VIDEOS)
def test_finished_without_a_frame_nothing_is_left(name: str, tmp_path: Path) -> None:
    """Stopped by the user before the first frame."""
    sink = KINDS[name](tmp_path / name)
    sink.finish()
    sink.close()
    assert os.listdir(tmp_path) == []
    assert sink.notices == ["no frame came, so nothing was written"]


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_failed_run_keeps_every_frame_under_the_other_name(name: str, tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / name), clips.info(), encoder="libx264:preset=veryslow")  # looks far ahead
    for output in outputs(50):
        sink.write(output)
    sink.close()
    assert clips.indices(tmp_path / name.replace("out", "out.partial")) == list(range(50))


def test_what_an_earlier_run_left_is_named_and_kept(kind: str, tmp_path: Path) -> None:
    stem, suffix = kind.split(".")
    left = tmp_path / f"{stem}.partial.{suffix}"
    left.write_text("left")
    sink = KINDS[kind](tmp_path / kind)
    assert any(left.name in notice and "earlier run" in notice for notice in sink.notices)
    write_all(sink, outputs())
    assert left.read_text() == "left"
    assert sorted(os.listdir(tmp_path)) == sorted([kind, left.name])


@pytest.mark.parametrize("name", VIDEOS)
def test_every_frame_is_there_at_its_time(name: str, tmp_path: Path) -> None:
    write_all(KINDS[name](tmp_path / name), outputs(40))
    assert clips.indices(tmp_path / name) == list(range(40))
    times = clips.times(tmp_path / name)
    exact = name.endswith(("mp4", "mov"))
    start = times[0] if name.endswith("ts") else 0  # broadcast clocks begin where the decoder's delay allows
    for index, time in enumerate(times):
        assert abs(time - start - Fraction(index, 30)) <= (0 if exact else Fraction(1, 1000))


@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.parametrize(
    "colour", [Colour(False, 1, 1, 1, 1), Colour(True, 6, 6, 6, 2), Colour(False, 9, 9, 14, 3)], ids=str
)
def test_colour_tags_are_written(name: str, colour: Colour, tmp_path: Path) -> None:
    info = clips.info(colour=colour)
    sink = open_sink(str(tmp_path / name), info, **(FAST_WEBM if name.endswith("webm") else FAST))
    write_all(sink, outputs(3, colour=colour))
    with av.open(str(tmp_path / name)) as container:
        context = container.streams.video[0].codec_context
        picture = next(container.decode(video=0))
        assert picture.color_range == (2 if colour.full_range else 1)
        assert picture.colorspace == colour.matrix
        if not name.endswith("webm"):  # VP9 itself has no primaries; they stand in the container
            assert (context.color_primaries, context.color_trc) == (colour.primaries, colour.transfer)


def test_samples_survive_a_lossless_encoder(tmp_path: Path) -> None:
    for name, options in {"a.mkv": {"encoder": "ffv1"}, "a.mp4": {"quality": "lossless"}}.items():
        write_all(open_sink(str(tmp_path / name), clips.info(), **options), outputs(3))
        with av.open(str(tmp_path / name)) as container:
            picture = list(container.decode(video=0))[2]
            np.testing.assert_array_equal(picture.to_ndarray(format="yuv420p"), clips.planes(2, 320, 180))


def test_a_quantiser_among_the_options_takes_the_place_of_the_quality(tmp_path: Path) -> None:
    sizes = []
    for quantiser in (10, 40):
        path = tmp_path / f"{quantiser}.mkv"
        write_all(open_sink(str(path), clips.info(), encoder=f"libx264:preset=ultrafast,qp={quantiser}"), outputs(3))
        sizes.append(path.stat().st_size)
    assert sizes[0] > 2 * sizes[1]


@pytest.mark.parametrize("size_wh", [(322, 182), (318, 178), (34, 30), (2, 2)])
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a_%d.png", "m.webm", "m.mkv"])
def test_heights_that_are_no_multiple_of_four(name: str, size_wh: tuple[int, int], tmp_path: Path) -> None:
    """PyAV's own way from arrays to pictures cuts such pictures off."""
    width, height = size_wh
    info = clips.info(width, height)
    given = [Output(clips.frame(index, width, height), matte=clips.luma(index, width, height)) for index in range(3)]
    path = str(tmp_path / name)
    write_all(MatteSink(path, info) if name[0] == "m" else open_sink(path, info, quality="lossless"), given)
    if name == "a_%d.png":
        assert cv2.imread(str(tmp_path / "a_2.png")).shape == (height, width, 3)
        return
    with av.open(path) as container:
        picture = list(container.decode(video=0))[1]
    found = np.array(picture.to_ndarray(format="yuv420p" if name[0] == "a" else None))
    if name[0] == "a":
        np.testing.assert_array_equal(found, clips.planes(1, width, height))
    else:
        np.testing.assert_array_equal(found[:height, :width], clips.luma(1, width, height))


def test_shape_of_pixels_is_kept(tmp_path: Path) -> None:
    info = clips.info(sample_aspect_ratio=Fraction(4, 3))
    write_all(open_sink(str(tmp_path / "a.mp4"), info, **FAST), outputs(2))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize(("name", "alpha"), [("a.mkv", False), ("a.mkv", True), ("a.webm", False), ("a.mov", True)])
def test_shape_of_pixels_is_kept_or_said_to_be_lost(name: str, alpha: bool, tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / name), clips.info(sample_aspect_ratio=Fraction(4, 3)), alpha=alpha)
    write_all(sink, outputs(2))
    with av.open(str(tmp_path / name)) as container:
        kept = container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
    assert kept is not any("pixels of 4:3" in notice for notice in sink.notices)


def test_frames_of_another_size_are_scaled_and_counted(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "a.mp4"), clips.info(), quality="lossless")
    shapes = [(320, 180), (640, 360), (320, 180), (90, 180), (320, 90)]
    write_all(sink, [Output(clips.frame(index, *shape)) for index, shape in enumerate(shapes)])
    assert sink.notices == ["pictures of another size are scaled and framed to 320x180"]
    assert sink.counts == {"pictures scaled and framed": 3}
    with av.open(str(tmp_path / "a.mp4")) as container:
        found = [picture.to_ndarray(format="yuv420p")[:180] for picture in container.decode(video=0)]
    assert [clips.index_of(picture) for picture in found[:3]] == [0, 1, 2]
    tall, wide = found[3:]
    assert tall[:, :114].max() <= 17  # 90 wide in the middle of 320
    assert tall[:, 206:].max() <= 17
    assert clips.index_of(tall[:, 116:206].repeat(4, 1)) == 3
    assert wide[:44].max() <= 17
    assert clips.index_of(wide[45:135]) == 4


def test_frames_may_be_overwritten_after_write(tmp_path: Path) -> None:
    """A caller may use its buffers again: the sink holds on to nothing."""
    for name, encoder in {"a.mkv": "ffv1", "b.mp4": "libx264", "c.webm": "libvpx-vp9"}.items():
        sink = open_sink(str(tmp_path / name), clips.info(), encoder=encoder)
        buffer = clips.planes(0, 320, 180)
        for index in range(10):
            buffer[:] = clips.planes(index, 320, 180)
            sink.write(Output(clips.frame(index, planes=buffer)))
            buffer[:] = 0
        sink.finish()
        sink.close()
        assert clips.indices(tmp_path / name) == list(range(10))


# what is told about quality and encoders


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libvpx-vp9", "libsvtav1", "mpeg4", "mjpeg"])
def test_quality_words_order_the_sizes(encoder: str, tmp_path: Path) -> None:
    if encoder not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {encoder}")
    rng = np.random.default_rng(1)
    noisy = [replace(o, frame=o.frame.with_picture(o.frame.planes // 2 + rng.integers(0, 99, (270, 320), np.uint8)))
             for o in outputs(5)]  # fmt: skip
    sizes = []
    for quality in ("low", "medium", "high"):
        path = tmp_path / f"{quality}.mkv"
        write_all(open_sink(str(path), clips.info(), encoder=encoder, quality=quality), noisy)
        sizes.append(path.stat().st_size)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 1.3


def test_options_behind_the_encoder(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "a.mp4"), clips.info(), encoder="libx264:preset=ultrafast,g=3", quality=30)
    write_all(sink, outputs(9))
    with av.open(str(tmp_path / "a.mp4")) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
        assert b"crf=30" in bytes(next(iter(av.open(str(tmp_path / "a.mp4")).demux(video=0))))
    assert keys == [True, False, False] * 3


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("a.mp4", {"encoder": "libx246"}, "no encoder 'libx246' here; there are libx26"),
        ("a.mp4", {"encoder": "aac"}, "'aac' encodes audio"),
        ("a.mp4", {"encoder": "libx264:fast"}, "not of the form name=value"),
        ("a.mp4", {"encoder": "libx264:prest=fast"}, "it has no option 'prest'"),
        ("a.mp4", {"encoder": "libx264:preset=ultrfast"}, "it has no preset 'ultrfast'; did you mean ultrafast?"),
        ("a.mp4", {"encoder": "libx264:preset="}, "not of the form name=value"),
        ("a.mp4", {"encoder": "libx264:g=9,crf=abc"}, "does not take g=9,crf=abc: invalid argument (Error setting opt"),
        ("a.mp4", {"encoder": "libx264:x264-params=kyint=9"}, "does not take x264-params=kyint=9: "),
        ("a.webm", {"encoder": "libvpx-vp9:cpu-used=99"}, "does not take cpu-used=99: "),
        ("a.mp4", {"encoder": "libx264:x265-params=keyint=9"}, "it has no option 'x265-params'"),
        ("a.mp4", {"quality": -5}, "does not take crf=-5: numerical result out of range"),
        ("a.mp4", {"quality": "nan"}, "neither low, medium, high, lossless nor a number"),
        ("a.mp4", {"encoder": "huffyuv"}, "does not support 'huffyuv'"),
        ("a.mp4", {"quality": "splendid"}, "neither low, medium, high, lossless nor a number"),
        ("a.webm", {"encoder": "libsvtav1", "quality": "lossless"}, "libsvtav1 is never lossless"),
        ("a.webm", {"encoder": "libx264"}, "libx264"),
        ("a.mpq", {}, "unknown container 'mpq'; did you mean"),
        ("a", {}, "its name has no extension"),
        ("a.gif", {}, "unknown container 'gif'"),
        ("a.mp4", {"alpha": True}, "opacity goes into .webm (VP9), .mov (ProRes 4444), .mkv (FFV1) or .png"),
        ("a.webm", {"alpha": True, "encoder": "libsvtav1"}, "opacity goes into"),
        ("a.jpg", {"alpha": True}, "use .png, .webp or .tif"),
        ("a_%d.jpg", {"quality": "lossless"}, "JPEG is never lossless"),
        ("a_%d.jpg", {"quality": 101}, "not between 1 and 100"),
        ("a_%d.png", {"encoder": "libx264"}, "pictures need none"),
        ("none/a.mp4", {}, "does not exist; make it first"),
        ("none/a_%d.png", {}, "does not exist; make it first"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_line(
    name: str, options: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SinkOpenError) as caught:
        open_sink(str(tmp_path / name), clips.info(), **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert caught.value.exit_code == 2
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "encoder",
    [
        "libx264:preset=ultrfast",
        "libx264:tune=fim",
        "libx264:profile=hgh",
        "libx265:preset=ultrfast",
        "libx265:x265-params=fo=1",
        "libsvtav1:preset=99",
    ],
)
def test_the_encoders_own_library_stays_silent_about_wrong_options(
    encoder: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if encoder.partition(":")[0] not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {encoder.partition(':')[0]}")
    with pytest.raises(SinkOpenError):
        open_sink(str(tmp_path / "a.mkv"), clips.info(), encoder=encoder)
    assert capfd.readouterr().err == ""


def test_options_for_the_library_of_libx265_leave_it_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if "libx265" not in av.codecs_available:
        pytest.skip("this FFmpeg has no libx265")
    path = tmp_path / "a.mkv"
    write_all(open_sink(str(path), clips.info(), encoder="libx265:x265-params=keyint=2:bframes=0"), outputs(4))
    assert capfd.readouterr().err == ""
    with av.open(str(path)) as container:
        assert [packet.is_keyframe for packet in container.demux(video=0) if packet.size] == [True, False, True, False]


def test_hardware_encoder_that_does_not_open_says_so(tmp_path: Path) -> None:
    if "h264_nvenc" not in av.codecs_available:
        pytest.skip("this FFmpeg has no h264_nvenc")
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has such a card")
    with pytest.raises(SinkOpenError) as caught:
        open_sink(str(tmp_path / "a.mp4"), clips.info(), encoder="h264_nvenc")
    assert "encoder h264_nvenc does not open on this machine" in str(caught.value)
    assert "it needs an NVIDIA card that encodes, with its driver; choose auto, or libx264" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_hardware_encoder(tmp_path: Path) -> None:
    if not Path("/dev/nvidia0").exists():
        pytest.skip("no NVIDIA card: h264_nvenc is not tried")
    write_all(open_sink(str(tmp_path / "a.mp4"), clips.info(), encoder="h264_nvenc"), outputs())
    assert clips.indices(tmp_path / "a.mp4") == list(range(FRAMES))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(SinkOpenError, match="it is a folder"):
        LinesSink(str(tmp_path / "a.mp4"), lambda output: {})


def test_lines_of_a_live_run_leave_those_of_the_run_before(tmp_path: Path) -> None:
    for run in (1, 2, 3):
        sink = LinesSink(str(tmp_path / "r.jsonl"), lambda output, run=run: {"run": run}, numbered=True)
        remark = "r.jsonl is an earlier run's and stays; a number goes behind the new one's name"
        assert list(sink.notices) == ([remark] if run > 1 else [])
        write_all(sink, outputs())
    written = {path.name: set(path.read_text().splitlines()) for path in tmp_path.iterdir()}
    assert written == {"r.jsonl": {'{"run":1}'}, "r-2.jsonl": {'{"run":2}'}, "r-3.jsonl": {'{"run":3}'}}


@pytest.mark.parametrize("name", ["m.mkv", "out.webm"])
def test_videos_of_a_live_run_leave_those_of_the_run_before(tmp_path: Path, name: str) -> None:
    info, path = clips.info(live=True), tmp_path / name
    for count in (2, 3):
        sink = MatteSink(str(path), info) if name[0] == "m" else open_sink(str(path), info, alpha=True, **FAST_WEBM)
        write_all(sink, outputs(count))
    with_number = path.with_stem(f"{path.stem}-2")
    assert {file.name for file in tmp_path.iterdir()} == {name, with_number.name}
    for file, count in ((path, 2), (with_number, 3)):
        with av.open(str(file)) as container:
            assert sum(1 for _ in container.decode(video=0)) == count


@pytest.mark.parametrize(("name", "prefix"), [("m/", "clip_"), ("m_%05d.png", "m_")])
def test_pictures_of_a_live_run_go_on_behind_those_of_the_run_before(tmp_path: Path, name: str, prefix: str) -> None:
    for live, count in ((True, 2), (True, 3), (False, 1)):
        write_all(MatteSink(f"{tmp_path}/{name}", clips.info(live=live)), outputs(count))
    names = sorted(path.name for path in tmp_path.rglob("*.png"))
    assert names == [f"{prefix}{number:05d}.png" for number in (1, 2, 3, 4, 5)]


def test_read_only_folder(tmp_path: Path) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc: nothing here that even root cannot write into")
    with pytest.raises(SinkOpenError, match=r"cannot write /proc/self/a\.mp4"):
        open_sink("/proc/self/a.mp4", clips.info())


# opacity


def _transparent(count: int = 6) -> list[Output]:
    alpha = np.zeros((180, 320), np.uint8)
    alpha[60:120, 80:240] = 255
    alpha[60:120, 70:80] = 128
    return [Output(clips.frame(index, alpha=alpha), matte=alpha) for index in range(count)]


@pytest.mark.parametrize(
    ("name", "options", "decoder", "tolerance"),
    [
        ("a.mkv", {}, None, 0),
        ("a.mov", {}, None, 3),
        ("a.webm", {}, "libvpx-vp9", 12),
        ("a.mov", {"encoder": "qtrle"}, None, 0),
        ("a.mov", {"encoder": "png"}, None, 0),
        ("a.mkv", {"encoder": "vp9"}, "libvpx-vp9", 12),
    ],
)
def test_opacity_in_video(
    name: str, options: dict[str, str], decoder: str | None, tolerance: int, tmp_path: Path
) -> None:
    given = _transparent()
    write_all(open_sink(str(tmp_path / name), clips.info(), alpha=True, **options), given)
    with av.open(str(tmp_path / name)) as container:
        if decoder:  # FFmpeg's own VP9 decoder knows no opacity
            context = av.CodecContext.create(decoder, "r")
            pictures = [p for packet in container.demux(video=0) if packet.size for p in context.decode(packet)]
        else:
            pictures = list(container.decode(video=0))
    assert len(pictures) >= len(given) - 1
    rgba = pictures[2].to_ndarray(format="rgba").astype(int)
    assert np.abs(rgba[..., 3] - given[2].frame.alpha).max() <= max(tolerance, 1)
    # Straight, not multiplied: half transparent pixels are as bright as the others beside them.
    y = clips.luma(2, 320, 180)[90, 74].astype(float)
    u, v = 150 - 128, 105 - 128
    green = 1.164 * (y - 16) - 0.213 * u - 0.533 * v
    assert abs(rgba[90, 74, 1] - green) <= 12 + tolerance


@pytest.mark.parametrize("name", ["a.mkv", "a.mov", "a_%d.png"])
def test_nothing_of_the_room_is_left_under_full_transparency(name: str, tmp_path: Path) -> None:
    write_all(open_sink(str(tmp_path / name), clips.info(), alpha=True), _transparent(2))
    if name.endswith("png"):
        found = cv2.imread(str(tmp_path / "a_1.png"), cv2.IMREAD_UNCHANGED)
    else:
        with av.open(str(tmp_path / name)) as container:
            found = next(container.decode(video=0)).to_ndarray(format="bgra")
    assert found[:50, :, :3].max() <= 3
    assert found[130:, :, :3].max() <= 3
    assert found[90, 160, :3].max() > 40


@pytest.mark.parametrize("name", ["a_%d.png", "a_%d.webp", "a_%d.tif"])
def test_opacity_in_pictures(name: str, tmp_path: Path) -> None:
    given = _transparent(2)
    write_all(open_sink(str(tmp_path / name), clips.info(), alpha=True, quality="lossless"), given)
    found = cv2.imread(str(tmp_path / name.replace("%d", "2")), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found[..., 3], given[1].frame.alpha)


# pictures


def _reference_bgr(frame_planes: np.ndarray, colour: Colour, width: int, height: int) -> np.ndarray:
    """ITU-T H.273's equations in floating point, on flat chroma."""
    kr, kb = colour.luma_weights(height)
    y = frame_planes[:height].astype(float)
    u, v = 150.0 - 128, 105.0 - 128
    if not colour.full_range:
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    r, b = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.dstack([b, g, r]), 0, 255)


@pytest.mark.parametrize(
    "colour",
    [Colour(False, 1, 1, 1), Colour(True, 5, 1, 13, 2), Colour(False, 6, 6, 6), Colour(False, 9, 9, 14), Colour()],
    ids=str,
)
def test_colours_of_pictures_are_those_of_the_equations(colour: Colour, tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "a.png"), clips.info(colour=colour, frame_count=1))
    write_all(sink, [Output(clips.frame(7, colour=colour))])
    found = cv2.imread(str(tmp_path / "a.png")).astype(float)
    expected = _reference_bgr(clips.planes(7, 320, 180), colour, 320, 180)
    assert np.abs(found - expected).max() <= 2.5


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
def test_numbered_pictures(suffix: str, tmp_path: Path) -> None:
    write_all(open_sink(str(tmp_path / f"a_%03d.{suffix}"), clips.info()), outputs(3))
    assert sorted(os.listdir(tmp_path)) == [f"a_00{number}.{suffix}" for number in (1, 2, 3)]
    for index in range(3):
        picture = cv2.imread(str(tmp_path / f"a_00{index + 1}.{suffix}"), cv2.IMREAD_GRAYSCALE)
        assert clips.index_of(picture) == index


def test_folder_keeps_the_names_of_its_sources(tmp_path: Path) -> None:
    names = ["a.jpg", "b.png", "a.jpg", "c.gif", "clip.mp4"]
    given = [Output(clips.frame(index, origin=Origin(name, (320, 180)))) for index, name in enumerate(names)]
    write_all(open_sink(f"{tmp_path}/new/", clips.info(varying_size=True)), given)
    assert sorted(os.listdir(tmp_path / "new")) == ["a.jpg", "a_2.jpg", "b.png", "c_00004.png", "clip_00005.png"]


def test_pictures_are_cut_back_to_the_size_before_padding(tmp_path: Path) -> None:
    frame = clips.frame(3, 322, 182, origin=Origin("a.png", (321, 181)))
    write_all(open_sink(str(tmp_path / "a.png"), clips.info(322, 182, frame_count=1)), [Output(frame)])
    assert cv2.imread(str(tmp_path / "a.png")).shape == (181, 321, 3)


def test_one_name_for_many_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkOpenError, match=r"one name for 50 pictures; use a_%05d.png or a/"):
        open_sink(str(tmp_path / "a.png"), clips.info(frame_count=50))
    sink = open_sink(str(tmp_path / "a.png"), clips.info())
    sink.write(outputs()[0])
    with pytest.raises(SinkWriteError, match="second picture"):
        sink.write(outputs()[1])
    sink.close()


# the matte, lines


@pytest.mark.parametrize("name", ["matte.mkv", "matte.mov", "matte.mp4", "matte.webm"])
def test_matte_video_is_lossless(name: str, tmp_path: Path) -> None:
    given = outputs(5)
    given[3] = replace(given[3], matte=None)
    write_all(MatteSink(str(tmp_path / name), clips.info()), given)
    with av.open(str(tmp_path / name)) as container:
        pictures = [np.array(picture.to_ndarray())[:180, :320] for picture in container.decode(video=0)]
    assert len(pictures) == 5
    for index, picture in enumerate(pictures):
        expected = given[index].matte
        np.testing.assert_array_equal(picture, np.zeros((180, 320)) if expected is None else expected)
    assert clips.times(tmp_path / name)[4] == pytest.approx(Fraction(4, 30), abs=0.001)


def test_matte_pictures_are_lossless_and_cut_back(tmp_path: Path) -> None:
    matte = np.arange(322 * 182, dtype=np.uint32).reshape(182, 322).astype(np.uint8)
    frame = clips.frame(0, 322, 182, origin=Origin("a.jpg", (321, 181)))
    write_all(MatteSink(f"{tmp_path}/m/", clips.info(322, 182)), [Output(frame, matte=matte)])
    found = cv2.imread(str(tmp_path / "m" / "a.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, matte[:181, :321])


def test_matte_of_pictures_that_differ_in_size_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SinkOpenError, match="differ in size; name a folder"):
        MatteSink(str(tmp_path / "m.mkv"), clips.info(varying_size=True))
    with pytest.raises(SinkOpenError, match=r"use \.mkv, \.mov, \.mp4, \.webm or pictures"):
        MatteSink(str(tmp_path / "m.ts"), clips.info())


def test_lines_are_json_one_a_frame(tmp_path: Path) -> None:
    sink = LinesSink(str(tmp_path / "r.jsonl"), lambda output: {"index": output.frame.index, "name": "ü\n\udc80"})
    write_all(sink, outputs(3))
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2]
    assert json.loads(lines[0])["name"] == "ü\n\udc80"


@pytest.mark.parametrize(
    ("number", "next_step"),
    [(errno.EROFS, "choose another place"), (errno.ENOSPC, "make room"), (errno.ENAMETOOLONG, "choose a shorter one")],
)
def test_a_place_that_takes_no_file_says_what_to_do_next(
    number: int, next_step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SinkOpenError, match=f"a.mp4: {os.strerror(number).lower()}; {next_step}$"):
        open_sink(str(tmp_path / "a.mp4"), clips.info(), **FAST)


# kills, full disks, pipes

WRITER = """
import sys, os, signal
sys.path.insert(0, sys.argv[1])
from tests import clips
from streamseg.frame import Output
from streamseg.sinks import open_sink
sink = open_sink(sys.argv[2], clips.info(), encoder="libx264:preset=veryfast,g=30")
for index in range(300):
    sink.write(Output(clips.frame(index)))
    if index == 239:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
def test_killed_run_leaves_a_playable_file_and_the_next_run_says_where(suffix: str, tmp_path: Path) -> None:
    final = tmp_path / f"out.{suffix}"
    code = subprocess.run([sys.executable, "-c", WRITER, str(Path(__file__).parents[1]), str(final)]).returncode
    assert code == -signal.SIGKILL
    partial = tmp_path / f"out.partial.{suffix}"
    assert os.listdir(tmp_path) == [partial.name]
    found = clips.indices(partial)
    # 240 were handed over; the encoder looks some 50 ahead, the last fragment, a second, is open, the last packet torn.
    assert len(found) >= 120
    assert found[:-4] == list(range(len(found) - 4))
    sink = open_sink(str(final), clips.info(), **FAST)
    assert any(partial.name in notice and "playable" in notice for notice in sink.notices)
    write_all(sink, outputs())
    assert clips.indices(final) == list(range(FRAMES))
    assert clips.indices(partial) == found


WAITING_WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from tests import clips
from streamseg.frame import Output
from streamseg.sinks import open_sink
sink = open_sink(sys.argv[2], clips.info(), encoder="libx264:preset=ultrafast")
sink.write(Output(clips.frame(0)))
print("writing", flush=True)
sys.stdin.readline()
for index in range(1, 12):
    sink.write(Output(clips.frame(index)))
sink.finish()
sink.close()
"""


def test_another_process_that_writes_the_file_is_told_from_one_that_left_it(tmp_path: Path) -> None:
    final = tmp_path / "out.mkv"
    command = [sys.executable, "-c", WAITING_WRITER, str(Path(__file__).parents[1]), str(final)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "writing\n"
        with pytest.raises(SinkOpenError, match=r"out\.mkv: another run is writing it now; wait") as caught:
            open_sink(str(final), clips.info(), **FAST)
        assert caught.value.exit_code == 2
        assert os.listdir(tmp_path) == ["out.partial.mkv"]
        first.communicate("go on\n", timeout=120)
    assert first.returncode == 0
    assert clips.indices(final) == list(range(12))


@pytest.mark.parametrize("name", ["out.mp4", "out.jsonl"])
def test_what_was_let_go_of_is_left_and_no_longer_being_written(name: str, tmp_path: Path) -> None:
    def opened() -> Sink:
        path = str(tmp_path / name)
        return LinesSink(path, lambda output: {}) if name.endswith("l") else open_sink(path, clips.info(), **FAST)

    first = opened()
    first.write(outputs(1)[0])
    with pytest.raises(SinkOpenError, match="another run is writing it now"):
        opened()
    first.close()
    second = opened()
    assert any("an earlier run left" in notice for notice in second.notices)
    second.close()
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("kind", [open_sink, MatteSink])
@pytest.mark.parametrize("name", ["shot_%05d.png", "shots/"])
def test_two_runs_do_not_mix_their_pictures(kind: Callable[..., Sink], name: str, tmp_path: Path) -> None:
    url, info = str(tmp_path / name) + "/" * name.endswith("/"), clips.info()
    first = kind(url, info)
    with pytest.raises(SinkOpenError, match="another run is writing it now; wait") as caught:
        kind(url, info)
    assert caught.value.exit_code == 2
    first.write(outputs(1)[0])
    first.finish()
    first.close()
    second = kind(url, info)  # what lies there from before is written anew
    second.write(outputs(1)[0])
    second.close()
    assert len([file for file in tmp_path.rglob("*") if file.is_file()]) == 1


def test_what_a_killed_run_claimed_is_tidied_up_by_the_next_in_that_folder(tmp_path: Path) -> None:
    at_work = open_sink(str(tmp_path / "busy_%05d.png"), clips.info())
    (busy,) = tmp_path.iterdir()
    left, fresh = tmp_path / f"{busy}".replace("busy", "left"), tmp_path / f"{busy}".replace("busy", "fresh")
    for path in (left, fresh):
        path.touch()
    for path in (left, busy):
        os.utime(path, (0, 0))
    open_sink(str(tmp_path / "shot_%05d.png"), clips.info()).close()
    assert set(tmp_path.iterdir()) == {busy, fresh}  # what was made just now may be a run's that begins
    with pytest.raises(SinkOpenError, match="another run is writing it now"):
        open_sink(str(tmp_path / "busy_%05d.png"), clips.info())
    at_work.close()


def test_a_picture_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere/whole.png", tmp_path / "out.png"
    link.symlink_to(target)
    sink = open_sink(str(link), clips.info(frame_count=1))
    write_all(sink, outputs(1))
    assert link.is_symlink()
    assert cv2.imread(str(target)) is not None


def test_runs_of_different_sources_share_a_folder(tmp_path: Path) -> None:
    sinks = [open_sink(f"{tmp_path}/out/", replace(clips.info(), name=name)) for name in ("a.mp4", "b.mp4")]
    for sink in sinks:
        sink.close()
    assert not os.listdir(tmp_path / "out")


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "webm"])
def test_full_disk_is_one_line_and_what_came_before_plays(suffix: str, tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk: writes fail in the same place, with another number."""
    disk, mounted = _small_disk(tmp_path)
    try:
        options = {"encoder": "libx264:preset=ultrafast,g=15"} if suffix != "webm" else FAST_WEBM
        sink = open_sink(str(disk / f"a.{suffix}"), clips.info(640, 360), quality="high", **options)
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 60, (540, 640), np.uint8)
        with pytest.raises(SinkWriteError) as caught:  # noqa: PT012  # where it fails depends on the disk
            for index in range(2000):
                planes = np.minimum(clips.planes(index, 640, 360), 190) + np.roll(noise, index * 7)
                sink.write(Output(clips.frame(index, 640, 360, planes=planes)))
            sink.finish()
        sink.close()
        message = str(caught.value)
        assert f"a.partial.{suffix}" in message
        assert "\n" not in message
        assert ("no space left on device; make room" if mounted else "file too large") in message
        assert not (disk / f"a.{suffix}").exists()
        found = clips.indices(disk / f"a.partial.{suffix}", torn=True)
        assert len(found) > 10
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_lines_go_on_once_there_is_room_again(tmp_path: Path) -> None:
    disk, mounted = _small_disk(tmp_path)
    rest = disk / "rest"
    try:
        sink = LinesSink(str(disk / "r.jsonl"), lambda output: {"index": output.frame.index, "seen": "x" * 1000})
        given = outputs(9)
        for output in given[:3]:
            sink.write(output)
        if mounted:
            with contextlib.suppress(OSError), rest.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(512))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3500, resource.RLIM_INFINITY))
        written = 3
        with pytest.raises(SinkWriteError) as caught:  # noqa: PT012  # a page of the disk is left
            for output in given[3:]:
                sink.write(output)
                written += 1
        sink.close()
        assert len((disk / "r.partial.jsonl").read_text().splitlines()) == written
        with pytest.raises(SinkOpenError, match=re.escape(str(caught.value))):
            sink.reopen()
        if mounted:
            rest.unlink()
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert sink.reopen() is sink
        write_all(sink, given[-1:])
        found = [json.loads(line)["index"] for line in (disk / "r.jsonl").read_text().splitlines()]
        assert found == [*range(written), 8]
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _small_disk(tmp_path: Path) -> tuple[Path, bool]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)]
    try:
        if subprocess.run(mount, capture_output=True).returncode == 0:
            return disk, True
    except OSError:
        pass
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
    return disk, False


STANDARD_OUTPUT = """
import sys
sys.path.insert(0, sys.argv[1])
from tests import clips
from streamseg.errors import SinkWriteError
from streamseg.frame import Output
from streamseg.sinks import open_sink
sink = open_sink("-", clips.info(), container_format=sys.argv[2])
try:
    for index in range(int(sys.argv[3])):
        sink.write(Output(clips.frame(index)))
    sink.finish()
except SinkWriteError as error:
    sys.exit(f"said: {error}")
finally:
    sink.close()
"""


@pytest.mark.parametrize("name", ["matroska", "mkv", "mp4", "mov", "webm", "mpegts"])
def test_standard_output(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", STANDARD_OUTPUT, str(Path(__file__).parents[1]), name, "12"]
    done = subprocess.run(command, capture_output=True, check=True)
    (tmp_path / "a").write_bytes(done.stdout)
    assert clips.indices(tmp_path / "a") == list(range(12))
    assert done.stderr == b""


def test_standard_output_that_nobody_reads() -> None:
    command = [sys.executable, "-c", STANDARD_OUTPUT, str(Path(__file__).parents[1]), "mpegts", "2000"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.read(1000)
    child.stdout.close()
    said = child.stderr.read().decode()
    child.stderr.close()
    assert child.wait(120) == 1
    assert said == "said: cannot write standard output: nobody reads it any more\n"


def test_standard_output_needs_a_container() -> None:
    with pytest.raises(SinkOpenError, match="add --format matroska"):
        open_sink("-", clips.info())
    with pytest.raises(SinkOpenError, match="unknown container 'matrosca'; did you mean matroska"):
        open_sink("-", clips.info(), container_format="matrosca")


# the source itself as output


def test_output_equal_to_input(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    source.touch()
    (tmp_path / "link.mp4").symlink_to(source)
    os.link(source, tmp_path / "hard.mp4")
    (tmp_path / "sub").mkdir()
    for name in ("a.mp4", "link.mp4", "hard.mp4", "sub/../a.mp4"):
        assert same_file(str(source), str(tmp_path / name)), name
        assert same_file(str(tmp_path / name), str(source)), name
    assert same_file(f"file://{source}", str(source))
    assert not same_file(str(source), str(tmp_path / "b.mp4"))
    assert not same_file(str(source), "null:")
    assert not same_file("-", "-")


def test_pictures_written_over_their_sources(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).touch()
    other = tmp_path / "out"
    other.mkdir()
    assert same_file(str(tmp_path), str(tmp_path) + "/")
    assert same_file(f"{tmp_path}/*.png", str(tmp_path) + "/")
    assert same_file(str(tmp_path), f"{tmp_path}/out_%05d.png")
    assert same_file(f"{tmp_path}/1.png", str(tmp_path) + "/")
    assert not same_file(f"{tmp_path}/1.png", f"{tmp_path}/3.png")
    assert not same_file(str(tmp_path), str(other) + "/")
    assert not same_file(str(tmp_path), f"{tmp_path}/out.mp4")
    assert not same_file(f"{tmp_path}/a.mp4", str(tmp_path) + "/")
