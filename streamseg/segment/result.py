"""What a network says about one frame."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.pixels.letterbox import Placement
from streamseg.pixels.masks import box_mask, box_probability, boxes_in_cells, fill_unsure, fit_frame

__all__ = ["CarriedInstances", "ClassMap", "InstanceMask", "Instances", "Matte", "Segmentation"]

Floats = NDArray[np.floating]

# A box that ends within this share of the picture's side from its border is taken to go on across it: without it, a
# strip of background shows under people whom the picture cuts off. 2 % is best against ground truth.
_SNAP = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class InstanceMask:
    """A mask within its box: `mask` is (h, w) uint8 of 0 and 1, its first pixel at `offset_xy` of the frame."""

    offset_xy: tuple[int, int]
    mask: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """Objects, best first; masks are made on demand.

    Attributes:
        boxes: (n, 4) float32 xyxy in frame px, within the frame.
        scores: (n,) float32 in [0, 1].
        class_ids: (n,) int64, indices into `class_names`.
        coefficients: (n, m) float32.
        prototypes: (m, mh, mw) float32 or float16, covering the network's whole input.
        placement: how the frame lies in that input.
        class_names: by index.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    coefficients: NDArray[np.float32]
    prototypes: Floats
    placement: Placement
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def frame_wh(self) -> tuple[int, int]:
        """Size of the frame, px."""
        return self.placement.frame_wh

    def matte(self, classes: Collection[int] | None = None, *, largest: bool = False) -> NDArray[np.float32]:
        """The union of the wanted classes' instances, (h, w) float32 in [0, 1] at model scale, over the whole frame.

        Args:
            classes: indices; None takes all.
            largest: only the instance that covers most.
        """
        wanted = [i for i, class_id in enumerate(self.class_ids.tolist()) if classes is None or class_id in classes]
        grid_hw = self.prototypes.shape[1:]
        boxes = boxes_in_cells(self.boxes[wanted], self.placement, grid_hw, snap=_SNAP)
        parts = [
            box_probability(self.prototypes, self.coefficients[i], box) for i, box in zip(wanted, boxes, strict=True)
        ]
        if largest and parts:
            parts = [max(parts, key=lambda part: float(part[1].sum()))]
        union = np.zeros(grid_hw, np.float32)
        for window, opacity in parts:
            np.maximum(union[window], opacity, out=union[window])
        matte = fit_frame(union, self.placement)
        fill_unsure(matte)
        return matte

    def pick(self, kept: NDArray[np.bool_]) -> Instances:
        """Those where `kept`, (n,), is true."""
        return replace(
            self,
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            class_ids=self.class_ids[kept],
            coefficients=self.coefficients[kept],
        )

    def on(self, frame_wh: tuple[int, int]) -> Instances:
        """The same objects in the same picture taken at another size, px."""
        was_wh = self.placement.picture_wh
        ratio = np.array([frame_wh[0] / was_wh[0], frame_wh[1] / was_wh[1]] * 2, np.float32)
        placement = replace(self.placement, frame_wh=frame_wh, picture_wh=frame_wh)
        return replace(self, boxes=self.boxes * ratio, placement=placement)

    def masks(self) -> list[InstanceMask]:
        """Each instance's mask within its box, at the frame's scale, in order."""
        return [
            InstanceMask(*box_mask(self.prototypes, vector, box, self.placement))
            for vector, box in zip(self.coefficients, self.boxes, strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class CarriedInstances:
    """Objects of an earlier picture where they are now; they look like `Instances`.

    Attributes:
        boxes: (n, 4) float32 xyxy in frame px, within the frame.
        scores, class_ids, class_names: as the network gave them.
        layers: (n, h, w) float32 in [0, 1] over the whole frame, at model scale.
        frame_wh: size of the frame, px.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    layers: NDArray[np.float32]
    frame_wh: tuple[int, int]

    def __len__(self) -> int:
        return len(self.scores)

    def pick(self, kept: NDArray[np.bool_]) -> CarriedInstances:
        """Those where `kept`, (n,), is true."""
        return replace(
            self,
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            class_ids=self.class_ids[kept],
            layers=self.layers[kept],
        )

    def matte(self, classes: Collection[int] | None = None, *, largest: bool = False) -> NDArray[np.float32]:
        """The union of the wanted classes' masks; see `Instances.matte`."""
        wanted = self.layers if classes is None else self.layers[np.isin(self.class_ids, list(classes))]
        if largest and len(wanted):
            wanted = wanted[[int(wanted.sum(axis=(1, 2)).argmax())]]
        return wanted.max(axis=0) if len(wanted) else np.zeros(self.layers.shape[1:], np.float32)

    def on(self, frame_wh: tuple[int, int]) -> CarriedInstances:
        """The same objects in the same picture taken at another size, px."""
        ratio = np.array([frame_wh[0] / self.frame_wh[0], frame_wh[1] / self.frame_wh[1]] * 2, np.float32)
        return replace(self, boxes=self.boxes * ratio, frame_wh=frame_wh)

    def masks(self) -> list[InstanceMask]:
        """Each one's mask within its box, at the frame's scale, in order."""
        return [self._mask(layer, box) for layer, box in zip(self.layers, self.boxes, strict=True)]

    def _mask(self, layer: NDArray[np.float32], box: NDArray[np.float32]) -> InstanceMask:
        x1, y1, x2, y2 = (int(side) for side in np.round(box))
        if x2 <= x1 or y2 <= y1:
            return InstanceMask((max(x1, 0), max(y1, 0)), np.zeros((0, 0), np.uint8))
        height, width = layer.shape
        step_x, step_y = width / self.frame_wh[0], height / self.frame_wh[1]
        # Sample i of either grid stands at i + 0.5 of its own scale.
        to_cells = np.array(
            [[step_x, 0, (x1 + 0.5) * step_x - 0.5], [0, step_y, (y1 + 0.5) * step_y - 0.5]], np.float32
        )
        region = cv2.warpAffine(
            layer,
            to_cells,
            (x2 - x1, y2 - y1),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return InstanceMask((x1, y1), np.greater(region, 0.5).view(np.uint8))


@dataclass(frozen=True, slots=True, eq=False)
class Matte:
    """One opacity a pixel: `alpha` is (h, w) float32 in [0, 1] over the whole frame of `frame_wh` px."""

    alpha: NDArray[np.float32]
    frame_wh: tuple[int, int]

    def matte(self, classes: Collection[int] | None = None, *, largest: bool = False) -> NDArray[np.float32]:
        """The opacity; `classes` are not told apart, `largest` keeps the largest connected part."""
        return largest_part(self.alpha) if largest else self.alpha

    def on(self, frame_wh: tuple[int, int]) -> Matte:
        """The same over the same picture taken at another size, px."""
        return replace(self, frame_wh=frame_wh)


@dataclass(frozen=True, slots=True, eq=False)
class ClassMap:
    """Class probabilities a pixel: `probabilities` is (c, h, w) float32 over the whole frame of `frame_wh` px."""

    probabilities: NDArray[np.float32]
    class_names: tuple[str, ...]
    frame_wh: tuple[int, int]

    def matte(self, classes: Collection[int] | None = None, *, largest: bool = False) -> NDArray[np.float32]:
        """The sum of the wanted classes' probabilities; None takes all but the first, the background."""
        wanted = range(1, len(self.probabilities)) if classes is None else sorted(classes)
        alpha = np.minimum(self.probabilities[list(wanted)].sum(axis=0), np.float32(1))
        return largest_part(alpha) if largest else alpha

    def on(self, frame_wh: tuple[int, int]) -> ClassMap:
        """The same over the same picture taken at another size, px."""
        return replace(self, frame_wh=frame_wh)


Segmentation = Instances | CarriedInstances | Matte | ClassMap


def largest_part(alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) opacity of the largest connected part above one half, with its soft edge."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((alpha >= 0.5).view(np.uint8))
    if count <= 2:
        return alpha
    best = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    others = cv2.dilate(((labels != best) & (labels != 0)).view(np.uint8), np.ones((5, 5), np.uint8))
    return np.where((others == 0) | (labels == best), alpha, np.float32(0))
