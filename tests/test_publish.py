"""Published streams on real servers: sound and picture in step, and everything that happens to a server."""

from __future__ import annotations

import itertools
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from streamseg.errors import SinkAbsentError, SinkOpenError, SinkWriteError
from streamseg.frame import Colour, Frame, Origin, Output, Packet, Track, VideoInfo
from streamseg.sinks import publish_child
from streamseg.sinks.encoders import choose_encoding
from streamseg.sinks.publish import Publisher, open_publisher
from streamseg.sinks.publish_child import Moment, Request, _Publication
from tests.live_parts import RtspServer, free_port, nginx, rtsp_server, silent_server

WIDTH, HEIGHT, RATE = 320, 192, 25
_TICK = Fraction(1, 90000)
Sound = tuple[Track, Callable[[float], list[Packet]]]


def info(tracks: tuple[Track, ...] = ()) -> VideoInfo:
    return VideoInfo(WIDTH, HEIGHT, Fraction(RATE), True, _TICK, Colour(), "test", (WIDTH, HEIGHT), tracks=tracks)


_OPENED: list[Publisher] = []


def opened(url: str, *tracks: Track, **options: Any) -> Publisher:
    """A publisher that is given time: these tests share the machine."""
    given = {"open_s": 120.0, "stall_s": 60.0} | options
    _OPENED.append(open_publisher(url, info(tracks), **given))
    return _OPENED[-1]


@pytest.fixture(autouse=True)
def _time_to_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is there takes all of it, however busy the machine."""
    monkeypatch.setattr("streamseg.sinks.outside._FINISH_S", 60.0)


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """A test that fails leaves no process of its publishers behind, which would fail another test too."""
    yield
    while _OPENED:
        _OPENED.pop().close()


def output(index: int, luma: int | None = None) -> Output:
    """Noise, which takes many bits, or one grey; from a run that is an hour old."""
    generator = np.random.default_rng(index)
    planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
    planes[:HEIGHT] = generator.integers(16, 236, (HEIGHT, WIDTH)) if luma is None else luma
    pts = (3600 * RATE + index) * 90000 // RATE
    return Output(Frame(planes, pts, _TICK, index, time.monotonic(), Colour(), Origin("test", (WIDTH, HEIGHT))))


def paced(step: Callable[[int], object], until: Callable[[int], bool]) -> int:
    """Call `step` with 0, 1, 2... at the rate until `until` says so; returns how many there were."""
    index, due = 0, time.monotonic()
    while not until(index):
        step(index)
        index += 1
        due += 1 / RATE
        time.sleep(max(0.0, due - time.monotonic()))
    return index


def failure(sink: Publisher) -> str:
    """Publish until it fails; what was said."""
    until_s = time.monotonic() + 300
    for index in itertools.count():
        began_s = time.monotonic()
        assert began_s < until_s, "it did not fail"
        try:
            sink.write(output(index))
        except SinkWriteError as error:
            return str(error)
        time.sleep(max(0.0, began_s + 1 / RATE - time.monotonic()))
    raise AssertionError


@pytest.fixture(scope="module")
def beeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of sound with a beep of 60 ms at every full second."""
    path = tmp_path_factory.mktemp("sound") / "beeps.mka"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        times = np.arange(48000 * 60) / 48000
        tone = (0.5 * np.sin(2 * np.pi * 1000 * times) * (times % 1 < 0.06)).astype(np.float32)
        for start in range(0, len(tone), 1024):
            block = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = 48000, start, Fraction(1, 48000)
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return path


@contextmanager
def sounding(path: Path) -> Iterator[Sound]:
    """The track of a file, and what gives its packets up to a time, an hour late as the pictures are."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        track = Track(0, "audio", stream.codec_context.name, stream)
        demuxed = [packet for packet in container.demux(stream) if packet.dts is not None]

        def take(until_s: float) -> list[Packet]:
            taken = []
            while demuxed and float(demuxed[0].pts * demuxed[0].time_base) < until_s:
                packet = demuxed.pop(0)
                late = round(3600 / packet.time_base)
                packet.pts, packet.dts = packet.pts + late, packet.dts + late
                taken.append(Packet(track, packet))
            return taken

        yield track, take


@pytest.fixture
def sound(beeps: Path) -> Iterator[Sound]:
    """As `sounding` gives it."""
    with sounding(beeps) as found:
        yield found


@pytest.mark.realparts
@pytest.mark.slow
def test_sound_and_picture_are_in_step(tmp_path: Path, sound: Sound) -> None:
    track, take = sound
    with nginx(tmp_path) as (port, _):
        url = f"rtmp://127.0.0.1:{port}/live/step"
        sink = opened(url, track)
        received = tmp_path / "received.txt"
        with reading(url, received) as ended:

            def step(index: int) -> None:
                sink.write(output(index, 235 if index % RATE < 8 else 16), take(index / RATE))

            paced(step, lambda index: index >= 59 * RATE or ended())
        sink.finish()
        sink.close()
    flashes, sounds = (np.array(list(map(float, line.split()))) for line in received.read_text().splitlines())
    assert len(flashes) >= 4
    offsets_ms = [1000 * (sounds[np.abs(sounds - flash).argmin()] - flash) for flash in flashes]
    # A picture lasts 40 ms. Where the machine is busy the first ones of a flash may be dropped, which brings the sound
    # before it, but not of every flash.
    assert abs(max(offsets_ms)) < 40, offsets_ms
    assert not sink.notices


@contextmanager
def reading(url: str, result: Path) -> Iterator[Callable[[], bool]]:
    """Another program reads the stream for six seconds of it and writes when it flashed and when it beeped."""
    program = """
