"""A pipe as FFmpeg's libraries read it, that can be told to end."""

from __future__ import annotations

import os
import select
from collections.abc import Generator

__all__ = ["Pipe"]


class Pipe:
    """A file descriptor as the library reads it; `stop` makes a waiting read end.

    Attributes:
        read: ``read(size)``: what there is, at most `size` bytes; nothing at the end and after `stop`.
    """

    name = "standard input"

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stopped = False
        # An interrupt that came while the library ran is raised at the first step of what the library calls, before any
        # `try` of a function; a generator goes on within its own.
        reading = self._answers()
        next(reading)
        self.read = reading.send

    def _answers(self) -> Generator[bytes, int, None]:
        data = b""
        while True:
            try:
                size = yield data
                data = self._wait(size)
            except KeyboardInterrupt:
                # It would be lost in the library: end here, whoever handles the signal knows of it.
                self._stopped = True
                data = b""

    def _wait(self, size: int) -> bytes:
        while not self._stopped:
            try:
                ready, _, _ = select.select([self._descriptor], [], [], 0.1)
            except (OSError, ValueError):
                return os.read(self._descriptor, size)  # Windows cannot wait for a pipe
            if ready:
                return os.read(self._descriptor, size)
        return b""

    def stop(self) -> None:
        """Make a waiting read end; from any thread."""
        self._stopped = True
