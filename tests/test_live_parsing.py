"""URLs, clocks, patterns and the kernel's camera structures: what live sources do without a peer."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamseg.errors import SourceAbsentError, SourceOpenError
from streamseg.sources import LiveOptions, cameras, is_live_url, live_opener, open_source
from streamseg.sources.address import network_address, screen_address
from streamseg.sources.cameras import choose_mode, explain, holders, list_cameras, modes_text
from streamseg.sources.liveclock import LiveClock
from streamseg.sources.pattern import PatternSource, index_of, pattern_planes
from streamseg.sources.v4l2 import Capability, Mode, capability, modes

PLAIN = LiveOptions()


@pytest.mark.parametrize(
    ("url", "live"),
    [
        ("0", True),
        ("12", True),
        ("/dev/video2", True),
        ("camera:Front", True),
        ("screen:", True),
        ("test:?fps=5", True),
        ("RTSP://camera/1", True),
        ("srt://host:9000", True),
        ("https://example.com/a.m3u8", True),
        ("2024", False),
        ("clip.mp4", False),
        ("./0", False),
        ("/dev/videos/a.mp4", False),
        ("ftp://host/a.mp4", False),
        ("-", False),
        ("", False),
    ],
)
def test_what_counts_as_live(url: str, live: bool) -> None:
    assert is_live_url(url) == live


@pytest.mark.parametrize(
    ("url", "given", "shown"),
    [
        ("rtsp://cam/1", "rtsp://cam/1", "rtsp://cam/1"),
        ("rtsp://me:p*w@cam:8554/1", "rtsp://me:p%2Aw@cam:8554/1", "rtsp://***@cam:8554/1"),
        ("rtsp://me:p@ss@cam/1", "rtsp://me:p%40ss@cam/1", "rtsp://***@cam/1"),
        ("rtsp://me:p%40s%2Fs@cam/1", "rtsp://me:p%40s%2Fs@cam/1", "rtsp://***@cam/1"),
        ("rtsp://m%40e:100%@cam/1", "rtsp://m%40e:100%25@cam/1", "rtsp://***@cam/1"),
        ("http://me@cam/a@b?pw=x@y#z", "http://me@cam/a@b?pw=x@y#z", "http://***"),
        ("rtsp://me:p'\"w@cam/1", "rtsp://me:p%27%22w@cam/1", "rtsp://***@cam/1"),
        ("rtsp://me:a%3Fb@cam/1", "rtsp://me:a%3Fb@cam/1", "rtsp://***@cam/1"),
        ("RTSP://Cam/1", "rtsp://Cam/1", "rtsp://Cam/1"),
        ("rtmp://host/live/key?k=1", "rtmp://host/live/key?k=1", "rtmp://host/live/***"),
        ("http://cam:81/a@b?t=1", "http://cam:81/a@b?t=1", "http://***@b"),
        ("http://cam/a@b?t=1", "http://cam/a@b?t=1", "http://cam/a@b"),
        ("http://[::1]:81/v", "http://[::1]:81/v", "http://[::1]:81/v"),
        ("rtsp://cam/1?user=admin&password=x", "rtsp://cam/1?user=admin&password=x", "rtsp://cam/1"),
    ],
)
def test_passwords_reach_the_library_and_nobody_else(url: str, given: str, shown: str) -> None:
    address = network_address(url, PLAIN)
    assert (address.url, address.shown) == (given, shown)
    assert "p@ss" not in repr(address)
    assert "password" not in repr(address)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("ftp://me:secret@host/a", PLAIN, "no source of kind ftp"),
        ("rtsp://me:secret?x@cam/1", PLAIN, "write / [?] and # in a user or password as %2F, %3F and %23"),
        ("rtsp://me:secret#x@cam/1", PLAIN, "%2F, %3F and %23"),
        ("rtsp://me:secret/x@cam/1", PLAIN, "%2F, %3F and %23"),
        ("rtsp://me:1234?secret@cam/1", PLAIN, "%2F, %3F and %23"),
        ("rtsp://me:secret@[cam/1", PLAIN, "its host cannot be read"),
        ("rtsp://me:secret@[cam]/1", PLAIN, "its host cannot be read"),
        ("rtsp://[::1/x", PLAIN, "its host cannot be read"),
        ("rtsp:///path", PLAIN, "names no host"),
        ("rtsp://me:secret@cam:99999/1", PLAIN, "port must be a number from 1 to 65535"),
        ("rtsp://me:secret@cam:http/1", PLAIN, "port must be a number from 1 to 65535"),
        ("rtsp://cam:0/1", PLAIN, "port must be a number from 1 to 65535"),
        ("srt://cam", PLAIN, "port must be a number"),
        ("rtsp://me:secret@cam/1", LiveOptions(transport="quic"), "no transport 'quic'; tcp and udp are known"),
        ("rtsps://cam/1", LiveOptions(transport="udp"), "rtsps goes over tcp only"),
        ("rtsp://cam/1", LiveOptions(size_wh=(640, 480)), "only cameras can choose"),
    ],
)
def test_urls_that_can_never_work(url: str, options: LiveOptions, message: str) -> None:
    with pytest.raises(SourceOpenError, match=message) as caught:
        network_address(url, options)
    text = str(caught.value)
    assert "secret" not in text
    assert "\n" not in text
    assert text[0].islower()
    assert not text.endswith(".")
    assert not isinstance(caught.value, SourceAbsentError)
    with pytest.raises(SourceOpenError, match=r"ftp|host|port|password|transport|rtsps|cameras"):
        live_opener(url, options)


def test_screens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    address = screen_address("screen:", LiveOptions(size_wh=(800, 600)), ":7")
    assert (address.url, address.format, address.options["video_size"]) == (":7", "x11grab", "800x600")
    assert screen_address("screen::1.0", PLAIN, None).url == ":1.0"
    with pytest.raises(SourceOpenError, match=r"no X11 display here"):
        screen_address("screen:", PLAIN, None)


def test_a_clock_that_jumps_stays_in_step_with_its_sound() -> None:
    counts: Counter[str] = Counter()
    clock = LiveClock(Fraction(1, 90000), 3000, counts)
    sound = Fraction(1, 48000)
    assert clock.sound_shift(0, sound) is None
    assert [clock.picture(900_000 + 3000 * i, i / 30) for i in range(3)] == [0, 3000, 6000]
    # Sound at the raw time of the second picture, ten seconds and a thirtieth.
    assert 481_600 + (clock.sound_shift(481_600, sound) or 0) == 1600
    # The camera sets its clock back by an hour.
    assert clock.picture(900_000 - 3600 * 90000, 3 / 30) == 9000
    assert counts["clock jumps bridged"] == 1
    # Its sound follows a little later; what still has the old time is left out.
    assert clock.sound_shift(481_600, sound) is None
    assert counts["sound out of step left out"] == 1
    raw = 480_000 - 3600 * 48000
    assert raw + (clock.sound_shift(raw, sound) or 0) == 4800
    # Lost for four seconds is no jump: the clock went on as time did.
    assert clock.picture(900_000 - 3600 * 90000 + 4 * 90000, 4 + 3 / 30) == 9000 + 4 * 90000
    assert counts["clock jumps bridged"] == 1


def test_pictures_without_a_clock_have_that_of_their_arrival() -> None:
    clock = LiveClock(Fraction(1, 90000), None, Counter())
    assert [clock.picture(None, at) for at in (100.0, 100.5, 100.5, 102.0)] == [0, 45000, 45001, 180001]


def test_repeated_times_grow_by_a_tick() -> None:
    counts: Counter[str] = Counter()
    clock = LiveClock(Fraction(1, 1000), 33, counts)
    assert [clock.picture(pts, i / 30) for i, pts in enumerate([0, 33, 33, 30, 67])] == [0, 33, 34, 35, 67]
    assert counts["timestamps repaired"] == 2


def test_the_pattern_is_paced_numbered_and_finite() -> None:
    source = PatternSource("test:?size=320x192&fps=50&frames=20")
    assert (source.info.width, source.info.height, source.info.rate, source.info.live) == (320, 192, 50, True)
    began_s = time.monotonic()
    frames = list(iter(source.read, None))
    took_s = time.monotonic() - began_s
    source.close()
    assert took_s >= 19 / 50
    indices = [frame.index for frame in frames]
    # On a busy machine some come too late; those are counted.
    assert len(indices) + source.counts.get("frames dropped, newer ones were waiting", 0) >= indices[-1] + 1
    assert [index_of(frame.y) for frame in frames] == indices == [frame.pts for frame in frames]
    assert frames[0].index == 0


def test_a_late_reader_of_the_pattern_misses_frames() -> None:
    source = PatternSource("test:?size=64x64&fps=100")
    source.read()
    time.sleep(0.1)
    frame = source.read()
    assert frame is not None
    assert frame.index >= 9
    assert source.counts["frames dropped, newer ones were waiting"] == frame.index - 1
    source.close()


def test_interrupt_ends_a_read_of_the_pattern() -> None:
    opener = live_opener("test:?size=64x64&fps=0.01")
    source = opener()
    assert opener.ready()
    assert source.read() is not None
    timer = threading.Timer(0.05, opener.interrupt)
    timer.start()
    began_s = time.monotonic()
    assert source.read() is None
    assert time.monotonic() - began_s < 30, "the next frame is due after 100 s"
    timer.join()
    source.close()
    opener.close()


def test_the_subject_is_red_and_moves() -> None:
    early, late = (pattern_planes(index, 320, 192, subject=True) for index in (0, 60))
    rgb = [cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420).astype(int) for planes in (early, late)]
    red = [np.argwhere((p[..., 0] > 150) & (p[..., 1] < 100) & (p[..., 2] < 100)) for p in rgb]
    for found in red:
        assert len(found) > 106 * 96 * 0.9
        assert found[:, 0].min() >= 16
    assert red[1][:, 1].min() - red[0][:, 1].min() == pytest.approx(0.6 * (320 - 106), abs=3)
    assert index_of(late[:192]) == 60


@pytest.mark.parametrize(
    "rest", ["x", "?sise=1x1", "?size=33x32", "?size=9x9", "?fps=0", "?fps=a", "?frames=0", "?frames=x"]
)
def test_patterns_that_do_not_exist(rest: str) -> None:
    with pytest.raises(SourceOpenError, match="test:"):
        open_source(f"test:{rest}")


# Cameras: a driver as the kernel's structures show it.


class Driver:
    """Answers ioctls like a webcam's driver; `struct` here is written from videodev2.h, not from our reader."""

    def __init__(self, sizes: dict[bytes, list[tuple[int, ...]]], rates: list[tuple[int, int]], caps: int = 0x84A00001):
        self.sizes, self.rates, self.caps = sizes, rates, caps

    def __call__(self, request: int, block: bytearray) -> None:
        direction_size, kind, number = request >> 16, request >> 8 & 0xFF, request & 0xFF
        assert kind == ord("V")
        assert len(block) == direction_size & 0x3FFF
        {0: self.querycap, 2: self.enum_fmt, 74: self.enum_framesizes, 75: self.enum_frameintervals}[number](block)

    def querycap(self, block: bytearray) -> None:
        block[:104] = struct.pack(
            "=16s32s32s6I",
            b"uvcvideo",
            "Cam\u00e9ra: Front".encode(),
            b"usb-1",
            0x60100,
            self.caps,
            0x04200001,
            0,
            0,
            0,
        )[:104].ljust(104, b"\0")

    def enum_fmt(self, block: bytearray) -> None:
        index, kind = struct.unpack_from("=II", block)
        assert kind == 1
        names = list(self.sizes)
        if index >= len(names):
            raise OSError(errno.EINVAL, "no more")
        struct.pack_into("=III32s4sI", block, 0, index, kind, 0, b"described", names[index], 0)

    def enum_framesizes(self, block: bytearray) -> None:
        index, name = struct.unpack_from("=I4s", block)
        sizes = self.sizes[name]
        if index >= len(sizes):
            raise OSError(errno.EINVAL, "no more")
        struct.pack_into("=I", block, 8, 1 if len(sizes[index]) == 2 else 3)
        struct.pack_into(f"={len(sizes[index])}I", block, 12, *sizes[index])

    def enum_frameintervals(self, block: bytearray) -> None:
        index, _name, width, _height = struct.unpack_from("=I4sII", block)
        assert width
        if index >= len(self.rates):
            raise OSError(errno.EINVAL, "no more")
        struct.pack_into("=I2I", block, 16, 1, *self.rates[index])


