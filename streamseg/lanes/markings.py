"""Paint on the road: narrow ridges of light in a bird's-eye view, taken straight from the planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Frame, Plane

__all__ = ["BirdsEye", "Points", "find_markings", "together"]

Floats = NDArray[np.float32]

# The view reaches so many camera heights to either side, in columns of 3 cm for a camera at 1.3 m.
_REACH = 4.5
_COLUMNS = 368
_ROWS = 100
# Nothing can be told beyond: a lane is a few pixels wide.
_FARTHEST = 0.035
# Of its brightness: less contrast than the first is no paint, more than the second is.
_FAINT, _PLAIN = 0.06, 0.17
# Of a marking and of a double one: its width in columns, and how far from its middle the road beside it is looked at.
_WIDTHS = ((5, 7), (11, 15))


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Places of paint, in picture heights from the vanishing point.

    Attributes:
        x: (n,) to the right.
        y: (n,) down, positive.
        weight: (n,) in [0, 1], how clearly they stand out.
        row: (n,) int, of the view they were found in.
        chroma: (n,) float32, U at the place, neutral is 0.
        rows: how many rows the view has.
    """

    x: Floats
    y: Floats
    weight: Floats
    row: NDArray[np.intp]
    chroma: Floats
    rows: int

    def __len__(self) -> int:
        return len(self.x)


class BirdsEye:
    """Samples the road so that markings are upright and equally wide at every distance.

    Columns are metres across the road (in camera heights), rows are rows of the picture, denser towards the horizon:
    rows of equal metres would give the far end, a few pixels of the picture, most of the view.

    Args:
        size_wh: of the frames, px.
        vanishing: (x, y) of the vanishing point, as shares of width and height.
        bonnet: where the car's own bonnet begins, as a share of the height; 1: it is not in the picture.
    """

    def __init__(self, size_wh: tuple[int, int], vanishing: tuple[float, float], bonnet: float = 1.0) -> None:
        width, height = size_wh
        self.size_wh = size_wh
        self.vanishing = vanishing
        self.bonnet = bonnet
        nearest = max(min(bonnet, 0.98) - vanishing[1], 2 * _FARTHEST)
        self.y = (np.linspace(np.sqrt(nearest), np.sqrt(_FARTHEST), _ROWS) ** 2).astype(np.float32)
        self.across = np.linspace(-_REACH, _REACH, _COLUMNS, dtype=np.float32)
        x = vanishing[0] * width + self.across[None, :] * self.y[:, None] * height - 0.5
        y = np.repeat(((vanishing[1] + self.y) * height - 0.5)[:, None], _COLUMNS, 1)
        self._luma = cv2.convertMaps(x.astype(np.float32), y.astype(np.float32), cv2.CV_16SC2)
        self._share = (x + 0.5) / width, (y + 0.5) / height
        self._map_hw = (0, 0)
        self._map = (np.empty(0, np.float32), np.empty(0, np.float32))
        half = ((x - 0.5) / 2).astype(np.float32), ((y - 0.5) / 2).astype(np.float32)
        self._chroma = cv2.convertMaps(*half, cv2.CV_16SC2)
        # What lies outside of the picture is no road; one marking's width inside it, nothing can be compared.
        edge = 12 * self.y[:, None] * height * (self.across[1] - self.across[0])
        self.inside = (x > edge) & (x < width - edge)

    def __call__(self, frame: Frame) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Luma and U of the road, (rows, columns) uint8 each, near rows first."""
        luma = cv2.remap(frame.y, *self._luma, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        u = cv2.remap(frame.u, *self._chroma, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return luma, u

    def of_map(self, values: Floats) -> Floats:
        """What the view shows of an (h, w) float32 map over the whole frame; 0 outside of it."""
        if self._map_hw != values.shape:
            rows, columns = self._map_hw = values.shape
            x, y = self._share[0] * columns - 0.5, self._share[1] * rows - 0.5
            self._map = x.astype(np.float32), y.astype(np.float32)
        return cv2.remap(values, *self._map, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def find_markings(view: BirdsEye, luma: Plane, u: Plane) -> Points:
    """Paint in what `view` shows: brighter, or more yellow, than the road on both sides of it.

    A shadow's edge is brighter than one side alone, and glare is wider than paint: neither is a ridge.
    """
    # Yellow paint on concrete is hardly brighter than the road, but U drops by 40.
    light = cv2.addWeighted(luma, 1.0, u, -1.2, 1.2 * 128)
    light = cv2.blur(light, (1, 3))
    ridge = np.zeros(light.shape, np.uint8)
    for width, distance in _WIDTHS:
        middle = cv2.blur(light, (width, 1))
        sides = cv2.max(_shifted(middle, distance), _shifted(middle, -distance))
        np.maximum(ridge, cv2.subtract(middle, sides), out=ridge)
    # Against the road's own texture at this distance, and against its brightness: paint reflects half as much again.
    texture = _median(cv2.absdiff(light, _shifted(light, _WIDTHS[0][1])))
    threshold = np.maximum(6.0, 2.0 * texture + 0.04 * _median(luma)).astype(np.float32)
    peak = (ridge == cv2.dilate(ridge, np.ones((1, 13), np.uint8))) & (ridge > threshold[:, None]) & view.inside
    row, column = np.nonzero(peak)
    strength = ridge[row, column].astype(np.float32)
    y = view.y[row]
    x = view.across[column] * y
    weight = np.clip(strength / threshold[row] - 0.6, 0, 1.6) / 1.6
    # Paint is a fifth brighter than the road at least; wheel tracks, seams and ruts in snow are not.
    contrast = strength / (luma[row, column].astype(np.float32) + 8)
    weight *= np.clip((contrast - _FAINT) / (_PLAIN - _FAINT), 0, 1)
    return Points(x, y, weight.astype(np.float32), row, u[row, column].astype(np.float32) - 128, len(view.y))


def together(moment: Sequence[Points]) -> Points:
    """The places of paint of several pictures of the same view."""
    x, y, weight, row, chroma = (
        np.concatenate([getattr(points, name) for points in moment]) for name in ("x", "y", "weight", "row", "chroma")
    )
    return Points(x, y, weight, row, chroma, moment[0].rows)


def _median(picture: Plane) -> Floats:
    """Of each row, from every fourth column."""
    part = np.sort(picture[:, ::4], axis=1)
    return part[:, part.shape[1] // 2].astype(np.float32)


def _shifted(picture: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """The picture moved to the right by `columns`; its border is repeated."""
    moved = np.empty_like(picture)
    if columns > 0:
        moved[:, columns:] = picture[:, :-columns]
        moved[:, :columns] = picture[:, :1]
    else:
        moved[:, :columns] = picture[:, -columns:]
        moved[:, columns:] = picture[:, -1:]
    return moved
