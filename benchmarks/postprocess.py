"""Masks from prototypes: streamseg's against ultralytics' `process_mask_native` and default `process_mask`.

    PYTHONPATH=. PYTHON benchmarks/postprocess.py --material FOLDER [--instances 20] [--size 1920 1080] [--json OUT]

PYTHON has ultralytics, torch and streamseg's dependencies (onnxruntime, opencv, onnx). The network runs once on
photographs scaled to the frame's size; of those with enough predictions above .05 two are taken, the surest one and the
one with the largest boxes. All three make masks of the very same boxes, coefficients and prototypes, in turns, warmed
up. `process_mask_native` gives a stack at the frame's size, `process_mask` one at the network's, streamseg's a region
at the frame's size for each box. IoU is taken with the native masks at the frame's size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics_side import import_ultralytics

ultralytics = import_ultralytics()

import cv2  # noqa: E402
import torch  # noqa: E402
from ultralytics.utils import ops  # noqa: E402

from streamseg.frame import Colour, Frame, Origin  # noqa: E402
from streamseg.pixels.planes import rgb_to_planes  # noqa: E402
from streamseg.segment import Instances, load_segmenter  # noqa: E402


def frame_of(path: Path, size_wh: tuple[int, int]) -> Frame:
    rgb = cv2.resize(cv2.imread(str(path)), size_wh, interpolation=cv2.INTER_CUBIC)[..., ::-1]
    planes = rgb_to_planes(np.ascontiguousarray(rgb), Colour(matrix=1))
    return Frame(planes, 0, Fraction(1), 0, 0.0, Colour(matrix=1), Origin(path.name, size_wh))


def crowds(material: Path, size_wh: tuple[int, int], count: int) -> dict[str, tuple[Instances, str]]:
    """Photographs with `count` predictions: the one whose weakest is surest, and the one with the largest boxes."""
    segment = load_segmenter(material / "models/yolov8n-seg.onnx", confidence=0.05, iou=0.5, max_instances=count)
    found: list[tuple[Instances, str]] = []
    for path in sorted((material / "datasets/coco_val/images").glob("*.jpg")):
        seen = segment(frame_of(path, size_wh))
        if isinstance(seen, Instances) and len(seen) == count:
            found.append((seen, path.name))
    if not found:
        raise SystemExit(f"no photograph has {count} objects; ask for fewer with --instances")
    return {
        "surest": max(found, key=lambda pair: float(pair[0].scores[-1])),
        "largest boxes": max(found, key=lambda pair: share(pair[0])),
    }


def share(seen: Instances) -> float:
    """The mean box's share of the frame."""
    sides = seen.boxes[:, 2:] - seen.boxes[:, :2]
    return float(np.prod(sides, axis=1).mean() / (seen.frame_wh[0] * seen.frame_wh[1]))


def turns(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 3):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if number >= 3:
                times[name].append((time.perf_counter() - start) * 1000)
    return times


def compare(seen: Instances, photograph: str, rounds: int) -> dict[str, Any]:
    place = seen.placement
    width, height = seen.frame_wh

    prototypes = torch.from_numpy(seen.prototypes)
    coefficients = torch.from_numpy(seen.coefficients)
    boxes = torch.from_numpy(seen.boxes)
    scale, offset = np.array(place.scale_xy * 2), np.array((place.left, place.top) * 2)
    input_boxes = torch.from_numpy((seen.boxes * scale + offset).astype(np.float32))
    shape, input_shape = (height, width), place.input_wh[::-1]

    def native() -> Any:
        return ops.process_mask_native(prototypes, coefficients, boxes.clone(), shape)

    def default() -> Any:
        return ops.process_mask(prototypes, coefficients, input_boxes.clone(), input_shape, upsample=True)

    with torch.inference_mode():
        times = turns({"streamseg": seen.masks, "native": native, "default": default}, rounds)
        stack = native().numpy().astype(bool)
        at_input = ops.scale_masks(default()[None].float(), shape)[0].numpy() > 0.5
    overlaps, default_overlaps = [], []
    for found, full, other in zip(seen.masks(), stack, at_input, strict=True):
        (x, y), (rows, columns) = found.offset_xy, found.mask.shape
        mine = np.zeros(shape, bool)
        mine[y : y + rows, x : x + columns] = found.mask
        overlaps.append((mine & full).sum() / max(1, (mine | full).sum()))
        default_overlaps.append((mine & other).sum() / max(1, (mine | other).sum()))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "photograph": photograph,
        "frame_wh": [width, height],
        "instances": len(seen),
        "mean box, share of the frame": share(seen),
        "ms": medians,
        "native / streamseg": medians["native"] / medians["streamseg"],
        "default / streamseg": medians["default"] / medians["streamseg"],
        "mean IoU with native": float(np.mean(overlaps)),
        "least IoU with native": float(np.min(overlaps)),
        "mean IoU with default": float(np.mean(default_overlaps)),
        "bytes": {"streamseg": sum(found.mask.nbytes for found in seen.masks()), "native": stack.nbytes},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=2, default=[1920, 1080], metavar=("W", "H"), help="of the frame")
    parser.add_argument("--instances", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--torch-threads", type=int, help="default: torch's own choice")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.torch_threads:
        torch.set_num_threads(args.torch_threads)
    reports = {
        name: compare(seen, photograph, args.rounds)
        for name, (seen, photograph) in crowds(args.material, tuple(args.size), args.instances).items()
    }
    whole = {
        "cases": reports,
        "threads": {"torch": torch.get_num_threads(), "opencv": cv2.getNumThreads()},
        "ultralytics": ultralytics.__version__,
    }
    print(json.dumps(whole, indent=2))
    if args.json:
        args.json.write_text(json.dumps(whole, indent=2) + "\n")
    passed = all(
        report["native / streamseg"] >= 10
        and report["default / streamseg"] > 1
        and report["mean IoU with native"] >= 0.99
        for report in reports.values()
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