WEBCAM = Driver(
    {b"YUYV": [(640, 480), (1280, 720)], b"MJPG": [(1920, 1080), (1280, 720), (640, 480)], b"ABCD": [(64, 64)]},
    [(1, 30), (1, 15), (1001, 30000)],
)


def test_what_a_driver_tells() -> None:
    assert capability(WEBCAM) == Capability("uvcvideo", "Cam\u00e9ra: Front", captures=True, outputs=False)
    found = modes(WEBCAM)
    assert [(mode.format, mode.size_wh) for mode in found] == [
        *(("YUYV", wh) for wh in WEBCAM.sizes[b"YUYV"]),
        *(("MJPG", wh) for wh in WEBCAM.sizes[b"MJPG"]),
        ("ABCD", (64, 64)),
    ]
    assert found[0].rates == (Fraction(30), Fraction(30000, 1001), Fraction(15))
    (ranged,) = modes(Driver({b"YUYV": [(48, 1920, 16, 32, 1080, 8)]}, []))
    assert (ranged.smallest_wh, ranged.size_wh, ranged.step_wh) == ((48, 32), (1920, 1080), (16, 8))
    assert ranged.fits((64, 40))
    assert not ranged.fits((60, 40))
    assert not ranged.fits((3840, 2160))
    (untold,) = modes(Driver({b"YUYV": []}, []))
    assert untold.size_wh == (0, 0)
    assert untold.fits((123, 45))


