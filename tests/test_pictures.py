"""Pictures and folders of pictures: colours, orientation, order, and what cannot be read."""

from __future__ import annotations

import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamseg.errors import SourceOpenError
from streamseg.frame import Colour, Frame
from streamseg.sources import ImageSource, open_source
from streamseg.sources.conform import UPRIGHT, Turn
from streamseg.sources.pictures import exif_orientation
from tests.test_sources import open_and_read


def _photo(width: int = 64, height: int = 48) -> np.ndarray:
    rng = np.random.default_rng(5)
    small = rng.integers(30, 226, (height // 16, width // 16, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def _as_bgr(frame: Frame) -> np.ndarray:
    """An independent way back: JFIF's equations on chroma that is enlarged by OpenCV."""
    size = (frame.width, frame.height)
    y = frame.y.astype(np.float64)
    u = cv2.resize(frame.u, size, interpolation=cv2.INTER_LINEAR).astype(np.float64) - 128
    v = cv2.resize(frame.v, size, interpolation=cv2.INTER_LINEAR).astype(np.float64) - 128
    return np.clip(np.dstack([y + 1.772 * u, y - 0.344136 * u - 0.714136 * v, y + 1.402 * v]), 0, 255)


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.png", "a.bmp", "a.tiff", "a.webp", "wide.png", "wide.tiff", "misnamed.dat"]
)
def test_colours_of_every_kind_of_picture(tmp_path: Path, name: str) -> None:
    photo = _photo()
    suffix = ".png" if name == "misnamed.dat" else Path(name).suffix
    deep = photo.astype(np.uint16) * 257 if name.startswith("wide") else photo
    options = [cv2.IMWRITE_JPEG_QUALITY, 98] if suffix == ".jpg" else [cv2.IMWRITE_WEBP_QUALITY, 98]
    _, data = cv2.imencode(suffix, deep, options)
    (tmp_path / name).write_bytes(data.tobytes())
    source, frames = open_and_read(tmp_path / name)
    assert isinstance(source, ImageSource)
    assert len(frames) == 1
    assert source.info.frame_count == 1
    assert frames[0].colour == Colour(True, 5, 1, 13, 2)
    assert np.abs(_as_bgr(frames[0]) - photo).mean() < 6


def test_cmyk_jpeg(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is missing: nothing else here writes CMYK")
    photo = _photo()
    image.fromarray(photo[..., ::-1]).convert("CMYK").save(tmp_path / "a.jpg", quality=97)
    source, frames = open_and_read(tmp_path / "a.jpg")
    assert np.abs(_as_bgr(frames[0]) - photo).mean() < 6
    assert not source.notices


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_exif_orientation_as_opencv_applies_it(tmp_path: Path, orientation: int, suffix: str) -> None:
    photo = np.zeros((32, 48, 3), np.uint8)
    photo[:16, :16] = 250
    photo[:8, 32:] = 120
    path = tmp_path / f"a{suffix}"
    path.write_bytes(_with_exif(photo, suffix, orientation))
    assert exif_orientation(path.read_bytes()) == orientation
    _, frames = open_and_read(path)
    expected = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if suffix == ".tiff":  # OpenCV does not turn TIFF files
        expected = Turn.of_exif(orientation)(photo[..., 0])
    assert frames[0].y.shape == expected.shape
    assert np.abs(frames[0].y.astype(int) - expected).mean() < 3


def _with_exif(photo: np.ndarray, suffix: str, orientation: int) -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    block = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + bytes(4)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_WEBP_QUALITY, 101]
    data: bytes = cv2.imencode(suffix, photo, quality)[1].tobytes()
    if suffix == ".jpg":
        segment = b"Exif\0\0" + block
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    if suffix == ".png":
        chunk = b"eXIf" + block
        return data[:33] + struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    if suffix == ".webp":
        flags = (
            struct.pack("<I", 0x08)
            + struct.pack("<I", photo.shape[1] - 1)[:3]
            + struct.pack("<I", photo.shape[0] - 1)[:3]
        )
        body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + flags + data[12:]
        body += b"EXIF" + struct.pack("<I", len(block)) + block
        return b"RIFF" + struct.pack("<I", len(body)) + body
    # A TIFF of our own: one strip of grey, and the tag.
    height, width = photo.shape[:2]
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 0),
        (274, 3, orientation),
    ]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, width * height)]
    offset = 8 + 2 + 12 * len(tags) + 4
    tags[5] = (273, 4, offset)
    out = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags))
    for tag, kind, value in tags:
        out += struct.pack("<HHII", tag, kind, 1, value)
    return out + bytes(4) + photo[..., 0].tobytes()


