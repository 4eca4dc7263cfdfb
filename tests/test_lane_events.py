"""Events from made-up lanes: time alone decides, every edge has hysteresis."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from streamseg.lanes.events import Event, LaneEvents, Thresholds, events_csv, events_json
from streamseg.lanes.result import Boundary, Lanes, RoadUser

SIZE = (640, 360)


def lanes(offset: float | None) -> Lanes:
    """A straight lane of 400 px at the lower edge, 80 px a 0.2 of offset; horizon at 160."""
    if offset is None:
        return Lanes(SIZE)
    middle = 320 - 400 * offset
    ends = [np.linspace([middle + side * 200, 359], [320, 165], 20).astype(np.float32) for side in (-1, 1)]
    left, right = (Boundary(points, 1.0) for points in ends)
    return Lanes(SIZE, left, right, offset=offset, width=2.7, horizon_px=160.0)


def drive(offsets: dict[float, float | None], end_s: float, rate: float = 20, **limits: float) -> list[Event]:
    """Offsets at given times, linear between (None: no lane until the next)."""
    events, found = LaneEvents(Thresholds(**limits)), []
    times = sorted(offsets)
    for index in range(round(end_s * rate)):
        t = index / rate
        before = max(time for time in times if time <= t)
        after = min((time for time in times if time > t), default=before)
        a, b = offsets[before], offsets[after]
        offset = a if a is None or b is None else a + (b - a) * (t - before) / max(after - before, 1e-09)
        # In a lane, offsets are wrapped.
        found += events(lanes(None if offset is None else (offset + 0.5) % 1 - 0.5), (), t)
    return found + events.finish(end_s)


@pytest.mark.parametrize("rate", [10, 30, 60])
@pytest.mark.parametrize(("sign", "side"), [(1, "right"), (-1, "left")])
def test_a_departure_begins_and_ends_in_time(rate: float, sign: int, side: str) -> None:
    found = drive({0: 0.0, 1: 0.0, 2: 0.4 * sign, 3: 0.4 * sign, 4: 0.0}, 6, rate)
    assert [(event.kind, event.side) for event in found] == [("departure", side)] * 2
    begun, ended = found
    assert begun.end_s is None
    assert begun.begin_s == pytest.approx(1.75, abs=1 / rate + 1e-6)
    assert begun.found_s - begun.begin_s <= 0.1 + 2 / rate
    assert ended.end_s == pytest.approx(3.45, abs=1 / rate + 1e-6)
    assert ended.worst == pytest.approx(0.4, abs=0.03)


def test_shaking_on_the_threshold_is_one_departure() -> None:
    offsets = (
        {0.0: 0.0, 1.0: 0.3} | {1 + index * 0.1: 0.3 + 0.05 * (-1) ** index for index in range(1, 30)} | {5.0: 0.0}
    )
    found = drive(offsets, 7)
    assert len(found) == 2


def test_a_touch_shorter_than_asked_is_none() -> None:
    assert drive({0: 0.0, 1: 0.0, 1.04: 0.32, 1.1: 0.0}, 3) == []


@pytest.mark.parametrize(("sign", "side"), [(1, "right"), (-1, "left")])
def test_a_lane_change_is_told_from_a_departure(sign: int, side: str) -> None:
    found = drive({0: 0.0, 1: 0.0, 4: 1.0 * sign}, 7)
    assert [event.kind for event in found] == ["departure", "lane change", "lane change"]
    assert {event.side for event in found} == {side}
    assert found[1].found_s == pytest.approx(2.5, abs=0.11)
    assert found[-1].end_s == pytest.approx(1 + 3 * 0.78, abs=0.11)


def test_a_line_crossed_and_crossed_back_is_a_departure() -> None:
    found = drive({0: 0.0, 1: 0.0, 2: 0.6, 3: 0.6, 4: 0.0}, 6)
    assert found[-1].kind == "departure"
    assert found[-1].side == "right"


def test_two_lanes_to_the_right_are_two_changes() -> None:
    found = drive({0: 0.0, 1: 0.0, 3: 1.0, 5: 1.0, 7: 2.0}, 9)
    assert [event.kind for event in found if event.end_s is not None] == ["lane change"] * 2


def test_lost_lanes_are_noted_once_and_end_when_they_are_back() -> None:
    found = drive({0: 0.0, 2: None, 4: 0.0, 6: 0.0}, 6)
    assert [(event.kind, event.begin_s, event.end_s) for event in found] == [
        ("lanes lost", 2.0, None),
        ("lanes lost", 2.0, 4.0),
    ]
    assert found[0].found_s <= 2.3


def test_a_road_that_never_had_lanes_loses_none() -> None:
    assert drive({0: None}, 5) == []
    assert drive({0: None, 1: 0.0, 1.2: None}, 5) == []


def user(x: float, bottom: float, name: str, track: int = 7) -> RoadUser:
    return RoadUser(track, name, (x - 20, bottom - 40, x + 20, bottom))


def test_a_car_that_comes_into_the_lane_cuts_in_once() -> None:
    events, found = LaneEvents(), []
    for index in range(80):
        x = 560 - min(index, 40) * 6  # from beside the lane to its middle
        found += events(lanes(0.0), [user(x, 300, "car")], index / 20)
    assert [(event.kind, event.side, event.track) for event in found] == [("cut-in", "right", 7)]
    assert found[0].found_s - found[0].begin_s <= 0.3
    ended = events(lanes(0.0), [], 6.0)
    assert [event.end_s for event in ended] == [pytest.approx(79 / 20)]


@pytest.mark.parametrize("case", ["always ahead", "far away", "a sign", "no lane"])
def test_no_cut_in(case: str) -> None:
    events = LaneEvents()
    found = []
    for index in range(80):
        x, bottom, name = 560 - min(index, 40) * 6, 300.0, "car"
        if case == "always ahead":
            x = 320
        elif case == "far away":
            x, bottom = 320 + (40 - min(index, 40)), 180
        elif case == "a sign":
            name = "stop sign"
        found += events(lanes(None if case == "no lane" else 0.0), [user(x, bottom, name)], index / 20)
    assert found == []


def test_a_vehicle_beside_the_car_is_cut_off_by_the_picture_and_not_in_the_lane() -> None:
    """What is left of it has its middle in the lane, which is as wide as the picture there."""
    events, found = LaneEvents(), []
    for index in range(60):
        beside = RoadUser(7, "car", (0.0, 150.0, 250.0 + min(index, 30), 355.0))
        found += events(lanes(0.0), [beside], index / 20)
    assert found == []
    for index in range(60, 80):
        found += events(lanes(0.0), [RoadUser(7, "car", (230.0, 150.0, 400.0, 300.0))], index / 20)
    assert [(event.kind, event.side) for event in found] == [("cut-in", "left")]


def test_a_person_in_the_lane_is_noted_and_one_beside_it_is_not() -> None:
    for x, kinds in ((300, ["person in lane"]), (40, [])):
        events, found = LaneEvents(), []
        for index in range(20):
            found += events(lanes(0.0), [user(x, 320, "person")], index / 20)
        assert [event.kind for event in found] == kinds


def test_tables() -> None:
    events = [Event("departure", "left", 1.23456, 1.3, 2.0, 0.41), Event("lanes lost", None, 5, 5.1, 6)]
    rows = list(csv.DictReader(io.StringIO(events_csv(events))))
    assert [row["kind"] for row in rows] == ["departure", "lanes lost"]
    assert rows[0]["begin_s"] == "1.235"
    assert rows[1]["side"] == ""
    assert json.loads(events_json(events))[0]["worst"] == 0.41
    assert json.loads(events_json([])) == []


def test_the_place_in_the_lane() -> None:
    straight = lanes(0.0)
    assert straight.across(320, 300) == pytest.approx(0, abs=1e-4)
    assert straight.across(120, 359) == pytest.approx(-0.5, abs=1e-4)
    assert straight.across(520, 359) == pytest.approx(0.5, abs=1e-4)
    # Nearer than the picture's lower edge the lines are drawn out straight.
    assert straight.across(320 + 200 * (420 - 165) / (359 - 165), 420) == pytest.approx(0.5, abs=0.01)
    assert straight.across(320, 100) is None
    assert lanes(None).across(320, 300) is None
