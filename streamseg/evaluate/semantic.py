"""Pixel classes against ground truth: accuracies, IoU and Dice; readers of the usual mask files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.errors import SourceOpenError

__all__ = ["IGNORE", "Confusion", "mask_files", "read_labels", "read_opacity", "read_picture", "read_trimap"]

Labels = NDArray[np.uint8]

IGNORE = 255
_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
# Oxford-IIIT Pet: 1 the animal, 2 the background, 3 what cannot be told.
_TRIMAP = {1: 1, 2: 0, 3: IGNORE}


class Confusion:
    """Counts which class was found where which was true.

    Args:
        class_names: by label; labels from there on, and 255, are left out of the truth.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._names = tuple(class_names)
        self._counts = np.zeros((len(self._names), len(self._names) + 1), np.int64)

    def add(self, found: Labels, truth: Labels) -> None:
        """Count one picture; two (H, W) uint8 label maps. A found label without a name counts as no class."""
        if found.shape != truth.shape:
            raise ValueError(f"found and truth must be of one shape, not {found.shape} and {truth.shape}")
        n = len(self._names)
        judged = truth < n
        pairs = truth[judged].astype(np.int64) * (n + 1) + np.minimum(found[judged], n)
        self._counts += np.bincount(pairs, minlength=n * (n + 1)).reshape(n, n + 1)

    def scores(self) -> dict[str, Any]:
        """PA (pixel accuracy), MPA (its mean over the classes), mIoU, mDice, and both for each class, in [0, 1].

        Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015. A class that is neither true nor
        found anywhere has no score and does not count.
        """
        right = np.diag(self._counts[:, : len(self._names)]).astype(np.float64)
        true = self._counts.sum(axis=1)
        found = self._counts[:, : len(self._names)].sum(axis=0)
        with np.errstate(invalid="ignore"):
            iou, dice, accuracy = right / (true + found - right), 2 * right / (true + found), right / true
        classes = {
            name: {"IoU": float(iou[n]), "Dice": float(dice[n])}
            for n, name in enumerate(self._names)
            if true[n] + found[n]
        }
        return {
            "PA": float(right.sum() / max(1, true.sum())),
            "MPA": _mean(accuracy),
            "mIoU": _mean(iou),
            "mDice": _mean(dice),
            "classes": classes,
        }


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else 0.0


def mask_files(folder: Path) -> dict[str, Path]:
    """The pictures of a folder and below it by their path without its ending, "cats/1" for cats/1.png, in order.

    Hidden files are left out: the Oxford-IIIT Pet archive carries a twin for every trimap, named ._x.png.

    Raises:
        SourceOpenError: there are none.
    """
    files = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    }
    if not files:
        raise SourceOpenError(f"cannot open {folder}: no pictures of masks in it")
    return files


def read_labels(path: Path) -> Labels:
    """A mask file whose pixel values are labels, (H, W) uint8; of palette files the index is taken.

    Raises:
        SourceOpenError: it cannot be read, or is a picture in colour.
    """
    # OpenCV would turn a palette into colours.
    try:
        with av.open(str(path)) as file:
            picture = next(file.decode(video=0))
    except (av.FFmpegError, StopIteration) as error:
        raise SourceOpenError(f"cannot read {path}: no picture") from error
    kind = picture.format.name
    if kind not in ("pal8", "gray", "monob", "monow"):
        raise SourceOpenError(f"{path} holds no labels but a picture of {kind}; use 8-bit grey or palette")
    if kind == "pal8":
        return cast(Labels, picture.to_ndarray()[0])
    values = cast(Labels, picture.to_ndarray(format="gray"))
    return values if kind == "gray" else values // 255


def read_trimap(path: Path) -> Labels:
    """An Oxford-IIIT Pet trimap as labels: 0 background, 1 animal, 255 what is not judged.

    Raises:
        SourceOpenError: it cannot be read or holds other values than 1, 2 and 3.
    """
    values = read_labels(path)
    unknown = sorted(set(np.unique(values).tolist()) - _TRIMAP.keys())
    if unknown:
        raise SourceOpenError(
            f"{path} is no Oxford-IIIT Pet trimap: it holds {unknown[0]}, which is none of 1, 2 and 3"
        )
    table = np.full(256, IGNORE, np.uint8)
    for value, label in _TRIMAP.items():
        table[value] = label
    return table[values]


def read_opacity(path: Path) -> Labels:
    """A grey mask file of 0 to 255, (H, W) uint8.

    Raises:
        SourceOpenError: it cannot be read.
    """
    return _read(path, cv2.IMREAD_GRAYSCALE)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture file as (H, W, 3) uint8 BGR.

    Raises:
        SourceOpenError: it cannot be read.
    """
    return _read(path, cv2.IMREAD_COLOR)


def _read(path: Path, flags: int) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path), flags)
    if picture is None:
        raise SourceOpenError(f"cannot read {path}: no picture that OpenCV knows")
    return picture
