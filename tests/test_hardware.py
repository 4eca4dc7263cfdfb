"""Decoding on a card: FFmpeg's real path to one, up to a stand-in for its driver; and what is said where none opens."""

from __future__ import annotations

import socket
from pathlib import Path

import av
import numpy as np
import pytest

from streamseg.cli import main
from streamseg.errors import SourceAbsentError, SourceLostError, SourceOpenError
from streamseg.libav import fill_plane
from streamseg.sources import hardware, open_source
from streamseg.sources.conform import Conformer, colour_of
from streamseg.sources.hardware import KINDS, Hardware, probe
from tests import nvidia_parts
from tests.file_server import serving
from tests.nvidia_parts import needs_stand_in


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvidia_parts.build(tmp_path_factory.mktemp("nvidia"))


@needs_stand_in
def test_a_card_decodes_a_file(libraries: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    nvidia_parts.write_clip(clip, "libx264", (320, 182))
    found = nvidia_parts.read(libraries, tmp_path, str(clip), "cuda", "cuda:0", "auto", "cuda:7")
    for told, planes in found[:3]:
        assert told["decoder"] == "h264 on cuda"
        np.testing.assert_array_equal(planes, [nvidia_parts.expected_planes(n, 320, 182) for n in range(4)])
    assert [told["notices"] for told, _ in found[:3]] == [[], [], ["decoded by h264 on cuda"]]
    assert "cannot decode with cuda:7: device 7 does not open" in found[3][0]["error"]


@needs_stand_in
def test_odd_sizes_are_padded_as_in_software(libraries: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mkv"
    nvidia_parts.write_clip(clip, "libvpx-vp9", (161, 91), **{"lag-in-frames": "0"})
    ((told, planes),) = nvidia_parts.read(libraries, tmp_path, str(clip), "cuda")
    assert told["original_wh"] == [161, 91]
    assert told["notices"] == ["161x91 padded to 162x92"]
    # FFmpeg does not download the last row of halved chroma.
    np.testing.assert_array_equal(planes, [nvidia_parts.expected_planes(n, 161, 91, 45) for n in range(4)])


@needs_stand_in
def test_ten_bits_become_eight(libraries: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    nvidia_parts.write_clip(
        clip, "libx265", (320, 182), "yuv420p10le", **{"x265-params": "log-level=error:bframes=0:range=full"}
    )
    ((told, planes),) = nvidia_parts.read(libraries, tmp_path, str(clip), "cuda")
    assert told["decoder"] == "hevc on cuda"
    assert told["notices"] == ["10-bit picture reduced to 8 bits"]
    np.testing.assert_array_equal(planes, [nvidia_parts.expected_planes(n, 320, 182) for n in range(4)])


@needs_stand_in
def test_interlaced_pictures_of_a_card_are_deinterlaced(libraries: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    nvidia_parts.write_clip(clip, "libx264", (320, 192), flags="+ilme+ildct")
    ((told, planes),) = nvidia_parts.read(libraries, tmp_path, str(clip), "cuda")
    assert told["decoder"] == "h264 on cuda"
    assert told["notices"] == ["interlaced: deinterlaced with bwdif, one frame out for each frame in"]
    # Every other row is as it came, and the picture has no edges that could be guessed otherwise.
    kept = [(planes[n, :192] == nvidia_parts.expected_planes(n, 320, 192)[:192]).all(axis=1) for n in range(4)]
    assert np.mean(kept) >= 0.5


@needs_stand_in
def test_a_card_decodes_a_stream_in_its_child_process(libraries: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mkv"
    nvidia_parts.write_clip(clip, "libx264", (320, 182))
    with serving(clip.read_bytes()) as server:
        ((told, planes),) = nvidia_parts.read(libraries, tmp_path, f"{server.url}/clip.mkv", "auto")
        assert told["decoder"] == "h264 on cuda"
        np.testing.assert_array_equal(planes, [nvidia_parts.expected_planes(n, 320, 182) for n in range(4)])
        ((told, _),) = nvidia_parts.read(libraries, tmp_path, f"{server.url}/clip.mkv", "cuda", fails="device")
    assert told["kind"] == "SourceOpenError"
    assert "cannot decode with cuda: it does not open" in told["error"]


@needs_stand_in
def test_a_stream_that_is_opened_again_is_decoded_by_the_card_again(libraries: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mkv"
    nvidia_parts.write_clip(clip, "libx264", (320, 182))
    words = """
import sys
from streamseg.sources import LiveOptions, live_opener
opener = live_opener(sys.argv[1], LiveOptions(hwaccel="cuda"))
for _ in range(2):
    source = opener()
    print(source.info.decoder, source.read().planes.shape, opener.pid)
    source.close()
opener.close()
"""
    with serving(clip.read_bytes()) as server:
        first, second = nvidia_parts.run(libraries, "-c", words, f"{server.url}/clip.mkv").stdout.splitlines()
    assert first == second
    assert first.startswith("h264 on cuda (273, 320) ")


@needs_stand_in
def test_where_the_card_does_not_take_the_stream(libraries: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    nvidia_parts.write_clip(clip, "libx264", (320, 182))
    (told, planes), (refused, _) = nvidia_parts.read(libraries, tmp_path, str(clip), "auto", "cuda", fails="decoder")
    assert (told["decoder"], len(planes)) == ("h264", 4)
    assert told["notices"] == ["cuda opens, but does not decode this h264; decoded in software"]
    assert refused["error"] == (
        "cannot decode with cuda: cuda opens, but does not decode this h264; choose --hwaccel none"
    )


@needs_stand_in
def test_a_card_that_stops_is_an_error_and_no_shorter_video(libraries: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    nvidia_parts.write_clip(clip, "libx264", (320, 182), frames=60)
    ((told, planes),) = nvidia_parts.read(libraries, tmp_path, str(clip), "auto", fails="9")
    assert 0 < len(planes) <= 9
    assert told["kind"] == "SourceLostError"
    assert told["error"] == "cuda decoded none of the last 31 packets; choose --hwaccel none"


@needs_stand_in
def test_a_codec_that_no_card_takes(libraries: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.avi"
    nvidia_parts.write_clip(clip, "huffyuv", (320, 182), "yuv422p")
    (told, planes), (refused, _) = nvidia_parts.read(libraries, tmp_path, str(clip), "auto", "cuda")
    assert (told["decoder"], len(planes)) == ("huffyuv", 4)
    assert told["notices"] == ["the decoder huffyuv cannot use cuda; it knows no hardware; decoded in software"]
    assert refused["kind"] == "SourceOpenError"


@needs_stand_in
def test_probe_decodes_for_real(libraries: Path) -> None:
    words = "from streamseg.sources.hardware import probe; print(probe())"
    assert "('cuda', ['h264', 'hevc', 'vp9', 'mjpeg', 'mpeg4'], '')" in nvidia_parts.run(libraries, "-c", words).stdout
    assert "('cuda', [], 'it opens, but" in nvidia_parts.run(libraries, "-c", words, fails="decoder").stdout
    assert "('cuda', [], 'it does not open" in nvidia_parts.run(libraries, "-c", words, fails="device").stdout


def _frames(path: Path, hwaccel: str) -> list[np.ndarray]:
    source = open_source(str(path), hwaccel=hwaccel)
    planes = []
    while (frame := source.read()) is not None:
        planes.append(frame.planes)
    assert ("cuda" in source.info.decoder) == (hwaccel == "cuda")
    source.close()
    return planes


@pytest.mark.nvidia
@pytest.mark.parametrize(
    ("name", "encoder", "pixel_format", "most"),
    [("a.mp4", "libx264", "yuv420p", 0), ("a.mp4", "libx265", "yuv420p10le", 1), ("a.mkv", "libvpx-vp9", "yuv420p", 0)],
)
def test_a_real_card_decodes_what_software_decodes(
    tmp_path: Path, name: str, encoder: str, pixel_format: str, most: int
) -> None:
    codecs = next((codecs for kind, codecs, _ in probe() if kind == "cuda"), [])
    if {"libx264": "h264", "libx265": "hevc", "libvpx-vp9": "vp9"}[encoder] not in codecs:
        pytest.skip(f"needs an NVIDIA card that decodes; it decodes {', '.join(codecs) or 'nothing'}")
    nvidia_parts.write_clip(tmp_path / name, encoder, (640, 362), pixel_format, frames=30)
    for ours, theirs in zip(_frames(tmp_path / name, "none"), _frames(tmp_path / name, "cuda"), strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= most


def _without_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def __init__(self, kind: str, device: str | None = None, **more: object) -> None:
            pass

        def create(self, codec: object) -> None:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(hardware, "HWAccel", Closed)


def test_without_a_device_auto_is_software_and_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_devices(monkeypatch)
    clip = tmp_path / "clip.mkv"
    nvidia_parts.write_clip(clip, "libx264", (64, 48))
    source = open_source(str(clip), hwaccel="auto")
    assert source.info.decoder == "h264"
    assert [notice for notice in source.notices if "software" in notice] == [*source.notices]
    assert len(source.notices) == 1
    source.close()


@pytest.mark.parametrize("asked", [*KINDS, "vaapi:/dev/dri/renderD129"])
def test_without_a_device_a_name_is_an_error(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_devices(monkeypatch)
    with pytest.raises(SourceOpenError, match=rf"cannot decode with {asked}: .*; choose --hwaccel none"):
        Hardware(asked, lambda line: None)
    assert all(trouble and not codecs for _, codecs, trouble in probe())


def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _without_devices(monkeypatch)
    clip = tmp_path / "clip.mkv"
    nvidia_parts.write_clip(clip, "libx264", (64, 48))
    assert main(["run", str(clip), "-o", "null:", "--background", "none", "--hwaccel", "vulkan"]) == 2
    assert "cannot decode with vulkan: this FFmpeg was built without vulkan" in capsys.readouterr().err
    assert main(["run", str(clip), "-o", "null:", "--hwaccel", "nvdec"]) == 2
    assert "takes none, auto or cuda, " in capsys.readouterr().err


def test_broken_packets_in_software_are_no_reason_to_stop() -> None:
    found = Hardware("none", lambda line: None)
    for _ in range(100):
        found.failed()


@pytest.mark.parametrize("size_wh", [(32, 16), (33, 17)])
@pytest.mark.parametrize(("planar", "paired"), [("yuv420p", "nv12"), ("yuv420p10le", "p010le")])
def test_pictures_of_a_card_become_the_same_planes(size_wh: tuple[int, int], planar: str, paired: str) -> None:
    """Against the planar pictures that software decodes, with noise in every sample."""
    width, height = size_wh
    ours, theirs = av.VideoFrame(width, height, planar), av.VideoFrame(width, height, paired)
    deep = planar.endswith("10le")
    rng = np.random.default_rng(7)
    sizes = [(height, width), *[((height + 1) // 2, (width + 1) // 2)] * 2]
    planes = [rng.integers(64, 941 if deep else 236, size).astype(np.uint16 if deep else np.uint8) for size in sizes]
    for target, plane in zip(ours.planes, planes, strict=True):
        fill_plane(target, plane.view(np.uint8))
    pairs = np.stack(planes[1:], axis=-1).reshape(sizes[1][0], -1)
    for target, plane in zip(theirs.planes, (planes[0], pairs), strict=True):
        fill_plane(target, (plane << 6 if deep else plane).view(np.uint8))
    for picture in (ours, theirs):
        picture.color_range, picture.colorspace = 1, 1
    with av.open("unused.mkv", "w", format="null") as container:
        context = container.add_stream("rawvideo").codec_context
        one, two = (
            Conformer(picture, colour_of(picture, context, 1), size_wh=size_wh)(picture) for picture in (ours, theirs)
        )
    assert np.abs(one.astype(int) - two).max() <= (1 if deep else 0)


def test_lost_is_not_open() -> None:
    """Named, a stream that turns to software later is lost; the same at its first picture cannot be opened."""

    class Context:
        pix_fmt = "yuv420p"
        codec = type("Codec", (), {"name": "h264"})
        width = height = 64

    for taken, error in ((False, SourceOpenError), (True, SourceLostError)):
        found = Hardware("none", lambda line: None)
        found._kind, found._surface, found._context, found._taken = "cuda", "cuda", Context, taken
        with pytest.raises(error, match="choose --hwaccel none"):
            found.take(av.VideoFrame(64, 64, "yuv420p"))


def test_what_is_missing_here_is_told_although_the_peer_is_absent() -> None:
    absent = next(kind for kind in KINDS if kind not in hardware.hwdevices_available())
    with socket.socket() as port:  # bound and not listening: nobody answers, and nobody else takes it
        port.bind(("127.0.0.1", 0))
        url = f"rtsp://127.0.0.1:{port.getsockname()[1]}/1"
        with pytest.raises(SourceOpenError, match=f"built without {absent}") as error:
            open_source(url, hwaccel=absent)
        assert not isinstance(error.value, SourceAbsentError)
        with pytest.raises(SourceAbsentError, match="connection refused"):
            open_source(url, hwaccel="auto")
