"""What the program says while it runs: plain lines, or one JSON document a line for log collectors."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from streamseg.engine import Unblocked, stream_name
from streamseg.errors import redact

__all__ = ["Voice", "logged", "on_terminal", "tell"]


# So long a reader that still reads may take for the last lines.
_LAST_S = 1.0


def _missing(count: int) -> str:
    return f"{count} lines are missing here: nobody read them in time"


_told = Unblocked(_missing)


def tell(line: str) -> None:
    """One line to the user, on standard error."""
    _told.say(redact(line))
    _told.drain(_LAST_S)


def on_terminal() -> bool:
    """Whether standard error is a terminal; it may also be closed."""
    return sys.stderr is not None and sys.stderr.isatty()


class Voice:
    """Says lines on standard error, and never waits for whoever reads them.

    Args:
        quiet: say nothing but what went wrong.
        as_json: each line as ``{"time", "level", "message", …}``.
    """

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self._lines = Unblocked(lambda count: self._formed("warning", _missing(count)))

    def __call__(self, line: str) -> None:
        """Say one line."""
        if not self.quiet:
            self.event("info", line)

    def event(self, level: str, message: str, **fields: object) -> None:
        """Say one line of a level, with what belongs to it."""
        self._lines.say(self._formed(level, message, **fields))

    def catch_up(self, *, last: bool = False) -> None:
        """Say what could not be said yet; `last` gives a reader some time for it."""
        self._lines.drain(_LAST_S if last else 0.0)

    def _formed(self, level: str, message: str, **fields: object) -> str:
        if not self.as_json:
            return redact(message)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return redact(json.dumps({"time": now, "level": level, "message": message, **fields}, default=str))


class _Handler(logging.Handler):
    def __init__(self, voice: Voice) -> None:
        super().__init__(logging.WARNING if voice.quiet else logging.INFO)
        self._voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        lead = f"{stream}: " if (stream := stream_name.get()) else ""
        self._voice.event(record.levelname.lower(), lead + record.getMessage(), logger=record.name)


@contextmanager
def logged(voice: Voice) -> Iterator[None]:
    """Within, what the library logs is said by `voice`."""
    logger = logging.getLogger("streamseg")
    handler, before = _Handler(voice), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        voice.catch_up(last=True)
