"""A source that has an end, played at the speed at which it was taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from streamseg.frame import Frame, Packet, Source, VideoInfo

__all__ = ["Paced"]

# A jump of the time stamps is not waited through.
_LONGEST_WAIT_S = 2.0


class Paced:
    """Another source in real time, for outputs that are watched while it runs; a `Source` that loses nothing."""

    def __init__(self, source: Source) -> None:
        self.inner = source
        self._stopping = threading.Event()
        self._start_s: float | None = None

    @property
    def info(self) -> VideoInfo:
        """What is known before the first frame."""
        return self.inner.info

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        return self.inner.notices

    @property
    def counts(self) -> Mapping[str, int]:
        """Irregularities so far, by name."""
        return self.inner.counts

    def read(self) -> Frame | None:
        """The next frame, when it is its time; None at the end and after `interrupt`."""
        frame = self.inner.read()
        if frame is None:
            return None
        now = time.monotonic()
        if self._start_s is None or not 0 <= self._start_s + frame.seconds - now < _LONGEST_WAIT_S:
            self._start_s = now - frame.seconds
        if self._stopping.wait(self._start_s + frame.seconds - now):
            return None
        return replace(frame, captured_at=time.monotonic())

    def take_packets(self) -> list[Packet]:
        """The packets of the copied tracks since the last call."""
        return self.inner.take_packets()

    def interrupt(self) -> None:
        """Make `read` end; from any thread."""
        self._stopping.set()
        self.inner.interrupt()

    def close(self) -> None:
        """Let go of the source."""
        self.inner.close()
