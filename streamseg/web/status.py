"""Numbers and health for whoever watches over the program."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from streamseg.errors import redact
from streamseg.web.prometheus import CONTENT_TYPE, render
from streamseg.web.server import Reply, Server

__all__ = ["StatusServer"]

_HEALTHY = frozenset({"live", "idle", "ended"})


class StatusServer:
    """``/metrics`` for Prometheus; ``/healthz``, which is 200 while every stream does what it should, and 503 else.

    Healthy is a stream that is live, idle because nobody watches, or ended as files do; not one that connects,
    reconnects or failed. What a sink waits for is told, but it is not this program that has to be restarted for it.

    Args:
        host, port: to listen on; port 0 takes a free one.
        token: needed where `host` is not a loopback address; see `Server`.
        sample: gives the state of this moment, as `render` takes it; called from the server's threads.

    Raises:
        ConfigError: the port is taken, the address is not ours, or a token is needed.
    """

    def __init__(
        self, host: str, port: int, *, sample: Callable[[], Mapping[str, Any]], token: str | None = None
    ) -> None:
        self._sample = sample
        self._server = Server(
            host, port, {"/metrics": self._metrics, "/healthz": self._health}, token=token, name="metrics"
        )

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) that it listens on."""
        return self._server.address

    def close(self) -> None:
        """Stop answering."""
        self._server.close()

    def _metrics(self) -> Reply:
        return Reply(render(self._sample()).encode(), CONTENT_TYPE)

    def _health(self) -> Reply:
        streams: Mapping[str, Mapping[str, Any]] = self._sample().get("streams", {})
        reasons = [
            f"{name} is {stream['state']}" + (f": {redact(stream['reason'])}" if stream.get("reason") else "")
            for name, stream in streams.items()
            if stream["state"] not in _HEALTHY
        ]
        waiting = [
            f"{name}: {redact(url)} is {sink['state']}"
            for name, stream in streams.items()
            for url, sink in stream.get("sinks", {}).items()
            if sink["state"] not in ("open", "live")
        ]
        told = {"status": "failing" if reasons else "ok", "reasons": reasons, "sinks": waiting}
        return Reply(json.dumps(told).encode() + b"\n", "application/json", 503 if reasons else 200)
