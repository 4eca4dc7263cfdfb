"""Encoders of a graphics card: what `auto` takes, and whether this FFmpeg knows the options that they are given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from streamseg.cli import doctor
from streamseg.errors import SinkOpenError
from streamseg.sinks import encoders, open_sink
from streamseg.sinks.encoders import choose_encoding, probe_encoders
from streamseg.sinks.hardware import HARDWARE, needs, trouble
from streamseg.sources import open_source
from tests import clips, nvidia_parts
from tests.nvidia_parts import needs_stand_in
from tests.test_sinks import FRAMES, outputs, write_all

SIZE_WH = (640, 384)
HERE = [name for names in HARDWARE.values() for name in names if name in av.codecs_available]


def _codec_of(path: Path) -> str:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.codec.canonical_name


def _pretend(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these be the encoders of the card."""
    monkeypatch.setattr(encoders, "HARDWARE", {"h264": names, "av1": names})


@needs_stand_in
@pytest.mark.skipif("h264_nvenc" not in HERE, reason="this FFmpeg has no h264_nvenc")
def test_nvenc_is_handed_what_was_drawn(tmp_path: Path) -> None:
    """FFmpeg's real path to NVIDIA's encoder, up to a stand-in for it that loses nothing."""
    libraries = nvidia_parts.build(tmp_path)
    words = """
import dataclasses, sys
from streamseg.sinks import open_sink
from tests import clips
from tests.test_sinks import outputs, write_all
for number, quality in enumerate((None, "low", "lossless", 30)):
    for live in (False, True):
        info = dataclasses.replace(clips.info(), live=live)
        sink = open_sink(f"{sys.argv[1]}/{number}{live}.mp4", info, encoder="auto", quality=quality)
        write_all(sink, outputs())
        assert list(sink.notices) == ["encoded by h264_nvenc"], sink.notices
"""
    done = nvidia_parts.run(libraries, "-c", words, str(tmp_path))
    assert done.returncode == 0, done.stderr
    for path in tmp_path.glob("*.mp4"):
        source = open_source(str(path))
        for output in outputs():
            frame = source.read()
            assert frame is not None
            np.testing.assert_array_equal(frame.planes, output.frame.planes)
            assert frame.seconds == output.frame.seconds
        assert source.read() is None
        source.close()
    assert len(list(tmp_path.glob("*.mp4"))) == 8
    words = "from streamseg.sinks.encoders import probe_encoders; print(dict(probe_encoders())['h264_nvenc'])"
    assert nvidia_parts.run(libraries, "-c", words).stdout == "\n"
    assert nvidia_parts.run(libraries, "-c", words, fails="encoder").stdout == "generic error in an external library\n"


def test_auto_takes_the_first_that_encodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, "h264_nvenc" if not Path("/dev/nvidia0").exists() else "no such", "mpeg4", "libx265")
    sink = open_sink(str(tmp_path / "a.mp4"), clips.info(), encoder="auto")
    write_all(sink, outputs())
    assert list(sink.notices) == ["encoded by mpeg4"]
    assert _codec_of(tmp_path / "a.mp4") == "mpeg4"
    assert clips.indices(tmp_path / "a.mp4") == list(range(FRAMES))


def test_auto_without_a_card_is_the_usual_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch)
    sink = open_sink(str(tmp_path / "a.mp4"), clips.info(), encoder="auto")
    write_all(sink, outputs())
    assert list(sink.notices) == ["no encoder of a graphics card works here (this FFmpeg has none); encoded by libx264"]
    assert _codec_of(tmp_path / "a.mp4") == "h264"


def test_auto_keeps_to_what_was_asked_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, "mpeg4")
    lossless = choose_encoding("mp4", "a.mp4", encoder="auto", quality="lossless", alpha=False, size_wh=SIZE_WH)
    assert (lossless.codec, lossless.options["qp"]) == ("libx264", "0")
    alpha = choose_encoding("webm", "a.webm", encoder="auto", quality=None, alpha=True, size_wh=SIZE_WH)
    assert (alpha.codec, alpha.remark) == ("libvpx-vp9", "no graphics card encodes opacity; encoded by libvpx-vp9")
    with pytest.raises(SinkOpenError, match="quality 'best'"):
        choose_encoding("mp4", "a.mp4", encoder="auto", quality="best", alpha=False, size_wh=SIZE_WH)