@pytest.mark.parametrize(
    ("wish", "chosen"),
    [
        ((None, None, None), {"input_format": "mjpeg", "video_size": "1280x720", "framerate": "30"}),
        (((640, 480), None, None), {"input_format": "yuyv422", "video_size": "640x480", "framerate": "30"}),
        (((640, 480), Fraction(15), "mjpg"), {"input_format": "mjpeg", "video_size": "640x480", "framerate": "15"}),
        (((1280, 720), None, "YUYV"), {"input_format": "yuyv422", "video_size": "1280x720", "framerate": "30"}),
        (((1920, 1080), None, None), {"input_format": "mjpeg", "video_size": "1920x1080", "framerate": "30"}),
        (((1000, 1000), None, None), "1000x1000"),
        ((None, Fraction(60), None), "60 fps"),
        ((None, None, "h264"), "format 'h264'"),
        (((1920, 1080), None, "yuyv422"), "1920x1080 in yuyv422"),
    ],
)
def test_the_mode_that_is_taken(
    wish: tuple[tuple[int, int] | None, Fraction | None, str | None], chosen: dict[str, str] | str
) -> None:
    assert choose_mode(modes(WEBCAM), *wish) == chosen


def test_modes_in_words() -> None:
    told = modes_text(
        modes(Driver({b"YUYV": [(640, 480)], b"MJPG": [(48, 1920, 16, 32, 1080, 8)]}, [(1, 30), (2, 15)]))
    )
    assert told == "YUYV 640x480 at 30, 7.5 fps; MJPG 48x32 to 1920x1080 at 30, 7.5 fps"
    assert modes_text([]) == "no modes that its driver tells of"


