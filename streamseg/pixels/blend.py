"""Composite two planar pictures by an 8-bit opacity, plane by plane."""

from __future__ import annotations

import cv2
import numpy as np

from streamseg.frame import Plane
from streamseg.pixels.planes import halve, split

__all__ = ["blank", "light_wrap", "over", "over_plane"]

# Pixels that are blended at once: more of them leave the caches before they are used again, fewer take more calls.
_STRIP_PX = 330_000


def over(foreground: Plane, background: Plane, alpha: Plane, out: Plane, *, half_alpha: Plane | None = None) -> Plane:
    """Blend the foreground over the background by a straight opacity, in all three planes.

    Args:
        foreground: (H * 3 / 2, W) uint8 I420.
        background: the same shape and colour.
        alpha: (H, W) uint8; 255 shows the foreground alone. Chroma uses the mean of two by two.
        out: (H * 3 / 2, W) uint8 to write into; may be `background` itself, not `foreground`.
        half_alpha: the opacity at half size, see `halve`, where it is known already.

    Raises:
        ValueError: the shapes do not fit together.
    """
    rows, width = foreground.shape
    if not foreground.shape == background.shape == out.shape or alpha.shape != (rows // 3 * 2, width):
        raise ValueError(
            f"shapes differ: foreground {foreground.shape}, background {background.shape}, "
            f"alpha {alpha.shape}, out {out.shape}"
        )
    y, u, v = split(out)
    fore_y, fore_u, fore_v = split(foreground)
    back_y, back_u, back_v = split(background)
    over_plane(fore_y, back_y, alpha, y)
    if half_alpha is None:
        half_alpha = halve(alpha)
    over_plane(fore_u, back_u, half_alpha, u)
    over_plane(fore_v, back_v, half_alpha, v)
    return out


def over_plane(foreground: Plane, background: Plane, alpha: Plane, out: Plane) -> None:
    """Blend one plane over another by an opacity of the same shape; `out` may be either of them."""
    scale = 1 / 255
    step = max(1, _STRIP_PX // alpha.shape[1])
    for top in range(0, alpha.shape[0], step):
        rows = slice(top, top + step)
        weight = alpha[rows]
        # Both products are rounded: a clear or an opaque pixel keeps its value to the bit.
        shown = cv2.multiply(foreground[rows], weight, scale=scale)
        hidden = cv2.multiply(background[rows], cv2.bitwise_not(weight), scale=scale)
        cv2.add(shown, hidden, out[rows])


def light_wrap(picture: Plane, background: Plane, alpha: Plane, strength: float) -> None:
    """Let the background's light spill over the subject's rim, in place, before compositing.

    The rim is where 0.75 < opacity < 1; there the luma is screened with the background's and the chroma drawn to it.

    Args:
        picture: (H * 3 / 2, W) uint8 I420, changed.
        background: the same shape; a blurred one looks best.
        alpha: (H, W) uint8.
        strength: in [0, 1]; 0.3 is plenty.
    """
    levels = np.arange(256) / 255
    rim = 1 - np.maximum(levels - 0.75, 0) / 0.25
    curve = np.rint(255 * strength * np.where(levels < 1, rim, 0)).astype(np.uint8)
    weight = cv2.LUT(alpha, curve)
    y, u, v = split(picture)
    back_y, back_u, back_v = split(background)
    light = cv2.multiply(back_y, weight, scale=1 / 255)
    # screen(a, b) = a + b - a * b
    cv2.subtract(cv2.add(y, light, dtype=cv2.CV_16U), cv2.multiply(y, light, scale=1 / 255), y, dtype=cv2.CV_8U)
    half = halve(weight)
    over_plane(back_u, u.copy(), half, u)
    over_plane(back_v, v.copy(), half, v)


def blank(planes: Plane, alpha: Plane, yuv: tuple[int, int, int]) -> Plane:
    """The picture with one colour where nothing of it is meant to be seen.

    Args:
        planes: (H * 3 / 2, W) uint8.
        alpha: (H, W) uint8; the colour is put where it is 0, in the chroma where all four of a sample are.
        yuv: the colour's samples.

    Returns:
        (H * 3 / 2, W) uint8, a new array.
    """
    out = planes.copy()
    y, u, v = split(out)
    hidden = cv2.compare(alpha, 0, cv2.CMP_EQ)
    height, width = alpha.shape
    # The least of four: 255 where all of them are hidden.
    rows = np.minimum(hidden[0:height:2], hidden[1:height:2])
    few = np.minimum(rows[:, 0:width:2], rows[:, 1:width:2])
    for plane, value, where in ((y, yuv[0], hidden), (u, yuv[1], few), (v, yuv[2], few)):
        plane[where > 0] = value
    return out
