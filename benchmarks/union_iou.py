"""IoU of the people's union with ultralytics' on video, on the same pixels, weights and input shape.

    python benchmarks/union_iou.py --material FOLDER --ultralytics-python PYTHON [--clips GLOB]... [--every 5]

For every n-th frame of the clips: the union of the masks per box as `--results` lists them, and the matte of all
people, scaled up bilinearly and cut at one half, each against the union of ultralytics' person masks
(`process_mask_native`, and the default `process_mask` scaled to the frame). Frames in which neither finds anybody are
left out.

The matte differs on purpose along the picture's border: a box that ends just before it is carried on across it, where
ultralytics leaves a strip of background under people whom the picture cuts off. So the matte is also compared within
the inner 96 % of either side (`matte within`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from coco_parity import ULTRALYTICS_SIDE, decoded
from numpy.typing import NDArray
from pycocotools import mask as coco

from streamseg.segment import Instances, load_segmenter
from streamseg.sources import open_source

PERSON = 0


def unions(seen: Instances) -> dict[str, NDArray[np.bool_]]:
    """(H, W) of the masks, and of the matte."""
    matte = cv2.resize(np.ascontiguousarray(seen.matte([PERSON])), seen.frame_wh, interpolation=cv2.INTER_LINEAR)
    boxes = np.zeros(matte.shape, bool)
    for found, class_id in zip(seen.masks(), seen.class_ids, strict=True):
        if class_id == PERSON:
            (x, y), (rows, columns) = found.offset_xy, found.mask.shape
            boxes[y : y + rows, x : x + columns] |= found.mask.view(bool)
    return {"masks": boxes, "matte": matte >= 0.5}


def theirs(path: Path, kind: str) -> NDArray[np.bool_]:
    with np.load(path) as found:
        columns, rows = found["size_wh"].tolist()
        union = np.zeros((rows, columns), bool)
        for class_id, counts in zip(found[f"{kind}_class_ids"], found[f"{kind}_masks"], strict=True):
            if class_id == PERSON:
                union |= coco.decode({"size": [rows, columns], "counts": str(counts)}).astype(bool)
    return union


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="ONNX file; default models/yolov8n-seg.onnx of the material")
    parser.add_argument("--size", type=int, nargs=2, default=[640, 640], metavar=("H", "W"), help="input of the model")
    parser.add_argument("--ultralytics-python", required=True, help="an interpreter that has ultralytics")
    parser.add_argument("--clips", action="append", help="patterns in the material's media folder")
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--most", type=int, default=60, help="frames of a clip")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = args.model or args.material / "models/yolov8n-seg.onnx"
    segment = load_segmenter(model)
    clips = sorted(path for glob in args.clips or ["portrait_*"] for path in (args.material / "media").glob(glob))
    table: dict[str, dict[str, float]] = {}
    for clip in clips:
        ours: list[dict[str, NDArray[np.bool_]]] = []
        with tempfile.TemporaryDirectory() as scratch:
            pictures, predicted = Path(scratch) / "pictures", Path(scratch) / "predicted"
            pictures.mkdir()
            source = open_source(str(clip))
            while len(ours) < args.most and (frame := source.read()) is not None:
                if frame.index % args.every == 0:
                    cv2.imwrite(str(pictures / f"{len(ours):05}.png"), decoded(frame))
                    seen = segment(frame)
                    assert isinstance(seen, Instances)
                    columns, rows = frame.origin.size_wh
                    ours.append({kind: union[:rows, :columns] for kind, union in unions(seen).items()})
            source.close()
            subprocess.run(
                [args.ultralytics_python, ULTRALYTICS_SIDE, "predict", "--model", model, "--pictures", pictures,
                 "--out", predicted, "--size", *map(str, args.size), "--both"],
                check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            scores: dict[str, list[float]] = {}
            for number, mine in enumerate(ours):
                for kind in ("native", "default"):
                    other = theirs(predicted / f"{number:05}.npz", kind)
                    rows, columns = (round(side * 0.02) for side in other.shape)
                    inner = (slice(rows, -rows), slice(columns, -columns))
                    pairs = {name: (union, other) for name, union in mine.items()}
                    pairs["matte within"] = (mine["matte"][inner], other[inner])
                    for name, (a, b) in pairs.items():
                        if (a | b).any():
                            scores.setdefault(f"{name} / {kind}", []).append(float((a & b).sum() / (a | b).sum()))
        table[clip.name] = {name: float(np.mean(values)) for name, values in scores.items()}
        print(f"{clip.name:40} {len(ours):3} frames  " + "  ".join(f"{k} {v:.4f}" for k, v in table[clip.name].items()))
    means = {name: float(np.mean([row[name] for row in table.values()])) for name in next(iter(table.values()))}
    print(f"{'mean':52}  " + "  ".join(f"{name} {value:.4f}" for name, value in means.items()))
    if args.json:
        args.json.write_text(json.dumps({"clips": table, "mean": means}, indent=2) + "\n")
    return 0 if min(means["masks / native"], means["matte within / native"]) >= 0.99 else 1


if __name__ == "__main__":
    sys.exit(main())
