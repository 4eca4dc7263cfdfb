"""Identities: the builtin tracker against ByteTrack of the package `trackers`, on scenes where they are known.

    python benchmarks/tracking.py [--seeds 11 12 13 14] [--others]
    python benchmarks/tracking.py --pictures COCO_FOLDER MODEL.onnx BACKGROUND.jpg [--save FOLDER]
    python benchmarks/tracking.py --davis DAVIS_FOLDER MODEL.onnx

The first takes a made-up detector's boxes. The second lays cut-outs of COCO's masks over a photograph, as the same
scenes have it, and asks a network. `trackers.eval`, which follows TrackEval, counts HOTA (Luiten et al., 2021), IDF1
(Ristani et al., 2016), MOTA and changes of identity (Bernardin and Stiefelhagen, 2008); only what has a number counts.
The third is of the one object that DAVIS labels in a clip: how many numbers it had where it was detected, and in which
share of those frames the most frequent one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import trackers
import tracking_scenes as drawn
from pycocotools import mask as coco_mask
from trackers import eval as scores

from streamseg.evaluate.davis import clips, truth_of
from streamseg.frame import Colour, Frame, Origin
from streamseg.pixels.planes import rgb_to_planes
from streamseg.segment.load import load_segmenter
from streamseg.sources import open_source
from streamseg.temporal import library_tracks
from streamseg.temporal.library_tracks import LibraryTracker
from streamseg.temporal.tracks import BuiltinTracker, Tracker

CONDITIONS = ("30 a second", "10 a second", "dropped frames", "weak, 30", "weak, 10")
COLOUR = Colour(matrix=1)
# Whole, upright objects in COCO val2017, by the numbers of their annotations.
CUT_OUTS = {
    drawn.PERSON: (1737272, 507246, 471070, 1201866, 1756536, 460884, 503696, 521861),
    drawn.BICYCLE: (125303,),
    drawn.CAR: (345637,),
    drawn.TRUCK: (1797013,),
    drawn.BUS: (345637,),
}

Boxes = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass
class Case:
    """A scene under a condition: of each picture its time, the truth and what was detected."""

    scene: str
    condition: str
    pictures: list[tuple[float, drawn.Truth, Boxes]]


def moments(condition: str, seconds: float, random: np.random.Generator) -> list[int]:
    """Which of thirty pictures a second there are."""
    count = round(seconds * 30)
    if condition.endswith("10") or condition.startswith("10"):
        return list(range(0, count, 3))
    if condition != "dropped frames":
        return list(range(count))
    kept = [0]
    while kept[-1] < count:
        kept.append(kept[-1] + int(random.choice([1, 2, 3, 5, 10], p=[0.4, 0.35, 0.1, 0.1, 0.05])))
    return kept[:-1]


def made_up(seed: int, seconds: float) -> Iterator[Case]:
    """Every scene under every condition, seen by the made-up detector."""
    for scene in drawn.scenes(seed, seconds):
        truths = [drawn.truth(scene, index / 30) for index in range(round(scene.seconds * 30))]
        for number, condition in enumerate(CONDITIONS):
            random = np.random.default_rng([seed, number])
            faults = drawn.WEAK if condition.startswith("weak") else drawn.GOOD
            kept = moments(condition, scene.seconds, random)
            pictures = [
                (at / 30, truths[at], drawn.detected(truths[at], faults, random, (seed, at // 10))) for at in kept
            ]
            yield Case(scene.name, condition, pictures)


def pictured(seed: int, seconds: float, coco: Path, model: str, background: Path, save: Path | None) -> Iterator[Case]:
    """Every scene as pictures, seen by a network, at both rates and with dropped frames."""
    segment = load_segmenter(model, threads=1)
    cut_outs = {kind: [cut_out(coco, number) for number in numbers] for kind, numbers in CUT_OUTS.items()}
    photograph = cv2.resize(cv2.imread(str(background)), drawn.SIZE_WH, interpolation=cv2.INTER_AREA)
    known = list(cut_outs)
    for scene in drawn.scenes(seed, seconds):
        walkers, looks = [], []
        for number, walker in enumerate(scene.walkers):
            look = cut_outs[walker.class_id][number % len(cut_outs[walker.class_id])]
            # Where it goes left, it looks the other way; its outline stays that of the cut-out.
            tall = walker.size_wh[1]
            walkers.append(replace(walker, size_wh=(tall * look.shape[1] / look.shape[0], tall)))
            looks.append(look if number % 2 else look[:, ::-1])
        scene = replace(scene, walkers=tuple(walkers))
        pictures = []
        for index in range(round(scene.seconds * 30)):
            picture = paint(scene, index / 30, looks, photograph)
            planes = rgb_to_planes(picture[:, :, ::-1], COLOUR)
            found = segment(Frame(planes, index, Fraction(1, 30), index, 0.0, COLOUR, Origin("drawn", drawn.SIZE_WH)))
            found = found.pick(np.isin(found.class_ids, known))
            truth = drawn.truth(scene, index / 30)
            pictures.append((index / 30, truth, (found.boxes, found.scores, found.class_ids)))
            if save is not None and index % 60 == 45:
                for box in found.boxes.astype(int).tolist():
                    cv2.rectangle(picture, box[:2], box[2:], (0, 255, 255), 1)
                for box in truth.boxes.astype(int).tolist():
                    cv2.rectangle(picture, box[:2], box[2:], (0, 255, 0), 1)
                save.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(save / f"{scene.name}-{seed}-{index:03d}.png"), picture)
        for number, condition in enumerate(CONDITIONS[:3]):
            kept = moments(condition, scene.seconds, np.random.default_rng([seed, number]))
            yield Case(scene.name, condition, [pictures[at] for at in kept])


def cut_out(coco: Path, annotation: int) -> np.ndarray:
    """(h, w, 4) uint8 BGR and opacity, of one annotation."""
    told = json.loads((coco / "instances.json").read_text())
    (found,) = [each for each in told["annotations"] if each["id"] == annotation]
    (image,) = [each for each in told["images"] if each["id"] == found["image_id"]]
    picture = cv2.imread(str(coco / "images" / image["file_name"]))
    parts = coco_mask.frPyObjects(found["segmentation"], image["height"], image["width"])
    mask = coco_mask.decode(coco_mask.merge(parts))
    ys, xs = np.nonzero(mask)
    whole = np.dstack([picture, mask * np.uint8(255)])
    return whole[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def paint(scene: drawn.Scene, t: float, looks: list[np.ndarray], photograph: np.ndarray) -> np.ndarray:
    """(H, W, 3) BGR; far things first."""
    pan, tilt = scene.turn(t)
    picture = np.roll(photograph, (round(tilt), round(pan)), axis=(0, 1)).astype(np.float32)
    things: list[tuple[float, tuple[float, float, float, float] | None, np.ndarray | None, tuple[float, float]]] = [
        (far, None, None, (left, right)) for left, right, far in scene.poles
    ]
    for walker, look in zip(scene.walkers, looks, strict=True):
        place = drawn.place(scene, walker, t)
        if place is not None:
            things.append((place[0], place[1], look, (0.0, 0.0)))
    for _, box, look, (left, right) in sorted(things, key=lambda each: -each[0]):
        if box is None or look is None:
            picture[:, int(left) : int(right)] = (70, 75, 80)
            continue
        width, height = drawn.SIZE_WH
        if box[2] <= 0 or box[0] >= width or box[3] <= 0 or box[1] >= height:
            continue
        to = np.array([[(box[2] - box[0]) / look.shape[1], 0, box[0]], [0, (box[3] - box[1]) / look.shape[0], box[1]]])
        # Small ones are averaged first, or their edges would crawl.
        shrink = max(1.0, 1 / to[0, 0])
        small = cv2.resize(look, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        to[:, 0] *= look.shape[1] / small.shape[1]
        to[:, 1] *= look.shape[0] / small.shape[0]
        laid = cv2.warpAffine(small, to, drawn.SIZE_WH, flags=cv2.INTER_LINEAR).astype(np.float32)
        opacity = laid[:, :, 3:] / 255
        picture = picture * (1 - opacity) + laid[:, :, :3] * opacity
    return picture.astype(np.uint8)


def play(tracker: Tracker, case: Case) -> tuple[dict, dict, dict, float]:
    """HOTA, CLEAR and identity counts, and milliseconds of CPU time a picture."""
    theirs, ours, overlaps, spent_s, before = [], [], [], 0.0, None
    for t, truth, (boxes, sure, class_ids) in case.pictures:
        began = time.process_time()
        numbers = tracker(boxes, sure, class_ids, 0.0 if before is None else t - before)
        spent_s += time.process_time() - began
        before = t
        told = numbers > 0
        theirs.append(truth.ids)
        ours.append(numbers[told])
        some = len(truth.ids) and told.any()
        overlaps.append(
            scores.box_iou(truth.boxes, boxes[told].astype(np.float64))
            if some
            else np.zeros((len(truth.ids), int(told.sum())))
        )
    counted = _dense(theirs), _dense(ours), overlaps
    return (
        scores.compute_hota_metrics(*counted),
        scores.compute_clear_metrics(*counted),
        scores.compute_identity_metrics(*counted),
        1000 * spent_s / len(case.pictures),
    )


def _dense(lists: list[np.ndarray]) -> list[np.ndarray]:
    known = np.unique(np.concatenate(lists))
    return [np.searchsorted(known, each) for each in lists]


def labelled(davis: Path, model: str) -> None:
    """Of DAVIS's labelled objects: frames in which they were detected, share with one number, numbers in all."""
    segment = load_segmenter(model, threads=1)
    for clip in clips(davis):
        detected = []
        source = open_source(str(clip.pictures))
        for path in clip.masks:
            frame = source.read()
            found = segment(frame)
            found = found.pick(np.isin(found.class_ids, list(CUT_OUTS)))
            ys, xs = np.nonzero(truth_of(path))
            box = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float64)
            overlap = scores.box_iou(box, found.boxes.astype(np.float64))[0] if len(found) else np.zeros(0)
            detected.append((found, int(overlap.argmax()) if overlap.max(initial=0) >= 0.5 else None))
        source.close()
        for name, make in ways(False).items():
            tracker, numbers = make(), []
            for index, (found, which) in enumerate(detected):
                given = tracker(found.boxes, found.scores, found.class_ids, 1 / 25 if index else 0.0)
                if which is not None and index:
                    numbers.append(int(given[which]))
            told = Counter(number for number in numbers if number)
            share = max(told.values(), default=0) / max(1, len(numbers))
            print(f"{clip.name:16s} {name:28s} {len(numbers):4d} frames, {share:.3f} with one of {len(told)} numbers")


