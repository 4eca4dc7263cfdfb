"""What happens in and to the lane, in seconds: departures, lane changes, lost lanes, cut-ins, people in the lane."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace

from streamseg.lanes.result import Lanes, RoadUser

__all__ = ["PEOPLE", "VEHICLES", "Event", "LaneEvents", "Thresholds", "event_record", "events_csv", "events_json"]

VEHICLES = frozenset({"car", "truck", "bus", "motorcycle", "bicycle", "train"})
PEOPLE = frozenset({"person"})
# Nearer to the picture's side than this, as a share of its width, a box is cut off.
_CUT_OFF = 0.005


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        kind: "departure", "lane change", "lanes lost", "cut-in" or "person in lane".
        side: "left" or "right"; None where there is none. Of a cut-in, where it came from.
        begin_s: when it began, in the clip's time.
        found_s: when it was known.
        end_s: when it ended; None while it lasts.
        worst: farthest offset of the camera from the lane's middle, in lane widths; None for other kinds.
        track: of the road user; None for other kinds.
        speed_m_s, latitude, longitude: of the car when it began, where telemetry tells; degrees.
        filled: they lie in a gap of the telemetry and were made up between its ends.
    """

    kind: str
    side: str | None
    begin_s: float
    found_s: float
    end_s: float | None = None
    worst: float | None = None
    track: int | None = None
    speed_m_s: float | None = None
    latitude: float | None = None
    longitude: float | None = None
    filled: bool | None = None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When something is an event.

    Attributes:
        depart: offset, in lane widths, from which the car leaves its lane; a car half as wide as the lane touches the
            line at 0.25.
        back: offset below which it is back.
        depart_s: how long it must be outside.
        lost_s: how long lanes must be gone.
        seen_s: how long they must have been there before, to be lost.
        near: lower edge of a road user below the horizon, in picture heights, from which it is near.
        enter: place of a vehicle's middle in the lane, in lane widths, from which it is inside.
        outside: and from which it is outside.
        user_s: how long a road user must be inside.
        cut_in_s: how long a vehicle is remembered to have been outside.
        confidence: of the lanes, below which nothing is concluded from them.
    """

    depart: float = 0.3
    back: float = 0.22
    depart_s: float = 0.04
    lost_s: float = 0.08
    seen_s: float = 1.0
    near: float = 0.1
    enter: float = 0.4
    outside: float = 0.6
    user_s: float = 0.2
    cut_in_s: float = 2.0
    confidence: float = 0.3


class LaneEvents:
    """Turns what is seen, frame after frame, into events with a beginning and an end; has hysteresis in all of them."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self._limits = thresholds or Thresholds()
        self._start()

    def _start(self) -> None:
        self._departure: Event | None = None
        self._lost: Event | None = None
        self._users: dict[int, _User] = {}
        self._beyond_since_s: float | None = None
        self._gone_since_s: float | None = None
        self._seen_since_s: float | None = None
        self._last: tuple[float, float] | None = None  # time, offset
        self._crossed = 0

    @property
    def open(self) -> tuple[Event, ...]:
        """What lasts at this moment."""
        own = [event for event in (self._departure, self._lost) if event is not None]
        return (*own, *(user.event for user in self._users.values() if user.event is not None))

    def __call__(self, lanes: Lanes, users: Iterable[RoadUser], time_s: float) -> list[Event]:
        """Take in one frame.

        Args:
            lanes: what is known of them.
            users: of the road; empty without a network that finds them.
            time_s: of the frame; it does not go back.

        Returns:
            What began and what ended at this moment: an event comes twice, first without `end_s`.
        """
        known = lanes.offset is not None and lanes.confidence >= self._limits.confidence
        found = self._look_for_loss(known, time_s)
        if known and lanes.offset is not None:
            found += self._look_for_departure(lanes.offset, time_s)
        elif self._last is not None and time_s - self._last[0] > 2.0:
            found += self._end_departure(self._last[0])
            self._last = None
        return found + self._look_at_users(lanes if known else None, users, time_s)

    def finish(self, time_s: float) -> list[Event]:
        """The clip is over: what lasts ends now."""
        ended = [replace(event, end_s=time_s) for event in self.open]
        self._start()
        return ended

    def _look_for_loss(self, known: bool, time_s: float) -> list[Event]:
        limits = self._limits
        if known:
            self._gone_since_s = None
            if self._seen_since_s is None:
                self._seen_since_s = time_s
            if self._lost is not None and time_s - self._seen_since_s >= limits.lost_s:
                ended, self._lost = replace(self._lost, end_s=self._seen_since_s), None
                return [ended]
            return []
        if self._gone_since_s is None:
            self._gone_since_s = time_s
        if time_s - self._gone_since_s >= limits.lost_s:
            seen_s = 0.0 if self._seen_since_s is None else self._gone_since_s - self._seen_since_s
            self._seen_since_s = None
            if seen_s >= limits.seen_s and self._lost is None:
                self._lost = Event("lanes lost", None, self._gone_since_s, time_s)
                return [self._lost]
        return []

    def _look_for_departure(self, offset: float, time_s: float) -> list[Event]:
        limits = self._limits
        crossed = self._crossing(offset, time_s)
        self._last = (time_s, offset)
        if abs(offset) >= limits.depart or crossed:
            if self._beyond_since_s is None:
                self._beyond_since_s = time_s
        elif abs(offset) < limits.back:
            self._beyond_since_s = None
        if self._departure is None:
            if self._beyond_since_s is None or (time_s - self._beyond_since_s < limits.depart_s and not crossed):
                return []
            side = "right" if (crossed or offset) > 0 else "left"
            self._crossed = crossed
            kind = "lane change" if crossed else "departure"
            self._departure = Event(kind, side, self._beyond_since_s, time_s, worst=abs(offset))
            return [self._departure]
        worst = max(self._departure.worst or 0.0, 0.5 if crossed else abs(offset))
        self._crossed += crossed
        # Told from a departure at the moment in which the camera crosses the line, and taken back if it returns.
        changed = crossed != 0
        kind = "lane change" if self._crossed else "departure"
        self._departure = replace(
            self._departure, kind=kind, worst=worst, found_s=time_s if changed else self._departure.found_s
        )
        if self._beyond_since_s is None:
            return self._end_departure(time_s)
        return [self._departure] if changed else []

    def _crossing(self, offset: float, time_s: float) -> int:
        """Lines crossed since the last frame with lanes: -1 to the left, 1 to the right, else 0."""
        if self._last is None or time_s - self._last[0] > 1.5:
            return 0
        step = offset - self._last[1]
        # From just inside one side of the old lane to just inside the other side of the new one.
        far = abs(self._last[1]) > 0.25 and abs(step) > 0.6
        return (1 if step < 0 else -1) if far else 0

    def _end_departure(self, time_s: float) -> list[Event]:
        if self._departure is None:
            return []
        ended, self._departure = replace(self._departure, end_s=time_s), None
        self._crossed, self._beyond_since_s = 0, None
        return [ended]

    def _look_at_users(self, lanes: Lanes | None, users: Iterable[RoadUser], time_s: float) -> list[Event]:
        found: list[Event] = []
        present = set()
        for user in users:
            if user.class_name not in VEHICLES | PEOPLE:
                continue
            present.add(user.track)
            state = self._users.setdefault(user.track, _User())
            found += state.look(user, lanes, time_s, self._limits)
        for track in [track for track in self._users if track not in present]:
            state = self._users[track]
            if time_s - state.seen_s > 1.0:
                del self._users[track]
                if state.event is not None:
                    found.append(replace(state.event, end_s=state.seen_s))
        return found


