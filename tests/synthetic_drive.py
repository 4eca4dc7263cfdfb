"""Drives whose geometry is known exactly, drawn row by row. Imports nothing of streamseg, so that it can judge it.

The road is ``centre(z) = heading * z + curvature * z**2 / 2 - offset`` to the right of the camera, metres ahead `z`;
its height is ``-slope * z**2 / 2`` (a crest is positive). The camera is a pinhole without roll.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Floats = NDArray[np.float64]
OfTime = Callable[[float], float]


def never(t: float) -> float:
    return 0.0


def smooth_step(t: float, begin_s: float, length_s: float) -> float:
    """0 before, 1 after, with no jump in speed or acceleration between."""
    share = min(max((t - begin_s) / length_s, 0.0), 1.0)
    return share**3 * (10 - 15 * share + 6 * share**2)


@dataclass(frozen=True)
class Excursion:
    """A move across the lane: to `to_lanes` lane widths (positive right), and back unless it is a lane change."""

    begin_s: float
    to_lanes: float
    move_s: float = 2.0
    stay_s: float = 0.6

    @property
    def changes_lane(self) -> bool:
        return abs(self.to_lanes) == 1.0

    def at(self, t: float) -> float:
        out = smooth_step(t, self.begin_s, self.move_s)
        if self.changes_lane:
            return self.to_lanes * out
        return self.to_lanes * (out - smooth_step(t, self.begin_s + self.move_s + self.stay_s, self.move_s))


@dataclass(frozen=True)
class Truth:
    """What is so at one instant. `offset_lanes` is the camera's place in its lane, in [-0.5, 0.5], positive right."""

    time_s: float
    offset_lanes: float
    lane: int
    left: Floats  # (n, 2) px, near to far
    right: Floats


