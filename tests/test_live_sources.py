"""Live sources on real servers: one contract for every kind, and what each fault looks like."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from streamseg.child import Child, ChildDied
from streamseg.errors import SourceAbsentError, SourceError, SourceLostError, SourceOpenError
from streamseg.frame import Frame, Output, Source
from streamseg.sinks import open_sink
from streamseg.sources import LiveOptions, live_opener, open_source
from streamseg.sources.live import LiveOpener
from tests import clips
from tests.file_server import serving
from tests.live_parts import (
    RtspServer,
    camera_clip,
    certificate,
    faulty_link,
    free_port,
    mjpeg_camera,
    nginx,
    published,
    rtsp_server,
    silent_server,
)

pytestmark = pytest.mark.realparts

QUICK = LiveOptions(connect_timeout_s=3, read_timeout_s=1.5)
# A server that shares a busy machine is not lost because it is late.
PATIENT = LiveOptions(connect_timeout_s=60, read_timeout_s=60)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips that servers play."""
    folder = tmp_path_factory.mktemp("live")
    camera_clip(folder / "aac.mkv")
    camera_clip(folder / "opus.mkv", sound="libopus")
    camera_clip(folder / "hevc.mkv", codec="libx265", sound=None)
    camera_clip(folder / "jpeg.mkv", codec="mjpeg", sound=None)
    return folder


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[RtspServer]:
    """One that no test harms."""
    with rtsp_server(
        *("--mount", f"aac=h264+aac:{folder}/aac.mkv"),
        *("--mount", f"opus=h264+opus:{folder}/opus.mkv"),
        *("--mount", f"hevc=h265:{folder}/hevc.mkv"),
        *("--mount", f"jpeg=jpeg:{folder}/jpeg.mkv"),
        *("--once", f"once=h264+aac:{folder}/aac.mkv"),
        *("--secure", f"secure=h264:{folder}/aac.mkv"),
        *("--auth", "me:p*s@s/%41"),
        *("--clock", "clock=640x368@30"),
    ) as running:
        yield running


@pytest.fixture
def camera(folder: Path) -> Iterator[RtspServer]:
    """One that may be killed."""
    with rtsp_server("--mount", f"cam=h264+aac:{folder}/aac.mkv") as running:
        yield running


KINDS = [
    "test",
    "rtsp tcp",
    "rtsp udp",
    "rtsp opus",
    "rtsp h265",
    "rtsp mjpeg",
    "rtsp password",
    "rtsps",
    "rtmp",
    "hls",
    "http mjpeg",
    "http file",
]


