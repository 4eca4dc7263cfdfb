"""Records of lanes survive JSON and say what was found."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from streamseg.lanes.camera import Camera
from streamseg.lanes.events import Event
from streamseg.lanes.record import lane_record
from streamseg.lanes.result import Lanes, RoadUser
from tests.test_lane_events import lanes as straight


def test_a_lane_in_px_and_metres() -> None:
    lanes = replace(straight(0.1), vanishing_px=(320.0, 160.0))
    user = RoadUser(3, "car", (260.0, 250.0, 300.0, 300.0), 0.9)
    event = Event("departure", "right", 1.23456, 1.3)
    found = json.loads(json.dumps(lane_record(lanes, [user], [event], Camera(1.3, 60))))
    left, right = found["lanes"]
    assert (left["side"], right["side"]) == ("left", "right")
    assert left["points_px"][0] == pytest.approx([80, 359], abs=0.1)
    assert left["points_m"][0][1] == pytest.approx(320 / 0.57735 * 1.3 / 199, abs=0.02)
    assert found["offset_m"] == pytest.approx(0.351)
    assert found["radius_m"] is None
    assert found["road_users"][0]["across"] == pytest.approx(lanes.across(280, 300), abs=1e-3)
    assert found["events"][0]["begin_s"] == 1.235
    assert found["events"][0]["end_s"] is None


def test_nothing_found_is_said() -> None:
    found = json.loads(json.dumps(lane_record(Lanes((640, 360)), camera=Camera(1.3))))
    assert found["lanes"] == []
    assert found["offset"] is None
    assert found["offset_m"] is None
    assert found["confidence"] == 0
    assert "events" not in found
