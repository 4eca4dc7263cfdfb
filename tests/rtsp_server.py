"""A real RTSP server (GStreamer); run by the system's Python: `/usr/bin/python3 tests/rtsp_server.py --port 8554 ...`.

    --mount cam=h264+aac:FILE     plays a Matroska file for ever; codecs h264, h265, jpeg and aac, opus, mulaw, none
    --once NAME=...               the same, but ends after one pass
    --secure NAME=... --auth u:p  the same, behind a digest password
    --clock NAME=WxH@FPS          H.264 whose top rows hold the monotonic clock in milliseconds, as 16 bits
    --record NAME[=video]         takes a published stream with sound, or without; counts pictures and blocks of sound
                                  on standard output
    --record NAME=video:FOLDER    takes published H.264 without sound; keeps it as it comes, a file for each connection
    --tls CERTIFICATE             PEM with certificate and key: speak rtsps

It prints `READY` once it listens, and `REC video 30 WxH` or `REC audio 100` as they come.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

_UNITS = "stream-format=byte-stream,alignment=au"
# How pieces are cut out of the file, and how they are sent.
_VIDEO = {
    "h264": (f"h264parse config-interval=-1 ! video/x-h264,{_UNITS}", "h264parse ! rtph264pay config-interval=1"),
    "h265": (f"h265parse config-interval=-1 ! video/x-h265,{_UNITS}", "h265parse ! rtph265pay config-interval=1"),
    "jpeg": ("jpegparse", "jpegparse ! rtpjpegpay"),
}
_AUDIO = {
    "aac": ("aacparse", "aacparse ! rtpmp4gpay"),
    "opus": ("opusparse", "rtpopuspay"),
    "mulaw": ("audio/x-mulaw", "rtppcmupay"),
}
Unit = tuple[bytes, int, int, bool]


def units(path: str, pad: str, parser: str) -> tuple[list[Unit], str]:
    """The encoded pieces of one stream as (bytes, time in ns, duration in ns, key), and their caps."""
    pipeline = Gst.parse_launch(
        f'filesrc location="{path}" ! matroskademux name=d d.{pad} ! queue ! {parser} ! appsink name=s sync=false'
    )
    sink = pipeline.get_by_name("s")
    pipeline.set_state(Gst.State.PLAYING)
    found: list[Unit] = []
    caps = ""
    while (sample := sink.emit("pull-sample")) is not None:
        buffer = sample.get_buffer()
        key = not buffer.has_flags(Gst.BufferFlags.DELTA_UNIT)
        found.append((buffer.extract_dup(0, buffer.get_size()), buffer.pts, buffer.duration, key))
        caps = sample.get_caps().to_string()
    pipeline.set_state(Gst.State.NULL)
    if not found:
        sys.exit(f"{path} has no {pad}")
    # The parsers leave some durations out: the next piece tells.
    ends = [following[1] for following in found[1:]] + [2 * found[-1][1] - found[-2][1]]
    return [(data, at, end - at, key) for (data, at, _, key), end in zip(found, ends, strict=True)], caps


class Player(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
    """Plays the pieces of a file, over and over unless `once`."""

    def __init__(self, codecs: str, path: str, once: bool) -> None:
        super().__init__()
        self.once = once
        self.set_shared(True)
        video, _, audio = codecs.partition("+")
        self.streams: list[tuple[str, list[Unit]]] = []
        launch = ""
        for place, (name, table, pad) in enumerate([(video, _VIDEO, "video_0"), (audio, _AUDIO, "audio_0")]):
            if name in ("", "none"):
                continue
            pieces, caps = units(path, pad, table[name][0])
            caps = caps.replace('"', '\\"')
            launch += (
                f' appsrc name=s{place} is-live=true format=time max-bytes=200000 caps="{caps}" ! {table[name][1]}'
                f" name=pay{place} pt={96 + place}"
            )
            self.streams.append((f"s{place}", pieces))
        self.total = self.streams[0][1][-1][1] + self.streams[0][1][-1][2]
        self.set_launch(f"({launch} )")

    def configure(self, media: Any) -> None:
        """Feed the sources of one client's or all clients' pipeline."""
        for name, pieces in self.streams:
            self.feed(media.get_element().get_child_by_name(name), pieces)

    def feed(self, source: Any, pieces: list[Unit]) -> None:
        """Hand over a piece whenever the source asks."""
        place, passes = 0, 0

        def push(_source: Any, _length: int) -> None:
            nonlocal place, passes
            # Sound that is longer than the picture would lag behind a little more with every pass.
            if place == len(pieces) or pieces[place][1] >= self.total:
                if self.once:
                    source.emit("end-of-stream")
                    return
                place, passes = 0, passes + 1
            data, at, duration, key = pieces[place]
            place += 1
            buffer = Gst.Buffer.new_wrapped(data)
            buffer.pts = buffer.dts = passes * self.total + at
            buffer.duration = duration
            if not key:
                buffer.set_flags(Gst.BufferFlags.DELTA_UNIT)
            source.emit("push-buffer", buffer)

        source.connect("need-data", push)


class Clock(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
    """A picture of the monotonic clock, encoded as it is drawn."""

    def __init__(self, width: int, height: int, rate: int) -> None:
        super().__init__()
        self.size, self.rate = (width, height), rate
        self.set_shared(True)
        caps = f"video/x-raw,format=I420,width={width},height={height},framerate={rate}/1"
        self.set_launch(
            f'( appsrc name=s is-live=true do-timestamp=true format=time max-bytes=1 caps="{caps}" ! '
            f"x264enc tune=zerolatency speed-preset=ultrafast key-int-max={rate} bitrate=4000 ! "
            "rtph264pay name=pay0 pt=96 config-interval=1 )"
        )

    def configure(self, media: Any) -> None:
        """Draw a picture at every tick until the pipeline refuses it."""
        source = media.get_element().get_child_by_name("s")
        width, height = self.size
        rest = bytes([90]) * (width * (height - 16)) + bytes([128]) * (width * height // 2)

        def tick() -> bool:
            now = int(time.monotonic() * 1000) & 0xFFFF
            row = b"".join(
                bytes([220 if now >> (15 - bit) & 1 else 30]) * ((bit + 1) * width // 16 - bit * width // 16)
                for bit in range(16)
            )
            done = source.emit("push-buffer", Gst.Buffer.new_wrapped(row * 16 + rest))
            return bool(done == Gst.FlowReturn.OK)

        timer = GLib.timeout_add(1000 // self.rate, tick)
        media.connect("unprepared", lambda _media: GLib.source_remove(timer))


class Keeper(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
    """Keeps what is published to it."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder, self.count = folder, 0
        self.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        self.set_latency(100)
        # Every piece is on the disk at once: whatever ends it, what came is there.
        self.set_launch(
            f"( rtph264depay name=depay0 ! h264parse ! video/x-h264,{_UNITS} ! "
            f"filesink name=file sync=false async=false buffer-mode=unbuffered location={folder}/unused )"
        )

    def configure(self, media: Any) -> None:
        """Give it a file of its own."""
        self.count += 1
        media.get_element().get_child_by_name("file").set_property("location", f"{self.folder}/{self.count}.h264")


