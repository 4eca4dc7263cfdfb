"""Video mattes against masks for every frame, in the folders of DAVIS."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streamseg.errors import SourceOpenError
from streamseg.evaluate.mattes import Mask, boundary_f, jaccard
from streamseg.evaluate.semantic import mask_files, read_labels
from streamseg.frame import Plane

__all__ = ["Clip", "VideoScore", "clips", "score_masks", "truth_of"]

# With `only_near`, what lies further than this share of the picture's height from the labelled object does not count.
_NEAR = 1 / 16


@dataclass(frozen=True, slots=True)
class Clip:
    """A sequence: its name, the folder of its pictures, and its mask files in the order of the frames."""

    name: str
    pictures: Path
    masks: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class VideoScore:
    """J and boundary F (Perazzi et al., CVPR 2016) of every frame of a clip, in [0, 1]."""

    j: tuple[float, ...]
    f: tuple[float, ...]

    def summary(self) -> dict[str, Any]:
        """Means, the worst values and the index of the frame with the worst J."""
        return {
            "J": float(np.mean(self.j)),
            "F": float(np.mean(self.f)),
            "J worst": min(self.j),
            "F worst": min(self.f),
            "worst frame": int(np.argmin(self.j)),
            "frames": len(self.j),
        }


def clips(root: Path, names: Iterable[str] = ()) -> list[Clip]:
    """The sequences of a DAVIS folder: ``JPEGImages/NAME`` and ``Annotations/NAME``, or below ``480p`` of either.

    Args:
        root: of the data set.
        names: only these; none takes all.

    Raises:
        SourceOpenError: the folders are not there, or a name is not.
    """
    masks, pictures = _below(root, "Annotations"), _below(root, "JPEGImages")
    known = sorted(path.name for path in masks.iterdir() if path.is_dir() and (pictures / path.name).is_dir())
    wanted = list(names) or known
    for name in wanted:
        if name not in known:
            raise SourceOpenError(f"{root} has no sequence {name}; it has {', '.join(known) or 'none'}")
    return [Clip(name, pictures / name, tuple(mask_files(masks / name).values())) for name in wanted]


def _below(root: Path, kind: str) -> Path:
    for folder in (root / kind / "480p", root / kind):
        if folder.is_dir():
            return folder
    raise SourceOpenError(f"{root} is no DAVIS folder: it has no {kind}")


def truth_of(path: Path) -> Mask:
    """The labelled objects of a frame together, (H, W) bool."""
    return read_labels(path) > 0


def score_masks(found: Iterable[Plane], truths: Iterable[Mask], *, only_near: bool = False) -> VideoScore:
    """J and F of opacities, cut at one half.

    Args:
        found: (H, W) uint8 opacity of every frame; a last row or column that padding to even sides added, or that even
            sides left out, does not count.
        truths: (H, W) bool.
        only_near: what lies far from the truth does not count. For sequences where others of the same class stand about
            and are not labelled.

    Raises:
        ValueError: the sizes differ, or there are more of the one than of the other.
    """
    js, fs = [], []
    for opacity, truth in zip(found, truths, strict=True):
        (rows, columns), (true_rows, true_columns) = opacity.shape, truth.shape
        if abs(rows - true_rows) > 1 or abs(columns - true_columns) > 1:
            raise ValueError(f"a matte of {columns}x{rows} for a truth of {true_columns}x{true_rows}")
        rows, columns = min(rows, true_rows), min(columns, true_columns)
        mask, true = opacity[:rows, :columns] > 127, truth[:rows, :columns]
        region = _around(true) if only_near else None
        js.append(jaccard(mask if region is None else mask & region, true))
        fs.append(boundary_f(mask, true, region=region))
    return VideoScore(tuple(js), tuple(fs))


def _around(truth: Mask) -> Mask:
    side = 2 * round(_NEAR * truth.shape[0]) + 1
    return cv2.dilate(truth.view(np.uint8), np.ones((side, side), np.uint8)).view(bool)