import sys, av, numpy as np
flashes, beeps, dark, quiet = [], [], True, True
with av.open(sys.argv[1], timeout=60, options={"probesize": "2000000", "analyzeduration": "2000000"}) as container:
    first = None
    for packet in container.demux(video=0, audio=0):
        for frame in packet.decode():
            first = frame.time if first is None else first
            if frame.time > first + 6:
                break
            if isinstance(frame, av.VideoFrame):
                bright = frame.to_ndarray()[: frame.height].mean() > 120
                if bright and dark:
                    flashes.append(frame.time)
                dark = not bright
            else:
                samples = np.abs(frame.to_ndarray()[0])
                loud = np.flatnonzero(samples > 0.1)
                if len(loud) and quiet:
                    beeps.append(frame.time + loud[0] / frame.sample_rate)
                quiet = not len(loud)
        else:
            continue
        break
open(sys.argv[2], "w").write(" ".join(map(str, flashes)) + "\\n" + " ".join(map(str, beeps)) + "\\n")
"""
    process = subprocess.Popen([sys.executable, "-c", program, url, str(result)], stderr=subprocess.PIPE)
    try:
        yield lambda: process.poll() is not None
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error.decode()[-1000:]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.realparts
def test_rtsp_is_recorded(sound: Sound) -> None:
    track, take = sound
    with rtsp_server("--record", "rec") as server:
        sink = opened(server.url("rec"), track)
        paced(lambda index: sink.write(output(index, 100), take(index / RATE)), lambda index: index >= 3 * RATE)
        # Where the machine is busy, all of the sound is there before the pictures are.
        picture, _ = server.wait_for_all(["REC video 30", "REC audio 100"], 120)
        assert f"{WIDTH}x{HEIGHT}" in picture
        sink.finish()
        sink.close()
        assert not sink.notices


@pytest.mark.realparts
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_dead_server_is_noticed_and_the_next_is_found(transport: str, sound: Sound) -> None:
    track, take = sound
    server = RtspServer(["--record", "rec"])
    server.start()
    try:
        sink = opened(server.url("rec"), track, transport=transport)
        paced(lambda index: sink.write(output(index), take(index / RATE)), lambda index: index >= RATE)
        server.wait_for("REC video", 120)
        server.kill()
        assert "takes nothing any more" not in failure(sink), "its end tells, not its silence"
        sink.close()
        with pytest.raises(SinkAbsentError):
            opened(server.url("rec"), track, transport=transport)
        server.start()
        again = opened(server.url("rec"), track, transport=transport)
        paced(lambda index: again.write(output(index), take(1 + index / RATE)), lambda index: index >= RATE)
        server.wait_for("REC video", 120)
        again.close()
    finally:
        server.kill()


@pytest.mark.realparts
@pytest.mark.slow
def test_a_stalled_server_is_noticed(sound: Sound) -> None:
    track, take = sound
    server = RtspServer(["--record", "rec"])
    server.start()
    try:
        sink = opened(server.url("rec"), track, stall_s=3.0, encoder="libx264:qp=10")
        paced(lambda index: sink.write(output(index), take(index / RATE)), lambda index: index >= RATE)
        server.wait_for("REC video", 120)
        server.signal(signal.SIGSTOP)
        before = sink.counts.get("pictures dropped while busy", 0)
        # First the system of the server takes what nobody reads: megabytes, here of eight in a second.
        assert "takes nothing any more, for 3 s" in failure(sink)
        assert sink.counts["pictures dropped while busy"] - before > 10, "no write waits until the stall is noticed"
        sink.close()
    finally:
        server.kill()


@pytest.mark.realparts
def test_rtmp_server_dies(tmp_path: Path) -> None:
    with nginx(tmp_path) as (port, _):
        sink = opened(f"rtmp://127.0.0.1:{port}/live/x")
        paced(lambda index: sink.write(output(index)), lambda index: index >= 10)
    assert "takes nothing any more" not in failure(sink), "its end tells, not its silence"
    sink.close()


def test_nobody_listens() -> None:
    for scheme, path in (("rtsp", "/rec"), ("rtmp", "/live/x")):
        with pytest.raises(SinkAbsentError, match="connection refused") as caught:
            opened(f"{scheme}://me:secret@127.0.0.1:{free_port()}{path}")
        assert "secret" not in str(caught.value)


def test_a_scheme_in_upper_case() -> None:
    for scheme, path in (("RTSP", "/rec"), ("RTMP", "/live/x")):
        with pytest.raises(SinkAbsentError, match="connection refused"):
            opened(f"{scheme}://127.0.0.1:{free_port()}{path}")


def test_what_a_server_repeats_holds_no_key() -> None:
    request: Any = SimpleNamespace(
        url="rtmp://me:pw@host/live/k-3y?auth=1", shown="rtmp://***@host/live/***", format="flv"
    )
    error = OSError(5, f"Server error: {request.url} says k-3y is taken")
    assert publish_child._why(request, error) == "server error: rtmp://***@host/live/*** says *** is taken"


def test_a_server_without_a_word() -> None:
    with silent_server() as port, pytest.raises(SinkAbsentError, match="no answer for 1 s"):
        open_publisher(f"rtsp://127.0.0.1:{port}/rec", info(), open_s=1.0)


@pytest.mark.realparts
def test_a_server_that_refuses() -> None:
    with rtsp_server("--record", "rec") as server:
        with pytest.raises(SinkOpenError, match=r"\*\*\*@") as caught:
            opened(server.url("elsewhere", "me:secret"))
        assert not isinstance(caught.value, SinkAbsentError)


def test_a_wrong_password() -> None:
    said = r"401.*check user and password in the URL"
    with denying_server() as port, pytest.raises(SinkOpenError, match=said) as caught:
        opened(f"rtsp://me:secret@127.0.0.1:{port}/rec")
    assert not isinstance(caught.value, SinkAbsentError)
    assert "secret" not in str(caught.value)


@contextmanager
def denying_server() -> Iterator[int]:
    """An RTSP server that knows nobody; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)

        def answer() -> None:
            peer, _ = listener.accept()
            with peer, peer.makefile("rb") as asked:
                lines: list[bytes] = []
                for line in asked:
                    lines.append(line.strip())
                    if lines[-1]:
                        continue
                    number = next(text for text in lines if text.lower().startswith(b"cseq"))
                    length = next((int(text.split()[1]) for text in lines if b"ength:" in text), 0)
                    asked.read(length)
                    good = lines[0].startswith(b"OPTIONS")
                    head = b"RTSP/1.0 " + (b"200 OK" if good else b"401 Unauthorized")
                    rest = b"" if good else b'WWW-Authenticate: Digest realm="x", nonce="1"\r\n'
                    peer.sendall(head + b"\r\n" + number + b"\r\n" + rest + b"\r\n")
                    lines = []

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            thread.join(60)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rtsp://host:99999/x", "port must be a number from 1 to 65535"),
        ("rtsp://host:word/x", "port must be a number from 1 to 65535"),
        ("rtsp:///x", "names no host"),
        ("rtsp://[::1/x", "its host cannot be read"),
        ("rtsp://me:secret?x@host/1", "write / [?] and # in a user or password as %2F"),
        ("rtsp://me:secret/x@host/1", "write / [?] and # in a user or password as %2F"),
        ("rtmp://host/live", "an application and a name"),
        ("srt://host:1/x", "known are rtsp:// rtsps:// rtmp:// rtmps://"),
    ],
)
def test_addresses_that_can_never_work(url: str, said: str) -> None:
    with pytest.raises(SinkOpenError, match=said) as caught:
        open_publisher(url, info())
    assert not isinstance(caught.value, SinkAbsentError)


