"""What has memory: matte smoothing and scene cuts. Everything here takes elapsed seconds, never a frame count."""

from streamseg.temporal.scene import SceneCut
from streamseg.temporal.smooth import HalfLife, Smoother, Uncertainty

__all__ = ["HalfLife", "SceneCut", "Smoother", "Uncertainty"]
