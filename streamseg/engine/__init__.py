"""Threads at the edge: the queue, the pipeline, its measurements. Nothing here knows what a frame shows."""

from streamseg.engine.channel import Channel, ChannelClosed
from streamseg.engine.metrics import Metrics, Summary
from streamseg.engine.pipeline import Pipeline, StandIn
from streamseg.engine.reconnect import LIVE_TIME_BASE, Backoff, Reconnecting, Reopening
from streamseg.engine.standin import FailClosed

__all__ = [
    "LIVE_TIME_BASE",
    "Backoff",
    "Channel",
    "ChannelClosed",
    "FailClosed",
    "Metrics",
    "Pipeline",
    "Reconnecting",
    "Reopening",
    "StandIn",
    "Summary",
]
