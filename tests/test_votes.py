"""The class of a track by vote."""

from __future__ import annotations

import numpy as np

from streamseg.temporal.votes import ClassVote

CAR, TRUCK = 2, 7


def told(vote: ClassVote, said: list[int], dt_s: float, number: int = 1, score: float = 0.8) -> list[int]:
    """The classes that one track has while the network says `said`."""
    found = []
    for class_id in said:
        one = vote(np.array([number]), np.array([class_id]), np.array([score], np.float32), dt_s)
        found.append(int(one[0]))
    return found


def test_a_word_in_between_changes_nothing() -> None:
    said = [CAR] * 10 + [TRUCK] * 3 + [CAR] * 2 + [TRUCK] * 2 + [CAR]
    assert told(ClassVote(), said, 1 / 30) == [CAR] * 18


def test_what_is_said_for_long_wins_after_the_same_time_at_any_rate() -> None:
    for rate in (5, 30):
        vote = ClassVote(half_life_s=2.0)
        told(vote, [CAR] * 20 * rate, 1 / rate)
        after = told(vote, [TRUCK] * 6 * rate, 1 / rate)
        assert abs(after.index(TRUCK) / rate - 2.0) < 1.5 / rate, "half of all that was said is younger by then"


def test_surer_words_weigh_more() -> None:
    vote = ClassVote()
    assert told(vote, [TRUCK, TRUCK], 0.1, score=0.3) == [TRUCK, TRUCK]
    assert told(vote, [CAR], 0.1, score=0.9) == [CAR]


def test_each_track_has_its_own_and_what_has_none_keeps_its_class() -> None:
    vote = ClassVote()
    numbers, scores = np.array([1, 2, 0]), np.full(3, 0.9, np.float32)
    for _ in range(5):
        vote(numbers, np.array([CAR, TRUCK, CAR]), scores, 0.1)
    said = np.array([TRUCK, CAR, TRUCK])
    assert vote(numbers, said, scores, 0.1).tolist() == [CAR, TRUCK, TRUCK]
    assert said.tolist() == [TRUCK, CAR, TRUCK], "what the network gave stays as it is"


def test_a_cut_forgets_and_so_does_time() -> None:
    vote = ClassVote()
    told(vote, [CAR] * 50, 0.1)
    assert told(vote, [TRUCK], 0.0) == [TRUCK]
    told(vote, [CAR] * 50, 0.1)
    assert told(vote, [TRUCK], 60.0) == [TRUCK]
    told(vote, [CAR], 60.0, number=2)
    assert list(vote._votes) == [2], "months of tracks take no memory"
