"""A pipe as FFmpeg's libraries read it, that can be told to end."""

from __future__ import annotations

import os
import select

__all__ = ["Pipe"]


class Pipe:
    """A file descriptor as the library reads it; `stop` makes a waiting read end."""

    name = "standard input"

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stopped = False

    def read(self, size: int) -> bytes:
        """What there is, at most `size` bytes; nothing at the end and after `stop`."""
        try:
            while not self._stopped:
                try:
                    ready, _, _ = select.select([self._descriptor], [], [], 0.1)
                except (OSError, ValueError):
                    return os.read(self._descriptor, size)  # Windows cannot wait for a pipe
                if ready:
                    return os.read(self._descriptor, size)
        except KeyboardInterrupt:
            # It would be lost in the library, which calls this: end here, whoever handles the signal knows of it.
            self._stopped = True
        return b""

    def stop(self) -> None:
        """Make a waiting read end; from any thread."""
        self._stopped = True
