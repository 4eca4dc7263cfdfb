"""Instances against COCO's annotations."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from streamseg.errors import SourceOpenError
from streamseg.libav import reason

__all__ = ["Truth", "average_precision"]

_NEEDED = frozenset({"image_id", "category_id", "area", "bbox"})
_STATS = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "AR1", "AR10", "AR100")


class Truth:
    """Instances in COCO's format.

    Args:
        path: of the annotations' JSON.

    Attributes:
        ids: of the pictures, by file name.
        coco: the annotations as pycocotools holds them.

    Raises:
        SourceOpenError: it cannot be read or is something else.
    """

    def __init__(self, path: Path) -> None:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self.coco = COCO(str(path))
            self.ids = {Path(image["file_name"]).name: image["id"] for image in self.coco.dataset["images"]}
            self._sizes_hw = {i["id"]: [i["height"], i["width"]] for i in self.coco.dataset["images"]}
            self._categories = {entry["name"]: entry["id"] for entry in self.coco.dataset["categories"]}
        except OSError as error:
            raise SourceOpenError(f"cannot read {path}: {reason(error)}") from error
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AssertionError) as error:
            raise SourceOpenError(f"{path} holds no COCO annotations: {error or type(error).__name__}") from error
        for number, found in self.coco.anns.items():
            if not (found.keys() >= _NEEDED and isinstance(found.get("segmentation"), list | dict)):
                raise SourceOpenError(
                    f"{path}: annotation {number} lacks one of segmentation, {', '.join(sorted(_NEEDED))}"
                )

    def entries(self, records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Records of `--results` as COCO's result entries; classes that the annotations do not know are left out.

        Raises:
            SourceOpenError: a record is of a picture without annotations or of another size, or has no instances.
        """
        entries = []
        for record in records:
            name = Path(record["source"]).name
            if name not in self.ids:
                raise SourceOpenError(f"the results are of {name}, of which the annotations know nothing")
            if "instances" not in record:
                raise SourceOpenError(f"the results of {name} hold no instances; run a network that finds some")
            for one in record["instances"]:
                size_hw, true_hw = list(one["mask"]["size"]), self._sizes_hw[self.ids[name]]
                if size_hw != true_hw:
                    raise SourceOpenError(
                        f"the results of {name} are of {size_hw[1]}x{size_hw[0]}, and the annotations of "
                        f"{true_hw[1]}x{true_hw[0]}; run the pictures that were annotated"
                    )
                if one["class"] in self._categories:
                    x1, y1, x2, y2 = one["box_xyxy"]
                    entries.append({
                        "image_id": self.ids[name],
                        "category_id": self._categories[one["class"]],
                        "score": one["score"],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "segmentation": one["mask"],
                    })  # fmt: skip
        return entries


def average_precision(truth: Truth, entries: list[dict[str, Any]], *, only: Iterable[str] = ()) -> dict[str, Any]:
    """COCO's AP and AR of masks and boxes, by pycocotools.

    Args:
        truth: what is there.
        entries: what was found, see `Truth.entries`.
        only: score these pictures, by file name; none takes all of the annotations.

    Returns:
        ``{"mask": {"AP": ..., "AP50": ..., ...}, "box": {...}}``; -1 where there is nothing to score.
    """
    images = [truth.ids[name] for name in only]
    scores: dict[str, Any] = {}
    for name, kind in (("mask", "segm"), ("box", "bbox")):
        with contextlib.redirect_stdout(io.StringIO()):
            if not entries:
                scores[name] = dict.fromkeys(_STATS, 0.0)
                continue
            judge = COCOeval(truth.coco, truth.coco.loadRes(entries), kind)
            if images:
                judge.params.imgIds = images
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        scores[name] = dict(zip(_STATS, map(float, judge.stats), strict=False))
    return scores
