"""Numbers of instances over time, by the builtin tracker; what both promise is in test_library_tracks."""

from __future__ import annotations

import numpy as np
import pytest

from streamseg.temporal.tracks import BuiltinTracker


def number(
    tracker: BuiltinTracker, boxes: list[list[float]], dt_s: float, scores: float | list[float] = 0.9, ids: int = 2
):
    count = len(boxes)
    score = np.full(count, scores, np.float32) if isinstance(scores, float) else np.array(scores, np.float32)
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return tracker(array, score, np.full(count, ids), dt_s).tolist()


def at(x: float, y: float = 50, side: float = 40) -> list[float]:
    return [x, y, x + side, y + side]


@pytest.mark.parametrize("rate", [5, 30])
def test_two_that_pass_each_other_keep_their_numbers(rate: int) -> None:
    """Moving 60 px a second towards each other, one a little lower, whatever the frame rate."""
    tracker = BuiltinTracker()
    for index in range(5 * rate):
        t = index / rate
        numbers = number(tracker, [at(60 * t), at(300 - 60 * t, 80)], 1 / rate if index else 0.0)
        assert numbers == [1, 2]


def test_a_number_outlives_a_gap_and_a_longer_one_ends_it() -> None:
    tracker = BuiltinTracker(lasts_s=1.0)
    for index in range(10):
        number(tracker, [at(100 + 5 * index)], 0.1 if index else 0.0)
    for _ in range(5):
        assert number(tracker, [], 0.1) == []
    # It went on by 50 px a second.
    assert number(tracker, [at(170)], 0.1) == [1]
    for _ in range(15):
        number(tracker, [], 0.1)
    assert number(tracker, [at(180)], 0.1) == [0]
    assert number(tracker, [at(180)], 0.1) == [2]


def test_a_flash_gets_no_number() -> None:
    tracker = BuiltinTracker()
    number(tracker, [], 0.0)
    assert number(tracker, [at(100)], 0.1) == [0]
    for _ in range(20):
        number(tracker, [], 0.1)
    assert number(tracker, [at(100)], 0.1) == [0]


def test_what_is_seen_twice_for_a_moment_keeps_its_number() -> None:
    tracker = BuiltinTracker()
    for index in range(15):
        number(tracker, [at(100)], 0.1 if index else 0.0)
    wide = [100, 50, 150, 90]
    for _ in range(2):
        assert number(tracker, [at(100), wide], 0.1)[0] == 1
    assert number(tracker, [wide], 0.1) == [1], "the second box is left, and lies on the second track"


def test_nothing_at_all() -> None:
    tracker = BuiltinTracker()
    assert number(tracker, [], 0.0) == []
    assert number(tracker, [at(1)], 0.0) == [1]


def test_another_picture_begins_anew() -> None:
    tracker = BuiltinTracker()
    assert number(tracker, [at(100)], 0.0) == [1]
    assert number(tracker, [at(100)], 0.0) == [2]
    assert number(tracker, [at(100)], 0.1) == [2]
