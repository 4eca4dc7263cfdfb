"""A sink that is opened again when it was lost."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from streamseg.engine.backoff import Backoff
from streamseg.engine.remembered import remember, summed
from streamseg.errors import SinkError, SinkWriteError, redact
from streamseg.frame import Output, Packet, Sink

__all__ = ["Reopening"]

_log = logging.getLogger(__name__)
# What was open for so long was worth opening: the waits begin anew. What is lost as soon as it is open would else be
# tried, and told, every second for months.
_STEADY_S = 10.0


class Reopening:
    """A sink that comes back; a `Sink`. What cannot be written meanwhile is dropped and counted.

    Args:
        open_sink: ``open_sink(given_up)`` opens it, or raises `SinkError`, soon when `given_up()` becomes true. None
            where it cannot be opened again: it is then given up when it is lost, and the others go on.
        name: for messages, without a password.
        first: the sink, where it is open already.
        backoff: between tries.
    """

    def __init__(
        self,
        open_sink: Callable[[Callable[[], bool]], Sink] | None,
        *,
        name: str,
        first: Sink | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._open = open_sink
        self._stopping = threading.Event()
        self._name = name
        self._sink = first
        self._closed = False
        self._unfinished = False
        self._backoff = backoff or Backoff()
        self._due = 0.0 if first is not None else time.monotonic() + self._backoff.next_s()
        self._counts: Counter[str] = Counter()
        self._past: Counter[str] = Counter()
        self._notices: list[str] = []
        self._reason = ""
        self._since: float | None = None  # when the first picture for this sink was captured

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        sink = self._sink
        current = [notice for notice in sink.notices if notice not in self._notices] if sink is not None else []
        return (*self._notices, *current)

    @property
    def counts(self) -> Mapping[str, int]:
        """Drops and reopenings so far, by name."""
        return summed(self._counts, self._past, getattr(self._sink, "counts", {}))

    @property
    def incomplete(self) -> bool:
        """Whether it was lost and cannot be opened again, or could not be completed at the end."""
        return self._unfinished or (self._open is None and self._counts["lost"] > 0)

    @property
    def current(self) -> Sink | None:
        """The sink that is open now."""
        return self._sink

    @property
    def state(self) -> str:
        """``open``, ``waiting`` or, at the end, ``closed``."""
        if self._closed:
            return "closed"
        return "open" if self._sink is not None else "waiting"

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        """Write, or drop and count what cannot be written; opens the sink again when it is time."""
        sink = self._sink or self._reopen()
        if sink is None:
            self._counts["pictures dropped while closed"] += 1
            return
        now = output.frame.captured_at
        self._since = now if self._since is None else self._since
        try:
            sink.write(output, packets)
        except SinkWriteError as error:
            self._counts["pictures dropped while closed"] += 1
            if now - self._since >= _STEADY_S:
                self._backoff.reset()
            self._lose(sink, error)

    def keeps(self, output: Output) -> bool:
        """Whether the sink writes a picture down however late it is; any thread."""
        keeps = getattr(self._sink, "keeps", None)
        return keeps is not None and bool(keeps(output))

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        """Complete what is open; where that fails, it is said, and the other outputs are completed nevertheless."""
        if self._sink is None:
            return
        try:
            self._sink.finish(packets)
        except SinkError as error:
            self._unfinished = True
            _log.warning("%s: %s", self._name, error)

    def close(self) -> None:
        """Let go of everything."""
        self._closed = True
        sink, self._sink = self._sink, None
        if sink is not None:
            self._retire(sink)

    def give_up(self) -> None:
        """Do not open it any more, and end an opening that is under way; any thread."""
        self._stopping.set()

    def _reopen(self) -> Sink | None:
        if self._open is None or self._stopping.is_set() or time.monotonic() < self._due:
            return None
        try:
            self._sink = self._open(self._stopping.is_set)
        except SinkError as error:
            self._wait_after(error)
            return None
        self._counts["reopened"] += 1
        self._since, self._reason = None, ""
        _log.info("%s: open again", self._name)
        return self._sink

    def _lose(self, sink: Sink, error: SinkError) -> None:
        self._sink = None
        self._counts["lost"] += 1
        try:
            self._retire(sink)
        except SinkError as second:  # what it had to say at the end is no news after the first error
            _log.debug("%s: %s", self._name, second)
        self._wait_after(error)

    def _wait_after(self, error: SinkError) -> None:
        reason = redact(str(error))
        if reason != self._reason and not self._stopping.is_set():
            further = "trying again" if self._open is not None else "given up, the other outputs go on"
            _log.warning("%s: %s; %s", self._name, reason, further)
            self._reason = reason
        self._due = time.monotonic() + self._backoff.next_s()

    def _retire(self, sink: Sink) -> None:
        remember(self._notices, sink.notices)
        self._past += Counter(getattr(sink, "counts", {}))
        sink.close()
