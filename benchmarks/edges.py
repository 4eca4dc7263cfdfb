"""Edges on ground truth: guided against plain upsampling, smoothing on against off.

    python benchmarks/edges.py --material FOLDER [--model FILE.onnx] [--set edges.radius=0.01]... [--json out.json]

DAVIS-2016 sequences (hand-drawn masks; scored near the labelled object, because people in the background are not
labelled), and clips with a known alpha: people cut out of COCO photographs along their annotated outlines and moved
over other photographs, so that every pixel's opacity is known. J and boundary F of the opacity >= 1/2, MAD and dtSSD of
the opacity itself. The network runs once per frame; the four variants share its answer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from streamseg.app import background_edges, background_smoother
from streamseg.config import Settings, load_settings
from streamseg.effects import Background
from streamseg.evaluate.mattes import boundary_f, dtssd, jaccard, mean_absolute_difference
from streamseg.frame import Colour, Frame, Origin
from streamseg.pixels.planes import coarse_luma, rgb_to_planes
from streamseg.segment.load import load_segmenter
from streamseg.segment.result import Matte
from streamseg.temporal import SceneCut

COLOUR = Colour(full_range=True, matrix=6)
DAVIS = {"dance-twirl": ("person",), "scooter-black": ("person", "motorcycle"), "car-shadow": ("car",)}
VARIANTS = {
    "guided, smoothed": ("guided", "uncertainty"),
    "guided, raw": ("guided", "none"),
    "plain, smoothed": ("plain", "uncertainty"),
    "plain, raw": ("plain", "none"),
}


@dataclass
class Clip:
    name: str
    keep: tuple[str, ...]
    rate: float
    pictures: list[NDArray[np.uint8]]  # (H, W, 3) RGB
    alphas: list[NDArray[np.uint8]]  # (H, W)
    near: bool


def davis(root: Path) -> Iterator[Clip]:
    for name, keep in DAVIS.items():
        pictures, alphas = [], []
        for path in sorted((root / "JPEGImages" / name).glob("*.jpg")):
            picture = cv2.imread(str(path))[..., ::-1]
            truth = cv2.imread(str(root / "Annotations" / name / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
            height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
            pictures.append(np.ascontiguousarray(picture[:height, :width]))
            alphas.append(np.where(truth[:height, :width] > 0, 255, 0).astype(np.uint8))
        yield Clip(name, keep, 24.0, pictures, alphas, near=True)


def known_alpha(material: Path, clips: int = 4, frames: int = 45) -> Iterator[Clip]:
    """People of COCO moved over other photographs; the outlines are the annotators', the opacity is exact."""
    coco = COCO(str(material / "datasets/coco_val/instances.json"))
    person = coco.getCatIds(["person"])
    ids = [a for a in coco.loadAnns(coco.getAnnIds(catIds=person, iscrowd=False)) if a["area"] > 40_000]
    ids.sort(key=lambda a: -a["area"])
    rooms = sorted((material / "media/backgrounds").glob("*.jpg"))
    for number, annotation in enumerate(ids[:clips]):
        image = coco.loadImgs(annotation["image_id"])[0]
        photo = cv2.imread(str(material / "datasets/coco_val/images" / image["file_name"]))[..., ::-1]
        # A lens and a sensor soften an edge over about two pixels.
        outline = cv2.GaussianBlur(coco.annToMask(annotation) * 255, (0, 0), 1.2)
        room = cv2.resize(cv2.imread(str(rooms[number % len(rooms)]))[..., ::-1], (960, 540))
        x, y, w, h = annotation["bbox"]
        pictures, alphas = [], []
        for n in range(frames):
            t = n / 30
            scale = 430 / h * (1 + 0.03 * np.sin(2 * np.pi * 0.4 * t))
            shift = (480 + 120 * np.sin(2 * np.pi * 0.5 * t), 300 + 12 * np.sin(2 * np.pi * 0.9 * t))
            matrix = np.array([[scale, 0, shift[0] - scale * (x + w / 2)], [0, scale, shift[1] - scale * (y + h / 2)]])
            subject = cv2.warpAffine(photo, matrix, (960, 540), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
            alpha = cv2.warpAffine(outline, matrix, (960, 540))
            share = alpha[..., None] / 255
            mixed = np.rint(share * subject + (1 - share) * room).astype(np.uint8)
            noise = np.random.default_rng(n).normal(0, 2, mixed.shape)
            pictures.append(np.clip(mixed + noise, 0, 255).astype(np.uint8))
            alphas.append(alpha)
        yield Clip(f"known alpha {number + 1}", ("person",), 30.0, pictures, alphas, near=False)


def score(clip: Clip, segmenter, settings: Settings) -> dict[str, dict[str, float]]:
    keep = frozenset(segmenter.class_names.index(name) for name in clip.keep)
    frames, mattes = [], []
    for index, picture in enumerate(clip.pictures):
        size_wh = (picture.shape[1], picture.shape[0])
        planes = rgb_to_planes(picture, COLOUR)
        frame = Frame(planes, index, Fraction(1, int(clip.rate)), index, 0.0, COLOUR, Origin(clip.name, size_wh))
        frames.append(frame)
        mattes.append(segmenter(frame).matte(keep))
    scores = {}
    for variant, (mode, smoother_name) in VARIANTS.items():
        tree = settings.model_dump()
        tree["edges"]["mode"], tree["temporal"]["smoother"] = mode, smoother_name
        chosen = Settings.model_validate(tree)
        effect, smoother, cut = Background(None, background_edges(chosen)), background_smoother(chosen), SceneCut()
        found, j, f, tight, mad = [], [], [], [], []
        for frame, raw, truth in zip(frames, mattes, clip.alphas, strict=True):
            matte = raw
            if smoother is not None:
                if cut(coarse_luma(frame), 1 / clip.rate):
                    smoother.reset()
                matte = smoother(raw, coarse_luma(frame), 1 / clip.rate)
            alpha = effect.opacity(frame, Matte(matte, (frame.width, frame.height)).matte(None))
            region = cv2.dilate(truth, np.ones((61, 61), np.uint8)) > 0 if clip.near else np.ones_like(truth, bool)
            found.append(np.where(region, alpha, 0).astype(np.uint8))
            j.append(jaccard((alpha > 127) & region, truth > 127))
            f.append(boundary_f(alpha > 127, truth > 127, region=region))
            tight.append(boundary_f(alpha > 127, truth > 127, 0.003, region))
            mad.append(mean_absolute_difference(found[-1], truth))
        scores[variant] = {
            "J": float(np.mean(j)),
            "F": float(np.mean(f)),
            "F, tight": float(np.mean(tight)),
            "MAD": float(np.mean(mad)),
            "dtSSD": dtssd(np.stack(found), np.stack(clip.alphas)),
        }  # fmt: skip
    return scores


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--every", type=int, default=1, help="only every N-th frame of DAVIS (quick look)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    settings = load_settings(None, args.set)
    segmenter = load_segmenter(args.model or args.material / "models/yolov8n-seg.onnx")
    results = {}
    for clip in (*davis(args.material / "datasets/davis"), *known_alpha(args.material)):
        results[clip.name] = score(clip, segmenter, settings)
        print(clip.name, flush=True)
        for variant, numbers in results[clip.name].items():
            print(f"  {variant:18}" + "".join(f"  {name} {value:7.3f}" for name, value in numbers.items()), flush=True)
    print("mean")
    for variant in VARIANTS:
        means = {
            name: float(np.mean([scores[variant][name] for clip, scores in results.items() if clip != "mean"]))
            for name in next(iter(results.values()))[variant]
        }
        results.setdefault("mean", {})[variant] = means
        print(f"  {variant:18}" + "".join(f"  {name} {value:7.3f}" for name, value in means.items()))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
