"""Presentation times that are complete and strictly increasing."""

from __future__ import annotations

from collections import Counter

__all__ = ["Timeline"]

# Recordings that are whole lack single pictures, too: a camera or an encoder did not keep up.
_JUMP = 3
_MOSTLY = 9


class Timeline:
    """Repairs presentation times, changing as few as possible and each as little as possible.

    Args:
        step: ticks between two pictures where nothing else is known; at least 1.
        counts: where repairs are counted.

    Attributes:
        last: the time given last; None before.
    """

    def __init__(self, step: int, counts: Counter[str]) -> None:
        self._step = max(1, step)
        self.last: int | None = None
        self._counts = counts
        self._steady = 0
        self._jumps = 0
        self._jumped_over = 0

    @property
    def lacking(self) -> int:
        """How many pictures are not there where the time jumps; 0 where nearly every time jumps: the beat varies."""
        return self._jumped_over if self._steady >= _MOSTLY * self._jumps else 0

    def place(self, pts: int | None, following: int | None = None) -> int:
        """The time of the next picture; `following` is that of the one after it, where known.

        >>> times = Timeline(10, Counter())
        >>> [times.place(None, following=50), times.place(50), times.place(50), times.place(None), times.place(75)]
        [40, 50, 51, 61, 75]
        """
        if pts is None:
            self._counts["missing timestamps filled in"] += 1
            if self.last is not None:
                pts = self.last + self._step
            else:
                pts = 0 if following is None else following - self._step
        if self.last is not None and pts <= self.last:
            self._counts["timestamps repaired"] += 1
            pts = self.last + 1
        if self.last is not None:
            steps = round((pts - self.last) / self._step)
            self._steady += steps == 1
            if steps >= _JUMP:
                self._jumps += 1
                self._jumped_over += steps - 1
        self.last = pts
        return pts
