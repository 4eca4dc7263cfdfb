"""How good the masks of a benchmark's contestants are: against every-frame masks, or against a DAVIS folder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamseg.evaluate.bench import BenchError, Contestant, run_once
from streamseg.evaluate.davis import Clip, score_masks, truth_of
from streamseg.evaluate.mattes import jaccard
from streamseg.evaluate.semantic import read_opacity
from streamseg.frame import Plane

__all__ = ["opacities", "truth_score", "union_iou"]


def opacities(contestant: Contestant) -> list[Plane]:
    """(H, W) uint8 of every frame of the contestant's clip.

    Raises:
        StreamsegError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="streamseg-bench-") as folder:
        command = [*contestant.commands[0], *(word.replace("{}", folder) for word in contestant.masks)]
        run_once(contestant.name, command)
        return [read_opacity(path) for path in sorted(Path(folder).glob("*.png"))]


def union_iou(found: Sequence[Plane], reference: Sequence[Plane], name: str) -> tuple[float, float]:
    """IoU of two sequences cut at one half: the mean over the frames, and the worst.

    Raises:
        BenchError: `name` gave more or fewer frames than the reference.
    """
    if len(found) != len(reference):
        raise BenchError(f"{name} gave {len(found)} frames of {len(reference)}")
    each = [jaccard(a > 127, b > 127) for a, b in zip(found, reference, strict=True)]
    return float(np.mean(each)), min(each)


def truth_score(found: Sequence[Plane], clip: Clip, name: str) -> tuple[float, float]:
    """Mean J and boundary F near the labelled objects of a sequence, whose bystanders are not labelled.

    Raises:
        BenchError: `name` gave more or fewer frames than there are masks.
    """
    if len(found) != len(clip.masks):
        raise BenchError(f"{name} gave {len(found)} frames of {len(clip.masks)}")
    score = score_masks(found, map(truth_of, clip.masks), only_near=True).summary()
    return score["J"], score["F"]
