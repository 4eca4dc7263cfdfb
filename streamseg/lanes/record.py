"""Lanes and events of one frame as a record for JSON lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from streamseg.lanes.camera import Camera
from streamseg.lanes.events import Event, event_record
from streamseg.lanes.result import Boundary, Lanes, RoadUser

__all__ = ["lane_record"]


def lane_record(
    lanes: Lanes, users: Sequence[RoadUser] = (), events: Sequence[Event] = (), camera: Camera | None = None
) -> dict[str, Any]:
    """What was found in one frame, for `json.dumps`.

    Keys: `lanes`, a list of lines with `side` ("left" and "right" of the own lane, else "other"), `points_px`,
    `confidence`, `kind`, `colour` and `seen`; `offset` (in lane widths, positive right), `confidence`, `horizon_px`;
    with a camera also `offset_m`, `width_m`, `radius_m` (None: straight) and the lines' `points_m` (right, ahead);
    `road_users` and `events` where there are any.
    """
    lines = [("left", lanes.left), ("right", lanes.right), *(("other", line) for line in lanes.others)]
    record: dict[str, Any] = {
        "lanes": [_line(side, line, lanes, camera) for side, line in lines if line is not None],
        "offset": _rounded(lanes.offset, 4),
        "confidence": round(lanes.confidence, 3),
        "horizon_px": _rounded(lanes.horizon_px, 1),
    }
    if camera is not None:
        radius = camera.radius_m(lanes)
        record["offset_m"] = _rounded(camera.offset_m(lanes), 3)
        record["width_m"] = _rounded(camera.width_m(lanes), 3)
        record["radius_m"] = None if radius is None or math.isinf(radius) else round(radius, 1)
    if users:
        record["road_users"] = [
            {
                "track": user.track,
                "class": user.class_name,
                "score": round(user.score, 4),
                "box_xyxy": [round(side, 1) for side in user.box_xyxy],
                "across": _rounded(lanes.across((user.box_xyxy[0] + user.box_xyxy[2]) / 2, user.box_xyxy[3]), 3),
            }
            for user in users
        ]
    if events:
        record["events"] = [event_record(event) for event in events]
    return record


def _line(side: str, line: Boundary, lanes: Lanes, camera: Camera | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "side": side,
        "confidence": round(line.confidence, 3),
        "kind": line.kind,
        "colour": line.colour,
        "seen": bool(line.seen),
        "points_px": [[round(float(x), 1), round(float(y), 1)] for x, y in line.points],
    }
    if camera is not None:
        found["points_m"] = [[round(float(x), 2), round(float(z), 2)] for x, z in camera.on_road(line.points, lanes)]
    return found


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)