@contextmanager
def running(kind: str, folder: Path, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Whatever it takes to have a source of a kind; its URL."""
    mounts = {"tcp": "aac", "udp": "aac", "opus": "opus", "h265": "hevc", "mjpeg": "jpeg"}
    with ExitStack() as stack:
        if kind == "test":
            yield "test:?size=320x192&fps=30"
        elif kind == "rtsp password":
            yield request.getfixturevalue("server").url("secure", "me:p*s@s%2F%2541")
        elif kind == "rtsps":
            mount = f"cam=h264+aac:{folder}/aac.mkv"
            secure = rtsp_server("--tls", str(certificate(tmp_path)), "--mount", mount)
            yield stack.enter_context(secure).url("cam")
        elif kind.startswith("rtsp"):
            yield request.getfixturevalue("server").url(mounts[kind.split()[1]])
        elif kind == "http file":
            yield stack.enter_context(serving((folder / "aac.mkv").read_bytes())).url + "/aac.mkv?token=secret"
        elif kind == "http mjpeg":
            yield stack.enter_context(mjpeg_camera(clips.packets(folder / "jpeg.mkv", "video"), 30))
        else:
            rtmp, http = stack.enter_context(nginx(tmp_path))
            url = f"rtmp://127.0.0.1:{rtmp}/live/cam"
            stack.enter_context(published(folder / "aac.mkv", url))
            if kind == "hls":
                playlist = tmp_path / "hls/cam.m3u8"
                eventually(lambda: playlist.exists() and playlist.read_text().count("#EXTINF") >= 3)
                url = f"http://127.0.0.1:{http}/hls/cam.m3u8"
            yield url


def eventually(holds: Callable[[], Any], timeout_s: float = 120) -> None:
    until_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until_s, "it did not come true"
        time.sleep(0.02)


def opened(url: str, kind: str = "", options: LiveOptions | None = None) -> Source:
    """Servers that were just started need a moment until the stream is there."""
    asked = options or replace(PATIENT, transport="udp" if "udp" in kind else "tcp")
    return persistently(lambda: open_source(url, live=asked))


def persistently(open_: Callable[[], Source]) -> Source:
    """Also a server that has just let go of its last client answers 503 for a moment."""
    until_s = time.monotonic() + 120
    while True:
        try:
            return open_()
        except SourceAbsentError:
            assert time.monotonic() < until_s
            time.sleep(0.1)


def taken(source: Source, count: int) -> list[Frame]:
    frames = []
    for _ in range(count):
        frame = source.read()
        assert frame is not None
        frames.append(frame)
    return frames


def exhaust(source: Source) -> None:
    while source.read() is not None:
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_the_contract(kind: str, folder: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with running(kind, folder, request, tmp_path) as url:
        source = opened(url, kind)
        try:
            info = source.info
            assert (info.width, info.height, info.original_wh) == (320, 192, (320, 192))
            assert info.live == (kind != "http file")
            assert "secret" not in info.name
            assert "p*s" not in info.name
            assert "%2541" not in info.name
            if kind not in ("http mjpeg",):
                assert info.rate == 30
            frames = taken(source, 60)
            for before, frame in zip([None, *frames], frames, strict=False):
                assert frame.time_base == info.time_base
                assert frame.colour == info.colour
                assert 0 <= time.monotonic() - frame.captured_at < 120
                if before is not None:
                    assert frame.pts > before.pts
                    assert frame.index > before.index
                    assert frame.captured_at >= before.captured_at
            # What the pixels say and what the source counted is one and the same, but for the clip's wrap.
            numbers = [clips.index_of(frame.y) for frame in frames]
            steps = [(b - a) % 150 for a, b in itertools.pairwise(numbers)]
            counted = [b.index - a.index for a, b in itertools.pairwise(frames)]
            assert steps == counted
            # Thirty a second, whatever the unit of time; pictures without a clock have that of their arrival.
            wanted_s = (frames[-1].index - frames[0].index) / 30
            if kind == "http mjpeg":
                wanted_s = frames[-1].captured_at - frames[0].captured_at
            assert frames[-1].seconds - frames[0].seconds == pytest.approx(wanted_s, rel=0.02)
            luma = clips.luma(numbers[-1], 320, 192).astype(float)
            u, v = (150, 105) if kind == "test" else (110, 150)
            if info.colour.full_range:
                luma = (luma - 16) * 255 / 219
                u, v = (round((chroma - 128) * 255 / 224 + 128) for chroma in (u, v))
            assert np.abs(frames[-1].y - luma).mean() < 4
            assert np.abs(frames[-1].u.astype(int) - u).mean() < 3
            assert np.abs(frames[-1].v.astype(int) - v).mean() < 3
            if info.live:
                assert source.counts.get("broken packets skipped", 0) == 0
            else:
                assert not source.counts
                numbers += [clips.index_of(frame.y) for frame in iter(source.read, None)]
                assert numbers == list(range(150))
            # Interrupt ends it, and reading on is harmless.
            source.interrupt()
            assert source.read() is None
        finally:
            source.close()


@pytest.mark.parametrize("kind", ["rtsp tcp", "rtsp opus", "rtmp", "hls", "http file"])
def test_sound_is_copied_in_step(kind: str, folder: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with running(kind, folder, request, tmp_path) as url:
        source = opened(url)
        try:
            (track,) = source.info.tracks
            assert (track.kind, track.codec) == ("audio", "opus" if "opus" in kind else "aac")
            out = tmp_path / "out.mkv"
            sink = open_sink(str(out), source.info, encoder="libx264:preset=ultrafast")
            first = None
            for _ in range(120):
                frame = source.read()
                assert frame is not None
                first = first if first is not None else clips.index_of(frame.y)
                sink.write(Output(frame), source.take_packets())
            sink.finish(source.take_packets())
            sink.close()
            assert not sink.notices
        finally:
            source.close()
    told = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "stream=codec_type,codec_name", "-of", "csv=p=0", str(out)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert sorted(told) == sorted(["h264,video", f"{track.codec},audio"])
    # The clip's tone rises from 300 Hz by 40 Hz a second: what is heard tells when it was meant to be heard.
    assert first is not None
    heard = loudest_hz(out, 1.5, 0.3)
    meant_s = ((first / 30 + 1.65) % 5) if kind != "http file" else 1.65
    assert (heard - 300) / 40 == pytest.approx(meant_s, abs=0.12)


def loudest_hz(path: Path, at_s: float, length_s: float) -> float:
    """The strongest frequency of the sound from `at_s` on, interpolated between the bins."""
    samples = []
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        for frame in container.decode(audio=0):
            assert frame.pts is not None
            assert frame.time_base is not None
            begin_s = float(frame.pts * frame.time_base)
            if at_s <= begin_s < at_s + length_s:
                samples.append(frame.to_ndarray()[0])
    wave = np.concatenate(samples)
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 20))
    return float(np.argmax(power) * rate / (1 << 20))


def test_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("Xvfb"):
        pytest.skip("xvfb is missing")
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write_end], stderr=subprocess.DEVNULL)
    os.close(write_end)
    try:
        with os.fdopen(read_end) as text:
            monkeypatch.setenv("DISPLAY", f":{text.readline().strip()}")
        opener = live_opener("screen:", LiveOptions(rate=Fraction(15)))
        source = opener()
        assert (source.info.width, source.info.height, source.info.rate) == (640, 480, 15)
        # Pictures that are late come one behind the other, and only those.
        frames = taken(source, 30)
        assert frames[-1].seconds - frames[0].seconds > 1
        server.kill()
        with pytest.raises(SourceLostError):
            exhaust(source)
        source.close()
        with pytest.raises(SourceAbsentError, match="display"):
            opener()
        opener.close()
    finally:
        server.kill()
        server.wait()


def test_latency_is_read_from_the_pixels(server: RtspServer) -> None:
    source = opened(server.url("clock"))
    try:
        taken(source, 30)
        late_ms = []
        for _ in range(60):
            (frame,) = taken(source, 1)
            now = int(time.monotonic() * 1000) & 0xFFFF
            late_ms.append((now - clips.index_of(frame.y)) % 65536)
        # Encoder, server, network, decoder, child and copy together: 38 ms on a quiet machine. Where it is busy some
        # pictures are late; a queue of a second would be in front of all of them.
        assert min(late_ms) < 1000, late_ms
    finally:
        source.close()


def test_a_slow_reader_gets_new_pictures(server: RtspServer) -> None:
    source = opened(server.url("clock"))
    try:
        frames = taken(source, 1)
        late_ms = []
        for _ in range(12):
            time.sleep(0.4)  # the reader's work
            frames += taken(source, 1)
            late_ms.append((int(time.monotonic() * 1000) - clips.index_of(frames[-1].y)) % 65536)
        missed = frames[-1].index - frames[0].index + 1 - len(frames)
        assert source.counts["frames dropped, newer ones were waiting"] >= missed > 12
        # The waiting pictures are few: lateness stays, it does not grow by the reader's work.
        assert min(late_ms[-4:]) < 2500, late_ms
    finally:
        source.close()


def test_end_of_a_stream(server: RtspServer) -> None:
    source = opened(server.url("once"))
    try:
        frames = list(iter(source.read, None))
        assert clips.index_of(frames[-1].y) == 149
        assert source.read() is None
    finally:
        source.close()


def test_interlaced_pictures_are_deinterlaced(tmp_path: Path) -> None:
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1", "g": "5"}
    clip = clips.make_clip(tmp_path / "a.ts", frames=12, size_wh=(320, 192), options=options, sound="mp2")
    with serving(clip.read_bytes()) as site:
        source = open_source(site.url + "/a.ts")
        frames = list(iter(source.read, None))
        assert [clips.index_of(frame.y) for frame in frames] == list(range(12))
        # A broadcast container's clock starts anywhere; here it starts at 0.
        assert frames[0].seconds < 0.1
        assert frames[-1].seconds - frames[0].seconds == pytest.approx(11 / 30, abs=0.01)
        assert any("deinterlaced" in notice for notice in source.notices)
        assert source.take_packets()
        source.close()


# Faults.


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_killed_server_is_noticed_at_once_and_found_again(camera: RtspServer, transport: str) -> None:
    opener = live_opener(camera.url("cam"), replace(PATIENT, transport=transport, read_timeout_s=300))
    try:
        source = persistently(opener)
        taken(source, 10)
        assert opener.ready()
        camera.kill()
        began_s = time.monotonic()
        # Over UDP only the control connection tells, and it may look like an end.
        with suppress(SourceLostError):
            while source.read() is not None:
                pass
        assert time.monotonic() - began_s < 120, "its end tells, not its silence"
        source.close()
        assert opener.ready() is False
        with pytest.raises(SourceAbsentError, match="refused"):
            opener()
        camera.start()
        assert opener.ready()
        source = persistently(opener)
        taken(source, 1)
        source.close()
    finally:
        opener.close()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_stopped_server_is_lost_in_time(camera: RtspServer, transport: str) -> None:
    opener = live_opener(camera.url("cam"), replace(PATIENT, transport=transport, read_timeout_s=5))
    try:
        source = persistently(opener)
        taken(source, 10)
        camera.signal(signal.SIGSTOP)
        with pytest.raises(SourceLostError, match="sent no picture for 5 s"):
            exhaust(source)
        source.close()
        camera.signal(signal.SIGCONT)
        source = persistently(opener)
        taken(source, 5)
        source.close()
    finally:
        camera.signal(signal.SIGCONT)
        opener.close()


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_lost_packets_are_counted_and_do_not_end_it(folder: Path, share: float) -> None:
    with faulty_link() as link, rtsp_server("--mount", f"cam=h264+aac:{folder}/aac.mkv", link=link) as camera:
        source = opened(camera.url("cam"), options=replace(PATIENT, transport="udp"))
        try:
            link.lose(share)
            frames = taken(source, 150)
            assert all(b.pts > a.pts for a, b in itertools.pairwise(frames))
            assert source.counts["packets lost on the way"] > 100 * share
            damaged = 0
            for frame in frames:
                meant = clips.luma(clips.index_of(frame.y), 320, 192).astype(int)
                damaged += bool(np.abs(frame.y.astype(int) - meant)[16:].mean() > 4)
            # Whatever is damaged is counted; a lost packet of sound counts its pictures too.
            # What the library prints comes by another way than its pictures, now and then later.
            link.lose(0)
            taken(source, 60)
            assert 0.8 * damaged <= source.counts["damaged pictures"], (damaged, source.counts)
            assert source.counts["damaged pictures"] > 0
        finally:
            source.close()


def test_a_cut_cable_is_noticed_and_mended(folder: Path) -> None:
    with faulty_link() as link, rtsp_server("--mount", f"cam=h264+aac:{folder}/aac.mkv", link=link) as camera:
        opener = live_opener(camera.url("cam"), LiveOptions(connect_timeout_s=10))
        try:
            source = persistently(opener)
            taken(source, 10)
            link.cut()
            with pytest.raises(SourceLostError):
                exhaust(source)
            source.close()
            assert opener.ready() is False
            with pytest.raises(SourceAbsentError):
                opener()
            link.mend()
            source = persistently(opener)
            taken(source, 1)
            source.close()
        finally:
            opener.close()


def test_codec_and_size_may_change_between_two_openings(camera: RtspServer, folder: Path, tmp_path: Path) -> None:
    opener = live_opener(camera.url("cam"), PATIENT)
    try:
        source = persistently(opener)
        assert (source.info.width, len(source.info.tracks)) == (320, 1)
        taken(source, 3)
        camera.kill()
        other = camera_clip(tmp_path / "other.mkv", codec="libx265", sound=None, size_wh=(480, 272), frames=60)
        camera.arguments = ["--mount", f"cam=h265:{other}"]
        camera.start()
        source.close()
        source = persistently(opener)
        assert (source.info.width, source.info.height, source.info.tracks) == (480, 272, ())
        assert taken(source, 3)[-1].planes.shape == (408, 480)
        source.close()
    finally:
        opener.close()


def test_an_interrupt_just_before_a_child_is_replaced_ends_the_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    opener = live_opener("rtsp://127.0.0.1:9/x")

    def alive(child: Child) -> bool:
        opener.interrupt()
        return False

    monkeypatch.setattr(Child, "alive", property(alive))
    with pytest.raises(SourceOpenError, match="interrupted"):
        opener()
    opener.close()


def test_without_room_for_another_process_the_source_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rtsp_server("--mount", f"cam=h264+aac:{folder / 'aac.mkv'}") as server:
        opener = live_opener(server.url("cam"), PATIENT)
        assert isinstance(opener, LiveOpener)
        opener._drop_child()
        with monkeypatch.context() as full:
            full.setattr("streamseg.sources.live.Child", no_room)
            with pytest.raises(SourceAbsentError, match="could not be started"):
                opener()
        source = persistently(opener)
        taken(source, 1)
        source.close()
        opener.close()


def no_room(entry: str, *, name: str) -> Child:
    raise ChildDied(f"the process {name} could not be started: no room")


def test_interrupt_unblocks_an_opening() -> None:
    with silent_server() as port:
        opener = live_opener(f"rtsp://127.0.0.1:{port}/x", LiveOptions(connect_timeout_s=300))
        asked = threading.Event()
        pressed_s: list[float] = []

        def press() -> None:
            asked.wait()
            time.sleep(1.0)  # into the blocking call
            pressed_s.append(time.monotonic())
            opener.interrupt()

        thread = threading.Thread(target=press)
        thread.start()
        asked.set()
        with pytest.raises(SourceOpenError, match="interrupted"):
            opener()
        assert time.monotonic() - pressed_s[0] < 120, "long before it would have given up"
        thread.join()
        opener.close()


def test_interrupt_unblocks_a_read(camera: RtspServer) -> None:
    source = opened(camera.url("cam"), options=replace(PATIENT, read_timeout_s=300))
    taken(source, 3)
    camera.signal(signal.SIGSTOP)
    pressed_s: list[float] = []

    def press() -> None:
        pressed_s.append(time.monotonic())
        source.interrupt()

    timer = threading.Timer(0.7, press)
    timer.start()
    while source.read() is not None:
        pass
    assert time.monotonic() - pressed_s[0] < 120, "long before it would have given up"
    timer.join()
    source.close()
    camera.signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("userinfo", "message"), [("me:wrong", "401.*check user and password"), ("", "401.*check user and password")]
)
def test_a_wrong_password_is_refused(server: RtspServer, userinfo: str, message: str) -> None:
    with pytest.raises(SourceOpenError, match=message) as caught:
        open_source(server.url("secure", userinfo), live=PATIENT)
    assert not isinstance(caught.value, SourceAbsentError)
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("password", ["p*s@s%2F%2541", "p%2As%40s%2f%2541"])
def test_passwords_plain_or_encoded(server: RtspServer, password: str) -> None:
    source = persistently(lambda: open_source(server.url("secure", f"me:{password}"), live=PATIENT))
    taken(source, 1)
    source.close()


def test_nobody_there(server: RtspServer) -> None:
    with pytest.raises(SourceAbsentError, match="refused"):
        open_source(f"rtsp://127.0.0.1:{free_port()}/x")
    with pytest.raises(SourceAbsentError, match="404"):
        open_source(server.url("nothing"), live=PATIENT)
    with silent_server() as port, pytest.raises(SourceAbsentError, match="no answer within 1 s"):
        open_source(f"rtsp://127.0.0.1:{port}/x", live=LiveOptions(connect_timeout_s=1))
    with pytest.raises(SourceAbsentError, match=r"resolve|no answer"):
        open_source("rtsp://no-such-host.invalid/x", live=QUICK)


def test_no_route() -> None:
    # TEST-NET-1 is given to nobody: packets vanish or are refused by the first router.
    began_s = time.monotonic()
    with pytest.raises(SourceAbsentError):
        open_source("rtsp://192.0.2.1/x", live=LiveOptions(connect_timeout_s=1))
    assert time.monotonic() - began_s < 120


def test_no_video() -> None:
    with serving(b"<html><body>not found, but politely</body></html>" * 50) as site:
        with pytest.raises(SourceOpenError, match="sends no video") as caught:
            open_source(site.url + "/page?key=secret")
        assert "secret" not in str(caught.value)
        assert not isinstance(caught.value, SourceAbsentError)
        site.status = 404
        with pytest.raises(SourceAbsentError, match="404"):
            open_source(site.url + "/page")
        site.status = 403
        with pytest.raises(SourceOpenError, match="403"):
            open_source(site.url + "/page")


def test_a_playlist_cannot_read_files_here(folder: Path, tmp_path: Path) -> None:
    clip = clips.make_clip(tmp_path / "private.ts", frames=10, options={"g": "5"})
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{clip}\n#EXT-X-ENDLIST\n"
    with serving(playlist.encode()) as site:
        site.content_type = "application/vnd.apple.mpegurl"
        with pytest.raises(SourceError):
            open_source(site.url + "/list.m3u8", live=QUICK)


def test_thirty_openings_leave_nothing_behind(server: RtspServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # A child that is late to let go is replaced; here it has to be the same one.
    monkeypatch.setattr("streamseg.sources.live._CLOSE_TIMEOUT_S", 60.0)
    us = psutil.Process()
    others = set(us.children())
    opener = live_opener(server.url("jpeg"), PATIENT)
    try:
        source = persistently(opener)
        taken(source, 2)
        source.close()
        (child,) = set(us.children()) - others
        before, before_child = us.num_fds(), child.num_fds()
        for round_ in range(30):
            source = persistently(opener)
            taken(source, 2)
            if round_ % 10 == 9:
                source.interrupt()  # costs the child its life
            source.close()
            if round_ == 8:
                assert child.num_fds() <= before_child
        assert us.num_fds() <= before
        (second,) = set(us.children()) - others
        assert second.pid != child.pid
        assert second.status() != psutil.STATUS_ZOMBIE
    finally:
        opener.close()
    assert set(us.children()) <= others


def test_the_child_goes_when_its_parent_is_killed(server: RtspServer) -> None:
    program = (
        "import sys; from streamseg.sources import open_source; s = open_source(sys.argv[1]); s.read();"
        "import psutil; print(psutil.Process().children()[0].pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, server.url("jpeg")], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    parent.stdin.close()
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
