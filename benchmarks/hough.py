"""The lane finder of every tutorial: Canny, a trapezoid, Hough segments, their mean on either side. The baseline."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def hough_lanes(bgr: NDArray[np.uint8], top: float = 0.6) -> list[NDArray[np.float64]]:
    """Up to two lines, (2, 2) px, from the bottom up to `top` of the picture's height."""
    height, width = bgr.shape[:2]
    grey = cv2.GaussianBlur(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), (5, 5), 0)
    edges = cv2.Canny(grey, 50, 150)
    corners = [(0.05, 1.0), (0.45, top), (0.55, top), (0.95, 1.0)]
    region = np.zeros_like(edges)
    cv2.fillPoly(region, [np.array([(x * width, y * height) for x, y in corners], np.int32)], 255)
    segments = cv2.HoughLinesP(edges & region, 2, np.pi / 180, 40, minLineLength=40, maxLineGap=100)
    sides: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for x1, y1, x2, y2 in [] if segments is None else segments.reshape(-1, 4).astype(float):
        if x1 == x2 or abs(slope := (y2 - y1) / (x2 - x1)) < 0.3:
            continue
        sides[slope > 0].append((slope, y1 - slope * x1))
    lines = []
    for found in sides.values():
        if found:
            slope, intercept = np.mean(found, axis=0)
            rows = np.array([height, top * height])
            lines.append(np.stack([(rows - intercept) / slope, rows], 1))
    return lines
