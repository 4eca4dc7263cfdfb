"""Carry what the network said of a keyframe to the pictures near it, by optical flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Plane
from streamseg.pixels.flow import FlowTracker, Way, fit_field, flow_wh, small_luma

__all__ = ["Carried", "Layers", "Propagator", "move_boxes"]

Floats = NDArray[np.float32]
Layers = Floats

# The last answer is held where the unmoved picture differs from the keyframe by less than this share of what the flow's
# picture does, less a level. Holding it wherever the flow is unsure is worse than the unsure flow: IoU with every frame
# segmented on fast hands is .917 against .928 by flow alone, and .932 by this rule.
_UNMOVED_SHARE, _UNMOVED_LEVELS = 0.7, 1.0
# How much of the subject may have unsure edges before its next keyframe is wanted. With these, keyframes:3 stays within
# 0.011 J of every frame on each sequence of DAVIS at hand; what is warped from both sides bears more.
_UNSURE_LIMIT, _UNSURE_LIMIT_TWO_SIDED = 0.5, 0.9
# A subject of which hardly a pixel was found again is somewhere else, however short its edge is.
_LEAST_INNER_TRUST = 0.1
# Of two keyframes that are both unsure, neither is left out entirely.
_LEAST_WEIGHT = 0.05


class Carried(NamedTuple):
    """What a keyframe says of a later picture.

    Attributes:
        layers: as given with the keyframe, float32 in [0, 1].
        confidence: (h, w) float32 in [0, 1] at the layers' scale.
        wants_keyframe: so much is unsure, or the keyframe is so old, that the network should look again soon.
    """

    layers: Layers
    confidence: Floats
    wants_keyframe: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    """A picture that waits for the keyframe behind it; `step` leads to the picture before it, `way` to the keyframe."""

    luma: Plane
    age_s: float
    layers: Layers
    confidence: Floats
    step: Way
    way: Way


class Propagator:
    """Carries mattes, stacks of instance masks or class maps between keyframes.

    Layers are (h, w) or (n, h, w) float32 at model scale, over the whole picture; n may be 0. They are always fetched
    from the keyframe in one step, never from what was fetched before, so that they do not blur with time.

    One-sided, for live use: `carry` is final. The keyframe may be older than pictures already shown. Two-sided, for
    files: what `carry` gives is only a preview, and its picture waits; the next `keyframe` answers for all that wait,
    weighing both keyframes by nearness and confidence. A picture whose `carry` wants a keyframe does not wait: give it
    to `keyframe` next. So every picture has its neighbours, between which alone the motion is searched for, and joined:
    fewer searches, and each for less motion. Two-sided is for mattes and class maps, whose layers mean the same in
    every keyframe; where the shapes differ, the earlier keyframe speaks alone.

    Args:
        two_sided: see above.
        unsure_limit: unsure edge as a share of the subject's area, at which a keyframe is wanted.
        longest_s: age of a keyframe at which the next is wanted.
    """

    def __init__(self, *, two_sided: bool = False, unsure_limit: float | None = None, longest_s: float = 0.5) -> None:
        self._two_sided = two_sided
        self._unsure_limit = unsure_limit or (_UNSURE_LIMIT_TWO_SIDED if two_sided else _UNSURE_LIMIT)
        self._longest_s = longest_s
        self._tracker = FlowTracker()
        self._key: tuple[Layers, Plane] | None = None
        self._pending: list[_Pending] = []
        self._newest: tuple[Plane, Way] | None = None

    def keyframe(self, layers: Layers, luma: Plane, after_s: float = 0.0) -> list[Layers]:
        """The network has looked at a picture.

        Args:
            layers: (h, w) or (n, h, w) float32 in [0, 1]; kept, not copied.
            luma: (H, W) uint8 of that picture, at any scale; kept.
            after_s: seconds from the keyframe before to this picture; needed two-sided.

        Returns:
            The final layers of the pictures that waited, in order; one-sided none.
        """
        small = self._fit(luma)
        settled: list[Layers] = []
        way: Way | None = None
        behind: _Pending | None = None
        for waiting in reversed(self._pending):
            step = self._step(small) if behind is None else behind.step
            way = step.reversed() if way is None else self._tracker.joined(step.reversed(), way)
            settled.append(self._settle(waiting, layers, small, after_s, way))
            behind = waiting
        self._pending.clear()
        self._key = (layers, small)
        self._newest = None
        return settled[::-1]

    def carry(self, luma: Plane, age_s: float) -> Carried:
        """What the last keyframe says of another picture.

        Args:
            luma: (H, W) uint8 of the same shape as the keyframe's.
            age_s: seconds since the keyframe's picture.

        Raises:
            ValueError: there was no keyframe yet, or its luma had another shape.
        """
        if self._key is None:
            raise ValueError("carry needs a keyframe first")
        layers, key_luma = self._key
        small = self._fit(luma)
        if self._two_sided:
            step = self._step(small)
            way = self._tracker.joined(step, self._pending[-1].way) if self._pending else step
        else:
            way = self._tracker.way(small, key_luma)
        fetched, trust = self._fetch(layers, small, key_luma, way)
        wants = (
            age_s >= self._longest_s
            or _unsure_share(fetched, trust) > self._unsure_limit
            or _inner_trust(fetched, trust) < _LEAST_INNER_TRUST
        )
        if self._two_sided and not wants:
            self._pending.append(_Pending(small, age_s, fetched, trust, step, way))
            self._newest = None
        return Carried(fetched, trust, wants)

    def flush(self) -> list[Layers]:
        """No keyframe follows (the end, a cut): the final layers of the pictures that waited, from one side alone."""
        settled = [waiting.layers for waiting in self._pending]
        self._pending.clear()
        return settled

    def reset(self) -> None:
        """Forget the keyframe and the pictures that wait."""
        self._key = None
        self._newest = None
        self._pending.clear()

    def _fit(self, luma: Plane) -> Plane:
        return small_luma(luma, flow_wh((luma.shape[1], luma.shape[0])))

    def _step(self, luma: Plane) -> Way:
        """The way from a new picture to the newest one that waits, or the keyframe; searched for once."""
        assert self._key is not None
        if self._newest is None or self._newest[0] is not luma:
            self._newest = luma, self._tracker.way(luma, self._pending[-1].luma if self._pending else self._key[1])
        return self._newest[1]

    def _settle(self, waiting: _Pending, layers: Layers, luma: Plane, after_s: float, way: Way) -> Layers:
        if layers.shape != waiting.layers.shape or after_s <= waiting.age_s:
            return waiting.layers
        behind, trust = self._fetch(layers, waiting.luma, luma, way)
        nearness = waiting.age_s / after_s
        after = cv2.addWeighted(trust, nearness, trust, 0, nearness * _LEAST_WEIGHT)
        both = cv2.addWeighted(waiting.confidence, 1 - nearness, after, 1, (1 - nearness) * _LEAST_WEIGHT)
        return _mix(waiting.layers, behind, cv2.divide(after, both))

    def _fetch(self, layers: Layers, here: Plane, there: Plane, way: Way) -> tuple[Layers, Floats]:
        """Layers known there as they lie here, and how far that can be trusted."""
        match = self._tracker.match(here, there, way)
        unmoved = match.unmoved < _UNMOVED_SHARE * match.moved - _UNMOVED_LEVELS
        size_wh = (layers.shape[-1], layers.shape[-2])
        hold = cv2.resize(unmoved.astype(np.float32), size_wh, interpolation=cv2.INTER_AREA)
        field = fit_field(match.field, size_wh)
        fetched = np.empty_like(layers)
        planes = layers.reshape(-1, *layers.shape[-2:])
        for plane, target in zip(planes, fetched.reshape(planes.shape), strict=True):
            target[...] = self._tracker.fetch(plane, field)
        return _mix(fetched, layers, hold), cv2.resize(match.confidence, size_wh, interpolation=cv2.INTER_AREA)


def _mix(one: Layers, other: Layers, share: Floats) -> Layers:
    """`one`, and `other` by its share (h, w)."""
    mixed: Layers = other - one
    mixed *= share
    mixed += one
    return mixed


def _unsure_share(layers: Layers, trust: Floats) -> float:
    """How much is unsure along the edges of the layers, as a share of the area that they enclose or leave free."""
    height, width = trust.shape
    reach = max(1, round(height / 45))
    around = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    unsure, area = 0.0, 0.0
    for layer in layers.reshape(-1, height, width):
        edge = cv2.dilate(cv2.inRange(layer, 0.2, 0.8), around)
        unsure += cv2.countNonZero(edge) - float(cv2.sumElems(cv2.copyTo(trust, edge))[0])
        inside = cv2.countNonZero(cv2.inRange(layer, 0.5, 2.0))
        area += min(inside, height * width - inside)
    # A subject of a few cells is all edge.
    return unsure / max(area, height * width / 500)


def _inner_trust(layers: Layers, trust: Floats) -> float:
    """The mean trust within the layers; 1 where there is nothing."""
    inside = cv2.inRange(layers if layers.ndim == 2 else layers.max(axis=0), 0.5, 2.0) if layers.size else None
    return 1.0 if inside is None or not cv2.countNonZero(inside) else float(cv2.mean(trust, inside)[0])


def move_boxes(boxes: NDArray[np.float32], before: Layers, after: Layers, frame_wh: tuple[int, int]) -> Floats:
    """Boxes that follow their masks from a keyframe to where these were carried.

    Each side moves by as much as the outermost twentieth of the mask does.

    Args:
        boxes: (n, 4) float32 xyxy in frame px, at the keyframe.
        before: (n, h, w) masks of the keyframe, in [0, 1].
        after: (n, h, w) masks as carried.
        frame_wh: size of the frame, px.

    Returns:
        (n, 4) float32 xyxy within the frame; a box whose mask is empty on either side stays.
    """
    size = np.array(frame_wh * 2, np.float32)
    moved = boxes.copy()
    for box, was, now in zip(moved, before, after, strict=True):
        if was.max() >= 0.5 and now.max() >= 0.5:
            cells = np.array((was.shape[1], was.shape[0]) * 2, np.float32)
            box += (_extent(now) - _extent(was)) * (size / cells)
    return np.clip(moved, 0, size)


def _extent(mask: Floats) -> Floats:
    """The xyxy between which nine tenths of the mask lie along either axis, in cells."""
    ends = []
    for axis in (0, 1):
        gathered = np.cumsum(mask.sum(axis=axis, dtype=np.float64))
        places = np.arange(1, len(gathered) + 1)
        ends.append(np.interp((0.05 * gathered[-1], 0.95 * gathered[-1]), gathered, places))
    return np.array([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], np.float32)
