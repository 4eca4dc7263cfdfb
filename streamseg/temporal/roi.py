"""Look closer: the box around the subject that the network is shown instead of the whole picture."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane
from streamseg.pixels.flow import flow_wh, small_luma

__all__ = ["SubjectBox", "Window", "paste"]

# xyxy in frame px, whole and even
Window = tuple[int, int, int, int]

# A window of more than this share of the picture shows the network hardly more than the whole.
_WORTHWHILE = 0.7
# The picture outside the window has changed when this share of it did, by so many levels.
_CHANGED_SHARE, _CHANGED_LEVELS = 1 / 16, 25


class SubjectBox:
    """A padded and steadied box around the subject.

    A side of the box moves only when the subject's padded box passes it outwards by `outward` or lies inside it by
    `inward`, both as shares of the picture's side: a window that trembles makes the matte tremble. The whole picture is
    looked at first, at intervals, when the picture outside the window changes, when the subject is lost and when it
    reaches the border of the window.

    Args:
        frame_wh: size of the pictures, px.
        pad: share of the subject's longer side that is added all round.
        outward, inward: see above.
        full_look_s: seconds between looks at the whole picture.
        aspect: width / height that the window is widened to where the picture has room; None leaves it.
    """

    def __init__(
        self,
        frame_wh: tuple[int, int],
        *,
        pad: float = 0.08,
        outward: float = 0.015,
        inward: float = 0.03,
        full_look_s: float = 1.0,
        aspect: float | None = None,
    ) -> None:
        self._frame_wh = frame_wh
        self._pad = pad
        self._dead = (outward, inward)
        self._full_look_s = full_look_s
        self._aspect = aspect
        self._box: NDArray[np.float64] | None = None
        self._around: Plane | None = None
        self._since_full_s = 0.0

    def window(self, luma: Plane, dt_s: float) -> Window | None:
        """Where the network should look in a picture; None for all of it.

        Args:
            luma: (H, W) uint8 of the picture, at any scale.
            dt_s: seconds since the picture before.
        """
        self._since_full_s += dt_s
        if self._box is None or self._since_full_s >= self._full_look_s:
            return None
        window = self._widened(self._box)
        x1, y1, x2, y2 = window
        if (x2 - x1) * (y2 - y1) > _WORTHWHILE * self._frame_wh[0] * self._frame_wh[1]:
            return None
        return None if self._changed_outside(luma, window) else window

    def seen(self, matte: NDArray[np.float32], luma: Plane, window: Window | None) -> None:
        """What the network found.

        Args:
            matte: (h, w) float32 in [0, 1] over the whole picture, see `paste`.
            luma: (H, W) uint8 of that picture.
            window: where it looked; None for the whole picture.
        """
        if window is None:
            self._since_full_s = 0.0
            self._around = self._small(luma)
        x, y, width, height = cv2.boundingRect(cv2.inRange(matte, 0.5, 2.0))
        if not width:
            self._box = None
            return
        cell = np.array((self._frame_wh[0] / matte.shape[1], self._frame_wh[1] / matte.shape[0]) * 2)
        tight = np.array((x, y, x + width, y + height)) * cell
        if window is not None and self._reaches(tight, window, cell):
            self._box = None
            return
        size = np.array(self._frame_wh * 2, np.float64)
        pad = self._pad * max(tight[2] - tight[0], tight[3] - tight[1])
        wanted = np.clip(tight + np.array((-pad, -pad, pad, pad)), 0, size)
        if self._box is None:
            self._box = wanted
            return
        out = (self._box - wanted) * (1, 1, -1, -1) / size
        outward, inward = self._dead
        self._box = np.where((out > outward) | (out < -inward), wanted, self._box)

    def _reaches(self, tight: NDArray[np.float64], window: Window, cell: NDArray[np.float64]) -> bool:
        """Whether the subject touches a side of the window that is not the picture's own."""
        inner = np.array(window) + np.array((1, 1, -1, -1)) * cell
        own = np.array((window[0] <= 0, window[1] <= 0, window[2] >= self._frame_wh[0], window[3] >= self._frame_wh[1]))
        touching = np.concatenate([tight[:2] < inner[:2], tight[2:] > inner[2:]])
        return bool((touching & ~own).any())

    def _widened(self, box: NDArray[np.float64]) -> Window:
        """The box at the network's aspect, moved into the picture, on even px."""
        sides = [box[2] - box[0], box[3] - box[1]]
        if self._aspect is not None:
            sides = [max(sides[0], sides[1] * self._aspect), max(sides[1], sides[0] / self._aspect)]
        ends = []
        for axis, (side, whole) in enumerate(zip(sides, self._frame_wh, strict=True)):
            side = min(side, whole)
            first = min(max((box[axis] + box[axis + 2] - side) / 2, 0), whole - side)
            ends.append((int(first) // 2 * 2, min(whole, -int(-(first + side) // 2) * 2)))
        return ends[0][0], ends[1][0], ends[0][1], ends[1][1]

    def _changed_outside(self, luma: Plane, window: Window) -> bool:
        small = self._small(luma)
        if self._around is None or self._around.shape != small.shape:
            return True
        changed = cv2.inRange(cv2.absdiff(small, self._around), _CHANGED_LEVELS + 1, 255)
        x1, y1, x2, y2 = (
            round(side * (small.shape[1 - n % 2] / self._frame_wh[n % 2])) for n, side in enumerate(window)
        )
        inside = changed[y1:y2, x1:x2]
        outside = changed.size - inside.size
        return cv2.countNonZero(changed) - cv2.countNonZero(inside) > _CHANGED_SHARE * max(outside, 1)

    def _small(self, luma: Plane) -> Plane:
        return small_luma(luma, flow_wh((luma.shape[1], luma.shape[0])))


def paste(
    matte: NDArray[np.float32], window: Window, frame_wh: tuple[int, int], out_hw: tuple[int, int]
) -> NDArray[np.float32]:
    """The matte of a window as one of the whole picture; outside there is nothing.

    Args:
        matte: (h, w) float32 covering the window.
        window: xyxy in frame px.
        frame_wh: size of the picture, px.
        out_hw: (rows, columns) of the result.

    Returns:
        `out_hw` float32, interpolated bilinearly.
    """
    rows, columns = matte.shape
    out = np.zeros(out_hw, np.float32)
    (left, right, scale_x, shift_x) = _cells(window[0], window[2], frame_wh[0] / out_hw[1], columns)
    (top, bottom, scale_y, shift_y) = _cells(window[1], window[3], frame_wh[1] / out_hw[0], rows)
    matrix = np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    inside = cv2.warpAffine(matte, matrix, (right - left, bottom - top), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    out[top:bottom, left:right] = inside
    return out


def _cells(low: int, high: int, step: float, count: int) -> tuple[int, int, float, float]:
    """How the window's samples lie on the result's cells, along one axis.

    First and last + 1 of the cells of `step` px whose middle lies in [low, high); and the scale and shift that turn
    their indices, from the first on, into those of the window's `count` samples.
    """
    first, last = math.ceil(low / step - 0.5), math.ceil(high / step - 0.5)
    sample = (high - low) / count
    return first, last, step / sample, ((first + 0.5) * step - low) / sample - 0.5
