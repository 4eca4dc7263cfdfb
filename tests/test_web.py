"""The preview, the metrics and the health of a run, asked for by real clients; what must not be answered."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamseg.engine.metrics import Metrics
from streamseg.errors import ConfigError, SinkOpenError
from streamseg.frame import Colour, Output
from streamseg.pixels.planes import empty, split, yuv_colour
from streamseg.web import Notifier, PreviewSink, StatusServer, listen_address
from streamseg.web import server as server_module
from tests import clips


def card(rgb: tuple[int, int, int], colour: Colour, width: int = 320, height: int = 180) -> Output:
    """A picture of one colour, by the equations of H.273."""
    planes = empty(width, height)
    for plane, value in zip(split(planes), yuv_colour(rgb, colour, height), strict=True):
        plane[:] = value
    return Output(clips.frame(0, width, height, planes=planes, colour=colour))


@contextlib.contextmanager
def feeding(sink: PreviewSink, make: Callable[[int], Output], per_s: float = 50) -> Iterator[None]:
    """Writes pictures from another thread, as a pipeline does; closes the sink."""
    stop = threading.Event()

    def write() -> None:
        index = 0
        while not stop.wait(1 / per_s):
            sink.write(make(index))
            index += 1

    thread = threading.Thread(target=write, name="feeder")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        sink.finish()
        sink.close()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a busy machine takes to send or to read something, nobody gives up meanwhile."""
    monkeypatch.setattr("streamseg.web.preview._WAIT_S", 600.0)
    monkeypatch.setattr(server_module, "_PATIENCE_S", 600.0)
    monkeypatch.setattr(server_module._Handler, "timeout", 600.0)


@pytest.fixture
def preview() -> Iterator[PreviewSink]:
    sink = PreviewSink("127.0.0.1", 0, title="a <b> & c")
    with feeding(sink, lambda index: Output(clips.frame(index))):
        yield sink


def url(server: PreviewSink | StatusServer, path: str) -> str:
    return f"http://{server.address[0]}:{server.address[1]}{path}"


def get(address: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=120) as reply:
            return reply.status, dict(reply.headers), reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def pictures(server: PreviewSink, count: int) -> list[bytes]:
    """The first pictures of the stream."""
    with contextlib.closing(watched(server)) as stream:
        return [next(stream) for _ in range(count)]


def watched(server: PreviewSink) -> Generator[bytes, None, None]:
    """The pictures of the stream from now on."""
    connection = http.client.HTTPConnection(*server.address, timeout=120)
    connection.request("GET", "/stream.mjpg")
    reply = connection.getresponse()
    assert reply.status == 200
    boundary = re.fullmatch("multipart/x-mixed-replace; boundary=(.+)", reply.headers["Content-Type"])
    assert boundary
    return _parts(connection, reply, f"--{boundary[1]}\r\n".encode())


def _parts(
    connection: http.client.HTTPConnection, reply: http.client.HTTPResponse, boundary: bytes
) -> Generator[bytes, None, None]:
    """By the lengths that they say."""
    with contextlib.closing(connection), reply:
        assert reply.readline() == boundary
        while True:
            assert reply.readline() == b"Content-Type: image/jpeg\r\n"
            length = int(reply.readline().removeprefix(b"Content-Length: "))
            assert reply.readline() == b"\r\n"
            jpeg = reply.read(length)
            assert reply.readline() == b"\r\n"
            assert reply.readline() == boundary
            yield jpeg


def decode(jpeg: bytes) -> np.ndarray[Any, Any]:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture)


def test_stream_shows_the_pictures_in_order(preview: PreviewSink) -> None:
    indices = [clips.index_of(decode(jpeg)[..., 1]) for jpeg in pictures(preview, 8)]
    assert indices == sorted(set(indices))  # on a busy machine it is shown fewer


def test_single_picture(preview: PreviewSink) -> None:
    status, headers, body = get(url(preview, "/frame.jpg"))
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert decode(body).shape == (180, 320, 3)
    again = clips.index_of(decode(get(url(preview, "/frame.jpg"))[2])[..., 1])
    assert again > clips.index_of(decode(body)[..., 1])


