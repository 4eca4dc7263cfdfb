"""How steady mattes are, and what the steadiness costs, without ground truth.

Steadiness alone is no merit: a matte that never changes has no flicker at all. So figures for steadiness are read
beside those for lateness, and a frozen matte fails there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane
from streamseg.pixels.flow import Field, Flow, Warp, flow_wh, residual, small_luma

__all__ = ["Lateness", "Steadiness", "lateness", "steadiness"]

# A pixel whose surroundings change by less than this many levels stands still.
_STILL_LEVELS = 3.0
# What times that ought to be equal may differ by.
_TICK_S = 1e-6
# A change that a matte has not followed after this is missed.
_WITHIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Steadiness:
    """Lower is steadier.

    Attributes:
        warping_error: mean squared change of opacity along the flow where nothing is occluded, in 1e-3 of full opacity
            squared (E_warp of Lai et al., Learning Blind Video Temporal Consistency, ECCV 2018).
        flicker: mean absolute change of opacity from frame to frame where the picture stands still, in 1e-3 of full
            opacity.
        worst_frame: index of the frame with the largest warping error.
    """

    warping_error: float
    flicker: float
    worst_frame: int


@dataclass(frozen=True, slots=True)
class Lateness:
    """What a matte owes to motion, against a reference without memory.

    Attributes:
        lag_ms: mean time until the matte follows a pixel that the reference changed for good.
        missed: share of such changes that it did not follow in time; they count with the whole time.
        stale: share of the subject's area that the reference left `settle_s` ago and earlier, mean over the frames.
        stale_worst: of the worst frame.
    """

    lag_ms: float
    missed: float
    stale: float
    stale_worst: float


def steadiness(
    mattes: Sequence[Plane], lumas: Sequence[Plane], *, flow: Callable[[Plane, Plane], Field] | None = None
) -> Steadiness:
    """Warping error and flicker of a clip.

    Args:
        mattes: n of (H, W) uint8 opacity, n >= 2.
        lumas: the pictures' lumas, (H', W') uint8 each, of the same shape of picture.
        flow: another `pixels.flow.Flow`, for an opinion that does not depend on the flow that made the mattes.

    Raises:
        ValueError: fewer than two frames, or not as many of the one as of the other.
    """
    if len(mattes) != len(lumas) or len(mattes) < 2:
        raise ValueError(f"as many mattes as lumas and at least 2, not {len(mattes)} and {len(lumas)}")
    errors, flickers = [], []
    for error, flicker in _changes(mattes, lumas, flow or Flow()):
        errors.append(error)
        flickers.append(flicker)
    return Steadiness(1e3 * float(np.mean(errors)), 1e3 * float(np.mean(flickers)), 1 + int(np.argmax(errors)))


def _changes(
    mattes: Sequence[Plane], lumas: Sequence[Plane], flow: Callable[[Plane, Plane], Field]
) -> Iterator[tuple[float, float]]:
    height, width = lumas[0].shape
    size_wh = flow_wh((width, height))
    warp = Warp(size_wh)
    before: tuple[Plane, NDArray[np.float32]] | None = None
    for matte, luma in zip(mattes, lumas, strict=True):
        small = small_luma(luma, size_wh)
        opacity = cv2.resize(matte, size_wh, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        if before is not None:
            there, was = before
            forward, backward = flow(small, there), flow(there, small)
            seen = _seen_before(forward, warp(backward, forward))
            change = np.square(opacity - warp(was, forward))
            still = residual(small, there) < _STILL_LEVELS
            yield _mean(change, seen), _mean(np.abs(opacity - was), still)
        before = (small, opacity)


def _seen_before(forward: NDArray[np.float32], back: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where nothing is occluded: Lai et al. take the test of Ruder et al., Artistic Style Transfer for Videos, 2016."""
    miss = np.square(forward + back).sum(axis=2)
    return miss <= 0.01 * (np.square(forward).sum(axis=2) + np.square(back).sum(axis=2)) + 0.5


def _mean(values: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    return float(values[where].mean()) if where.any() else 0.0


def lateness(
    found: Sequence[Plane],
    reference: Sequence[Plane],
    times_s: Sequence[float],
    *,
    settle_s: float = 0.1,
) -> Lateness:
    """How late a matte is, against what the network said of every frame, or the truth.

    A change of the reference counts where it lasts for `settle_s`: what flickers need not be followed.

    Args:
        found: n of (H, W) uint8 opacity.
        reference: n of the same shape.
        times_s: of each frame, rising.
        settle_s: see above.
    """
    n = len(times_s)
    ours = np.stack([matte > 127 for matte in found])
    theirs = np.stack([matte > 127 for matte in reference])
    times = np.asarray(times_s, np.float64)
    waited, missed, count = 0.0, 0, 0  # pixels, and seconds of pixels
    for at in range(1, n):
        lasting = int(np.searchsorted(times, times[at] + settle_s - _TICK_S))
        if lasting >= n:
            break
        changed = (theirs[at] != theirs[at - 1]) & (theirs[at : lasting + 1] == theirs[at]).all(axis=0)
        open_ = changed & (ours[at] != theirs[at])
        count += int(np.count_nonzero(changed))
        later = at + 1
        while open_.any() and later < n and times[later] - times[at] <= _WITHIN_S + _TICK_S:
            followed = open_ & ((ours[later] == theirs[at]) | (theirs[later] != theirs[at]))
            waited += np.count_nonzero(followed) * (times[later] - times[at])
            open_ &= ~followed
            later += 1
        missed += int(np.count_nonzero(open_))
        waited += np.count_nonzero(open_) * _WITHIN_S
    stale: list[float] = []
    for at in range(1, n):
        first = int(np.searchsorted(times, times[at] - settle_s + _TICK_S, side="right")) - 1
        if first < 1:
            continue
        # Gone at `first` and ever since, there at some time in the span before.
        earliest = int(np.searchsorted(times, times[first] - _WITHIN_S - _TICK_S))
        left = theirs[earliest:first].any(axis=0) & ~theirs[first : at + 1].any(axis=0)
        area = np.count_nonzero(theirs[at])
        if area:
            stale.append(float(np.count_nonzero(ours[at] & left)) / area)
    share = max(count, 1)
    mean = float(np.mean(stale)) if stale else 0.0
    return Lateness(1e3 * float(waited) / share, missed / share, mean, max(stale, default=0.0))