def test_loopback_devices_count_only_while_fed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (0, 2, 10, 11, 12):
        (tmp_path / f"video{number}").touch()
    mode = Mode("YU12", (640, 480), (640, 480), (0, 0), ())
    told = {
        "video0": (Capability("v4l2 loopback", "fed", captures=True, outputs=False), [mode]),
        "video2": (Capability("v4l2 loopback", "idle", captures=False, outputs=True), []),
        "video10": (Capability("uvcvideo", "real", captures=True, outputs=False), [mode]),
        "video11": (Capability("v4l2 loopback", "idle, both", captures=True, outputs=True), []),
    }

    def query(path: Path) -> tuple[Capability, list[Mode]]:
        if Path(path).name not in told:
            raise PermissionError(errno.EACCES, "Permission denied")
        return told[Path(path).name]

    monkeypatch.setattr(cameras, "query", query)
    assert [(Path(camera.path).name, camera.name) for camera in list_cameras(tmp_path)] == [
        ("video0", "fed"),
        ("video10", "real"),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="Video4Linux is Linux")
def test_cameras_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        cameras.Camera("/dev/video90", "uvcvideo", "Front", ()),
        cameras.Camera("/dev/video92", "u", "Front 2", ()),
    ]
    monkeypatch.setattr(cameras, "list_cameras", lambda: found)
    for url in ("99", "/dev/video99"):
        with pytest.raises(SourceAbsentError, match=r"no camera /dev/video99; there is /dev/video90 \(Front\), "):
            cameras.camera_address(url, PLAIN)
    with pytest.raises(SourceAbsentError, match="no camera 'Rear'; there is"):
        cameras.camera_address("camera:Rear", PLAIN)
    with pytest.raises(SourceAbsentError, match="no camera /dev/video90;"):  # the exact name wins
        cameras.camera_address("camera:front", PLAIN)
    with pytest.raises(SourceOpenError, match="2 cameras are called 'ront': /dev/video90, /dev/video92"):
        cameras.camera_address("camera:ront", PLAIN)
    monkeypatch.setattr(cameras, "list_cameras", list)
    with pytest.raises(SourceAbsentError, match="no camera is connected"):
        open_source("99")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_who_holds_a_device(tmp_path: Path) -> None:
    device = tmp_path / "video0"
    device.touch()
    link = tmp_path / "webcam"
    link.symlink_to(device)
    proc = tmp_path / "proc"
    for pid, target, command in ((41, device, "zoom\n"), (7, "/dev/null", "init\n"), (os.getpid(), device, "we\n")):
        (proc / str(pid) / "fd").mkdir(parents=True)
        (proc / str(pid) / "fd/3").symlink_to(target)
        (proc / str(pid) / "comm").write_text(command)
    assert holders(str(link), proc) == [(41, "zoom")]