def test_page_leads_to_the_stream_and_says_nothing_unescaped(preview: PreviewSink) -> None:
    status, headers, body = get(url(preview, "/"))
    assert status == 200
    assert b"stream.mjpg" in body
    assert b"<title>a &lt;b&gt; &amp; c</title>" in body
    nonce = re.search(rb'nonce="([^"]+)"', body)
    assert nonce
    assert f"script-src 'nonce-{nonce[1].decode()}'" in headers["Content-Security-Policy"]
    assert nonce[1] not in get(url(preview, "/"))[2]


@pytest.mark.parametrize("path", ["/", "/frame.jpg", "/nothing"])
def test_other_sites_get_nothing_from_a_browser(path: str, preview: PreviewSink) -> None:
    _, headers, _ = get(url(preview, path), Origin="http://evil.example")
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert not any(key.lower().startswith("access-control") for key in headers)
    assert "Python" not in headers["Server"]


@pytest.mark.parametrize(
    ("colour", "height"),
    [
        (Colour(False, 1, 1, 1, 1), 180),
        (Colour(False, 6, 6, 6, 1), 180),
        (Colour(True, 6, 6, 6, 1), 180),
        (Colour(True, 1, 1, 1, 1), 180),
        (Colour(False, 9, 9, 14, 1), 180),
        (Colour(), 180),
        (Colour(), 720),
    ],
    ids=str,
)
@pytest.mark.parametrize("rgb", [(255, 255, 255), (0, 0, 0), (200, 40, 40), (30, 180, 60), (50, 60, 210)], ids=str)
def test_colours_are_those_of_the_picture(rgb: tuple[int, int, int], colour: Colour, height: int) -> None:
    sink = PreviewSink("127.0.0.1", 0, quality=95)
    with feeding(sink, lambda _: card(rgb, colour, height * 16 // 9, height)):
        found = decode(get(url(sink, "/frame.jpg"))[2])[..., ::-1].reshape(-1, 3).mean(0)
    assert np.abs(found - rgb).max() <= 3


def test_nothing_is_encoded_while_nobody_watches() -> None:
    sink = PreviewSink("127.0.0.1", 0)
    for index in range(10):
        sink.write(Output(clips.frame(index)))
    assert sink.counts == {"pictures encoded": 0}
    sink.close()


def test_one_encoding_serves_all_and_ends_with_the_last() -> None:
    sink = PreviewSink("127.0.0.1", 0)
    clients = [watched(sink) for _ in range(3)]
    _until(lambda: sink._watchers == 3)
    for index in range(5):
        sink.write(Output(clips.frame(index)))
        jpeg, *others = (next(client) for client in clients)
        assert others == [jpeg] * 2
        assert clips.index_of(decode(jpeg)[..., 1]) == index
    assert sink.counts == {"pictures encoded": 5}
    for client in clients:
        client.close()

    def nobody_is_left() -> bool:
        sink.write(Output(clips.frame(5)))  # which tells who went
        return sink._watchers == 0

    _until(nobody_is_left)
    encoded = sink.counts
    sink.write(Output(clips.frame(6)))
    assert sink.counts == encoded
    sink.close()


def _until(condition: Callable[[], bool], within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def test_geometry_may_change() -> None:
    sink = PreviewSink("127.0.0.1", 0)
    stream = watched(sink)
    _until(lambda: sink._watchers == 1)
    for index, (width, height) in enumerate([(320, 180), (640, 360), (34, 30)] * 2):
        sink.write(Output(clips.frame(index, width, height)))
        assert decode(next(stream)).shape[:2] == (height, width)
    stream.close()
    sink.close()


def test_no_picture_within_two_seconds_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamseg.web.preview._WAIT_S", 0.05)
    sink = PreviewSink("127.0.0.1", 0)
    assert get(url(sink, "/frame.jpg"))[0] == 503
    sink.close()


def connect(server: PreviewSink | StatusServer, request: bytes = b"") -> socket.socket:
    client = socket.create_connection(server.address, timeout=120)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(request)
    return client


STREAM = b"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture
def unread() -> Iterator[tuple[PreviewSink, Output]]:
    """A preview whose clients do not read, and a picture too large for what lies between."""
    sink = PreviewSink("127.0.0.1", 0, quality=100)
    rng = np.random.default_rng(0)
    noise = Output(clips.frame(0, 1280, 720, planes=rng.integers(16, 235, (1080, 1280), np.uint8)))
    clients = [connect(sink, STREAM) for _ in range(5)]
    _until(lambda: sink._watchers == 5)
    yield sink, noise
    for client in clients:
        client.close()
    sink.close()


def test_clients_that_do_not_read_hold_nobody_up(unread: tuple[PreviewSink, Output]) -> None:
    """Their pictures are left out."""
    sink, noise = unread
    begin = time.monotonic()
    for _ in range(30):
        sink.write(noise)
    assert time.monotonic() - begin < 300, "a client that is waited for has ten minutes"
    assert sink._watchers == 5


def test_clients_that_do_not_read_are_let_go(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(server_module._Handler, "timeout", 0.5)
    sink, noise = request.getfixturevalue("unread")
    for _ in range(30):
        sink.write(noise)
    _until(lambda: sink._watchers == 0)


def test_clients_that_went_away_are_noticed_without_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamseg.web.preview._WAIT_S", 0.05)
    sink = PreviewSink("127.0.0.1", 0)
    client = connect(sink, STREAM)
    _until(lambda: sink._watchers == 1)
    client.close()
    _until(lambda: sink._watchers == 0)
    sink.close()


def test_more_than_sixteen_clients_are_turned_away() -> None:
    sink = PreviewSink("127.0.0.1", 0)
    before = set(threading.enumerate())
    clients = [connect(sink, STREAM) for _ in range(16)]
    _until(lambda: sink._watchers == 16)
    late = connect(sink)
    assert late.recv(100).startswith(b"HTTP/1.1 503 ")
    assert len(set(threading.enumerate()) - before) == 16
    for client in [*clients, late]:
        client.close()
    sink.close()


def test_request_that_comes_drop_by_drop_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_PATIENCE_S", 0.3)
    sink = PreviewSink("127.0.0.1", 0)
    client = connect(sink, b"GET / HT")
    assert client.recv(100) == b"", "its own time-out is ten minutes"
    client.close()
    sink.close()


def test_close_lets_every_client_go_at_once(preview: PreviewSink) -> None:
    reading, silent = connect(preview, STREAM), connect(preview)
    _until(lambda: preview._watchers == 1)
    begin = time.monotonic()
    preview.close()
    assert time.monotonic() - begin < 120, "long before their patience ends"
    for client in (reading, silent):
        with contextlib.suppress(ConnectionError):
            while client.recv(65536):
                pass
        client.close()


@pytest.mark.parametrize(
    ("host", "wanted"),
    [("127.0.0.1", 200), ("localhost:8080", 200), ("[::1]:80", 200), ("evil.example", 403), ("", 403),
     ("127.0.0.1.evil.example", 403), ("localhost.evil.example:80", 403), ("[", 403)],
)  # fmt: skip
def test_names_that_a_web_page_gave_to_this_address_get_nothing(host: str, wanted: int, status: StatusServer) -> None:
    assert get(url(status, "/healthz"), Host=host)[0] == wanted


def test_only_reading(preview: PreviewSink) -> None:
    for method, wanted in (("POST", 501), ("DELETE", 501), ("HEAD", 200)):
        connection = http.client.HTTPConnection(*preview.address, timeout=120)
        connection.request(method, "/stream.mjpg")
        assert connection.getresponse().status == wanted
        connection.close()
    assert get(url(preview, "/../../etc/passwd"))[0] == 404


def test_beyond_this_machine_only_with_a_token() -> None:
    message = r"cannot listen on 0.0.0.0:0 for the preview without a token: .*; set output.token, or listen on 127"
    with pytest.raises(SinkOpenError, match=message):
        PreviewSink("0.0.0.0", 0)
    for host in ("0.0.0.0", "::"):
        with pytest.raises(ConfigError, match="without a token"):
            StatusServer(host, 0, sample=dict, token="")


def test_token_opens_what_listens_beyond_this_machine() -> None:
    server = StatusServer("0.0.0.0", 0, sample=lambda: SAMPLE, token="s3cret-ü")
    at = f"http://127.0.0.1:{server.address[1]}/metrics"
    quoted = "s3cret-%C3%BC"
    assert get(at)[0] == 401
    assert get(at)[1]["WWW-Authenticate"].startswith("Bearer")
    assert get(f"{at}?token=wrong")[0] == 401
    assert get(f"{at}?token=")[0] == 401
    assert get(f"{at}?token={quoted}x")[0] == 401
    assert get(f"{at}?token={quoted}")[0] == 200
    assert get(at, Authorization="Bearer wrong")[0] == 401
    assert get(at, Authorization="Basic s3cret")[0] == 401
    assert get(f"{at}?token={quoted}", Host="camera.lan:9090")[0] == 200
    server.close()


def test_token_in_the_header_and_for_the_picture() -> None:
    sink = PreviewSink("127.0.0.1", 0, token="s3cret")
    with feeding(sink, lambda index: Output(clips.frame(index))):
        assert get(url(sink, "/frame.jpg"))[0] == 401
        assert get(url(sink, "/frame.jpg"), Authorization="Bearer s3cret")[0] == 200
        assert get(url(sink, "/frame.jpg?token=s3cret&at=1"))[0] == 200


def test_port_that_is_taken(status: StatusServer) -> None:
    port = status.address[1]
    message = f"cannot listen on 127.0.0.1:{port} for the preview: address already in use; choose another port"
    with pytest.raises(SinkOpenError, match=message):
        PreviewSink("127.0.0.1", port)
    with pytest.raises(ConfigError, match="for the metrics: address already in use; choose another port"):
        StatusServer("127.0.0.1", port, sample=dict)


def test_address_that_is_not_ours() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.7:9 for the metrics: .*assign"):
        StatusServer("203.0.113.7", 9, sample=dict, token="x")
    with pytest.raises(ConfigError, match="there is no such address here"):
        StatusServer("no.such.host.invalid", 9, sample=dict, token="x")


def test_listen_addresses() -> None:
    assert listen_address("9090") == ("127.0.0.1", 9090)
    assert listen_address("0.0.0.0:8080") == ("0.0.0.0", 8080)
    assert listen_address("http://127.0.0.1:8080/") == ("127.0.0.1", 8080)
    assert listen_address("[::1]:8080") == ("::1", 8080)
    for wrong in ("", "0", "65536", "99999", "localhost", "http://127.0.0.1/", "http://h:80/x", "a b:80:80", "-1",
                  "http://u:p@h:80/", "https://h:80"):  # fmt: skip
        with pytest.raises(ConfigError, match="write a port from 1 to 65535"):
            listen_address(wrong)


def sample() -> dict[str, Any]:
    metrics = Metrics()
    for duration_s in (0.010, 0.020, 0.030):
        metrics.add("process", duration_s)
    metrics.count("frames in", 3)
    stages = metrics.snapshot()["stages"]
    sinks = {
        "rtmp://me:secret@host/live": {"state": "waiting", "frames": 2, "reopens": 1},
        "cam.mkv": {"state": "open", "frames": 3, "reopens": 0},
    }
    street = {"state": "reconnecting", "reason": "rtsp://a:b@h/1 refused", "counts": {}, "stages": {}, "drops": {},
              "reconnects": 4, "frame_age_s": 12.5, "fps": 0.0, "sinks": {}}  # fmt: skip
    door = {"state": "live", "counts": {"frames in": 3, 'odd "name"\\\n': 1}, "stages": stages,
            "drops": {"processing slower than the source": 7}, "reconnects": 0, "frame_age_s": None, "fps": 29.97,
            "sinks": sinks}  # fmt: skip
    return {"streams": {"door": door, "street": street}, "rss_bytes": 123_456_789, "uptime_s": 61.5}


SAMPLE = sample()


@pytest.fixture
def status() -> Iterator[StatusServer]:
    server = StatusServer("127.0.0.1", 0, sample=lambda: {**SAMPLE, "streams": {"door": SAMPLE["streams"]["door"]}})
    yield server
    server.close()


def test_metrics_as_the_parser_of_prometheus_reads_them() -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")
    server = StatusServer("127.0.0.1", 0, sample=lambda: SAMPLE)
    status, headers, body = get(url(server, "/metrics"))
    server.close()
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in parser.text_string_to_metric_families(body.decode())}
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    door = ("stream", "door")
    assert values["streamseg_uptime_seconds",] == 61.5
    assert values["streamseg_resident_memory_bytes",] == 123_456_789
    assert values["streamseg_stream_state", ("state", "live"), door] == 1
    assert values["streamseg_stream_state", ("state", "failed"), door] == 0
    assert values["streamseg_events_total", ("event", "frames in"), door] == 3
    assert values["streamseg_events_total", ("event", 'odd "name"\\\n'), door] == 1
    stage = ("stage", "process")
    assert values["streamseg_stage_seconds", ("quantile", "0.5"), stage, door] == pytest.approx(0.020, rel=0.01)
    assert values["streamseg_stage_seconds_count", stage, door] == 3
    assert values["streamseg_stage_seconds_sum", stage, door] == pytest.approx(0.060)
    assert values["streamseg_stage_max_seconds", stage, door] == 0.030
    assert values["streamseg_drops_total", ("reason", "processing slower than the source"), door] == 7
    assert values["streamseg_reconnects_total", ("stream", "street")] == 4
    assert values["streamseg_frame_age_seconds", ("stream", "street")] == 12.5
    assert ("streamseg_frame_age_seconds", door) not in values
    assert values["streamseg_sink_reopens_total", ("sink", "rtmp://***@host/live"), door] == 1
    assert families["streamseg_stage_seconds"].type == "summary"
    assert {family.type for family in families.values()} == {"gauge", "counter", "summary"}
    assert b"secret" not in body


@pytest.mark.parametrize("state", ["live", "idle", "ended", "connecting", "reconnecting", "failed"])
def test_health(state: str) -> None:
    street = {**SAMPLE["streams"]["street"], "state": state}
    server = StatusServer("127.0.0.1", 0, sample=lambda: {"streams": {**SAMPLE["streams"], "street": street}})
    code, headers, body = get(url(server, "/healthz"))
    server.close()
    told = json.loads(body)
    assert headers["Content-Type"] == "application/json"
    assert told["sinks"] == ["door: rtmp://***@host/live is waiting"]
    if state in ("live", "idle", "ended"):
        assert (code, told["status"], told["reasons"]) == (200, "ok", [])
    else:
        assert (code, told["status"]) == (503, "failing")
        assert told["reasons"] == [f"street is {state}: rtsp://***@h/1 refused"]


def test_fifty_scrapes_at_once_leave_no_thread(status: StatusServer) -> None:
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(get(url(status, "/metrics"))[0])) for _ in range(10)]
    before = set(threading.enumerate())
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [200] * 10
    _until(lambda: set(threading.enumerate()) <= before)


needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")


@needs_unix
@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(abstract: bool, tmp_path: Path) -> None:
    if abstract and not Path("/proc/self").exists():
        pytest.skip("sockets without a file exist on Linux only")
    name = f"@streamseg-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(f"\0{name[1:]}" if abstract else name)
    manager.settimeout(120)
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())})
    assert notifier.watchdog_every_s == 5
    notifier.ready("2 streams\nfps=30")
    assert manager.recv(1000) == b"READY=1\nSTATUS=2 streams fps=30"
    notifier.alive()
    assert manager.recv(1000) == b"WATCHDOG=1"
    notifier.reloading()
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(1000))
    notifier.stopping()
    assert manager.recv(1000) == b"STOPPING=1"
    manager.close()
    notifier.alive()  # the manager went away: nothing happens
    notifier.close()
    notifier.alive()


