"""What systemd wants to hear of a service, without its library (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

__all__ = ["Notifier"]


class Notifier:
    """Tells the service manager how it goes; where there is none, nothing happens.

    Args:
        environment: with ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``, as systemd sets them.

    Attributes:
        watchdog_every_s: how often `alive` has to be called, half of what systemd waits; None where it does not.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of a name that lies in no folder.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._socket: socket.socket | None = None
        if self._address[:1] in ("/", "\0") and hasattr(socket, "AF_UNIX"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0))
            self._socket.setblocking(False)
        self.watchdog_every_s = self._interval_s(environment) if self._socket is not None else None

    @staticmethod
    def _interval_s(environment: Mapping[str, str]) -> float | None:
        wait_us = environment.get("WATCHDOG_USEC", "")
        meant = environment.get("WATCHDOG_PID") in (None, str(os.getpid()))
        return int(wait_us) / 2e6 if wait_us.isdecimal() and int(wait_us) and meant else None

    def ready(self, status: str = "") -> None:
        """Started; also after a reload is done."""
        self._send("READY=1", *_status(status))

    def reloading(self) -> None:
        """Reading the settings again; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def alive(self, status: str = "") -> None:
        """Still at it: to be called every `watchdog_every_s`, only while that is true."""
        self._send("WATCHDOG=1", *_status(status))

    def stopping(self) -> None:
        """About to end, as asked."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):  # a manager that does not listen is no reason to stop
            self._socket.sendto("\n".join(lines).encode(), self._address)


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split())}",) if text else ()
