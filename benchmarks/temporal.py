"""Keyframes and smoothers against segmenting every frame: quality, steadiness, and what they cost in lag.

    python benchmarks/temporal.py --material FOLDER [--model FILE.onnx] [--only MODE]... [--frames 90]
                                  [--json out.json] [--sheet worst.png]

The network runs once per frame; every mode is then replayed on its answers, as deterministically as a file is run. A
frame whose carried matte wants a keyframe gets one; `looked` is the share of frames that the network saw.

J and F: DAVIS-2016 sequences at full size after the guided upsample, scored near the labelled object. IoU: the union
cut at one half against that of every frame segmented, over all frames, and over the carried ones alone. E_warp and
flicker: see streamseg/evaluate/stability.py; `E other` is E_warp by Farneback's flow, which made none of the mattes.
lag, missed and stale: against the network's unsmoothed answer for every frame. ms: time per frame of the mode itself.

    python benchmarks/temporal.py --strip OUT.jpg CLIP FRAME [--model FILE.onnx]

draws a keyframe and the three frames behind it, held, carried forward and carried from both sides (docs/temporal.md).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from edges import COLOUR as DAVIS_COLOUR
from edges import DAVIS, davis
from numpy.typing import NDArray

from streamseg.evaluate.davis import score_masks
from streamseg.evaluate.mattes import jaccard
from streamseg.evaluate.sheet import overlay, write_sheet
from streamseg.evaluate.stability import lateness, steadiness
from streamseg.frame import Frame, Origin
from streamseg.pixels.flow import Flow, flow_wh, small_luma
from streamseg.pixels.guided import guided_upsample
from streamseg.pixels.planes import rgb_to_planes
from streamseg.segment.load import load_segmenter
from streamseg.sources import open_source
from streamseg.temporal import FlowFusion, HalfLife, OneEuro, Propagator, SceneCut, Smoother, Uncertainty

CLIPS = ("person_sam2_juggle.mp4", "portrait_wokada_couple.mp4")
Matte = NDArray[np.float32]


@dataclass
class Clip:
    name: str
    rate: float
    lumas: list[NDArray[np.uint8]]
    mattes: list[Matte]  # of every frame, by the network
    truths: list[NDArray[np.bool_]] | None


@dataclass
class Replay:
    mattes: list[Matte]
    looked: list[bool]
    took_s: float


def every(clip: Clip) -> Replay:
    return Replay(list(clip.mattes), [True] * len(clip.mattes), 0.0)


def hold(n: int) -> Callable[[Clip], Replay]:
    def replay(clip: Clip) -> Replay:
        looked = [k % n == 0 for k in range(len(clip.mattes))]
        return Replay([clip.mattes[k - k % n] for k in range(len(clip.mattes))], looked, 0.0)

    return replay


def keyframes(n: int, *, two_sided: bool, early: bool = True) -> Callable[[Clip], Replay]:
    """Every n-th frame, sooner where `early` and the carried matte wants it."""

    def replay(clip: Clip) -> Replay:
        begun = time.perf_counter()
        propagator = Propagator(two_sided=two_sided, unsure_limit=None if early else float("inf"))
        mattes: list[Matte] = []
        looked: list[bool] = []
        key = 0
        for k, (luma, matte) in enumerate(zip(clip.lumas, clip.mattes, strict=True)):
            age_s = (k - key) / clip.rate
            carried = propagator.carry(luma, age_s) if k and k - key < n else None
            look = carried is None or carried.wants_keyframe
            looked.append(look)
            if look:
                mattes += propagator.keyframe(matte, luma, age_s)
                mattes.append(matte)
                key = k
            elif not two_sided:
                mattes.append(carried.layers)
        mattes += propagator.flush()
        return Replay(mattes, looked, time.perf_counter() - begun)

    return replay


def smoothed(make: Callable[[], Smoother], first: Callable[[Clip], Replay] = every) -> Callable[[Clip], Replay]:
    def replay(clip: Clip) -> Replay:
        before = first(clip)
        begun = time.perf_counter()
        smoother, cut = make(), SceneCut()
        mattes = []
        for luma, matte in zip(clip.lumas, before.mattes, strict=True):
            if cut(luma, 1 / clip.rate):
                smoother.reset()
            mattes.append(smoother(matte, luma, 1 / clip.rate))
        return Replay(mattes, before.looked, before.took_s + time.perf_counter() - begun)

    return replay


MODES: dict[str, Callable[[Clip], Replay]] = {
    "every": every,
    **{f"hold:{n}": hold(n) for n in (2, 3, 4)},
    **{f"keyframes:{n} strict": keyframes(n, two_sided=False, early=False) for n in (3,)},
    **{f"keyframes:{n}": keyframes(n, two_sided=False) for n in (2, 3, 4)},
    **{f"keyframes:{n} two-sided strict": keyframes(n, two_sided=True, early=False) for n in (3,)},
    **{f"keyframes:{n} two-sided": keyframes(n, two_sided=True) for n in (2, 3, 4, 5, 6, 8)},
    "every, uncertainty": smoothed(lambda: Uncertainty(0.15)),
    "every, half-life": smoothed(lambda: HalfLife(0.15)),
    "every, one-euro": smoothed(OneEuro),
    "every, flow": smoothed(FlowFusion),
    "keyframes:3, flow": smoothed(FlowFusion, keyframes(3, two_sided=False)),
    "keyframes:3 two-sided, flow": smoothed(FlowFusion, keyframes(3, two_sided=True)),
    "frozen": lambda clip: Replay([clip.mattes[0]] * len(clip.mattes), [False] * len(clip.mattes), 0.0),
}


def clips(material: Path, model: Path, frames: int) -> Iterator[Clip]:
    segmenter = load_segmenter(model)
    names = segmenter.class_names
    for shown in davis(material / "datasets/davis"):
        keep = frozenset(names.index(name) for name in DAVIS[shown.name])
        lumas, mattes = [], []
        for index, picture in enumerate(shown.pictures):
            origin = Origin(shown.name, (picture.shape[1], picture.shape[0]))
            frame = Frame(rgb_to_planes(picture, DAVIS_COLOUR), index, 0, index, 0.0, DAVIS_COLOUR, origin)
            lumas.append(frame.y)
            mattes.append(segmenter(frame).matte(keep).copy())
        yield Clip(shown.name, shown.rate, lumas, mattes, [alpha > 0 for alpha in shown.alphas])
    for name in CLIPS:
        source = open_source(str(material / "media" / name))
        lumas, mattes = [], []
        while len(lumas) < frames and (frame := source.read()) is not None:
            source.take_packets()
            lumas.append(frame.y.copy())
            mattes.append(segmenter(frame).matte({names.index("person")}).copy())
        rate = float(source.info.rate)
        source.close()
        yield Clip(Path(name).stem, rate, lumas, mattes, None)


def farneback(here: NDArray[np.uint8], there: NDArray[np.uint8]) -> NDArray[np.float32]:
    return cv2.calcOpticalFlowFarneback(here, there, None, 0.5, 4, 15, 3, 5, 1.2, 0)


class Once:
    """A flow that computes each field once: every mode is judged on the same pictures."""

    def __init__(self, flow) -> None:
        self._flow = flow
        self._fields = {}

    def __call__(self, here: NDArray[np.uint8], there: NDArray[np.uint8]) -> NDArray[np.float32]:
        key = (id(here), id(there))
        if key not in self._fields:
            self._fields[key] = self._flow(here, there)
        return self._fields[key]


class Judge:
    """What all modes of a clip are judged by."""

    def __init__(self, clip: Clip) -> None:
        self.size_wh = flow_wh((clip.lumas[0].shape[1], clip.lumas[0].shape[0]))
        self.small = [small_luma(luma, self.size_wh) for luma in clip.lumas]
        self.flow, self.other = Once(Flow()), Once(farneback)


def score(clip: Clip, judge: Judge, replay: Replay) -> tuple[dict[str, float], list[NDArray[np.uint8]]]:
    size_wh, small = judge.size_wh, judge.small
    scaled = [
        [cv2.resize(m, size_wh, interpolation=cv2.INTER_LINEAR) for m in ms] for ms in (replay.mattes, clip.mattes)
    ]
    found, raw = ([np.rint(np.clip(m, 0, 1) * 255).astype(np.uint8) for m in ms] for ms in scaled)
    ious = np.array([jaccard(a > 127, b > 127) for a, b in zip(found, raw, strict=True)])
    carried = ~np.array(replay.looked)
    steady = steadiness(found, small, flow=judge.flow)
    late = lateness(found, raw, [n / clip.rate for n in range(len(found))])
    numbers = {
        "looked": float(np.mean(replay.looked)),
        "IoU": float(ious.mean()),
        "carried": float(ious[carried].mean()) if carried.any() else 1.0,
        "E_warp": steady.warping_error,
        "E other": steadiness(found, small, flow=judge.other).warping_error,
        "flicker": steady.flicker,
        "lag": late.lag_ms,
        "missed": late.missed,
        "stale": late.stale,
        "stale worst": late.stale_worst,
        "ms": 1e3 * replay.took_s / len(found),
    }
    if clip.truths is None:
        return numbers, found
    full = [guided_upsample(matte, luma) for matte, luma in zip(replay.mattes, clip.lumas, strict=True)]
    judged = score_masks(full, clip.truths, only_near=True).summary()
    return {"J": judged["J"], "F": judged["F"], **numbers}, full


def worst_frames(clip: Clip, mode: str, shown: list[NDArray[np.uint8]], count: int = 3):
    reference = clip.truths or [
        cv2.resize(m, shown[0].shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5 for m in clip.mattes
    ]
    order = sorted(range(len(shown)), key=lambda n: jaccard(shown[n] > 127, reference[n]))[:count]
    for n in order:
        picture = small_luma(clip.lumas[n], shown[n].shape[::-1])
        iou = jaccard(shown[n] > 127, reference[n])
        yield f"{clip.name[:16]} {n} {mode} {iou:.3f}", overlay(picture, shown[n] > 127, reference[n])


def draw_strip(out: Path, path: Path, first: int, model: Path) -> None:
    """A keyframe and those behind it: green where every-frame masks agree, red what is left behind, blue what lacks."""
    segmenter, source = load_segmenter(model), open_source(str(path))
    pictures, lumas, mattes = [], [], []
    while len(mattes) < 5 and (frame := source.read()) is not None:
        if frame.index >= first:
            pictures.append(cv2.cvtColor(frame.planes, cv2.COLOR_YUV2BGR_I420))
            lumas.append(frame.y.copy())
            mattes.append(segmenter(frame).matte({segmenter.class_names.index("person")}).copy())
    source.close()
    clip = Clip(path.stem, float(source.info.rate), lumas, mattes, None)
    height, width = lumas[0].shape
    masks = [cv2.resize(matte, (width, height)) > 0.5 for matte in mattes]
    x, y, w, h = cv2.boundingRect(np.any(masks, 0).astype(np.uint8))
    across = slice(max(0, x - w // 6), min(width, x + w + w // 6))
    rows = []
    for name, replay in (
        ("held", hold(4)),
        ("carried forward", keyframes(4, two_sided=False, early=False)),
        ("from both sides", keyframes(4, two_sided=True, early=False)),
    ):
        tiles = []
        for k, matte in enumerate(replay(clip).mattes[:4]):
            found = cv2.resize(matte, (width, height)) > 0.5
            tile = overlay(pictures[k], found, masks[k])[max(0, y - 20) : y + h, across]
            tile = cv2.resize(tile, (210, round(210 * tile.shape[0] / tile.shape[1])), interpolation=cv2.INTER_AREA)
            iou = jaccard(found, masks[k])
            caption = "keyframe" if k == 0 else f"{name}: {iou:.3f}"
            tile = cv2.copyMakeBorder(tile, 20, 4, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))
            cv2.putText(tile, caption, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
            tiles.append(tile)
        rows.append(np.hstack(tiles))
    cv2.imwrite(str(out), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 85])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--only", action="append", default=[], help="this mode; `every` always runs")
    parser.add_argument("--frames", type=int, default=90, help="of each clip without ground truth")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="the worst frames of the last mode given")
    parser.add_argument("--strip", nargs=3, metavar=("OUT.jpg", "CLIP", "FRAME"), help="draw this and nothing else")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.strip:
        out, path, first = args.strip
        draw_strip(Path(out), Path(path), int(first), args.model)
        return 0
    modes = {name: MODES[name] for name in ["every", *(args.only or list(MODES))]}
    results: dict[str, dict[str, dict[str, float]]] = {}
    tiles = []
    for clip in clips(args.material, args.model or args.material / "models/yolov8n-seg.onnx", args.frames):
        results[clip.name] = {}
        print(clip.name, flush=True)
        judge = Judge(clip)
        for mode, replay in modes.items():
            numbers, shown = score(clip, judge, replay(clip))
            results[clip.name][mode] = numbers
            print(f"  {mode:28}" + "".join(f" {name} {value:.4g} " for name, value in numbers.items()), flush=True)
        tiles += worst_frames(clip, mode, shown)
    if args.sheet:
        write_sheet(args.sheet, tiles)
    results["mean"] = {}
    print("mean over the clips (J and F over DAVIS), the worst clip's IoU, and what E_warp gains on every frame raw")
    for mode in modes:
        rows = [scores[mode] for name, scores in results.items() if name != "mean"]
        keys = list(dict.fromkeys(key for row in rows for key in row))
        mean = {key: float(np.mean([row[key] for row in rows if key in row])) for key in keys}
        gains = [1 - s[mode]["E_warp"] / s["every"]["E_warp"] for name, s in results.items() if name != "mean"]
        mean |= {"worst IoU": min(row["IoU"] for row in rows), "worst carried": min(row["carried"] for row in rows)}
        mean |= {"E gain": float(np.mean(gains)), "least E gain": min(gains)}
        results["mean"][mode] = mean
        print(f"  {mode:28}" + "".join(f" {name} {value:.4g} " for name, value in mean.items()), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