def ways(others: bool) -> dict[str, Callable[[], Tracker]]:
    """Every tracker by name; `others` are not to be had by a setting."""
    found: dict[str, Callable[[], Tracker]] = {"builtin": BuiltinTracker, "bytetrack": LibraryTracker}
    if others:
        found["bytetrack, its 30 a second"] = lambda: _library("ByteTrackTracker", rate=30.0, activation=True)
        found["bytetrack, class by class"] = lambda: _by_class(LibraryTracker())
        found["SORT"] = lambda: _library("SORTTracker", activation=True, high=False)
        found["OC-SORT"] = lambda: _library("OCSORTTracker")
        found["BoT-SORT"] = lambda: _library("BoTSORTTracker", activation=True, enable_cmc=False)
        found["C-BIoU"] = lambda: _library("CBIoUTracker", activation=True)
    return found


def _library(
    name: str,
    *,
    rate: float = library_tracks._FRAME_RATE_FPS,
    high: bool = True,
    activation: bool = False,
    **options: object,
) -> Tracker:
    tracker = LibraryTracker()
    thresholds = {"high_conf_det_threshold": 0.4} if high else {}
    if activation:
        thresholds["track_activation_threshold"] = 0.4
    kind = getattr(trackers, name)
    tracker._tracker = kind(frame_rate=rate, minimum_consecutive_frames=2, **thresholds, **options)
    return tracker


