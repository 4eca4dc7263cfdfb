"""Real parts for tests of live sources and published streams: servers of our own or Debian's, clips, faults."""

from __future__ import annotations

import functools
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import pytest
from numpy.typing import NDArray

from tests import clips

_SYSTEM_PYTHON = "/usr/bin/python3"
_NEEDED = "appsrc matroskademux h264parse rtph264pay rtpjpegpay rtpopuspay rtpmp4gpay x264enc jpegparse avdec_h264"
_ASK = f"""
import gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
missing = [name for name in {_NEEDED!r}.split() if Gst.ElementFactory.find(name) is None]
assert not missing, missing
"""


@functools.cache
def gstreamer_missing() -> str:
    """Why the RTSP server cannot run; empty where it can."""
    if not os.path.exists(_SYSTEM_PYTHON):
        return f"{_SYSTEM_PYTHON} is missing"
    asked = subprocess.run([_SYSTEM_PYTHON, "-c", _ASK], capture_output=True, text=True, check=False)
    if not asked.returncode:
        return ""
    return f"python3-gi, gir1.2-gst-rtsp-server-1.0 or gstreamer1.0-plugins-*: {asked.stderr.strip()[-100:]}"


def need_gstreamer() -> None:
    """Skip the test, by name, where GStreamer's RTSP server is missing."""
    if why := gstreamer_missing():
        pytest.skip(f"no GStreamer RTSP server: {why}")


def need_nginx() -> None:
    """Skip the test, by name, where nginx with its RTMP module is missing."""
    if not shutil.which("nginx") or not os.path.exists("/usr/lib/nginx/modules/ngx_rtmp_module.so"):
        pytest.skip("nginx or libnginx-mod-rtmp is missing")