@pytest.mark.parametrize(
    ("environment", "wanted_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "1000000"}, None),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "3000000"}, 1.5),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "vsock:2:1", "WATCHDOG_USEC": "3000000"}, None),
    ],
)
@needs_unix
def test_without_systemd_nothing_happens(environment: dict[str, str], wanted_s: float | None) -> None:
    notifier = Notifier(environment)
    assert notifier.watchdog_every_s == wanted_s
    notifier.ready()
    notifier.alive()
    notifier.close()


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def browser(folder: Path, address: str) -> Iterator[Callable[[], np.ndarray[Any, Any]]]:
    """Chromium with a page open; what gives a picture of it, (480, 640, 3) BGR."""
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe",
        f"--user-data-dir={folder / 'profile'}", "--window-size=640,480",
    ]  # fmt: skip
    # It listens at descriptor 3 and answers at 4; both may be taken before by the other one's.
    places = ((their_in, 100), (their_out, 101), (100, 3), (101, 4))
    start = f"import os, sys; [os.dup2(*place) for place in {places}]; os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", start, *command],
        pass_fds=[their_in, their_out],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(their_in)
    os.close(their_out)
    numbers = itertools.count(1)
    with process, os.fdopen(our_out, "wb") as asks, os.fdopen(our_in, "rb") as answers:

        def ask(method: str, session: str = "", **parameters: object) -> dict[str, Any]:
            message = {"id": next(numbers), "method": method, "params": parameters}
            asks.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
            asks.flush()
            while True:
                text = b"".join(iter(lambda: answers.read(1).strip(b"\0"), b""))
                assert text, f"the browser ended with code {process.wait()}"
                told = json.loads(text)
                if told.get("id") == message["id"]:
                    assert "result" in told, told
                    return dict(told["result"])

        try:
            target = ask("Target.createTarget", url=address)["targetId"]
            session = ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            yield lambda: decode(base64.b64decode(ask("Page.captureScreenshot", session)["data"]))
        finally:
            process.kill()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_browser_shows_the_picture_in_its_colours(tmp_path: Path) -> None:
    wanted = ((200, 40, 40), (30, 180, 60))
    left, right = (card(rgb, Colour(False, 1, 1, 1, 1)) for rgb in wanted)
    planes = left.frame.planes.copy()
    for ours, other in zip(split(planes), split(right.frame.planes), strict=True):
        ours[:, ours.shape[1] // 2 :] = other[:, ours.shape[1] // 2 :]
    sink = PreviewSink("127.0.0.1", 0, token="s3cret")

    def found() -> np.ndarray[Any, Any]:
        shot = look()
        height, width = shot.shape[:2]
        return shot[height // 2, [width // 4, 3 * width // 4], ::-1].astype(int)

    with (
        feeding(sink, lambda _: Output(left.frame.with_picture(planes)), per_s=10),
        browser(tmp_path, url(sink, "/?token=s3cret")) as look,
    ):
        _until(lambda: np.ptp(found()) > 50)  # until then the page is grey
        assert np.abs(found() - wanted).max() <= 6


def test_an_address_that_cannot_be_read_is_a_bad_request(preview: PreviewSink) -> None:
    client = connect(preview, b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    client.close()


def test_listen_addresses_in_upper_case_and_without_secrets() -> None:
    assert listen_address("HTTP://127.0.0.1:8080/") == ("127.0.0.1", 8080)
    for text in ("http://me:s3cret@127.0.0.1:8080/", "127.0.0.1:8080/?token=s3cret", "me:s3cret@127.0.0.1:80"):
        with pytest.raises(ConfigError, match="cannot listen on") as caught:
            listen_address(text)
        assert "s3cret" not in str(caught.value)