def test_why_a_camera_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp

    device = tmp_path / "video0"
    device.touch()
    device.chmod(0o660)  # whatever the umask
    group = grp.getgrgid(device.stat().st_gid).gr_name
    monkeypatch.setattr(cameras, "holders", lambda path: [(41, "zoom")])
    monkeypatch.setattr(
        cameras, "query", lambda path: (Capability("uvcvideo", "x", captures=True, outputs=False), modes(WEBCAM))
    )
    busy = explain(str(device), {}, OSError(errno.EBUSY, "Device or resource busy"))
    assert busy == ("absent", f"camera {device} is busy: zoom (pid 41) has it; close that")
    how, why = explain(str(device), {}, PermissionError(errno.EACCES, "Permission denied"))
    assert how == "refused"
    assert f"group {group}; sudo usermod -aG {group} $USER" in why
    how, why = explain(str(device), {"video_size": "1x1"}, OSError(errno.EINVAL, "Invalid argument"))
    assert how == "refused"
    assert "refuses 1x1; it has YUYV 640x480 at 30" in why
    assert explain(str(device), {}, OSError(errno.ENODEV, "No such device"))[0] == "absent"


def test_a_name_is_looked_up_only_where_that_is_quick() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        opener = live_opener(f"rtsp://127.0.0.1:{port}/x")
        assert opener.ready() is True
        listener.close()
        assert opener.ready() is False
        opener.close()
    named = live_opener("rtsp://camera.invalid/x")
    assert named.ready() is None
    named.close()
    camera = live_opener("camera:none")
    assert camera.ready() is False
    camera.close()