def free_port() -> int:
    """A port that nobody has now, and that the system gives to no connection by itself.

    Such a connection, even that of a client which looks whether the server is back, would keep the server out.
    """
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class RtspServer:
    """tests/rtsp_server.py as a process: started, killed, stopped and continued; `arguments` may change between."""

    def __init__(self, arguments: Sequence[str], port: int | None = None, host: str = "127.0.0.1") -> None:
        need_gstreamer()
        self.arguments = list(arguments)
        self.host, self.port = host, port or free_port()
        self.prefix: list[str] = []  # such as "ip netns exec NAME"
        self._process: subprocess.Popen[bytes] | None = None
        self._text = b""

    def url(self, name: str, userinfo: str = "") -> str:
        """Of a mount."""
        scheme = "rtsps" if "--tls" in self.arguments else "rtsp"
        return f"{scheme}://{userinfo}{'@' if userinfo else ''}{self.host}:{self.port}/{name}"

    def start(self) -> None:
        """Run it; returns when it listens."""
        script = Path(__file__).parent / "rtsp_server.py"
        command = [*self.prefix, _SYSTEM_PYTHON, str(script), "--host", self.host, "--port", str(self.port)]
        self._process = subprocess.Popen(
            [*command, *self.arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._text = b""
        self.wait_for("READY", 120)

    def wait_for(self, text: str, timeout_s: float) -> str:
        """The first line that it prints from now on with `text` in it."""
        return self.wait_for_all([text], timeout_s)[0]

    def wait_for_all(self, texts: Sequence[str], timeout_s: float) -> list[str]:
        """The first lines that it prints from now on with each of `texts` in it, whichever comes first."""
        assert self._process is not None
        assert self._process.stdout is not None
        until_s = time.monotonic() + timeout_s
        found: dict[str, str] = {}
        printed: list[str] = []
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                while b"\n" in self._text:
                    line, _, self._text = self._text.partition(b"\n")
                    printed.append(line.decode())
                    for text in texts:
                        if text in printed[-1]:
                            found.setdefault(text, printed[-1])
                    if len(found) == len(set(texts)):
                        return [found[text] for text in texts]
                left_s = until_s - time.monotonic()
                came = selector.select(max(0.0, left_s))
                missing = [text for text in texts if text not in found]
                assert came, f"the RTSP server did not print {missing}, but {printed}"
                more = os.read(self._process.stdout.fileno(), 65536)
                assert more, f"the RTSP server ended with code {self._process.wait()}"
                self._text += more

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: SIGSTOP holds it, SIGCONT lets it go on."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL, as a crash or a power cut does."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


class Link:
    """A network of its own for a server, joined to ours by one cable that can lose packets and be cut."""

    def __init__(self, number: int) -> None:
        self.space, self._ours, self._theirs = f"sseg{number}", f"sseg{number}a", f"sseg{number}b"
        self._net = f"10.{200 + number // 250}.{number % 250}"
        self.host = f"{self._net}.1"
        self.prefix = ["ip", "netns", "exec", self.space]

    def up(self) -> None:
        """Make it; skips the test, by name, where that is not allowed."""
        if os.geteuid() or not shutil.which("ip") or not shutil.which("iptables"):
            pytest.skip("networks with faults need root, iproute2 and iptables")
        try:
            _run("ip", "netns", "add", self.space)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace may be made here: {error.stderr.strip()}")
        _run("ip", "link", "add", self._ours, "type", "veth", "peer", "name", self._theirs, "netns", self.space)
        _run("ip", "addr", "add", f"{self._net}.2/24", "dev", self._ours)
        _run("ip", "link", "set", self._ours, "up")
        for command in (f"addr add {self.host}/24 dev {self._theirs}", f"link set {self._theirs} up", "link set lo up"):
            _run("ip", "-n", self.space, *command.split())

    def lose(self, share: float) -> None:
        """Drop this share of the UDP packets that the server sends, at random."""
        _run(*self.prefix, "iptables", "-F", "OUTPUT")
        if share:
            rule = f"-A OUTPUT -p udp -m statistic --mode random --probability {share} -j DROP"
            _run(*self.prefix, "iptables", *rule.split())

    def cut(self) -> None:
        """Pull the cable."""
        _run("ip", "-n", self.space, "link", "set", self._theirs, "down")

    def mend(self) -> None:
        """Put it back."""
        _run("ip", "-n", self.space, "link", "set", self._theirs, "up")

    def down(self) -> None:
        """Remove it all."""
        # The cable first: the kernel removes what a network held only some time after it.
        for what in (["link", "del", self._ours], ["netns", "del", self.space]):
            subprocess.run(["ip", *what], capture_output=True, check=False)


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True)


@contextmanager
def faulty_link() -> Iterator[Link]:
    """A network that is up, and gone afterwards."""
    link = Link(os.getpid() % 5000)
    try:
        link.up()
        yield link
    finally:
        link.down()


def certificate(folder: Path) -> Path:
    """A PEM file for TLS on this machine; skips the test, by name, where openssl is missing."""
    if not shutil.which("openssl"):
        pytest.skip("the openssl program is missing")
    key, pem = folder / "key.pem", folder / "tls.pem"
    _run(
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=x",
        "-keyout",
        str(key),
        "-out",
        str(pem),
    )
    pem.write_bytes(pem.read_bytes() + key.read_bytes())
    return pem


@contextmanager
def rtsp_server(*arguments: str, link: Link | None = None) -> Iterator[RtspServer]:
    """A running server, behind a link or on this machine."""
    server = RtspServer(arguments, host=link.host if link else "127.0.0.1")
    server.prefix = link.prefix if link else []
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def nginx(folder: Path, fragment_s: int = 1, keep: Path | None = None) -> Iterator[tuple[int, int]]:
    """RTMP (application ``live``) and HTTP (the folder, HLS of every stream in ``hls/``); their ports.

    What is published is kept in the folder `keep`, a file for each connection.
    """
    need_nginx()
    rtmp, http = free_port(), free_port()
    hls = folder / "hls"
    hls.mkdir(exist_ok=True)
    kept = f"record all; record_path {keep}; record_unique on;" if keep else ""
    text = f"""
load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
user root; daemon off; master_process off; worker_processes 1;
pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 64; }}
rtmp {{ server {{ listen 127.0.0.1:{rtmp}; application live {{
  live on; hls on; hls_path {hls}; hls_fragment {fragment_s}s; {kept} }} }} }}
http {{ access_log off; server {{ listen 127.0.0.1:{http}; root {folder}; }} }}
"""
    (folder / "nginx.conf").write_text(text, "utf-8")
    process = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    try:
        wait_until_listening(rtmp)
        wait_until_listening(http)
        yield rtmp, http
    finally:
        process.kill()
        process.wait()


@contextmanager
def published(clip: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """The ffmpeg program sends the clip, over and over in real time; killed at the end."""
    if not shutil.which("ffmpeg"):
        pytest.skip("the ffmpeg program is missing")
    command = ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(clip), "-c", "copy", "-f", "flv", url]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until_listening(port: int, timeout_s: float = 120) -> None:
    """Until a connection to the port is accepted."""
    until_s = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < until_s, f"nothing listens at port {port}"
            time.sleep(0.02)


@contextmanager
def mjpeg_camera(jpegs: Sequence[bytes], rate: int) -> Iterator[str]:
    """An IP camera that sends JPEGs one after the other, over and over, as multipart; its URL."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            index = 0
            while not over.wait(1 / rate):
                jpeg = jpegs[index % len(jpegs)]
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                except OSError:
                    return
                index += 1

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/video"
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silent_server() -> Iterator[int]:
    """Accepts connections and never says a word; its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield int(listener.getsockname()[1])


_OPTIONS: dict[str, dict[str, str]] = {
    "libx264": {"g": "15", "tune": "zerolatency", "bf": "0"},
    "libx265": {"x265-params": "keyint=15:bframes=0:log-level=none"},
    # JPEG over RTP has no room for tables of its own.
    "mjpeg": {"huffman": "default", "qmin": "2", "qmax": "4"},
}


def camera_clip(
    path: Path,
    *,
    codec: str = "libx264",
    sound: str | None = "aac",
    frames: int = 150,
    size_wh: tuple[int, int] = (320, 192),
    draw: Callable[[int], av.VideoFrame] | None = None,
    rate: Fraction = Fraction(30),
    wave: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> Path:
    """What an IP camera sends, as a Matroska file with a key frame every half second (at 30 frames a second)."""
    kind = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = _OPTIONS[codec]
    return clips.make_clip(
        path,
        frames=frames,
        size_wh=size_wh,
        rate=rate,
        codec=codec,
        pixel_format=kind,
        sound=sound,
        options=options,
        draw=draw,
        wave=wave,
    )
