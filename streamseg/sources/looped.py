"""A video that repeats, asked for by time: the moving background."""

from __future__ import annotations

from collections.abc import Callable

from streamseg.errors import SourceError
from streamseg.frame import Frame, Source

__all__ = ["LoopedVideo"]


class LoopedVideo:
    """Gives the frame that a video shows at a time; from its end it begins again. Its own frame rate is kept.

    Args:
        open_again: opens the video at its beginning.

    Raises:
        SourceError: it cannot be opened or holds no frame.
    """

    def __init__(self, open_again: Callable[[], Source]) -> None:
        self._open_again = open_again
        self._source = open_again()
        first = self._read()
        if first is None:
            self._source.close()
            raise SourceError(f"{self._source.info.name} holds no frame; choose another video")
        self._current = first
        self._next = self._read()
        # The time asked for at which the pass under way began, and the video's time at which it begins.
        self._pass_began_s: float | None = None
        self._first_s = first.seconds
        self._frame_s = float(1 / self._source.info.rate) if self._source.info.rate else 1 / 25

    def __call__(self, at_s: float) -> Frame:
        """The frame shown at `at_s` seconds; times must not go back. The first call shows the first frame."""
        if self._pass_began_s is None:
            self._pass_began_s = at_s
        while True:
            into_pass_s = at_s - self._pass_began_s + self._first_s
            if self._next is None:
                end_s = self._current.seconds + self._frame_s
                # A hair early is in time: sums of frame durations are not exact.
                if into_pass_s < end_s - 1e-6:
                    return self._current
                length_s = max(end_s - self._first_s, self._frame_s)
                # Whole passes within a jump of the main picture's clock are skipped, not decoded.
                self._pass_began_s += length_s * max(1, (into_pass_s - self._first_s) // length_s)
                self._rewind()
            elif into_pass_s < self._next.seconds - 1e-6:
                return self._current
            else:
                self._current, self._next = self._next, self._read()

    def close(self) -> None:
        """Let go of the video."""
        self._source.close()

    def _read(self) -> Frame | None:
        frame = self._source.read()
        # Nobody hears a background; what is not taken would pile up.
        self._source.take_packets()
        return frame

    def _rewind(self) -> None:
        self._source.close()
        self._source = self._open_again()
        first = self._read()
        if first is None:
            raise SourceError(f"{self._source.info.name} holds no frame any more; do not change it during the run")
        self._current, self._next = first, self._read()