def test_turns_agree_between_exif_and_display_matrices() -> None:
    one = 1 << 16
    assert Turn.of_matrix((one, 0, 0, 0, one, 0, 0, 0, 1 << 30)) == UPRIGHT == Turn.of_exif(1)
    assert Turn.of_matrix((0, one, 0, -one, 0, 0, 0, 0, 1 << 30)) == Turn.of_exif(6)
    assert Turn.of_matrix((0, -one, 0, one, 0, 0, 0, 0, 1 << 30)) == Turn.of_exif(8)
    assert Turn.of_matrix((-one, 0, 0, 0, -one, 0, 0, 0, 1 << 30)) == Turn.of_exif(3)


def test_folders_are_sorted_as_people_count(tmp_path: Path) -> None:
    for number in (1, 2, 10, 20, 3):
        cv2.imwrite(str(tmp_path / f"shot{number}.png"), np.full((4, 4, 3), number, np.uint8))
    source, frames = open_and_read(tmp_path)
    assert [frame.origin.name for frame in frames] == [f"shot{n}.png" for n in (1, 2, 3, 10, 20)]
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(i, 25) for i in range(5)]
    assert source.info.rate == 25


def test_pictures_of_a_folder_keep_their_sizes(tmp_path: Path) -> None:
    sizes = [(64, 48), (33, 21), (48, 64)]
    for number, (width, height) in enumerate(sizes):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((height, width, 3), np.uint8))
    source, frames = open_and_read(tmp_path)
    assert source.info.varying_size
    assert [frame.origin.size_wh for frame in frames] == sizes
    assert (frames[1].width, frames[1].height) == (34, 22)
    assert source.counts == {"odd sizes padded to even": 1}


def test_unreadable_picture_in_a_folder_is_skipped_and_counted(tmp_path: Path) -> None:
    for number in (1, 3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((4, 4, 3), number, np.uint8))
    (tmp_path / "2.png").write_bytes(b"no picture")
    source, frames = open_and_read(tmp_path)
    assert [frame.origin.name for frame in frames] == ["1.png", "3.png"]
    assert [frame.pts for frame in frames] == [0, 2]
    assert source.counts == {"unreadable pictures skipped": 1}
    assert any("2.png" in notice for notice in source.notices)


def test_a_jpeg_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    """Whoever decodes what there is shows the rest in green."""
    _, data = cv2.imencode(".jpg", _photo(640, 480), [cv2.IMWRITE_JPEG_QUALITY, 98])
    (tmp_path / "half.jpg").write_bytes(data.tobytes()[: len(data) // 2])
    with pytest.raises(SourceOpenError, match=r"half\.jpg: broken; save or copy it again"):
        open_source(str(tmp_path / "half.jpg"))
    (tmp_path / "unended.jpg").write_bytes(data.tobytes()[:-2])  # some cameras never write the end mark
    assert len(open_and_read(tmp_path / "unended.jpg")[1]) == 1


def _animated_png(path: Path, colour_profile: bytes = b"") -> None:
    """Two pictures; other chunks may stand before the one that says so."""
    (first, second) = (cv2.imencode(".png", np.full((48, 64, 3), level, np.uint8))[1].tobytes() for level in (9, 200))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def samples(png: bytes) -> bytes:
        at = png.index(b"IDAT")
        return png[at + 4 : at + 4 + struct.unpack(">I", png[at - 4 : at])[0]]

    def control(number: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 64, 48, 0, 0, 1, 10, 0, 0))

    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(colour_profile)) if colour_profile else b""
    path.write_bytes(
        first[:33]
        + profile
        + chunk(b"acTL", struct.pack(">II", 2, 0))
        + control(0)
        + chunk(b"IDAT", samples(first))
        + control(1)
        + chunk(b"fdAT", struct.pack(">I", 2) + samples(second))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("profile", [b"", bytes(range(256)) * 8], ids=["bare", "with colour profile"])
def test_every_picture_of_an_animated_png(profile: bytes, tmp_path: Path) -> None:
    """Also with a colour profile, whose name PyAV lets go of twice where one looks at it: the process dies of that."""
    _animated_png(tmp_path / "a.png", profile)
    _, frames = open_and_read(tmp_path / "a.png")
    assert [bool(frame.y.mean() > 100) for frame in frames] == [False, True]


def test_an_animated_png_in_a_folder_is_named_for_what_it_is(tmp_path: Path) -> None:
    _animated_png(tmp_path / "a.png", bytes(100))
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((4, 4, 3), np.uint8))
    source, frames = open_and_read(tmp_path)
    assert [frame.origin.name for frame in frames] == ["b.png"]
    assert source.notices == ("a.png cannot be read: an animated PNG; name it by itself",)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_by_name_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    """It would be read once to see what it is, and then wait for a second writer for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceOpenError, match=r"standard input: streamseg run - < .*pipe"):
        open_source(str(tmp_path / "pipe"))
