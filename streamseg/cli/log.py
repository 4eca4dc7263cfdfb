"""What the program says while it runs: plain lines, or one JSON document a line for log collectors."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from streamseg.errors import redact

__all__ = ["Voice", "logged", "tell"]


def tell(line: str) -> None:
    """One line to the user, on standard error."""
    # A terminal that was closed, or a reader that went, is no reason to stop.
    with contextlib.suppress(OSError):
        print(redact(line), file=sys.stderr, flush=True)


class Voice:
    """Says lines on standard error.

    Args:
        quiet: say nothing but what went wrong.
        as_json: each line as ``{"time", "level", "message", …}``.
    """

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self.quiet = quiet
        self.as_json = as_json

    def __call__(self, line: str) -> None:
        """Say one line."""
        if not self.quiet:
            self.event("info", line)

    def event(self, level: str, message: str, **fields: object) -> None:
        """Say one line of a level, with what belongs to it."""
        if not self.as_json:
            tell(message)
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        told = json.dumps({"time": now, "level": level, "message": message, **fields}, default=str)
        with contextlib.suppress(OSError):
            print(redact(told), file=sys.stderr, flush=True)


class _Handler(logging.Handler):
    def __init__(self, voice: Voice) -> None:
        super().__init__(logging.WARNING if voice.quiet else logging.INFO)
        self._voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        self._voice.event(record.levelname.lower(), record.getMessage(), logger=record.name)


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