def test_unknown_transport_and_encoder() -> None:
    with pytest.raises(SinkOpenError, match="transport 'pigeon' is none of tcp, udp"):
        open_publisher("rtsp://host/x", info(), transport="pigeon")
    with pytest.raises(SinkOpenError, match="no encoder 'x26'"):
        open_publisher("rtsp://host/x", info(), encoder="x26")


@pytest.mark.parametrize("format_name", ["flv", "matroska"])
def test_a_stream_begins_anew_before_the_clock_of_rtmp_is_used_up(format_name: str, tmp_path: Path) -> None:
    encoding = choose_encoding(format_name, "x", encoder=None, quality=None, alpha=False, live=True, size_wh=(64, 64))
    url = str(tmp_path / "out")
    request = Request(url, url, format_name, {}, encoding, (64, 64), Fraction(30), Colour(), Fraction(1), 1, ())
    stream = _Publication(request)
    planes = np.full((96, 64), 128, np.uint8)
    day = 86400 * 90000
    for pts in (10 * day, 33 * day):
        stream.write(planes, Moment(pts, Fraction(1, 90000), ()))
    last = Moment(int(34.5 * day), Fraction(1, 90000), ())
    if format_name == "flv":
        with pytest.raises(ValueError, match="ends after 24 days"):
            stream.write(planes, last)
    else:
        stream.write(planes, last)
    stream.finish(())