@dataclass(frozen=True)
class Drive:
    size_wh: tuple[int, int] = (960, 540)
    rate_fps: float = 30.0
    length_s: float = 10.0
    speed_m_s: float = 25.0
    height_m: float = 1.3
    focal: float = 0.9  # of the picture's width
    horizon: float = 0.5  # of the picture's height
    lane_m: float = 3.6
    lanes: int = 3
    curvature: OfTime = never  # 1/m, positive bends to the right
    slope: OfTime = never  # 1/m
    pitch_px: OfTime = never  # of the horizon, positive down; for 540 rows
    wander_lanes: float = 0.04
    excursions: tuple[Excursion, ...] = ()
    dashes: tuple[tuple[float, float], ...] = field(default=((1, 1), (3, 12), (3, 12), (1, 1)))  # length, period in m
    yellow_left: bool = False
    wear: float = 0.0  # share of the paint's contrast that is gone
    shadows: bool = False
    night: bool = False
    noise: float = 2.0  # standard deviation in levels
    rain: float = 0.0  # streaks, share of pixels
    unmarked: tuple[tuple[float, float], ...] = ()  # from, to seconds without paint
    seed: int = 0

    def position_lanes(self, t: float) -> float:
        """Of the camera across the road, in lanes from the middle of lane 0, not wrapped."""
        rng = np.random.default_rng(self.seed)
        phases = rng.uniform(0, 2 * np.pi, 3)
        periods = rng.uniform(6, 17, 3)
        wander = sum(np.sin(2 * np.pi * t / p + f) for p, f in zip(periods, phases, strict=True)) / 3
        return float(self.wander_lanes * wander) + sum(excursion.at(t) for excursion in self.excursions)

    def truth(self, t: float) -> Truth:
        position = self.position_lanes(t)
        lane = int(np.floor(position + 0.5))
        width, height = self.size_wh
        rows = np.arange(height - 1, int(self._horizon_px(t)) + 1, -1, dtype=float)
        z = self._distance(rows, t)
        rows, z = rows[np.isfinite(z)], z[np.isfinite(z)]
        sides = []
        for edge in (lane - 0.5, lane + 0.5):
            x = width / 2 + self.focal * width * self._across(z, t, edge) / z
            sides.append(np.stack([x, rows], 1))
        return Truth(t, position - lane, lane, *sides)

    def frames(self) -> Iterator[tuple[Picture, Truth]]:
        """(H * 3 / 2, W) uint8 I420 in video range, BT.709, and the truth."""
        rng = np.random.default_rng(self.seed + 1)
        asphalt = cv2.GaussianBlur(rng.normal(0, 1, (512, 512)).astype(np.float32), (0, 0), 1.5)
        asphalt *= 4 / asphalt.std()
        for index in range(round(self.length_s * self.rate_fps)):
            t = index / self.rate_fps
            yield self._draw(t, asphalt, rng), self.truth(t)

    def _horizon_px(self, t: float) -> float:
        return self.size_wh[1] * (self.horizon + self.pitch_px(t) / 540)

    def _distance(self, rows: Floats, t: float) -> Floats:
        """Metres ahead of each row; infinite where it shows no road."""
        down = (rows + 0.5 - self._horizon_px(t)) / (self.focal * self.size_wh[0])
        slope = self.slope(t)
        if abs(slope) < 1e-9:
            return np.where(down > 1e-4, self.height_m / np.maximum(down, 1e-4), np.inf)
        # down = height / z + slope * z / 2, the nearer solution
        inside = down**2 - 2 * slope * self.height_m
        return np.where((inside >= 0) & (down > 1e-4), (down - np.sqrt(np.maximum(inside, 0))) / slope, np.inf)

    def _across(self, z: Floats, t: float, lanes: float) -> Floats:
        """Metres to the right of the camera at distance z, of what lies `lanes` from the middle of lane 0."""
        step = 1 / 120
        rate = (self.position_lanes(t + step) - self.position_lanes(t - step)) / (2 * step) * self.lane_m
        heading = -rate / self.speed_m_s
        across: Floats = (lanes - self.position_lanes(t)) * self.lane_m + heading * z + self.curvature(t) * z**2 / 2
        return across

    def _draw(self, t: float, asphalt: NDArray[np.float32], rng: np.random.Generator) -> Picture:
        width, height = self.size_wh
        rows = np.arange(height, dtype=float)
        z_all = self._distance(rows, t)
        road_rows = np.flatnonzero(np.isfinite(z_all) & (z_all < 400))
        z = z_all[road_rows][:, None]
        metres_px = z / (self.focal * width)
        x = (np.arange(width) + 0.5 - width / 2)[None, :] * metres_px
        # From the middle of lane 0, in metres.
        middle = self._across(z[:, 0], t, 0.0)[:, None]
        across = x - middle
        along = z + self.speed_m_s * t
        luma = np.full((height, width), 190.0, np.float32)
        luma[:] -= (rows / height * 60)[:, None]
        u = np.full((height, width), 140.0, np.float32)
        v = np.full((height, width), 118.0, np.float32)
        shoulder = 1.2
        left = -(self.lanes - 1) / 2 * self.lane_m - self.lane_m / 2
        right = -left
        on_road = np.clip((across - (left - shoulder)) / metres_px + 0.5, 0, 1) * np.clip(
            ((right + shoulder) - across) / metres_px + 0.5, 0, 1
        )
        grain_x = np.floor(across * 24).astype(np.int64) % 512
        grain_z = np.floor(along * 8).astype(np.int64) % 512
        grain = asphalt[grain_z, grain_x] * np.clip(0.03 / metres_px, 0, 1)
        ground = 95 + 12 * np.sin(across * 3 + along * 0.4) * np.clip(0.05 / metres_px, 0, 1)
        level = on_road * (88 + grain) + (1 - on_road) * ground
        level_u = on_road * 128 + (1 - on_road) * 112
        level_v = on_road * 128 + (1 - on_road) * 124
        if not any(begin <= t < end for begin, end in self.unmarked):
            for number in range(self.lanes + 1):
                length, period = self.dashes[min(number, len(self.dashes) - 1)] if number < self.lanes else (1, 1)
                place = left + number * self.lane_m
                paint = np.clip((0.075 + metres_px / 2 - np.abs(across - place)) / metres_px, 0, 1)
                paint = paint * np.clip(0.15 / metres_px, 0, 1) if self.night else paint
                phase = along % period
                paint = np.where(phase < length, paint, 0) * (1 - self.wear)
                bright = 165 if self.yellow_left and number == 0 else 205
                level = level + paint * (bright - level)
                if self.yellow_left and number == 0:
                    level_u = level_u + paint * (80 - level_u)
                    level_v = level_v + paint * (150 - level_v)
        if self.shadows:
            trees = np.sin(along * 0.35) + np.sin(along * 0.83 + across * 0.5) + np.sin(across * 1.1 + along * 0.11)
            level = level * (1 - 0.45 * np.clip(trees - 0.6, 0, 0.5) * 2)
        luma[road_rows], u[road_rows], v[road_rows] = level, level_u, level_v
        if self.night:
            light = np.zeros((height, 1), np.float32)
            light[road_rows, 0] = 0.1 + 0.75 * np.exp(-((z[:, 0] - 8) ** 2) / (2 * 22**2))
            light[: road_rows[0] if len(road_rows) else height] = 0.06
            luma = 16 + (luma - 16) * light
            u, v = 128 + (u - 128) * light, 128 + (v - 128) * light
        small = rng.normal(0, self.noise, (height // 2, width // 2)).astype(np.float32)
        luma += cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST) * 0.5
        luma += rng.standard_normal((height, width), np.float32) * np.float32(self.noise)
        if self.rain:
            drops = (rng.random((height, width)) < self.rain).astype(np.float32)
            luma += cv2.filter2D(drops, -1, np.eye(9, dtype=np.float32)[:, ::-1]) * 45
        planes = np.empty((height // 2 * 3, width), np.uint8)
        planes[:height] = np.clip(luma, 16, 235)
        half = (width // 2, height // 2)
        flat = planes.reshape(-1)
        for place_, chroma in ((0, u), (1, v)):
            start = height * width + place_ * half[0] * half[1]
            small_chroma = cv2.resize(chroma.astype(np.float32), half, interpolation=cv2.INTER_AREA)
            flat[start : start + half[0] * half[1]] = np.clip(small_chroma, 16, 240).reshape(-1)
        return planes


def drives(seed: int) -> dict[str, Drive]:
    """One drive of each kind, varied by the seed."""
    rng = np.random.default_rng(seed)

    def vary(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    common = {"seed": seed, "height_m": vary(1.15, 1.5), "focal": vary(0.75, 1.1), "horizon": vary(0.42, 0.55),
              "lane_m": vary(3.3, 3.75), "speed_m_s": vary(18, 32)}  # fmt: skip
    bend = vary(0.0008, 0.002) * rng.choice([-1, 1])
    side = float(rng.choice([-1, 1]))
    move = vary(1.8, 3.5)
    begin = vary(3.0, 4.0)
    return {
        "straight": Drive(**common),
        "yellow": Drive(**common, lanes=1, yellow_left=True),
        "curve": Drive(**common, curvature=lambda t: bend * np.sin(2 * np.pi * t / 10)),
        "hill": Drive(**common, slope=lambda t: 3e-4 * np.sin(2 * np.pi * t / 8), pitch_px=lambda t: 4 * np.sin(t)),
        "bumps": Drive(**common, pitch_px=lambda t: 3 * np.sin(2 * np.pi * 1.7 * t)),
        "lane change": Drive(**common, excursions=(Excursion(begin, side, move + 1),)),
        "departure": Drive(**common, excursions=(Excursion(begin, 0.36 * side, move),)),
        "night": Drive(**common, night=True, noise=3.0),
        "rain": Drive(**common, rain=0.004, noise=6.0, wear=0.35),
        "shadows": Drive(**common, shadows=True),
        "unmarked": Drive(**common, unmarked=((4.0, 7.0),)),
    }
