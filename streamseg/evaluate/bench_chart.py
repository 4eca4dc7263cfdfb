"""Speed against quality as an SVG, which browsers and Markdown pages show without anything installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from streamseg.errors import SinkWriteError
from streamseg.libav import unwritten

__all__ = ["Point", "write_chart"]

_SIZE_WH = (960, 480)
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 290, 48, 52
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito
_LINE_PX = 15


@dataclass(frozen=True, slots=True)
class Point:
    """A contestant: its name, frames per second, quality, and the group that gives it its colour."""

    name: str
    fps: float
    quality: float
    group: str


def write_chart(path: Path, points: Sequence[Point], *, title: str, quality: str) -> None:
    """Write the chart; speed goes right, logarithmically, and quality up.

    Args:
        path: of the SVG file.
        points: at least one.
        title: above the chart.
        quality: what the quality is called.

    Raises:
        SinkWriteError: it cannot be written.
    """
    try:
        path.write_text(_chart(points, title, quality), "utf-8")
    except OSError as error:
        raise SinkWriteError(f"cannot write {path}: {unwritten(error)}") from error


def _chart(points: Sequence[Point], title: str, quality: str) -> str:
    width, height = _SIZE_WH
    left, right, top, bottom = _LEFT, width - _RIGHT, _TOP, height - _BOTTOM
    slowest, fastest = (pick(point.fps for point in points) for pick in (min, max))
    low, high = math.log(slowest / 1.3), math.log(fastest * 1.3)
    step = _step(max(point.quality for point in points) - min(point.quality for point in points))
    floor = math.floor(min(point.quality for point in points) / step) * step
    ceiling = math.ceil(max(point.quality for point in points) / step - 1e-9) * step
    if ceiling - floor < step / 2:
        floor, ceiling = floor - step, ceiling + step

    def x(fps: float) -> float:
        return left + (math.log(fps) - low) / (high - low) * (right - left)

    def y(value: float) -> float:
        return bottom - (value - floor) / (ceiling - floor) * (bottom - top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="26" font-size="15">{escape(title)}</text>',
    ]
    for number in range(round((ceiling - floor) / step) + 1):
        value = floor + number * step
        parts.append(f'<path d="M{left} {y(value):.1f}H{right}" stroke="#ddd"/>')
        digits = max(0, -math.floor(math.log10(step)))
        parts.append(f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.{digits}f}</text>')
    for fps in _ticks(math.exp(low), math.exp(high)):
        parts.append(f'<path d="M{x(fps):.1f} {top}V{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(fps):.1f}" y="{bottom + 18}" text-anchor="middle">{fps:g}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 40}" text-anchor="middle">frames per second</text>')
    middle = (top + bottom) / 2
    parts.append(f'<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">{escape(quality)}</text>')
    groups = list(dict.fromkeys(point.group for point in points))
    free = -math.inf
    # From the best downwards, each name below the one before it, so that none lies on another.
    for point in sorted(points, key=lambda one: -one.quality):
        colour = _COLOURS[groups.index(point.group) % len(_COLOURS)]
        across, down = x(point.fps), y(point.quality)
        line = max(down, free + _LINE_PX)
        free = line
        parts.append(f'<path d="M{across:.1f} {down:.1f}L{right + 8} {line:.1f}" stroke="{colour}" opacity=".35"/>')
        parts.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{right + 12}" y="{line + 4:.1f}" fill="{colour}">{escape(point.name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _step(span: float) -> float:
    """A round distance of grid lines for about five of them."""
    rough = max(span, 1e-3) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def _ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [value for power in powers for factor in (1, 2, 5) if low <= (value := factor * 10.0**power) <= high]
