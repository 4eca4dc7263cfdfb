"""The slate: the safe picture while there is no true one."""

from __future__ import annotations

import cv2

from streamseg.frame import Colour, Plane
from streamseg.pixels.planes import empty, split, yuv_colour

__all__ = ["card"]

_PAPER, _INK = (38, 42, 48), (214, 219, 226)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def card(size_wh: tuple[int, int], colour: Colour, line: str) -> Plane:
    """A plain card with a line of text in its middle.

    Args:
        size_wh: (W, H), even.
        colour: of the samples.
        line: the text; what is not ASCII is shown as question marks, and a long line is cut.

    Returns:
        (H * 3 / 2, W) uint8.
    """
    width, height = size_wh
    planes = empty(width, height)
    paper, ink = yuv_colour(_PAPER, colour, height), yuv_colour(_INK, colour, height)
    for plane, value in zip(split(planes), paper, strict=True):
        plane[:] = value
    line = line.encode("ascii", "replace").decode()[:80]
    if line:
        scale = height / 540
        (text_w, _), _ = cv2.getTextSize(line, _FONT, scale, 1)
        scale *= min(1.0, 0.9 * width / text_w)
        weight = max(1, round(scale * 2))
        (text_w, text_h), _ = cv2.getTextSize(line, _FONT, scale, weight)
        at = ((width - text_w) // 2, (height + text_h) // 2)
        # The ink differs from the paper in luma alone: its chroma is as good as the paper's.
        cv2.putText(planes[:height], line, at, _FONT, scale, ink[0], weight, cv2.LINE_AA)
    return planes
