"""Nowhere."""

from __future__ import annotations

from collections.abc import Sequence

from streamseg.frame import Output, Packet

__all__ = ["NullSink"]


class NullSink:
    """Takes everything and keeps nothing: to measure, or where only results are wanted; a `Sink`."""

    notices: Sequence[str] = ()

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        pass

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        pass

    def close(self) -> None:
        pass
