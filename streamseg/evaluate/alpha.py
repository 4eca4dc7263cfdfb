"""How good opacity is along soft edges, as the matting literature reports it; MAD and dtSSD are in `mattes`.

MSE, Grad and Conn follow Rhemann et al., A Perceptually Motivated Online Benchmark for Image Matting, CVPR 2009, over
the whole picture, in the units of Lin et al., Robust High-Resolution Video Matting with Temporal Guidance, WACV 2022.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane

__all__ = ["connectivity_error", "gradient_error", "mean_squared_error"]

_SIGMA_PX = 1.4
_TAIL = 1e-2
_THRESHOLDS = 10
_FORGIVEN = 0.15


def mean_squared_error(found: Plane, truth: Plane) -> float:
    """MSE of two (H, W) uint8 opacities, in thousandths."""
    return float(np.square(found.astype(np.float32) - truth).mean()) / 255**2 * 1e3


def gradient_error(found: Plane, truth: Plane) -> float:
    """Grad: how edges differ in strength, for two (H, W) uint8 opacities, in thousands.

    The squared difference of the gradients' lengths, summed over the picture; first derivatives of a Gaussian of
    sigma 1.4 px, whose kernel has a unit sum of squares.
    """
    return float(np.square(_gradient(found) - _gradient(truth)).sum()) / 1e3


def _gradient(alpha: Plane) -> NDArray[np.float64]:
    # The kernel ends where the Gaussian has fallen to the tail.
    reach = int(np.ceil(_SIGMA_PX * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * _SIGMA_PX * _TAIL))))
    at = np.arange(-reach, reach + 1, dtype=np.float64)
    bell = np.exp(-(at**2) / (2 * _SIGMA_PX**2))
    slope = -at * bell
    norm = np.sqrt(np.square(bell).sum() * np.square(slope).sum())
    opacity = alpha.astype(np.float64) / 255
    across = cv2.sepFilter2D(opacity, cv2.CV_64F, slope / norm, bell, borderType=cv2.BORDER_REPLICATE)
    down = cv2.sepFilter2D(opacity, cv2.CV_64F, bell, slope / norm, borderType=cv2.BORDER_REPLICATE)
    return np.hypot(across, down)


def connectivity_error(found: Plane, truth: Plane) -> float:
    """Conn: how much floats apart from the subject, for two (H, W) uint8 opacities, in thousands.

    A pixel is connected up to the highest of ten thresholds at which it belongs to the largest region where both are at
    least as opaque; what it has beyond counts from 0.15 on.
    """
    ours, theirs = found.astype(np.float64) / 255, truth.astype(np.float64) / 255
    connected = np.full(ours.shape, -1.0)
    for step in range(1, _THRESHOLDS + 1):
        threshold = step / _THRESHOLDS
        both = ((ours >= threshold) & (theirs >= threshold)).view(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(both, connectivity=4)
        largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()) if count > 1 else -1
        connected[(connected < 0) & (labels != largest)] = (step - 1) / _THRESHOLDS
    connected[connected < 0] = 1.0
    return float(np.abs(_degree(ours, connected) - _degree(theirs, connected)).sum()) / 1e3


def _degree(alpha: NDArray[np.float64], connected: NDArray[np.float64]) -> NDArray[np.float64]:
    beyond = alpha - connected
    return 1 - beyond * (beyond >= _FORGIVEN)
