"""Events on drawn drives: found within 0.3 s, and how many false ones.

    python benchmarks/lane_events.py [--seeds 401 402 ...] [--size 480x270] [--fps 15]

Eleven kinds of drive of ten seconds a seed; six seeds are eleven minutes. Seeds 1 to 6 were tuned on, and 104, 105
and 204 after judgings by 101 to 106 and 201 to 206; 301 to 306 and 401 to 406 were judged with, and never tuned on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from streamseg.frame import Colour, Frame, Origin
from streamseg.lanes.classical import ClassicalLaneFinder
from streamseg.lanes.events import Event, LaneEvents, Thresholds
from tests.synthetic_drive import Drive, drives

COLOUR = Colour(False, 1, 1, 1, 1)
LIMIT_S = 0.3


def expected(drive: Drive) -> list[tuple[str, str | None, float]]:
    """(kind, side, when it can be known) from the drive's own geometry."""
    found: list[tuple[str, str | None, float]] = []
    limits, inside, last = Thresholds(), True, drive.truth(0.0)
    for step in range(1, round(drive.length_s * 200)):
        truth = drive.truth(step / 200)
        if truth.lane != last.lane:
            found.append(("lane change", "right" if truth.lane > last.lane else "left", truth.time_s))
        elif inside and abs(truth.offset_lanes) >= limits.depart:
            found.append(("departure", "right" if truth.offset_lanes > 0 else "left", truth.time_s))
            inside = False
        elif abs(truth.offset_lanes) < limits.back:
            inside = True
        last = truth
    return found + [("lanes lost", None, begin) for begin, _ in drive.unmarked]


def noted(drive: Drive) -> list[Event]:
    finder, events, found = ClassicalLaneFinder(), LaneEvents(), []
    for index, (planes, truth) in enumerate(drive.frames()):
        origin = Origin("drive", drive.size_wh)
        frame = Frame(planes, index, Fraction(1, round(drive.rate_fps)), index, 0.0, COLOUR, origin)
        lanes = finder(frame, None, 1 / drive.rate_fps if index else 0.0)
        found += [event for event in events(lanes, (), truth.time_s) if event.end_s is None]
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(401, 407)))
    parser.add_argument("--size", default="480x270")
    parser.add_argument("--fps", type=float, default=15.0)
    chosen = parser.parse_args()
    width, height = (int(side) // 2 * 2 for side in chosen.size.split("x"))
    hits = misses = false = 0
    seconds = 0.0
    for seed in chosen.seeds:
        for kind, drive in drives(seed).items():
            drive = replace(drive, size_wh=(width, height), rate_fps=chosen.fps)
            seconds += drive.length_s
            wanted, found = expected(drive), noted(drive)
            rest = list(found)
            for name, side, when in wanted:
                hit = next(
                    (e for e in rest if (e.kind, e.side) == (name, side) and abs(e.found_s - when) <= LIMIT_S), None
                )
                if hit is not None:
                    rest.remove(hit)
                    hits += 1
                else:
                    misses += 1
                    print(f"  missed: seed {seed}, {kind}: {name} {side or ''} at {when:.2f} s", flush=True)
            false += len(rest)
            for event in rest:
                print(
                    f"  false: seed {seed}, {kind}: {event.kind} {event.side or ''} at {event.found_s:.2f} s",
                    flush=True,
                )
    print(f"{hits} of {hits + misses} found within {LIMIT_S} s, {false} false in {seconds / 60:.1f} minutes")


if __name__ == "__main__":
    main()
