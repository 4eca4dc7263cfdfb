"""Threads at the edge: the queue, the pipeline, its measurements. Nothing here knows what a frame shows."""

from streamseg.engine.backoff import Backoff
from streamseg.engine.beside import Beside
from streamseg.engine.channel import Channel, ChannelClosed
from streamseg.engine.metrics import Metrics, Summary
from streamseg.engine.paced import Paced
from streamseg.engine.parallel import in_parallel
from streamseg.engine.pipeline import Pipeline, Process, StandIn
from streamseg.engine.reconnect import LIVE_TIME_BASE, Reconnecting
from streamseg.engine.reopen import Reopening
from streamseg.engine.standin import FailClosed
from streamseg.engine.stream import stream_name
from streamseg.engine.turns import Turns
from streamseg.engine.unblocked import Unblocked

__all__ = [
    "LIVE_TIME_BASE",
    "Backoff",
    "Beside",
    "Channel",
    "ChannelClosed",
    "FailClosed",
    "Metrics",
    "Paced",
    "Pipeline",
    "Process",
    "Reconnecting",
    "Reopening",
    "StandIn",
    "Summary",
    "Turns",
    "Unblocked",
    "in_parallel",
    "stream_name",
]
