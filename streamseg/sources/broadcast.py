"""The clock of broadcast containers: it starts anywhere, runs over after 26 hours, jumps where files were joined."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

__all__ = ["BroadcastClock"]

_PERIOD_S = Fraction(1 << 33, 90_000)
_JUMP_S = 1
_APART_S = 30  # how far picture and sound may lie from each other in a file


class BroadcastClock:
    """Moves packets to a clock that starts at 0, never runs backwards and keeps picture and sound together.

    Every stream meets a jump at another place of the file: the first that does begins an era with a shift of its own,
    and the others follow into it when they get there.

    Args:
        starts_s: when each stream begins, on the container's clock.
        counts: where jumps are counted.

    Attributes:
        shift_s: what is added to the container's times at its beginning.
    """

    def __init__(self, starts_s: list[Fraction], counts: Counter[str]) -> None:
        late = [start for start in starts_s if start > _PERIOD_S / 2]
        # Where the clock runs over between the beginnings of two streams, the high one is the earlier.
        ran_over = late and max(late) - min(starts_s) > _PERIOD_S / 2
        self.shift_s = -min(late if ran_over else starts_s, default=Fraction(0))
        self._shifts = [self.shift_s]
        self._counts = counts
        self._eras: dict[int, int] = {}
        self._last: dict[int, Fraction] = {}

    def forget(self) -> None:
        """What comes next is from another place of the file."""
        self._eras.clear()
        self._last.clear()

    def straighten(self, packet: Any) -> None:
        """Change the times of a packet in place."""
        unit, index = Fraction(packet.time_base), packet.stream.index
        period = round(_PERIOD_S / unit)
        if packet.dts is not None:
            if packet.pts is not None and packet.pts < packet.dts - period // 2:
                packet.pts += period  # it ran over between the two
            self._enter_era(index, packet.dts * unit, (packet.duration or 0) * unit)
        ticks = round(self._shifts[self._eras.get(index, 0)] / unit)
        if packet.dts is not None:
            packet.dts += ticks
        if packet.pts is not None:
            packet.pts += ticks

    def _enter_era(self, index: int, dts_s: Fraction, duration_s: Fraction) -> None:
        era, last = self._eras.get(index, 0), self._last.get(index)
        least = -_PERIOD_S / 2 if last is None else last - _JUMP_S
        while dts_s + self._shifts[era] < least:
            era += 1
            if era == len(self._shifts):
                self._shifts.append(self._next_shift(dts_s, None if last is None else last + duration_s))
        self._eras[index] = era
        self._last[index] = dts_s + self._shifts[era]

    def _next_shift(self, dts_s: Fraction, expected_s: Fraction | None) -> Fraction:
        ran_over = self._shifts[-1] + _PERIOD_S
        if expected_s is None or abs(dts_s + ran_over - expected_s) < _APART_S:
            return ran_over
        self._counts["clock jumps bridged"] += 1
        return expected_s - dts_s
