"""How good a matte is, against ground truth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Mask", "boundary_f", "dtssd", "jaccard", "mean_absolute_difference"]

Mask = NDArray[np.bool_]


def jaccard(found: Mask, truth: Mask) -> float:
    """Region similarity J, the intersection over the union of two (H, W) masks; 1 when both are empty.

    Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016.
    """
    union = np.count_nonzero(found | truth)
    return np.count_nonzero(found & truth) / union if union else 1.0


def boundary_f(found: Mask, truth: Mask, tolerance: float = 0.008, region: Mask | None = None) -> float:
    """Contour accuracy F, the harmonic mean of the contours' precision and recall (Perazzi et al., CVPR 2016).

    A contour pixel is right when the other mask's contour passes within `tolerance` of the picture's diagonal.
    1 when neither mask has a contour.

    Args:
        found: (H, W) bool.
        truth: (H, W) bool.
        tolerance: share of the diagonal; the benchmark's is 0.008, which is 8 px at 854x480.
        region: (H, W) bool; contours elsewhere do not count. For truths that label one object among several.
    """
    reach = int(np.ceil(tolerance * np.hypot(*truth.shape)))
    # cv2's ellipse reaches further than a disk.
    across = np.arange(-reach, reach + 1)
    disk = (np.add.outer(across**2, across**2) <= reach**2).astype(np.uint8)
    ours, theirs = _contour(found), _contour(truth)
    if region is not None:
        ours, theirs = ours & region, theirs & region
    count_ours, count_theirs = np.count_nonzero(ours), np.count_nonzero(theirs)
    if not count_ours or not count_theirs:
        return float(count_ours == count_theirs)
    precision = np.count_nonzero(ours & cv2.dilate(theirs.view(np.uint8), disk).view(bool)) / count_ours
    recall = np.count_nonzero(theirs & cv2.dilate(ours.view(np.uint8), disk).view(bool)) / count_theirs
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def mean_absolute_difference(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """MAD of two (H, W) uint8 opacities, in thousandths of full opacity, as matting papers report it."""
    return float(cv2.absdiff(found, truth).mean()) / 255 * 1e3


def dtssd(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Temporal incoherence dtSSD of two (n, H, W) uint8 sequences, n >= 2, in hundredths; lower is steadier.

    Root mean square difference between the two sequences' changes from frame to frame (Erofeev et al., Perceptually
    Motivated Benchmark for Video Matting, BMVC 2015), averaged over the frames.
    """
    if len(found) != len(truth) or len(found) < 2:
        raise ValueError(f"two sequences of equal length of at least 2, not {len(found)} and {len(truth)}")
    errors = []
    for n in range(1, len(found)):
        change = found[n].astype(np.int16) - found[n - 1] - (truth[n].astype(np.int16) - truth[n - 1])
        errors.append(float(np.sqrt(np.mean(np.square(change / 255.0)))))
    return 1e2 * float(np.mean(errors))


def _contour(mask: Mask) -> Mask:
    """Pixels that differ from the next one to the right, below or diagonally."""
    right, below, diagonal = mask.copy(), mask.copy(), mask.copy()
    right[:, :-1] = mask[:, 1:]
    below[:-1] = mask[1:]
    diagonal[:-1, :-1] = mask[1:, 1:]
    edges = (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
    edges[-1, :-1] = (mask ^ right)[-1, :-1]
    edges[:-1, -1] = (mask ^ below)[:-1, -1]
    edges[-1, -1] = False
    return edges
