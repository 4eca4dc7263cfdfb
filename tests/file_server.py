"""A web server on this machine for tests of downloads, with the faults that real ones have."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Serves `content` at every path.

    `cuts` is consumed from the front: how many bytes of the next answers' bodies are sent before the connection is
    closed; None sends all. `requests` gathers the headers of each request.
    """

    content: bytes
    etag: str | None = '"v1"'
    ranges: bool = True
    status: int = 200
    content_type: str = "application/octet-stream"
    encoding: str | None = None
    redirect: str | None = None
    cuts: list[int | None] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    state = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            state.requests.append(dict(self.headers.items()))
            status = state.statuses.pop(0) if state.statuses else state.status
            if state.redirect:
                self.send_response(302)
                self.send_header("Location", state.redirect)
                self.end_headers()
                return
            if status != 200:
                self.send_error(status)
                return
            body, total = state.content, len(state.content)
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            current = self.headers.get("If-Range") in (None, state.etag)
            if asked and state.ranges and current:
                start = int(asked[1])
                if start >= total:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{total}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
                body = body[start:]
            else:
                self.send_response(200)
            if state.etag:
                self.send_header("ETag", state.etag)
            self.send_header("Content-Type", state.content_type)
            if state.encoding:
                self.send_header("Content-Encoding", state.encoding)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = state.cuts.pop(0) if state.cuts else None
            self.wfile.write(body[:cut])

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Clients go away as they like; what is said of that could fall into the output of the next test."""

    server = Quiet(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/file.bin"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="file-server")
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