def _by_class(tracker: Tracker) -> Tracker:
    """Boxes of different classes never overlap."""
    return lambda boxes, sure, class_ids, dt_s: tracker(boxes + 1e5 * class_ids[:, None], sure, class_ids, dt_s)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each scene")
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--pictures", nargs=3, metavar=("COCO", "MODEL", "BACKGROUND"))
    parser.add_argument("--davis", nargs=2, metavar=("DAVIS", "MODEL"))
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    # One thread: the trackers' CPU time is to be theirs.
    cv2.setNumThreads(1)
    if args.davis:
        labelled(Path(args.davis[0]), args.davis[1])
        return
    chosen = ways(args.others)
    rows = defaultdict(list)
    for seed in args.seeds:
        if args.pictures:
            coco, model, background = args.pictures
            cases = pictured(seed, args.seconds, Path(coco), model, Path(background), args.save)
        else:
            cases = made_up(seed, args.seconds)
        for case in cases:
            for name, make in chosen.items():
                played = play(make(), case)
                for group in (case.scene, case.condition, "all"):
                    rows[group, name].append(played)
    print(f"{'':16s} {'tracker':28s}  HOTA  IDF1  MOTA  switches  ms/picture")
    for group in dict.fromkeys(group for group, _ in rows):
        for name in chosen:
            hota, clear, identity, ms = zip(*rows[group, name], strict=True)
            print(
                f"{group:16s} {name:28s} {scores.aggregate_hota_metrics(hota)['HOTA']:5.3f} "
                f"{scores.aggregate_identity_metrics(identity)['IDF1']:5.3f} "
                f"{scores.aggregate_clear_metrics(clear)['MOTA']:5.3f} "
                f"{scores.aggregate_clear_metrics(clear)['IDSW']:9d} {np.mean(ms):11.2f}"
            )


if __name__ == "__main__":
    main()
