"""The picture in a browser."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from html import escape

import av
import cv2

from streamseg.errors import ConfigError, SinkOpenError, SinkWriteError
from streamseg.frame import Colour, Frame, Output, Packet
from streamseg.libav import Chain, i420_picture, matrix_name, plane_view, reason
from streamseg.web.server import Reply, Server

__all__ = ["PreviewSink"]

_BOUNDARY = "streamseg-picture"
# How long /frame.jpg waits for the next picture, and a stream until it asks whether its client is there.
_WAIT_S = 2.0
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>html,body{{height:100%;margin:0;background:#111}}img{{width:100%;height:100%;object-fit:contain}}</style>
<img id="picture" alt="{title}">
<script nonce="{nonce}">
const picture = document.getElementById("picture");
const show = () => {{
  const query = new URLSearchParams(location.search);
  query.set("at", Date.now());
  picture.src = "stream.mjpg?" + query;
}};
picture.onerror = () => setTimeout(show, 1000);
show();
</script></html>
"""


class PreviewSink:
    """Pictures at ``/stream.mjpg``, one at ``/frame.jpg``, a page at ``/``; a `Sink`.

    A picture is encoded only while somebody watches, once for all; who cannot keep up is shown fewer. `write` never
    waits for a client.

    Args:
        host, port: to listen on; port 0 takes a free one.
        token: needed where `host` is not a loopback address; see `Server`.
        title: of the page.
        quality: of the JPEG, 1 to 100.

    Raises:
        SinkOpenError: the port is taken, the address is not ours, or a token is needed.
    """

    notices: Sequence[str] = ()

    def __init__(
        self, host: str, port: int, *, token: str | None = None, title: str = "streamseg", quality: int = 80
    ) -> None:
        self._title = title
        self._quality = quality
        self._changed = threading.Condition()
        self._watchers = 0
        self._encoded = 0
        self._jpeg = b""
        self._open = True
        self._chain: Chain | None = None
        self._shape: tuple[int, int, Colour] | None = None
        routes = {"/": self._page, "/stream.mjpg": self._stream, "/frame.jpg": self._single}
        try:
            self._server = Server(host, port, routes, token=token, name="preview")
        except ConfigError as error:
            raise SinkOpenError(str(error)) from error

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) that it listens on."""
        return self._server.address

    @property
    def counts(self) -> Mapping[str, int]:
        """Pictures encoded so far."""
        with self._changed:
            return {"pictures encoded": self._encoded}

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        """Show one picture to who watches; packets have no place here.

        Raises:
            SinkWriteError: it cannot be encoded.
        """
        with self._changed:
            if not self._watchers:
                return
        try:
            jpeg = self._encode(output.frame)
        except (av.FFmpegError, cv2.error, ValueError) as error:
            raise SinkWriteError(f"cannot encode the preview: {reason(error)}") from error
        with self._changed:
            self._jpeg = jpeg
            self._encoded += 1
            self._changed.notify_all()

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Let every client go."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        self._server.close()

    def _encode(self, frame: Frame) -> bytes:
        # A detour over BGR, measured: at 720p 4.5 ms, where FFmpeg's own encoder takes 8, and 4 more for JPEG's range
        # and matrix.
        shape = (frame.width, frame.height, frame.colour)
        picture = i420_picture(frame.planes, frame.colour)
        if self._chain is None or shape != self._shape:
            ranges = f"in_range={'pc' if frame.colour.full_range else 'tv'}:out_range=pc"
            matrix = matrix_name(frame.colour, frame.height)
            self._chain = Chain(picture, [f"scale=flags=bilinear:{ranges}:in_color_matrix={matrix}", "format=bgr24"])
            self._shape = shape
        (bgr,) = self._chain.push(picture)
        pixels = plane_view(bgr, 0).reshape(frame.height, frame.width, 3)
        encoded, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        if not encoded:
            raise ValueError(f"a picture of {frame.width}x{frame.height} is no JPEG")
        return data.tobytes()

    def _wait_beyond(self, seen: int) -> None:
        self._changed.wait_for(lambda: self._encoded > seen or not self._open, _WAIT_S)

    def _page(self) -> Reply:
        nonce = secrets.token_urlsafe(16)
        policy = f"default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'"
        return Reply(
            _PAGE.format(title=escape(self._title), nonce=nonce).encode(),
            "text/html; charset=utf-8",
            headers={"Content-Security-Policy": f"{policy}; frame-ancestors 'none'; base-uri 'none'"},
        )

    def _single(self) -> Reply:
        with self._changed:
            seen = self._encoded
            self._watchers += 1
            try:
                self._wait_beyond(seen)
            finally:
                self._watchers -= 1
            if self._encoded == seen:
                return Reply(b"no picture came within two seconds\n", status=503, headers={"Retry-After": "2"})
            return Reply(self._jpeg, "image/jpeg")

    def _stream(self) -> Reply:
        return Reply(self._pictures(), f"multipart/x-mixed-replace; boundary={_BOUNDARY}")

    def _pictures(self) -> Iterator[bytes]:
        with self._changed:
            self._watchers += 1
            seen = self._encoded
        try:
            yield f"--{_BOUNDARY}\r\n".encode()
            while True:
                with self._changed:
                    self._wait_beyond(seen)
                    if not self._open:
                        return
                    fresh, seen, jpeg = self._encoded > seen, self._encoded, self._jpeg
                if not fresh:
                    yield b""
                    continue
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                # The next boundary goes along, or browsers would wait with this picture for the next one.
                yield b"".join((head.encode(), jpeg, f"\r\n--{_BOUNDARY}\r\n".encode()))
        finally:
            with self._changed:
                self._watchers -= 1
