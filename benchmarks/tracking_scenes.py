"""Scenes of many objects with known identities, seen by a pinhole camera; imports nothing of streamseg.

A scene tells at any time who is where and how far away. From that come the true boxes, what a made-up detector says of
them (missed, weak, false and jittering boxes, a car taken for a truck), and pictures for a real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

SIZE_WH = (960, 540)
PERSON, BICYCLE, CAR, BUS, TRUCK = 0, 1, 2, 5, 7
# Metres: width, height.
_SIZES = {PERSON: (0.6, 1.75), BICYCLE: (1.0, 1.7), CAR: (2.0, 1.5), BUS: (2.8, 3.2), TRUCK: (2.6, 3.0)}
_SIDEWAYS = {CAR: (4.3, 1.5), BUS: (11.0, 3.2), TRUCK: (7.0, 3.0)}
# A detector's boxes are of what is seen; less of an object than this is not asked for.
_LEAST_SEEN = 0.25
_CELL = 6


@dataclass(frozen=True)
class Walker:
    """`at` gives metres to the right and ahead of the camera at t seconds, or None where it is not there."""

    class_id: int
    size_wh: tuple[float, float]
    at: Callable[[float], tuple[float, float] | None]


@dataclass(frozen=True)
class Scene:
    """`turn` gives the camera's pan and tilt in px at t seconds; `poles` hide: left, right px and metres ahead."""

    name: str
    walkers: tuple[Walker, ...]
    height_m: float
    focal_px: float
    horizon_px: float
    turn: Callable[[float], tuple[float, float]]
    poles: tuple[tuple[float, float, float], ...]
    seconds: float = 20.0


@dataclass(frozen=True)
class Truth:
    """Who is in the picture: numbers, classes, whole boxes cut at the border, share that is seen, and its bounds."""

    ids: np.ndarray
    class_ids: np.ndarray
    boxes: np.ndarray
    seen: np.ndarray
    seen_boxes: np.ndarray


@dataclass(frozen=True)
class Faults:
    """Of the made-up detector: shares of objects, false boxes a picture, jitter as a share of the box."""

    missed: float = 0.04
    false: float = 0.1
    jitter: float = 0.02
    flipped: float = 0.03
    twice: float = 0.04
    sure: float = 0.82


GOOD, WEAK = Faults(), Faults(missed=0.2, false=0.4, jitter=0.04, flipped=0.08, twice=0.08, sure=0.6)


def place(scene: Scene, walker: Walker, t: float) -> tuple[float, tuple[float, float, float, float]] | None:
    """Metres ahead, and the whole box in px, which may lie outside of the picture."""
    there = walker.at(t)
    if there is None or there[1] < 1.5:
        return None
    pan, tilt = scene.turn(t)
    scale = scene.focal_px / there[1]
    x = SIZE_WH[0] / 2 + there[0] * scale + pan
    foot = scene.horizon_px + scene.height_m * scale + tilt
    half, tall = walker.size_wh[0] * scale / 2, walker.size_wh[1] * scale
    return there[1], (x - half, foot - tall, x + half, foot)


