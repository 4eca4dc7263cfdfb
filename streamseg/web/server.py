"""A small web server that nobody can make wait, fill up or read from without leave."""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import logging
import os
import re
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from streamseg.errors import ConfigError, shown
from streamseg.libav import reason

__all__ = ["Reply", "Route", "Server", "listen_address"]

_log = logging.getLogger(__name__)
# To send a request, and to take one piece of the reply.
_PATIENCE_S = 10.0
_MOST_CLIENTS = 16
# What the kernel holds for a slow client is latency; a picture is about half of it.
_SEND_BUFFER = 1 << 18
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    # Without it any page on the web could show what a server on this machine shows.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Reply:
    """What a route answers: a whole body, or one that comes in pieces for as long as the client stays.

    An empty piece sends nothing and asks whether the client is still there.
    """

    body: bytes | Iterator[bytes]
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Route = Callable[[], Reply]


def listen_address(text: str) -> tuple[str, int]:
    """(host, port) of ``9090``, ``0.0.0.0:9090``, ``[::1]:9090`` or ``http://127.0.0.1:8080/``; 127.0.0.1 by default.

    Raises:
        ConfigError: it is none, or the port is not between 1 and 65535.
    """
    rest = re.sub("^http://", "", text.strip(), flags=re.IGNORECASE).rstrip("/")
    try:
        parts = urlsplit(f"//127.0.0.1:{rest}" if rest.isdecimal() else f"//{rest}")
        port = parts.port
    except ValueError:
        port = None
    if not port or parts.path or parts.query or parts.username is not None or not parts.hostname:
        told = shown(text if "://" in text else f"http://{text}").removeprefix("http://")
        raise ConfigError(f"cannot listen on {told!r}: write a port from 1 to 65535, such as 9090 or 127.0.0.1:9090")
    return parts.hostname, port


class Server:
    """Answers GET requests in threads of its own, at most 16 at a time, until it is closed.

    On a loopback address only requests to ``localhost`` or the address itself are answered, whatever name a web page
    has given to it. With a token every request has to show it: ``Authorization: Bearer TOKEN`` or ``?token=TOKEN``.

    Args:
        host, port: to listen on; port 0 takes a free one.
        routes: what answers by path.
        token: needed where `host` is not a loopback address.
        name: of the threads, and in messages: ``preview``.

    Raises:
        ConfigError: the port is taken or the address is not ours, or there is no token where one is needed.
    """

    def __init__(self, host: str, port: int, routes: Mapping[str, Route], *, token: str | None, name: str) -> None:
        place = f"{f'[{host}]' if ':' in host else host}:{port}"
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"cannot listen on {place} for the {name}: there is no such address here") from error
        loopback = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        if not loopback and not token:
            raise ConfigError(
                f"cannot listen on {place} for the {name} without a token: anybody could read it; "
                "set output.token, or listen on 127.0.0.1"
            )
        try:
            self._listener = _Listener(address, family, routes, token, loopback)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {place} for the {name}: {reason(error)}; choose another port"
            ) from error
        self.address: tuple[str, int] = self._listener.server_address[:2]  # type: ignore[assignment]
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.1,), name=f"{name}-server")
        self._thread.start()

    def close(self) -> None:
        """Let every client go, and wait for the threads; a second call does nothing."""
        self._listener.shutdown()
        self._thread.join()
        self._listener.hang_up()
        self._listener.server_close()


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = False
    block_on_close = True
    # Elsewhere it only skips the wait after a restart; on Windows two servers would share the port.
    allow_reuse_address = os.name != "nt"
    request_queue_size = _MOST_CLIENTS

    def __init__(
        self, address: Any, family: int, routes: Mapping[str, Route], token: str | None, loopback: bool
    ) -> None:
        self.address_family = family
        self.routes = routes
        self.token = token
        self.loopback = loopback
        self._lock = threading.Lock()
        # Since when a client has not completed its request; None once it has.
        self._clients: dict[Any, float | None] = {}
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._clients) >= _MOST_CLIENTS
            if not full:
                self._clients[request] = time.monotonic()
        if full:
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            socketserver.TCPServer.shutdown_request(self, request)
            return
        super().process_request(request, client_address)

    def request_is_complete(self, request: Any) -> None:
        with self._lock:
            self._clients[request] = None

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Let go of who sends its request drop by drop."""
        latest = time.monotonic() - _PATIENCE_S
        with self._lock:
            slow = [client for client, since in self._clients.items() if since is not None and since < latest]
        _hang_up(slow)

    def hang_up(self) -> None:
        with self._lock:
            clients = list(self._clients)
        _hang_up(clients)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # clients go away as they like
            _log.exception("a request failed")


def _hang_up(clients: list[Any]) -> None:
    for client in clients:
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE_S
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.server.request_is_complete(self.request)
        self.close_connection = True
        reply = self._answer()
        self.send_response(reply.status)
        headers = {**_HEADERS, **reply.headers, "Content-Type": reply.content_type, "Connection": "close"}
        if isinstance(reply.body, bytes):
            headers["Content-Length"] = str(len(reply.body))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if isinstance(reply.body, bytes):
            if self.command != "HEAD":
                self.wfile.write(reply.body)
        else:
            self._stream(reply.body)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def _stream(self, pieces: Iterator[bytes]) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        with contextlib.closing(pieces):  # type: ignore[type-var]  # all of ours are generators
            if self.command == "HEAD":
                return
            for piece in pieces:
                if piece:
                    self.wfile.write(piece)
                elif self._is_gone():
                    return

    def _is_gone(self) -> bool:
        self.request.setblocking(False)
        try:
            return not self.request.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        finally:
            self.request.settimeout(self.timeout)

    def _answer(self) -> Reply:
        try:
            parts = urlsplit(self.path)
        except ValueError:
            return Reply(b"no such address\n", status=400)
        if self.server.loopback and not self._is_local():
            return Reply(b"this server only answers to localhost and 127.0.0.1\n", status=403)
        if self.server.token and not self._knows(self.server.token, parts.query):
            return Reply(
                b"show the token: Authorization: Bearer TOKEN, or ?token=TOKEN\n",
                status=401,
                headers={"WWW-Authenticate": 'Bearer realm="streamseg"'},
            )
        route = self.server.routes.get(parts.path)
        if route is None:
            return Reply(f"there are {' '.join(self.server.routes)}\n".encode(), status=404)
        return route()

    def _is_local(self) -> bool:
        """Against web pages that give the name of their own server this address."""
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:
            return False
        return host in _LOCAL_NAMES or host == str(self.server.server_address[0])

    def _knows(self, token: str, query: str) -> bool:
        kind, _, shown = self.headers.get("Authorization", "").partition(" ")
        candidates = [shown.strip()] if kind.lower() == "bearer" else parse_qs(query).get("token", [])
        return any(hmac.compare_digest(candidate.encode(), token.encode()) for candidate in candidates)

    def version_string(self) -> str:
        return "streamseg"

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug("%s asked for %s", self.address_string(), getattr(self, "path", "").partition("?")[0])
