"""Which of several streams a thread works for: what it logs is told under that name."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["stream_name"]

# The threads of a pipeline have the value of the thread that made it; empty where there is one stream alone.
stream_name: ContextVar[str] = ContextVar("stream_name", default="")
