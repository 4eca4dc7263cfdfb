"""Standard error for threads that must not wait for whoever reads it."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Unblocked"]

_MOST_LINES = 1000


class Unblocked:
    """Says lines on standard error, in order; any thread.

    While a pipe is full, because its reader stopped reading, lines wait in memory. Of more than a thousand the oldest
    are let go, and a line tells how many once there is room again.

    Args:
        missing: makes the line that tells so of their number.
    """

    def __init__(self, missing: Callable[[int], str]) -> None:
        self._missing = missing
        self._lock = threading.RLock()  # a signal may come while its thread says something
        self._waiting: deque[bytes] = deque()
        self._begun = b""  # the rest of a line that did not fit
        self._lost = 0

    def say(self, line: str) -> None:
        """Say one line, as soon as there is room for it."""
        stream = sys.stderr
        if stream is None:  # it was closed before we began
            return
        if _descriptor() is None:
            with contextlib.suppress(OSError):  # a terminal that was closed is no reason to stop
                print(line, file=stream, flush=True)
            return
        with self._lock:
            self._waiting.append(f"{line}\n".encode(stream.encoding, "backslashreplace"))
            if len(self._waiting) > _MOST_LINES:
                self._waiting.popleft()
                self._lost += 1
            self._flush()

    def drain(self, timeout_s: float = 0.0) -> None:
        """Say what waits, within this time: at the end, and now and then."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while (self._begun or self._waiting) and self._flush(max(deadline - time.monotonic(), 0.0)):
                pass

    def _flush(self, wait_s: float = 0.0) -> bool:
        """Say what there is room for within that time; whether there was any."""
        descriptor, wrote = _descriptor(), False
        try:
            while descriptor is not None and (line := self._begun or self._next()):
                self._begun = line
                if not _has_room(descriptor, 0.0 if wrote else wait_s):
                    break
                self._begun = line[os.write(descriptor, line[: select.PIPE_BUF]) :]
                wrote = True
        except OSError:  # a reader that went is no reason to stop
            self._begun = b""
            self._waiting.clear()
        return wrote

    def _next(self) -> bytes:
        if self._lost:
            told, self._lost = self._missing(self._lost), 0
            return f"{told}\n".encode()
        return self._waiting.popleft() if self._waiting else b""


def _descriptor() -> int | None:
    """Of standard error; None where it has none, is a terminal, or something else stands in for it."""
    stream = sys.stderr
    if sys.platform == "win32" or stream is not sys.__stderr__ or not stream or stream.closed or stream.isatty():
        return None
    return stream.fileno()


def _has_room(descriptor: int, wait_s: float) -> bool:
    """Whether `select.PIPE_BUF` bytes can be written without waiting, within that time."""
    return bool(select.select([], [descriptor], [], wait_s)[1])
