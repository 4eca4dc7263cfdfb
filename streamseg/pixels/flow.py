"""Dense optical flow between small lumas, warping by it, and how far it can be trusted.

A flow field is (h, w, 2) float32, x then y, in px of the small luma it was computed on: what stands at ``(x, y)``
*here* stood at ``(x, y) + field[y, x]`` *there*. So a field from the present picture (here) to an earlier one (there)
fetches what was known of the earlier picture: no holes, one lookup a pixel.

The flow is OpenCV's dense inverse search (Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane
from streamseg.pixels.planes import halve

__all__ = [
    "Field",
    "Flow",
    "FlowTracker",
    "Match",
    "Warp",
    "Way",
    "confidence",
    "fit_field",
    "flow_wh",
    "residual",
    "small_luma",
]

Field = NDArray[np.float32]
Floats = NDArray[np.float32]

# As many px as 320x180: half of that costs IoU on fast motion, twice of it costs time and gains nothing.
_PIXELS = 320 * 180
# Below this the pyramid of the search has no level left.
_SHORTEST_PX = 32

# The search ends at half the small luma's size (the preset's quarter loses a point of IoU on fast hands), with patches
# of 8 px every 6 px (every 4 px costs twice as much for another half point).
_FINEST_LEVEL, _PATCH_PX, _STRIDE_PX, _STEPS = 1, 8, 6, 12

# Confidence is 1/e where the way there and back misses by the root of the one, at 160x90, or the luma differs by the
# other.
_MISS_PX2 = 1.0
_RESIDUAL_LEVELS = 16.0


def flow_wh(frame_wh: tuple[int, int]) -> tuple[int, int]:
    """The size (w, h) on which to compute the flow of pictures of `frame_wh`: their shape, the area of 320x180.

    >>> flow_wh((1280, 720)), flow_wh((640, 480)), flow_wh((160, 90))
    ((320, 180), (277, 208), (160, 90))
    """
    width, height = frame_wh
    scale = min(1.0, (_PIXELS / (width * height)) ** 0.5)
    return max(_SHORTEST_PX, round(width * scale)), max(_SHORTEST_PX, round(height * scale))


def small_luma(luma: Plane, size_wh: tuple[int, int]) -> Plane:
    """The luma (H, W) uint8 at `size_wh`, averaged, so that noise does not pass for motion.

    A luma of that size already is returned as it is, contiguous.
    """
    if luma.shape == size_wh[::-1]:
        return np.ascontiguousarray(luma)
    # Halving is many times faster than an area resize by an uneven factor; less than two to one is left for the last.
    while luma.shape[1] >= 2 * size_wh[0] and luma.shape[0] >= 2 * size_wh[1]:
        luma = halve(luma)
    return cv2.resize(luma, size_wh, interpolation=cv2.INTER_LINEAR)


class Flow:
    """Computes fields between lumas; one object may serve any size, but only one caller at a time.

    Args:
        halved: the lumas have half the size of `flow_wh` already, where the search ends.
    """

    def __init__(self, *, halved: bool = False) -> None:
        self._shortest_px = _SHORTEST_PX // 2 if halved else _SHORTEST_PX
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._search.setFinestScale(0 if halved else _FINEST_LEVEL)
        self._search.setPatchSize(_PATCH_PX)
        self._search.setPatchStride(_STRIDE_PX)
        self._search.setGradientDescentIterations(_STEPS)

    def __call__(self, here: Plane, there: Plane) -> Field:
        """The field from one luma to another, see the module.

        Args:
            here: (h, w) uint8, C-contiguous, at least 32 px either way, 16 where they are halved.
            there: the same shape.

        Returns:
            (h, w, 2) float32, a new array.

        Raises:
            ValueError: the shapes differ or are too small.
        """
        least = self._shortest_px
        if here.shape != there.shape or min(here.shape) < least:
            raise ValueError(f"two lumas of one size of at least {least} px, not {here.shape} and {there.shape}")
        # A buffer handed in would be read as a first guess.
        return self._search.calc(here, there, None)


class Warp:
    """Fetches planes along fields of one size; its buffers are reused."""

    def __init__(self, size_wh: tuple[int, int]) -> None:
        width, height = size_wh
        self._grid = np.empty((height, width, 2), np.float32)
        self._grid[..., 0] = np.arange(width, dtype=np.float32)
        self._grid[..., 1] = np.arange(height, dtype=np.float32)[:, np.newaxis]
        self._places = np.empty_like(self._grid)

    def __call__(self, plane: NDArray[Any], field: Field) -> NDArray[Any]:
        """`plane`, known there, as it lies here.

        Args:
            plane: (h, w) or (h, w, up to 4), uint8 or float32, of the field's size; beyond its border it goes on as at
                the border.
            field: (h, w, 2) float32 in px of that size, see `fit_field`.

        Returns:
            The same shape and type, interpolated bilinearly; a new array.
        """
        cv2.add(self._grid, field, self._places)
        return cv2.remap(plane, self._places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def fit_field(field: Field, size_wh: tuple[int, int]) -> Field:
    """A field for planes of another size over the same picture: resampled, and in px of that size."""
    height, width = field.shape[:2]
    if (width, height) == size_wh:
        return field
    finer = size_wh[0] >= width or size_wh[1] >= height
    fitted = cv2.resize(field, size_wh, interpolation=cv2.INTER_LINEAR if finer else cv2.INTER_AREA)
    fitted *= np.array((size_wh[0] / width, size_wh[1] / height), np.float32)
    return fitted


def residual(here: Plane, there: Plane) -> Floats:
    """How far two lumas (h, w) differ, in levels: the mean of 3x3 px, (h, w) float32."""
    return cv2.blur(cv2.absdiff(here, there).astype(np.float32), (3, 3))


def confidence(forward: Field, backward: Field, unlike: Floats, warp: Warp) -> Floats:
    """How far `forward` can be trusted, (h, w) float32: 1 certain, 0 not at all.

    Two things speak against it: that the way there and back ends elsewhere, and that the luma found there differs.

    Args:
        forward: from here to there, in px of about half of `flow_wh`: the limit is in them.
        backward: from there to here.
        unlike: (h, w) float32, the `residual` of the luma here with that there, warped by `forward`.
        warp: of that size.
    """
    miss = cv2.add(warp(backward, forward), forward)
    across, down = miss[..., 0], miss[..., 1]
    doubt = cv2.addWeighted(cv2.multiply(across, across), 1 / _MISS_PX2, cv2.multiply(down, down), 1 / _MISS_PX2, 0)
    doubt += cv2.multiply(unlike, unlike, scale=_RESIDUAL_LEVELS**-2)
    return cv2.exp(-doubt)


class Way(NamedTuple):
    """The way between two pictures, at half the size of their lumas: the search ends there.

    Attributes:
        forward: (h, w, 2) float32 from here to there, in px of its own size.
        backward: the same from there to here.
    """

    forward: Field
    backward: Field

    def reversed(self) -> Way:
        """From there to here."""
        return Way(self.backward, self.forward)


class Match(NamedTuple):
    """How a picture here matches one there, at half the size of the lumas.

    Attributes:
        field: (h, w, 2) float32 from here to there, in px of its own size.
        confidence: (h, w) float32 in [0, 1].
        moved, unmoved: (h, w) float32, the `residual` with the field and without, in levels.
    """

    field: Field
    confidence: Floats
    moved: Floats
    unmoved: Floats


class FlowTracker:
    """Matches small lumas and fetches what is known there; its buffers are reused.

    Lumas are (h, w) uint8 of one size, that of `flow_wh`.
    """

    def __init__(self) -> None:
        self._flow = Flow(halved=True)
        self._warps: dict[tuple[int, int], Warp] = {}

    def way(self, here: Plane, there: Plane) -> Way:
        """The way between two lumas, searched for."""
        here, there = _half(here), _half(there)
        return Way(self._flow(here, there), self._flow(there, here))

    def joined(self, first: Way, second: Way) -> Way:
        """The way from the beginning of one to the end of another that begins where it ends."""
        warp = self._warp(first.forward)
        return Way(
            cv2.add(first.forward, warp(second.forward, first.forward)),
            cv2.add(second.backward, warp(first.backward, second.backward)),
        )

    def match(self, here: Plane, there: Plane, way: Way | None = None) -> Match:
        """Match two lumas, along the `way` between them if it is known."""
        forward, backward = way or self.way(here, there)
        here, there = _half(here), _half(there)
        warp = self._warp(here)
        moved = residual(here, warp(there, forward))
        return Match(forward, confidence(forward, backward, moved, warp), moved, residual(here, there))

    def fetch(self, plane: Floats, field: Field) -> Floats:
        """A plane (h, w) known there, of any size over the whole picture, as it lies here; a new array."""
        return self._warp(plane)(plane, fit_field(field, (plane.shape[1], plane.shape[0])))

    def _warp(self, plane: NDArray[Any]) -> Warp:
        size_wh = (plane.shape[1], plane.shape[0])
        if size_wh not in self._warps:
            self._warps[size_wh] = Warp(size_wh)
        return self._warps[size_wh]


def _half(luma: Plane) -> Plane:
    return cv2.resize(luma, ((luma.shape[1] + 1) // 2, (luma.shape[0] + 1) // 2), interpolation=cv2.INTER_AREA)
