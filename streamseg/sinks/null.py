"""Nowhere."""

from __future__ import annotations

from collections.abc import Sequence

from streamseg.frame import Output, Packet

__all__ = ["NullSink"]


class NullSink:
    """Takes everything and keeps nothing: to measure, or where only results are wanted; a `Sink`."""

    notices: Sequence[str] = ()

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        """Pass over it."""

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Nothing is open."""
