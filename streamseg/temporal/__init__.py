"""What has memory: smoothing, keyframes, scene cuts. Everything here takes elapsed seconds, never a frame count."""

from streamseg.temporal.propagate import Carried, Propagator, move_boxes
from streamseg.temporal.roi import SubjectBox, Window, paste
from streamseg.temporal.scene import SceneCut
from streamseg.temporal.schedule import AutoInterval, StillScene
from streamseg.temporal.smooth import FlowFusion, HalfLife, OneEuro, Smoother, Uncertainty

__all__ = [
    "AutoInterval",
    "Carried",
    "FlowFusion",
    "HalfLife",
    "OneEuro",
    "Propagator",
    "SceneCut",
    "Smoother",
    "StillScene",
    "SubjectBox",
    "Uncertainty",
    "Window",
    "move_boxes",
    "paste",
]