class _User:
    """What is remembered of one road user."""

    def __init__(self) -> None:
        self.seen_s = 0.0
        self.event: Event | None = None
        self._outside_s: float | None = None
        self._side = "left"
        self._inside_since_s: float | None = None

    def look(self, user: RoadUser, lanes: Lanes | None, time_s: float, limits: Thresholds) -> list[Event]:
        self.seen_s = time_s
        left, _, right, bottom = user.box_xyxy
        place = lanes.across((left + right) / 2, bottom) if lanes is not None else None
        if place is None or lanes is None or lanes.horizon_px is None:
            return []
        person = user.class_name in PEOPLE
        near = bottom - lanes.horizon_px >= limits.near * lanes.frame_wh[1]
        # A vehicle that the picture's side cuts off is beside the car: the middle of what is left of it says nothing.
        ends = left < _CUT_OFF * lanes.frame_wh[0], right > (1 - _CUT_OFF) * lanes.frame_wh[0]
        beside = not person and ends[0] != ends[1]
        inside = not beside and abs(place) < (0.5 if person else limits.enter)
        if beside or abs(place) > limits.outside:
            self._outside_s, self._side = time_s, "left" if (ends[0] if beside else place < 0) else "right"
            if self.event is not None:
                ended, self.event = replace(self.event, end_s=time_s), None
                self._inside_since_s = None
                return [ended]
        if not inside:
            self._inside_since_s = None
            return []
        if self._inside_since_s is None:
            self._inside_since_s = time_s
        if self.event is not None or not near or time_s - self._inside_since_s < limits.user_s:
            return []
        if person:
            self.event = Event("person in lane", None, self._inside_since_s, time_s, track=user.track)
        elif self._outside_s is not None and time_s - self._outside_s <= limits.cut_in_s:
            self.event = Event("cut-in", self._side, self._inside_since_s, time_s, track=user.track)
            self._outside_s = None
        return [self.event] if self.event is not None else []


def events_json(events: Sequence[Event]) -> str:
    """Finished events as a JSON list of objects with the fields of `Event`; times are rounded to milliseconds."""
    return json.dumps([event_record(event) for event in events], indent=2) + "\n"


def events_csv(events: Sequence[Event]) -> str:
    """Finished events as CSV with a header; what does not apply is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Event)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(event_record(event) for event in events)
    return text.getvalue()


def event_record(event: Event) -> dict[str, object]:
    """The fields of an event for JSON or CSV: seconds and shares to thousandths, degrees to 10 cm."""
    return {
        name: round(value, 6 if name in ("latitude", "longitude") else 3) if isinstance(value, float) else value
        for name, value in asdict(event).items()
    }
