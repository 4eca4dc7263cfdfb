"""Presentation times that are complete and strictly increasing."""

from __future__ import annotations

from collections import Counter

__all__ = ["Timeline"]


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
        self.last = pts
        return pts
