"""YOLOv8-seg and YOLO11-seg: from the network's two outputs to `Instances`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.errors import InferenceError
from streamseg.frame import Frame
from streamseg.pixels.letterbox import ModelInput, Placement, best_rectangle, picture_size
from streamseg.segment.inspect import GraphFacts
from streamseg.segment.ort import Runs
from streamseg.segment.result import Instances
from streamseg.segment.sane import refuse_nan

__all__ = ["YoloSegmenter", "select", "suppress"]

Floats = NDArray[np.floating]
# Greedy suppression in portions of this many, best first: all that follow the last instance wanted are never looked at.
_PORTION = 1000


class YoloSegmenter:
    """Segments frames with a YOLO-seg network; one frame at a time, from one thread."""

    def __init__(
        self,
        session: Runs,
        facts: GraphFacts,
        *,
        size_wh: tuple[int, int] | None = None,
        confidence: float = 0.25,
        iou: float = 0.7,
        max_instances: int = 300,
        classes: Collection[int] | None = None,
    ) -> None:
        """Args are those of `load_segmenter`, but `size_wh` is the input's; None takes the frame's best rectangle.

        `facts` are of a yolo-seg graph with an RGB input of layout (1, 3, h, w).
        """
        assert facts.image is not None
        self._session = session
        self._facts = facts
        self._size_wh = size_wh
        self._stride = facts.stride or 32
        self.confidence = confidence
        self.iou = iou
        self.max_instances = max_instances
        self.classes: tuple[int, ...] | None = None
        if classes is not None:
            self.look_for(classes)
        self.class_names = _names(facts, facts.class_count or 0)
        self._image = facts.image.name
        self._dtype: type[np.floating] = np.float16 if facts.image.dtype == "float16" else np.float32
        self._input: ModelInput | None = None
        self._sizes = ((0, 0), (0, 0))

    def __call__(self, frame: Frame) -> Instances:
        """Segment one frame.

        Raises:
            InferenceError: the network failed.
        """
        sizes = ((frame.width, frame.height), picture_size(frame))
        if self._input is None or self._sizes != sizes:
            frame_wh, picture_wh = self._sizes = sizes
            input_wh = self._size_wh or best_rectangle(picture_wh, stride=self._stride)
            self._input = ModelInput(Placement.letterbox(frame_wh, input_wh, picture_wh), dtype=self._dtype)
        names = [str(self._facts.detections), str(self._facts.prototypes)]
        detections, prototypes = self._session.run(names, {self._image: self._input(frame)})
        mask_count = prototypes.shape[1]
        class_count = detections.shape[1] - 4 - mask_count
        if class_count < 1:
            raise InferenceError(f"{self._facts.path.name} gave {detections.shape}, which leaves no room for a class")
        if class_count != len(self.class_names):  # the graph had left it open
            self.class_names = _names(self._facts, class_count)
        boxes, scores, class_ids, coefficients = select(
            detections[0], mask_count, self.confidence, self.iou, self.max_instances, self.classes
        )
        refuse_nan(self._facts.path.name, boxes, coefficients, prototypes)
        placement = self._input.placement
        return Instances(
            placement.to_frame(boxes), scores, class_ids, coefficients, prototypes[0], placement, self.class_names
        )

    def look_for(self, classes: Collection[int]) -> None:
        """Keep instances of these classes alone, from the next frame on; any thread."""
        self.classes = tuple(sorted(set(classes)))

    def describe(self) -> dict[str, Any]:
        """What runs, for reports; `load_segmenter` adds the file and the session."""
        size_wh = self._input.placement.input_wh if self._input else self._size_wh
        return {
            "family": self._facts.family,
            "input_shape": [1, 3, size_wh[1], size_wh[0]] if size_wh else None,
            "confidence": self.confidence,
            "iou": self.iou,
            "max_instances": self.max_instances,
        }


def _names(facts: GraphFacts, count: int) -> tuple[str, ...]:
    return tuple(facts.names.get(index, f"class {index}") for index in range(count))


def select(
    rows: Floats,
    mask_count: int,
    confidence: float,
    iou: float,
    max_instances: int,
    classes: Collection[int] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Instances from raw predictions: the best class above `confidence`, then suppression within each class.

    Args:
        rows: (4 + classes + m, anchors): centre x, y, width, height in input px, class scores in [0, 1], coefficients.
        mask_count: m.
        confidence: an instance's score is above it.
        iou: of two instances of a class that overlap by more, the weaker goes.
        max_instances: the best of what is left.
        classes: keep only these. An anchor whose best class is another one goes, as if they were filtered afterwards.

    Returns:
        boxes (n, 4) xyxy in input px, scores (n,), class_ids (n,), coefficients (n, m); best first.
    """
    class_end = len(rows) - mask_count
    wanted = rows[4:class_end]
    if classes is not None:
        wanted = wanted[[index for index in classes if index < len(wanted)]]
    candidates = np.flatnonzero(_highest(wanted) > confidence)
    found = rows[:, candidates].astype(np.float32, copy=False)
    class_ids = found[4:class_end].argmax(axis=0)
    if classes is not None:
        kept = np.flatnonzero([class_id in classes for class_id in class_ids.tolist()])
        found, class_ids = found[:, kept], class_ids[kept]
    scores = found[4 + class_ids, np.arange(len(class_ids))]
    boxes = found[:4].T.copy()
    boxes[:, :2] -= boxes[:, 2:] / 2
    chosen = suppress(boxes, scores, class_ids, iou, max_instances)
    boxes = boxes[chosen]
    boxes[:, 2:] += boxes[:, :2]
    return boxes, scores[chosen], class_ids[chosen], np.ascontiguousarray(found[class_end:, chosen].T)


def _highest(scores: Floats) -> NDArray[np.float32]:
    """The highest of each column's scores, which are not negative; 0 where there are no rows."""
    if not len(scores):
        return np.zeros(scores.shape[1], np.float32)
    if len(scores) == 1:
        return scores[0].astype(np.float32, copy=False)
    if scores.dtype == np.float16:
        # Half floats without a sign sort like their bits, and numpy compares integers 100 times faster.
        return scores.view(np.int16).max(axis=0).view(np.float16).astype(np.float32)
    return scores.max(axis=0).astype(np.float32, copy=False)


def suppress(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int64],
    iou: float,
    limit: int,
) -> NDArray[np.int64]:
    """Indices of the instances that stay, best first: greedy, within each class, at most `limit`.

    Args:
        boxes: (n, 4) x, y, width, height.
        scores: (n,).
        class_ids: (n,).
        iou: a box goes when it overlaps a better one of its class by more.
        limit: how many stay.
    """
    nms: Any = cv2.dnn.NMSBoxesBatched  # typed for lists, which take ten times as long
    order = np.argsort(-scores, kind="stable")
    portion = _PORTION
    while True:
        part = order[:portion]
        if len(part) == 0:
            return part
        kept = nms(boxes[part], scores[part], class_ids[part], 0.0, iou)
        # What stays of the best n is the beginning of what stays of all, so more need not be looked at.
        if len(kept) >= limit or portion >= len(order):
            return part[np.asarray(kept, np.int64)][:limit]
        portion *= 2