def truth(scene: Scene, t: float) -> Truth:
    """Those of whom a quarter or more is seen."""
    width, height = SIZE_WH
    found = []
    for number, walker in enumerate(scene.walkers, 1):
        there = place(scene, walker, t)
        if there is not None:
            found.append((there[0], number, walker.class_id, there[1]))
    # Nearest last: it hides what was laid before.
    found.sort(key=lambda each: -each[0])
    cells = np.zeros((height // _CELL, width // _CELL), np.int64)
    middles_x = (np.arange(cells.shape[1]) + 0.5) * _CELL
    middles_y = (np.arange(cells.shape[0]) + 0.5) * _CELL
    hidden_by = sorted(scene.poles, key=lambda pole: -pole[2])
    covers = []
    for far, number, _, box in found:
        while hidden_by and hidden_by[0][2] > far:
            left, right, _ = hidden_by.pop(0)
            cells[:, (middles_x >= left) & (middles_x < right)] = -1
        rows, columns = (middles_y >= box[1]) & (middles_y < box[3]), (middles_x >= box[0]) & (middles_x < box[2])
        inside = rows[:, None] & columns
        cells[inside] = number
        covers.append(inside)
    for left, right, _ in hidden_by:
        cells[:, (middles_x >= left) & (middles_x < right)] = -1
    known = []
    for (_, number, class_id, box), inside in zip(found, covers, strict=True):
        # What lies outside the picture counts as hidden, too.
        whole = (box[2] - box[0]) * (box[3] - box[1]) / _CELL**2
        mine = cells == number
        share = mine.sum() / max(whole, 1.0)
        if share < _LEAST_SEEN or not inside.any() or whole < 12:
            continue
        ys, xs = np.nonzero(mine)
        part = [xs.min() * _CELL, ys.min() * _CELL, (xs.max() + 1) * _CELL, (ys.max() + 1) * _CELL]
        cut = [max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)]
        part = [max(part[0], cut[0]), max(part[1], cut[1]), min(part[2], cut[2]), min(part[3], cut[3])]
        known.append((number, class_id, cut, min(share, 1.0), part))
    columns = list(zip(*known, strict=True)) if known else [(), (), (), (), ()]
    return Truth(
        np.array(columns[0], np.int64),
        np.array(columns[1], np.int64),
        np.array(columns[2], np.float64).reshape(-1, 4),
        np.array(columns[3], np.float64),
        np.array(columns[4], np.float64).reshape(-1, 4),
    )


def detected(
    now: Truth, faults: Faults, random: np.random.Generator, moment: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the made-up detector says: boxes (n, 4) px, scores (n,) from .25, class ids (n,); the best first.

    Throughout a `moment` the same objects are seen twice.
    """
    boxes, scores, class_ids = [], [], []
    for number, box, part, seen, class_id in zip(
        now.ids.tolist(), now.boxes, now.seen_boxes, now.seen, now.class_ids.tolist(), strict=True
    ):
        again = np.random.default_rng([*moment, number])
        if again.random() < faults.twice:
            boxes.append(box + np.tile(box[2:] - box[:2], 2) * again.uniform(-0.2, 0.2, 4))
            scores.append(random.uniform(0.3, 0.7))
            class_ids.append(class_id)
        score = faults.sure * seen**0.4 + random.normal(0, 0.08)
        # Hidden parts are guessed half of the time, as networks do.
        shape = box if random.random() < 0.5 else part
        noise = random.normal(0, faults.jitter, 4) * np.tile(shape[2:] - shape[:2], 2)
        if random.random() < faults.missed + 0.5 * (1 - seen) ** 2 or score < 0.25:
            continue
        if class_id in (CAR, TRUCK) and random.random() < faults.flipped:
            class_id = CAR + TRUCK - class_id
        boxes.append(shape + noise)
        scores.append(min(score, 0.98))
        class_ids.append(class_id)
    for _ in range(random.poisson(faults.false)):
        corner, sides = random.uniform((0, 150), (860, 450)), random.uniform(20, 120, 2)
        boxes.append(np.concatenate([corner, corner + sides]))
        scores.append(random.uniform(0.25, 0.6))
        class_ids.append(int(random.choice([PERSON, CAR])))
    order = np.argsort(-np.array(scores))
    return (
        np.array(boxes, np.float32).reshape(-1, 4)[order],
        np.array(scores, np.float32)[order],
        np.array(class_ids, np.int64)[order],
    )


def scenes(seed: int, seconds: float) -> list[Scene]:
    """A pavement, a junction, a road from a car and a square where people dance; as long as wanted."""
    return [replace(make(seed), seconds=seconds) for make in (pavement, junction, drive, square)]


def pavement(seed: int) -> Scene:
    """People and bicycles cross in both directions, behind one another, two poles and a parked van; some stop."""
    random = np.random.default_rng([seed, 1])
    walkers = []
    for _ in range(26):
        bicycle = random.random() < 0.2
        speed = (random.uniform(3, 6) if bicycle else random.uniform(0.9, 1.9)) * random.choice([-1, 1])
        far, drift, begin = random.uniform(6, 18), random.uniform(-0.15, 0.15), random.uniform(-12, 19)
        stop, stays = random.uniform(0, 20), random.uniform(1, 4) if random.random() < 0.3 else 0.0
        walkers.append(_straight(BICYCLE if bicycle else PERSON, speed, far, drift, begin, stop, stays))
    poles = ((300.0, 318.0, 5.0), (620.0, 760.0, 11.0))
    return Scene("pavement", tuple(walkers), 2.6, 800.0, 210.0, lambda t: (0.0, 0.0), poles)


def junction(seed: int) -> Scene:
    """Cars, trucks and buses sideways in four lanes, hiding one another; they brake and drive on; the mast sways."""
    random = np.random.default_rng([seed, 2])
    walkers = []
    for lane, (far, way) in enumerate(((14.0, 1), (17.5, 1), (21.0, -1), (24.5, -1))):
        at_s = -10.0
        while at_s < 20:
            kind = int(random.choice([CAR, CAR, CAR, TRUCK, BUS]))
            walkers.append(_braking(kind, far, way * random.uniform(7, 10) * (1 + 0.1 * lane), at_s, random))
            at_s += random.uniform(1.6, 3.5)
    phase = random.uniform(0, 6)
    return Scene(
        "junction", tuple(walkers), 6.0, 700.0, 90.0,
        lambda t: (4 * np.sin(1.3 * t + phase), 2 * np.sin(2.1 * t)), ((455.0, 475.0, 10.0),),
    )  # fmt: skip


def drive(seed: int) -> Scene:
    """From a car: traffic ahead and overtaking, oncoming cars, people at the side; it pitches and turns."""
    random = np.random.default_rng([seed, 3])
    walkers = []
    for _ in range(16):
        kind = int(random.choice([CAR, CAR, TRUCK]))
        side = float(random.choice([0.0, 3.5]))
        far, speed, phase = random.uniform(8, 70), random.uniform(-5, 5), random.uniform(0, 6)
        sway = random.uniform(0, 1.2)
        walkers.append(_ahead(kind, side, far, speed, sway, phase))
    for _ in range(12):
        kind = int(random.choice([CAR, CAR, TRUCK]))
        walkers.append(_ahead(kind, -3.6, random.uniform(30, 500), -random.uniform(18, 28), 0.0, 0.0))
    for _ in range(10):
        walkers.append(_ahead(PERSON, random.choice([-7.5, 7.0]), random.uniform(20, 250), -13.0, 0.3, 0.0))
    bumps = random.uniform(3, 8, 3)

    def turn(t: float) -> tuple[float, float]:
        bend = 120 * np.sin(0.35 * t) if t > 6 else 120 * np.sin(0.35 * 6) * t / 6
        return float(bend), float(4 * np.sin(bumps[0] * t) + 3 * np.sin(bumps[1] * 1.7 * t))

    return Scene("drive", tuple(walkers), 1.3, 800.0, 260.0, turn, ())


def square(seed: int) -> Scene:
    """Five people of one size who circle and turn about each other in a small place."""
    random = np.random.default_rng([seed, 4])
    walkers = []
    for _ in range(5):
        middle, radii = random.uniform((-2.5, 7.0), (2.5, 11.0)), random.uniform(0.4, 2.0, 2)
        speeds, phases = random.uniform(0.6, 1.6, 2) * random.choice([-1, 1], 2), random.uniform(0, 6, 2)
        walkers.append(
            Walker(PERSON, _SIZES[PERSON], lambda t, m=middle, r=radii, s=speeds, p=phases: (
                float(m[0] + r[0] * np.sin(s[0] * t + p[0])), float(m[1] + r[1] * np.sin(s[1] * t + p[1])),
            ))
        )  # fmt: skip
    return Scene("square", tuple(walkers), 2.0, 800.0, 230.0, lambda t: (0.0, 0.0), ())


def _straight(class_id: int, speed: float, far: float, drift: float, begin: float, stop: float, stays: float) -> Walker:
    start = -np.sign(speed) * (far * 0.6 + 1)

    def at(t: float) -> tuple[float, float] | None:
        if t < begin:
            return None
        walked = t - begin - float(np.clip(t - max(stop, begin), 0, stays))
        return float(start + speed * walked), far + drift * walked

    return Walker(class_id, _SIZES[class_id], at)


def _braking(class_id: int, far: float, speed: float, begin: float, random: np.random.Generator) -> Walker:
    start = -np.sign(speed) * (far * 0.7 + 6)
    swell, phase = random.uniform(0.3, 0.95), random.uniform(0, 6)

    def at(t: float) -> tuple[float, float] | None:
        if t < begin:
            return None
        gone = t - begin
        # The speed swings between (1 - swell) and (1 + swell) times its mean, once in seven seconds.
        way = speed * (gone + swell * (np.sin(0.9 * gone + phase) - np.sin(phase)) / 0.9)
        return float(start + way), far

    return Walker(class_id, _SIDEWAYS[class_id], at)


def _ahead(class_id: int, side: float, far: float, speed: float, sway: float, phase: float) -> Walker:
    def at(t: float) -> tuple[float, float] | None:
        place = far + speed * t
        return (side + sway * float(np.sin(0.5 * t + phase)), place) if 3 < place < 90 else None

    return Walker(class_id, _SIZES[class_id], at)
