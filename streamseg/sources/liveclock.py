"""Presentation times of a stream whose clock starts anywhere, may be missing and may jump."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

__all__ = ["LiveClock"]

# A clock this far behind its last time, or ahead of what has passed since, was set anew.
_BACK_S = 0.5
_AHEAD_S = 2.0
# Sound this far from the picture belongs to another clock: one of the two has jumped, the other has not yet.
_APART_S = 10.0


class LiveClock:
    """Moves the times of pictures to a clock that starts at 0 and never stands still, and sound by as much.

    Args:
        time_base: seconds per tick of the pictures' times.
        step: ticks between two pictures, where known.
        counts: where repairs are counted.
        shift: what to add to every time, for a file whose clock is known and is kept as it is; None for live streams.
    """

    def __init__(
        self, time_base: Fraction, step: int | None, counts: Counter[str], *, shift: int | None = None
    ) -> None:
        self._time_base = time_base
        self._step = step
        self._counts = counts
        self._live = shift is None
        self._shift = shift
        self._last: int | None = None
        self._last_arrived_s = 0.0

    def picture(self, pts: int | None, arrived_s: float) -> int:
        """The time of a picture that arrived at `arrived_s`, monotonic seconds; it falls back on that.

        >>> clock = LiveClock(Fraction(1, 100), 4, Counter())
        >>> [clock.picture(None, 0.0), clock.picture(904, 0.0), clock.picture(908, 0.1), clock.picture(5, 0.15)]
        [0, 4, 8, 13]
        """
        passed = max(1, round((arrived_s - self._last_arrived_s) / self._time_base))
        if self._last is None:
            if self._live and pts is not None:
                self._shift = -pts
            place = 0 if pts is None else pts + (self._shift or 0)
        elif pts is None:
            place = self._last + passed
        else:
            if self._shift is None:
                self._shift = self._last + (self._step or passed) - pts
            place = pts + self._shift
            ahead_s = float((place - self._last) * self._time_base)
            if self._live and (ahead_s < -_BACK_S or ahead_s > float(passed * self._time_base) + _AHEAD_S):
                self._counts["clock jumps bridged"] += 1
                place = self._last + passed
                self._shift = place - pts
            elif place <= self._last:
                self._counts["timestamps repaired"] += 1
                place = self._last + 1
        self._last, self._last_arrived_s = place, arrived_s
        return place

    @property
    def known(self) -> bool:
        """Whether the sound's place is known yet."""
        return self._shift is not None

    def sound_shift(self, at: int | None, time_base: Fraction) -> int | None:
        """Ticks of `time_base` to add to the times of a packet of sound; None where it belongs to no picture."""
        if self._shift is None or at is None:
            return None
        shift = round(self._shift * self._time_base / time_base)
        if not self._live or self._last is None:
            return shift
        at_s = float((at + shift) * time_base)
        if at_s < 0:
            return None
        if abs(at_s - float(self._last * self._time_base)) > _APART_S:
            self._counts["sound out of step left out"] += 1
            return None
        return shift
