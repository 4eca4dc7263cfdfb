"""From settings to a way of seeing."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from streamseg.app.asking import Asking, CloseLook
from streamseg.app.keyframes import FileKeyframes, FixedPace, LiveKeyframes, Pace
from streamseg.app.moments import Moments
from streamseg.app.network import Network
from streamseg.app.sight import EveryFrame, Sight
from streamseg.config import Settings
from streamseg.frame import Source
from streamseg.segment.result import Segmentation
from streamseg.temporal import AutoInterval, StillScene

__all__ = ["sight_of"]

# However seldom the network is to look: what it said is too old to be carried after half a second anyway.
_FARTHEST_APART = 30
# Frames that wait for keyframes, at most, where more keyframes ahead would only spare the network a short wait.
_MOST_WAITING = 60
# Where a close look goes depends on the answers that are there when it is asked for: always those of the same frames.
_CLOSE_LOOKS_AHEAD = 2


def sight_of(
    settings: Settings,
    source: Source,
    network: Network,
    moments: Moments,
    *,
    both_sides: bool,
    digest: Callable[[Segmentation], Segmentation] | None = None,
    fps: float | None = None,
    careful: bool = False,
) -> tuple[Sight, Pace | None]:
    """The way of seeing that the settings ask for, and what sets its pace where time does.

    Args:
        settings: of the run.
        source: of the frames.
        network: that looks at them.
        moments: of the frames.
        both_sides: between keyframes, files are carried from both; see `FileKeyframes`.
        digest: makes of an answer what has to be carried; None carries all of it.
        careful: live, nothing unsure may be shown; see `LiveKeyframes`.
        fps: how often the network looks, in frames per second, instead of what the settings say.
    """
    temporal, live = settings.temporal, source.info.live
    rate = source.info.rate or Fraction(30)
    still = StillScene(temporal.still_s) if temporal.still_s else None
    mode, _, number = temporal.mode.partition(":")
    every = int(number or 1)
    if fps is not None:
        every = min(_FARTHEST_APART, max(1, round(float(rate) / fps)))
        mode = "keyframes" if every > 1 else "every"
    ask = Asking(network.pool, digest) if digest else Asking(network.pool)
    under_way = network.sessions
    if digest and temporal.roi:
        ask, under_way = CloseLook(network.pool, digest), _CLOSE_LOOKS_AHEAD
    if mode == "every" or (mode == "auto" and not live):
        # One frame more than the networks have, so that none of them waits for us.
        ahead = 0 if live else under_way
        whole = ask if isinstance(ask, CloseLook) else Asking(network.pool)  # there is nothing to carry
        return EveryFrame(whole, moments, ahead=ahead, still=still), None
    if not live:
        ahead = max(1, min(under_way, _MOST_WAITING // every - 1))
        return FileKeyframes(ask, moments, every=every, both_sides=both_sides, ahead=ahead, still=still), None
    pace: Pace = FixedPace(every) if mode == "keyframes" else AutoInterval(float(1 / rate))
    locked = temporal.sync == "locked"
    return LiveKeyframes(
        ask, moments, pace=pace, took_s=network.took_s, locked=locked, careful=careful, still=still
    ), pace
