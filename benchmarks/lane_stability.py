"""How steady the lane's lines are: jitter against the fit of each frame alone, drop-outs, lag, recovery.

    python benchmarks/lane_stability.py --material FOLDER [--frames 220]

Jitter is measured where each line crosses a row a quarter of the picture above its lower edge: the standard deviation,
in px, of what is left when a smooth curve (a parabola over half a second) is taken out. Lag and recovery are from a
drawn lane change, whose geometry is known.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_filter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from streamseg.frame import Colour, Frame, Origin
from streamseg.lanes.classical import ClassicalLaneFinder
from streamseg.lanes.result import Lanes
from tests.synthetic_drive import drives

CLIPS = ("dash_udacity_solidWhiteRight.mp4", "dash_saber_road.mp4")


def decoded(path: Path, frames: int) -> Iterator[Frame]:
    with av.open(str(path)) as container:
        for index, picture in enumerate(container.decode(video=0)):
            if index >= frames:
                return
            planes = np.ascontiguousarray(picture.reformat(format="yuv420p").to_ndarray())
            origin = Origin(path.name, (picture.width, picture.height))
            yield Frame(planes, picture.pts, picture.time_base, index, 0.0, Colour(), origin)


def crossing(lanes: Lanes) -> tuple[float, float]:
    """x of both lines a quarter of the picture above its lower edge; nan without a lane."""
    if lanes.left is None or lanes.right is None:
        return np.nan, np.nan
    row = lanes.frame_wh[1] * 0.75
    left, right = (float(np.interp(-row, -line.points[:, 1], line.points[:, 0])) for line in (lanes.left, lanes.right))
    return left, right


def jitter(xs: NDArray[np.float64], rate: float) -> float:
    """Standard deviation of what a parabola over half a second leaves, of both lines together; gaps are bridged."""
    window = max(5, round(rate / 2) // 2 * 2 + 1)
    rest = []
    for x in xs.T:
        known = np.isfinite(x)
        if known.sum() < window:
            return float("nan")
        filled = np.interp(np.arange(len(x)), np.flatnonzero(known), x[known])
        rest.append((filled - savgol_filter(filled, window, 2))[known])
    return float(np.concatenate(rest).std())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=220)
    chosen = parser.parse_args()
    for name in CLIPS:
        followed, alone, dropped, last = [], [], 0, None
        finder = ClassicalLaneFinder()
        # The vanishing point of the whole clip, so that the fit of each frame alone is not blamed for another one.
        known: tuple[float, float] | None = None
        times = []
        for frame in decoded(chosen.material / "media" / name, chosen.frames):
            lanes = finder(frame, None, 0.0 if last is None else frame.seconds - last)
            last = frame.seconds
            times.append(last)
            if known is None and lanes.vanishing_px is not None:
                known = lanes.vanishing_px[0] / frame.width, lanes.vanishing_px[1] / frame.height
            followed.append(crossing(lanes))
            alone.append(crossing(ClassicalLaneFinder(known)(frame, None, 0.0)))
            dropped += lanes.left is None
        rate = (len(times) - 1) / (times[-1] - times[0])
        ours, single = (jitter(np.array(xs), rate) for xs in (followed, alone))
        lost = np.isnan(np.array(alone)[:, 0]).mean()
        print(
            f"{name}: jitter {ours:.2f} px, of each frame alone {single:.2f} px (x {ours / single:.2f}); "
            f"without a lane {dropped / len(times):.1%}, alone {lost:.1%}",
            flush=True,
        )
    rate = 20.0
    drive = replace(drives(103)["lane change"], size_wh=(640, 360), rate_fps=rate)
    finder, found, true, gaps = ClassicalLaneFinder(), [], [], []
    for index, (planes, truth) in enumerate(drive.frames()):
        frame = Frame(
            planes, index, Fraction(1, 20), index, 0.0, Colour(False, 1, 1, 1, 1), Origin("drive", (640, 360))
        )
        lanes = finder(frame, None, 1 / rate if index else 0.0)
        found.append(np.nan if lanes.offset is None else lanes.offset)
        true.append(truth.offset_lanes)
        gaps.append(lanes.offset is None)
    ours, theirs = np.unwrap(np.nan_to_num(found), period=1), np.unwrap(true, period=1)
    moving = np.abs(np.gradient(theirs)) > 0.1 * np.abs(np.gradient(theirs)).max()
    moving &= ~np.array(gaps)
    lags = np.arange(0, 0.3, 0.005)
    at = np.arange(len(theirs)) / rate
    errors = [np.abs(np.interp(at - lag, at, theirs) - ours)[moving].mean() for lag in lags]
    wrong = np.array(gaps) | (np.abs((ours - theirs + 0.5) % 1 - 0.5) > 0.1)
    print(
        f"lane change: lag {lags[int(np.argmin(errors))] * 1e3:.0f} ms, wrong or unknown for {wrong.sum() / rate:.2f} s"
    )


if __name__ == "__main__":
    main()
