"""A segmentation as a record for JSON, with masks as COCO's run-length codes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from streamseg.frame import Output
from streamseg.segment.result import CarriedInstances, Instances, Segmentation

__all__ = ["encode_mask", "head", "record", "run_lengths"]


def head(output: Output) -> dict[str, Any]:
    """Which frame it is: `source` (name), `size_wh` before padding, `index`, `pts`, `time_s`."""
    frame = output.frame
    return {
        "source": frame.origin.name,
        "size_wh": list(frame.origin.size_wh),
        "index": frame.index,
        "pts": frame.pts,
        "time_s": round(frame.seconds, 6),
    }


def record(output: Output, seen: Segmentation | None, tracks: NDArray[np.int64] | None = None) -> dict[str, Any]:
    """What was seen in one frame; every size, box and mask refers to the picture before padding.

    Keys: those of `head`, and of what the network gives either `instances`, a list of `class`, `class_id`, `score`,
    `box_xyxy`, `mask` and, where it has a number, `track`; or `coverage` (the share of the picture, 0 to 1) and `mask`,
    the pixels that are at least half opaque. `carried` is there where the network did not look at this very frame, and
    its instances of an earlier one were carried here. A mask is {"size": [h, w], "counts": text}, as pycocotools reads
    it.

    Args:
        output: what was made of the frame.
        seen: in it.
        tracks: (n,) numbers of its instances; 0 for none.
    """
    found, size_wh = head(output), output.frame.origin.size_wh
    if isinstance(seen, Instances | CarriedInstances):
        if isinstance(seen, CarriedInstances):
            found["carried"] = True
        found["instances"] = _instances(seen, size_wh)
        for one, track in zip(found["instances"], [] if tracks is None else tracks.tolist(), strict=False):
            if track:
                one["track"] = track
    elif seen is not None:
        alpha = cv2.resize(seen.matte(), seen.frame_wh, interpolation=cv2.INTER_LINEAR)[: size_wh[1], : size_wh[0]]
        found["coverage"] = round(float(alpha.mean()), 6)
        found["mask"] = encode_mask(np.greater_equal(alpha, 0.5).view(np.uint8), (0, 0), size_wh)
    return found


def _instances(seen: Instances | CarriedInstances, size_wh: tuple[int, int]) -> list[dict[str, Any]]:
    boxes = np.clip(seen.boxes.astype(np.float64), 0, np.array(size_wh * 2))
    return [
        {
            "class": seen.class_names[class_id],
            "class_id": class_id,
            "score": round(score, 6),
            "box_xyxy": [round(side, 3) for side in box],
            "mask": encode_mask(found.mask, found.offset_xy, size_wh),
        }
        for class_id, score, box, found in zip(
            seen.class_ids.tolist(), seen.scores.tolist(), boxes.tolist(), seen.masks(), strict=True
        )
    ]


def encode_mask(mask: NDArray[np.uint8], offset_xy: tuple[int, int], size_wh: tuple[int, int]) -> dict[str, Any]:
    """COCO's compressed code of a picture that is empty but for `mask`.

    Args:
        mask: (h, w) uint8 of 0 and 1; what stands out of the picture is left out.
        offset_xy: where its first pixel lies, not negative.
        size_wh: of the picture.
    """
    width, height = size_wh
    counts = run_lengths(mask, offset_xy, size_wh)
    code = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def run_lengths(mask: NDArray[np.uint8], offset_xy: tuple[int, int], size_wh: tuple[int, int]) -> list[int]:
    """Lengths of the runs of 0 and 1 in turns, down the columns, beginning with 0; the picture itself is never made.

    >>> run_lengths(np.array([[1, 1], [0, 1]], np.uint8), (1, 0), (3, 2))
    [2, 1, 1, 2]
    """
    width, height = size_wh
    x, y = offset_xy
    columns = mask[: max(0, height - y), : max(0, width - x)].T
    if not columns.any():
        return [width * height]
    # A step up begins a run and a step down ends it; beyond its rows the mask is 0.
    steps = np.zeros((columns.shape[0], columns.shape[1] + 1), np.int8)
    steps[:, :-1] = columns
    steps[:, 1:] -= columns.view(np.int8)
    column, row = np.nonzero(steps)
    ends = (column + x) * height + row + y
    # Where a run goes on at the top of the next column, its end is the next one's beginning: both fall away.
    joined = np.flatnonzero(ends[1:] == ends[:-1])
    ends = np.delete(ends, np.concatenate([joined, joined + 1]))
    counts = np.diff(ends, prepend=0).tolist()
    rest = width * height - int(ends[-1])
    return [*counts, rest] if rest else counts
