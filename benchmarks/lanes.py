"""Lane finders on ground truth: F1 on CULane frames, accuracy on TuSimple frames, road IoU on CamVid.

    python benchmarks/lanes.py --material FOLDER [--json out.json]

CULane: 40 frames of one drive, every 30th, 30-px lines, IoU 0.5 and 0.3; the labels here are the two lines of the
car's own lane. "Clip" shows them in order, a second apart, as a drive would; "single" starts anew for each. TuSimple:
six frames, the two lines of the own lane (of all labelled lanes in brackets). CamVid: 20 frames, class 3 is road.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))

from hough import hough_lanes
from lane_scores import culane_counts, f1, iou, tusimple_accuracy

from streamseg.frame import Colour, Frame, Origin
from streamseg.lanes import LaneFinder
from streamseg.lanes.classical import ClassicalLaneFinder
from streamseg.lanes.network import NetworkLaneFinder
from streamseg.pixels.planes import rgb_to_planes
from streamseg.segment.load import load_segmenter

COLOUR = Colour(full_range=True, matrix=6)
NETWORKS = ("twinlitenetplus_small", "twinlitenetplus_nano", "twinlitenet")
Picture = NDArray[np.uint8]
Lines = list[NDArray[np.floating]]


def as_frame(bgr: Picture) -> Frame:
    height, width = bgr.shape[0] // 2 * 2, bgr.shape[1] // 2 * 2
    planes = rgb_to_planes(np.ascontiguousarray(bgr[:height, :width, ::-1]), COLOUR)
    return Frame(planes, 0, Fraction(1, 30), 0, 0.0, COLOUR, Origin("still", (width, height)))


def culane(root: Path) -> Iterator[tuple[Picture, Lines]]:
    for path in sorted(root.glob("*.jpg")):
        rows = path.with_name(path.stem + ".lines.txt").read_text().splitlines()
        yield cv2.imread(str(path)), [np.array(row.split(), float).reshape(-1, 2) for row in rows if row.strip()]


def tusimple(root: Path) -> Iterator[tuple[Picture, Lines]]:
    for path in sorted((root / "image").glob("*.png")):
        labels = cv2.imread(str(root / "gt_image_instance" / path.name), cv2.IMREAD_UNCHANGED)
        lanes = []
        for value in np.unique(labels)[1:]:
            rows = [y for y in range(240, 720, 10) if (labels[y] == value).any()]
            if len(rows) > 5:
                lanes.append(np.array([(np.flatnonzero(labels[y] == value).mean(), y) for y in rows]))
        yield cv2.imread(str(path)), lanes


def own_lane(lanes: Lines, width: int, bottom: float) -> Lines:
    """The nearest lines to the left and right of the middle at the lower edge."""
    ends = [float(np.polyval(np.polyfit(lane[:, 1], lane[:, 0], 1), bottom)) for lane in lanes]
    left = [(end, i) for i, end in enumerate(ends) if end < width / 2]
    right = [(end, i) for i, end in enumerate(ends) if end >= width / 2]
    return [lanes[max(left)[1]]] * bool(left) + [lanes[min(right)[1]]] * bool(right)


def finders(models: Path) -> Iterator[tuple[str, Callable[[], Callable[[Picture, float], tuple[Lines, Any]]]]]:
    yield "Canny + Hough", lambda: lambda bgr, dt_s: (hough_lanes(bgr), None)

    def ours(make: Callable[[], LaneFinder], segmenter: Any) -> Callable[[], Any]:
        def start() -> Callable[[Picture, float], tuple[Lines, Any]]:
            finder = make()

            def find(bgr: Picture, dt_s: float) -> tuple[Lines, Any]:
                frame = as_frame(bgr)
                lanes = finder(frame, segmenter(frame) if segmenter else None, dt_s)
                return [line.points for line in (lanes.left, lanes.right) if line is not None], lanes.road

            return find

        return start

    yield "classical", ours(ClassicalLaneFinder, None)
    for name in NETWORKS:
        segmenter = load_segmenter(models / f"{name}.onnx")
        yield name, ours(lambda names=segmenter.class_names: NetworkLaneFinder(names), segmenter)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    sets = chosen.material / "datasets"
    results: dict[str, dict[str, float]] = {}
    for name, start in finders(chosen.material / "models"):
        row: dict[str, float] = {}
        for mode in ("clip", "single"):
            counts = {0.5: np.zeros(3, int), 0.3: np.zeros(3, int)}
            find = start()
            for index, (picture, truth) in enumerate(culane(sets / "culane")):
                if mode == "single":
                    find = start()
                lines, _ = find(picture, 1.0 if index and mode == "clip" else 0.0)
                for threshold, total in counts.items():
                    total += culane_counts(lines, truth, (picture.shape[1], picture.shape[0]), threshold)
            row |= {f"culane F1@{threshold} {mode}": float(f1(*total)) for threshold, total in counts.items()}
        scores = []
        for picture, truth in tusimple(sets / "tusimple_example6"):
            lines, _ = start()(picture, 0.0)
            own = own_lane(truth, picture.shape[1], picture.shape[0] - 1)
            scores.append((tusimple_accuracy(lines, own)[0], tusimple_accuracy(lines, truth)[0]))
        row["tusimple own"], row["tusimple all"] = np.mean(scores, axis=0).tolist()
        if name in NETWORKS:
            both, either = 0, 0
            for path in sorted((sets / "camvid" / "images").glob("*.png")):
                picture = cv2.imread(str(path))
                _, road = start()(picture, 0.0)
                truth = cv2.imread(str(sets / "camvid" / "labels" / path.name), cv2.IMREAD_UNCHANGED) == 3
                found = cv2.resize(road, truth.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
                counts_both, counts_either = iou(found, truth)
                both, either = both + counts_both, either + counts_either
            row["camvid road IoU"] = both / either
        results[name] = row
        print(name, {key: round(value, 3) for key, value in row.items()}, flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