class Recorder(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
    """Counts what is published to it."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        super().__init__()
        self.kinds = kinds
        self.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        self.set_latency(100)
        ends = [
            f"decodebin name=depay{place} ! {kind}convert ! "
            f"fakesink name={kind} signal-handoffs=true sync=false async=false"
            for place, kind in enumerate(kinds)
        ]
        self.set_launch(f"( {' '.join(ends)} )")

    def configure(self, media: Any) -> None:
        """Say on standard output what came."""
        for name in self.kinds:
            media.get_element().get_child_by_name(name).connect("handoff", self.counter(name))

    def counter(self, name: str) -> Callable[[Any, Any, Any], None]:
        """A callback that counts."""
        count = 0

        def seen(_sink: Any, _buffer: Any, pad: Any) -> None:
            nonlocal count
            count += 1
            if count == 1 or count % (10 if name == "video" else 50) == 0:
                caps = pad.get_current_caps().get_structure(0)
                size = f" {caps.get_int('width')[1]}x{caps.get_int('height')[1]}" if name == "video" else ""
                print(f"REC {name} {count}{size}", flush=True)

        return seen


def main() -> None:
    """Serve until killed."""
    Gst.init(None)
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="8554")
    parser.add_argument("--auth", default="user:pass")
    parser.add_argument("--tls")
    for kind in ("--mount", "--once", "--secure", "--clock", "--record"):
        parser.add_argument(kind, action="append", default=[])
    arguments = parser.parse_args()
    server = GstRtspServer.RTSPServer()
    server.set_address(arguments.host)
    server.set_service(arguments.port)
    server.get_thread_pool().set_max_threads(-1)  # one stuck client must not block the others
    user, _, password = arguments.auth.partition(":")
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    if arguments.tls:
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(arguments.tls))
    known, anyone = GstRtspServer.RTSPToken(), GstRtspServer.RTSPToken()
    known.set_string("media.factory.role", "user")
    anyone.set_string("media.factory.role", "anonymous")
    auth.add_digest(user, password, known)
    auth.set_default_token(anyone)
    server.set_auth(auth)

    def add(name: str, factory: Any, secure: bool = False) -> None:
        permissions = GstRtspServer.RTSPPermissions()
        for role in ("user", "anonymous"):
            permissions.add_role(role)
            permissions.add_permission_for_role(role, "media.factory.access", True)
            # Access without construct is answered with 401; no access at all would be 404.
            permissions.add_permission_for_role(role, "media.factory.construct", role == "user" or not secure)
        factory.set_permissions(permissions)
        factory.connect("media-configure", lambda _factory, media: factory.configure(media))
        server.get_mount_points().add_factory(f"/{name}", factory)

    players = [(spec, {}, False) for spec in arguments.mount] + [
        (spec, {"once": True}, False) for spec in arguments.once
    ]
    for spec, settings, secure in [*players, *((spec, {}, True) for spec in arguments.secure)]:
        name, _, what = spec.partition("=")
        codecs, _, path = what.partition(":")
        add(name, Player(codecs, path, settings.get("once", False)), secure)
    for spec in arguments.clock:
        name, _, size = spec.partition("=")
        width, height, rate = (int(number) for number in size.replace("@", "x").split("x"))
        add(name, Clock(width, height, rate))
    for spec in arguments.record:
        name, _, what = spec.partition("=")
        what, _, folder = what.partition(":")
        add(name, Keeper(folder) if folder else Recorder(("video",) if what == "video" else ("video", "audio")))
    server.connect("client-connected", lambda _server, client: print("client", flush=True))
    if server.attach(None) == 0:
        sys.exit("cannot bind")
    print("READY", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
