"""What class a followed object has: networks take a truck for a car and back, from one frame to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassVote"]

# What is left of a track's votes when it is forgotten.
_FORGOTTEN = 0.01


class ClassVote:
    """The class for which most was said of late, by the scores; what was said is worth half after a while.

    Args:
        half_life_s: that while.
    """

    def __init__(self, half_life_s: float = 2.0) -> None:
        self._half_life_s = half_life_s
        self._votes: dict[int, dict[int, float]] = {}

    def __call__(
        self,
        numbers: NDArray[np.int64],
        class_ids: NDArray[np.int64],
        scores: NDArray[np.floating],
        dt_s: float,
    ) -> NDArray[np.int64]:
        """The classes of the next frame.

        Args:
            numbers: (n,) of the tracks; what has 0 has no track, and keeps its class.
            class_ids: (n,) what the network says.
            scores: (n,) in [0, 1].
            dt_s: seconds since the frame before; 0 where that has nothing to do with this one.

        Returns:
            (n,) class indices.
        """
        fade = 0.5 ** (dt_s / self._half_life_s) if dt_s else 0.0
        for number, given in list(self._votes.items()):
            left = {class_id: votes * fade for class_id, votes in given.items()}
            if sum(left.values()) < _FORGOTTEN:
                del self._votes[number]
            else:
                self._votes[number] = left
        chosen = class_ids.copy()
        for index, number in enumerate(numbers.tolist()):
            if number:
                given = self._votes.setdefault(number, {})
                said = int(class_ids[index])
                given[said] = given.get(said, 0.0) + float(scores[index])
                chosen[index] = max(given, key=given.__getitem__)
        return chosen
