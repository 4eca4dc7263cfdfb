"""Mask and box AP of streamseg's results against ultralytics' own predictions, on the same pixels and weights.

    python benchmarks/coco_parity.py --material FOLDER --ultralytics-python PYTHON [--results FILE.jsonl] [--json OUT]

Both sides see what the planes decode to: every photograph goes through streamseg's picture source into planar YUV, and
the planes are turned back into the RGB that ultralytics is given, without the padding to even sides, which streamseg's
network does not see either. Confidence .001, IoU .7, at most 300, a single label per box.
Ultralytics' masks are those of `process_mask_native` (retina_masks=True), which its own validator uses for COCO; the
default `process_mask` is reported beside it. Without `--results` streamseg's segmenter runs here; with it, the file is
one that this wrote:

    streamseg run FOLDER/datasets/coco_val/images -o null: --background none --model yolov8n-seg.onnx \\
        --set model.confidence=0.001 --results FILE.jsonl
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from streamseg.frame import Frame, Output
from streamseg.pixels.letterbox import rgb_from_yuv_matrix
from streamseg.segment import load_segmenter
from streamseg.segment.describe import record
from streamseg.sources import open_source

# YOLO's 80 classes in the numbering of COCO's 90.
CATEGORIES = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
ULTRALYTICS_SIDE = Path(__file__).with_name("ultralytics_side.py")


def frames(folder: Path) -> Iterable[Frame]:
    source = open_source(str(folder))
    try:
        while (frame := source.read()) is not None:
            yield frame
    finally:
        source.close()


def decoded(frame: Frame) -> NDArray[np.uint8]:
    """The picture as (H, W, 3) uint8 BGR: chroma scaled up bilinearly, the frame's own matrix and range."""
    size_wh = (frame.width, frame.height)
    chroma = [cv2.resize(plane, size_wh, interpolation=cv2.INTER_LINEAR) for plane in (frame.u, frame.v)]
    yuv = cv2.merge([frame.y, *chroma]).astype(np.float32)
    rgb = cv2.transform(yuv, rgb_from_yuv_matrix(frame.colour, frame.height))
    bgr = np.rint(np.clip(rgb[..., ::-1], 0, 255)).astype(np.uint8)
    width, height = frame.origin.size_wh
    return np.ascontiguousarray(bgr[:height, :width])


def ours(results: Iterable[dict[str, Any]], image_ids: dict[str, int]) -> list[dict[str, Any]]:
    return [
        entry(image_ids[Path(line["source"]).name], one["class_id"], one["score"], one["box_xyxy"], one["mask"])
        for line in results
        for one in line["instances"]
    ]


def entry(image_id: int, class_id: int, score: float, box: Iterable[float], mask: dict[str, Any]) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(side) for side in box)
    return {
        "image_id": image_id,
        "category_id": CATEGORIES[class_id],
        "score": float(score),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "segmentation": mask,
    }


def theirs(folder: Path, kind: str, image_ids: dict[str, int]) -> list[dict[str, Any]]:
    entries = []
    for name, image_id in image_ids.items():
        with np.load(folder / f"{Path(name).stem}.npz") as found:
            columns, rows = found["size_wh"].tolist()
            for box, score, class_id, counts in zip(
                found[f"{kind}_boxes"],
                found[f"{kind}_scores"],
                found[f"{kind}_class_ids"],
                found[f"{kind}_masks"],
                strict=True,
            ):
                code = {"size": [rows, columns], "counts": str(counts)}
                entries.append(entry(image_id, int(class_id), score, box, code))
    return entries


def average_precision(truth: COCO, entries: list[dict[str, Any]], kind: str) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(truth, truth.loadRes(entries), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return {"AP": float(judge.stats[0]), "AP50": float(judge.stats[1])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True, help="folder with datasets/coco_val and models")
    parser.add_argument("--model", type=Path, help="ONNX file; default models/yolov8n-seg.onnx of the material")
    parser.add_argument("--ultralytics-python", required=True, help="an interpreter that has ultralytics")
    parser.add_argument("--results", type=Path, help="lines written by `streamseg run --results`")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    images = args.material / "datasets/coco_val/images"
    model = args.model or args.material / "models/yolov8n-seg.onnx"
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(args.material / "datasets/coco_val/instances.json"))
    image_ids = {image["file_name"]: image["id"] for image in truth.dataset["images"]}

    with tempfile.TemporaryDirectory() as scratch:
        pictures, predicted = Path(scratch) / "pictures", Path(scratch) / "predicted"
        pictures.mkdir()
        lines = []
        segment = None if args.results else load_segmenter(model, confidence=0.001, iou=0.7, max_instances=300)
        for frame in frames(images):
            cv2.imwrite(str(pictures / f"{Path(frame.origin.name).stem}.png"), decoded(frame))
            if segment is not None:
                lines.append(record(Output(frame), segment(frame)))
        if args.results:
            lines = [json.loads(line) for line in args.results.read_text().splitlines()]
        subprocess.run(
            [args.ultralytics_python, ULTRALYTICS_SIDE, "predict", "--model", model, "--pictures", pictures,
             "--out", predicted, "--confidence", "0.001", "--both"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        sides = {
            "streamseg": ours(lines, image_ids),
            "ultralytics, native masks": theirs(predicted, "native", image_ids),
            "ultralytics, default masks": theirs(predicted, "default", image_ids),
        }
    scores = {
        name: {kind: average_precision(truth, entries, kind) for kind in ("segm", "bbox")} | {"instances": len(entries)}
        for name, entries in sides.items()
    }
    for name, score in scores.items():
        print(
            f"{name:28} mask AP {score['segm']['AP']:.4f} AP50 {score['segm']['AP50']:.4f}   "
            f"box AP {score['bbox']['AP']:.4f} AP50 {score['bbox']['AP50']:.4f}   {score['instances']} instances"
        )
    gaps = {
        kind: scores["streamseg"][kind]["AP"] - scores["ultralytics, native masks"][kind]["AP"]
        for kind in ("segm", "bbox")
    }
    passed = all(abs(gap) <= 0.003 for gap in gaps.values())
    print(f"difference: mask {gaps['segm']:+.4f}, box {gaps['bbox']:+.4f} ({'within' if passed else 'beyond'} 0.003)")
    if args.json:
        args.json.write_text(json.dumps({"scores": scores, "difference": gaps}, indent=2) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
