"""First come, first served; and everybody is let go at the end."""

from __future__ import annotations

import threading

import pytest

from streamseg.engine import Turns
from streamseg.engine.turns import TurnsOver


def test_in_the_order_of_coming() -> None:
    turns, order = Turns(), []
    threads = []

    def take(number: int) -> None:
        with turns:
            order.append(number)

    with turns:
        for number in range(6):
            threads.append(threading.Thread(target=take, args=[number]))
            threads[-1].start()
            while turns.waiting <= number:
                pass
    for thread in threads:
        thread.join(60)
    assert order == list(range(6))


def test_a_failure_inside_passes_the_turn_on() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns:
        raise ZeroDivisionError
    with turns:
        pass


def test_at_the_end_nobody_waits() -> None:
    turns = Turns()
    ended = []

    def take() -> None:
        try:
            with turns:
                pass
        except TurnsOver:
            ended.append(True)

    with turns:
        thread = threading.Thread(target=take)
        thread.start()
        while not turns.waiting:
            pass
        turns.close()
        thread.join(60)
    assert ended == [True]
    with pytest.raises(TurnsOver), turns:
        pass
