"""The renderer is what other tests are judged by, so it is judged first: paint lies where the truth says."""

from __future__ import annotations

import numpy as np
import pytest

from tests.synthetic_drive import Drive, Excursion, drives


@pytest.mark.parametrize("kind", ["straight", "curve", "hill", "departure"])
def test_paint_lies_on_the_true_lines(kind: str) -> None:
    # One lane, so that both of its lines are unbroken.
    drive = drives(5)[kind]
    drive = Drive(**{**{f: getattr(drive, f) for f in drive.__dataclass_fields__}, "lanes": 1, "length_s": 0.1})
    planes, truth = next(drive.frames())
    luma = planes[: drive.size_wh[1]].astype(int)
    seen = 0
    for line in (truth.left, truth.right):
        for x, y in line[-120:-25:5]:
            if 30 <= x < drive.size_wh[0] - 30:
                row = luma[round(y)]
                reach = 14
                near = row[round(x) - reach : round(x) + reach + 1]
                # The paint's middle is the weighted mean of what is brighter than the road.
                weight = np.clip(near - 125, 0, None)
                if weight.sum() > 100 and 0 < (weight > 0).sum() < reach:
                    centre = (weight * np.arange(-reach, reach + 1)).sum() / weight.sum() + round(x) + 0.5
                    assert centre == pytest.approx(x, abs=1.0)
                    seen += 1
    assert seen >= 8


def test_a_lane_change_ends_in_the_next_lane_and_a_departure_does_not() -> None:
    change = Drive(wander_lanes=0, excursions=(Excursion(1, 1.0, 2),))
    departure = Drive(wander_lanes=0, excursions=(Excursion(1, -0.4, 2, 1),))
    assert [change.truth(t).lane for t in (0, 1.9, 2.1, 9)] == [0, 0, 1, 1]
    assert change.truth(9).offset_lanes == pytest.approx(0)
    assert [departure.truth(t).lane for t in (0, 3.5, 9)] == [0, 0, 0]
    assert departure.truth(3.5).offset_lanes == pytest.approx(-0.4)
    assert departure.truth(9).offset_lanes == pytest.approx(0)


def test_the_same_seed_draws_the_same_pictures() -> None:
    first, second = (next(Drive(seed=4, size_wh=(320, 180)).frames())[0] for _ in range(2))
    assert np.array_equal(first, second)
