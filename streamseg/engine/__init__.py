"""Threads at the edge: the queue, the pipeline, its measurements. Nothing here knows what a frame shows."""

from streamseg.engine.channel import Channel, ChannelClosed
from streamseg.engine.metrics import Metrics, Summary
from streamseg.engine.pipeline import Pipeline

__all__ = ["Channel", "ChannelClosed", "Metrics", "Pipeline", "Summary"]