def test_nobody_is_told_what_they_chose(tmp_path: Path) -> None:
    for encoder in (None, "libx264"):
        assert not choose_encoding("mp4", "a", encoder=encoder, quality=None, alpha=False, size_wh=SIZE_WH).remark


def test_an_encoder_is_tried_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    create = av.CodecContext.create
    monkeypatch.setattr(
        av, "CodecContext", SimpleNamespace(create=lambda *words: tried.append(words) or create(*words))
    )
    sizes = [(66, 34), (66, 34), (66, 36)]
    assert [trouble("mpeg4", "yuv420p", size_wh) for size_wh in sizes] == ["", "", ""]
    assert len(tried) == 2
    assert "invalid" in trouble("mpeg4", "yuv420p", (66, 34), {"qmin": "no number"})


@pytest.mark.skipif(not HERE, reason="this FFmpeg has no encoder of a graphics card")
@pytest.mark.parametrize("codec", HERE)
@pytest.mark.parametrize("live", [False, True])
def test_this_ffmpeg_knows_the_options(codec: str, live: bool) -> None:
    """The library looks at options before it looks for a card, and calls those an invalid argument."""
    container = "webm" if codec.startswith("av1") else "mp4"
    for quality in ("low", "medium", "high", "lossless", 30):
        try:
            encoding = choose_encoding(
                container, "a", encoder=codec, quality=quality, alpha=False, size_wh=SIZE_WH, live=live
            )
        except SinkOpenError:
            assert quality == "lossless"
            continue
        assert "invalid argument" not in trouble(codec, encoding.pixel_format, SIZE_WH, encoding.options)
        for name in encoding.options:
            assert "invalid argument" in trouble(codec, encoding.pixel_format, SIZE_WH, {name: "no such word"})


def test_an_encoder_that_wants_pictures_on_the_card_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    surface = av.VideoFormat("vaapi")
    codec = SimpleNamespace(name="h264_vaapi", type="video", video_formats=[surface])
    monkeypatch.setattr(encoders, "_find", lambda name, url: codec)
    with pytest.raises(SinkOpenError, match=r"h264_vaapi takes only pictures that lie on a card.* choose auto"):
        choose_encoding("mp4", "a.mp4", encoder="h264_vaapi", quality=None, alpha=False, size_wh=SIZE_WH)


@pytest.mark.nvidia
def test_auto_takes_a_real_card(tmp_path: Path) -> None:
    found = dict(probe_encoders()).get("h264_nvenc", "this FFmpeg has no h264_nvenc")
    if found:
        pytest.skip(f"needs an NVIDIA card that encodes: {found}")
    sink = open_sink(str(tmp_path / "a.mp4"), clips.info(), encoder="auto")
    write_all(sink, outputs())
    assert list(sink.notices) == ["encoded by h264_nvenc"]
    assert clips.indices(tmp_path / "a.mp4") == list(range(FRAMES))


def test_needs() -> None:
    assert "NVIDIA" in needs("av1_nvenc")
    assert needs("libx264") == needs("libvpx-vp9") == needs("prores_ks") == ""


def test_doctor_says_what_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name, _ in probe_encoders()] == HERE
    monkeypatch.setattr(doctor, "probe_decoders", lambda: [("cuda", ["h264", "vp9"], ""), ("vaapi", [], "no driver")])
    monkeypatch.setattr(doctor, "probe_encoders", lambda: [("h264_nvenc", ""), ("h264_qsv", "unknown")])
    cuda, vaapi, encoding = doctor._hardware()
    assert (cuda.mark, cuda.found) == ("ok  ", "decodes h264, vp9")
    assert (vaapi.mark, vaapi.found) == ("--  ", "not usable: no driver")
    assert (encoding.mark, encoding.found) == ("ok  ", "h264_nvenc encode a picture")
    monkeypatch.setattr(doctor, "probe_encoders", lambda: [("h264_qsv", "unknown")])
    assert [finding.found for finding in doctor._hardware()][-1] == "none of h264_qsv opens"
