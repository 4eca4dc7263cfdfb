"""How far two networks agree on the same pictures; for a network and its smaller copy, where no truth is at hand."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from streamseg.evaluate.instances import Truth, average_precision
from streamseg.evaluate.mattes import jaccard
from streamseg.evaluate.semantic import Confusion
from streamseg.frame import Frame, Output
from streamseg.segment.describe import record
from streamseg.segment.load import Segmenter
from streamseg.segment.result import ClassMap, Matte

__all__ = ["agreement", "coco_scores"]

# What a user would see of the first network counts as true.
_SHOWN_SCORE = 0.25
# As COCO's own evaluation takes them: precision is measured down to here.
_LOWEST_SCORE = 0.001


def agreement(first: Segmenter, second: Segmenter, frames: Iterable[Frame]) -> dict[str, float]:
    """What the second network finds, with the first one's answers for the truth.

    Args:
        first: the network that counts as right.
        second: another one of its kind.
        frames: pictures to look at.

    Returns:
        Of instances ``mask AP`` and ``box AP``, of class maps ``mIoU``, of mattes ``IoU`` of what is at least half
        opaque and ``difference``, the mean one of the opacity. All in [0, 1]; all but the last are 1 for equals.
    """
    records: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    confusion: Confusion | None = None
    ious, differences = [], []
    for segmenter in (first, second):
        segmenter.retune(confidence=_LOWEST_SCORE, iou=0.7)
    for number, frame in enumerate(frames):
        right, found = first(frame), second(frame)
        if isinstance(right, Matte) and isinstance(found, Matte):
            ious.append(jaccard(found.alpha >= 0.5, right.alpha >= 0.5))
            differences.append(float(np.abs(found.alpha - right.alpha).mean()))
        elif isinstance(right, ClassMap) and isinstance(found, ClassMap):
            confusion = confusion or Confusion(right.class_names)
            labels = [seen.probabilities.argmax(axis=0).astype(np.uint8) for seen in (found, right)]
            confusion.add(labels[0], labels[1])
        else:
            for lines, seen in zip(records, (right, found), strict=True):
                lines.append({**record(Output(frame), seen), "source": str(number)})
    if confusion is not None:
        return {"mIoU": confusion.scores()["mIoU"]}
    if ious:
        return {"IoU": float(np.mean(ious)), "difference": float(np.mean(differences))}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "truth.json"
        path.write_text(json.dumps(_as_truth(records[0])), encoding="utf-8")
        truth = Truth(path)
        scores = average_precision(truth, truth.entries(records[1]))
    return {"mask AP": scores["mask"]["AP"], "box AP": scores["box"]["AP"]}


def coco_scores(segmenter: Segmenter, truth: Truth, frames: Iterable[Frame]) -> dict[str, float]:
    """``mask AP`` and ``box AP`` on pictures with COCO's annotations."""
    segmenter.retune(confidence=_LOWEST_SCORE, iou=0.7)
    records = [record(Output(frame), segmenter(frame)) for frame in frames]
    scores = average_precision(truth, truth.entries(records), only=sorted(Path(one["source"]).name for one in records))
    return {"mask AP": scores["mask"]["AP"], "box AP": scores["box"]["AP"]}


def _as_truth(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Records in the form of COCO's annotations."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names: dict[int, str] = {}
    for one in records:
        number = int(one["source"]) + 1
        width, height = one["size_wh"]
        images.append({"id": number, "file_name": one["source"], "width": width, "height": height})
        for seen in one["instances"]:
            names[seen["class_id"] + 1] = seen["class"]
            if seen["score"] < _SHOWN_SCORE:
                continue
            x1, y1, x2, y2 = seen["box_xyxy"]
            annotations.append({
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": seen["class_id"] + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(coco.area(seen["mask"])),
                "segmentation": seen["mask"],
                "iscrowd": 0,
            })  # fmt: skip
    categories = [{"id": key, "name": name} for key, name in names.items()]
    return {"images": images, "annotations": annotations, "categories": categories}
