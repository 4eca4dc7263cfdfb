"""One thing that several threads use in turns, first come, first served."""

from __future__ import annotations

import threading
from types import TracebackType

from streamseg.errors import StreamsegError

__all__ = ["Turns", "TurnsOver"]


class TurnsOver(StreamsegError):  # noqa: N818 - a state, as ChannelClosed is
    """The run ends; nobody has a turn any more."""


class Turns:
    """A lock that goes to whoever has waited longest; a plain one may pass somebody over again and again.

    >>> with Turns():
    ...     pass
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 0
        self._serving = 0
        self._over = False

    @property
    def waiting(self) -> int:
        """How many wait for their turn, at this moment."""
        with self._changed:
            return max(0, self._next - self._serving - 1)

    def close(self) -> None:
        """Let everybody who waits go, with `TurnsOver`; any thread."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def __enter__(self) -> None:
        with self._changed:
            mine = self._next
            self._next += 1
            self._changed.wait_for(lambda: self._serving == mine or self._over)
            if self._over:
                raise TurnsOver("the run ends")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._serving += 1
            self._changed.notify_all()
