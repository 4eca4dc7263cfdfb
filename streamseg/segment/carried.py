"""What a network said of one picture, carried to another: as layers that can be warped, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streamseg.pixels.masks import box_probability, boxes_in_cells, fit_frame
from streamseg.segment.result import CarriedInstances, ClassMap, Instances, Matte, Segmentation

__all__ = ["Layers", "carried", "layers_of"]

Layers = NDArray[np.float32]
MoveBoxes = Callable[[NDArray[np.float32], Layers, Layers, tuple[int, int]], NDArray[np.float32]]


def layers_of(segmentation: Segmentation) -> Layers:
    """What can be warped: (h, w) of a matte, (c, h, w) of a class map, (n, h, w) of instances; in [0, 1]."""
    if isinstance(segmentation, Matte):
        return segmentation.alpha
    if isinstance(segmentation, ClassMap):
        return segmentation.probabilities
    if isinstance(segmentation, CarriedInstances):
        return segmentation.layers
    return _instance_layers(segmentation)


def carried(segmentation: Segmentation, before: Layers, now: Layers, move_boxes: MoveBoxes) -> Segmentation:
    """The same segmentation with the layers of another moment.

    Args:
        segmentation: of the keyframe.
        before: its `layers_of`.
        now: the same layers, carried.
        move_boxes: ``move_boxes(boxes, before, now, frame_wh)`` gives the boxes that go with the carried masks.
    """
    if isinstance(segmentation, Matte):
        return replace(segmentation, alpha=now)
    if isinstance(segmentation, ClassMap):
        return replace(segmentation, probabilities=now)
    boxes = move_boxes(segmentation.boxes, before, now, segmentation.frame_wh)
    return CarriedInstances(
        boxes, segmentation.scores, segmentation.class_ids, segmentation.class_names, now, segmentation.frame_wh
    )


def _instance_layers(instances: Instances) -> Layers:
    grid_hw = instances.prototypes.shape[1:]
    boxes = boxes_in_cells(instances.boxes, instances.placement, grid_hw, snap=0.0)
    layers = []
    for vector, box in zip(instances.coefficients, boxes, strict=True):
        window, opacity = box_probability(instances.prototypes, vector, box)
        layer = np.zeros(grid_hw, np.float32)
        layer[window] = opacity
        layers.append(fit_frame(layer, instances.placement))
    if not layers:
        empty = fit_frame(np.zeros(grid_hw, np.float32), instances.placement)
        return np.zeros((0, *empty.shape), np.float32)
    return np.stack(layers)
