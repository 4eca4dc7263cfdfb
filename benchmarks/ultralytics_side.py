"""The ultralytics side of the comparisons; runs in an interpreter of its own and imports nothing of streamseg.

    PYTHON benchmarks/ultralytics_side.py predict --model M.onnx --pictures FOLDER --out FOLDER [--confidence 0.25] ...

`predict` writes one .npz for each picture: boxes (n, 4) xyxy px, scores, class_ids, and the masks as COCO codes at the
picture's size, made in ultralytics' two ways (`process_mask_native`, and the default `process_mask` scaled to it).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

# The interpreter has no streamseg.
sys.path.append(str(Path(__file__).parent.parent / "streamseg/evaluate"))
from bench_peer import import_ultralytics


def predict(args: argparse.Namespace) -> None:
    ultralytics = import_ultralytics()
    from pycocotools import mask as coco
    from ultralytics.utils import ops

    model = ultralytics.YOLO(str(args.model), task="segment")
    args.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(args.pictures.glob("*.png")):
        picture = cv2.imread(str(path))
        options = {
            "imgsz": args.size, "conf": args.confidence, "iou": args.iou, "max_det": args.max_instances,
            "device": "cpu", "verbose": False, "rect": args.rectangle,
        }  # fmt: skip
        found: dict[str, Any] = {}
        for kind in ("native", "default")[: 1 + args.both]:
            result = model.predict(picture, retina_masks=kind == "native", **options)[0]
            boxes = result.boxes.data.cpu().numpy()
            height, width = picture.shape[:2]
            codes = []
            if result.masks is not None:
                masks = result.masks.data
                if (
                    kind == "default"
                ):  # at the network's scale with its padding; back to the picture as ultralytics does
                    masks = ops.scale_masks(masks[None].float(), (height, width))[0] > 0.5
                for mask in masks.cpu().numpy().astype(np.uint8):
                    codes.append(coco.encode(np.asfortranarray(mask))["counts"].decode("ascii"))
            found |= {
                f"{kind}_boxes": boxes[:, :4], f"{kind}_scores": boxes[:, 4],
                f"{kind}_class_ids": boxes[:, 5].astype(int), f"{kind}_masks": np.array(codes, dtype=np.str_),
            }  # fmt: skip
        np.savez(args.out / f"{path.stem}.npz", size_wh=np.array([picture.shape[1], picture.shape[0]]), **found)
    print(json.dumps({"ultralytics": ultralytics.__version__}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("predict", help="pictures in, detections out")
    command.add_argument("--model", type=Path, required=True)
    command.add_argument("--pictures", type=Path, required=True, help="folder of PNG files")
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--size", type=int, nargs="+", default=[640, 640], help="input height and width")
    command.add_argument("--rectangle", action="store_true", help="dynamic graphs: pad to the next stride only")
    command.add_argument("--confidence", type=float, default=0.25)
    command.add_argument("--iou", type=float, default=0.7)
    command.add_argument("--max-instances", type=int, default=300)
    command.add_argument("--both", action="store_true", help="also the masks of the default process_mask")
    command.set_defaults(run=predict)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
