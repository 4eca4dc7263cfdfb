"""How soon to try again."""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """How long to wait before the next try: twice as long each time, with jitter so that many do not come at once.

    Args:
        first_s, longest_s: the first wait and the longest.
        jitter: each wait is between ``1 - jitter`` and 1 of that.
        chance: gives numbers in [0, 1).
    """

    def __init__(
        self,
        first_s: float = 1.0,
        longest_s: float = 60.0,
        *,
        jitter: float = 0.3,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._jitter = jitter
        self._chance = chance
        self._next_s = first_s

    def reset(self) -> None:
        """Begin again with the first wait."""
        self._next_s = self._first_s

    def next_s(self) -> float:
        """The next wait, in seconds."""
        wait_s = self._next_s
        self._next_s = min(wait_s * 2, self._longest_s)
        return wait_s * (1 - self._jitter * self._chance())
