"""From settings to a run that is ready to start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fractions import Fraction

import cv2

from streamseg.app.background import VirtualBackground, look_of
from streamseg.app.live import Demand, Slate, connect
from streamseg.app.network import Network, Sessions, network_of
from streamseg.app.outputs import check_paths, is_live_output, open_sinks, output_urls
from streamseg.app.process import SeeAndPaint
from streamseg.app.run import Run
from streamseg.app.sight import (
    Asking,
    EveryFrame,
    FileKeyframes,
    FixedPace,
    LiveKeyframes,
    Moments,
    Pace,
)
from streamseg.config import Settings, parse_background
from streamseg.engine import Beside, FailClosed, Metrics, Paced, Pipeline, Reconnecting, Reopening
from streamseg.errors import ConfigError, StreamsegError
from streamseg.frame import Frame, Sink, Source
from streamseg.segment.store import resolve
from streamseg.sources import is_live_url, open_source
from streamseg.sources.oriented import Oriented
from streamseg.temporal import AutoInterval, StillScene

__all__ = ["Preparation", "build", "prepare"]

_STATES = {
    "connecting": "waiting for the camera",
    "reconnecting": "camera lost, connecting again",
    "idle": "nobody is watching",
    "live": "no picture from the camera",
    "ended": "the end",
}


class Preparation:
    """A run whose settings were looked at, and whose source may be opened."""

    def __init__(self, settings: Settings, say: Callable[[str], None], outputs: Sequence[str]) -> None:
        self.settings = settings
        self.outputs = outputs
        self.demand = Demand(settings.live.on_demand_delay_s) if settings.live.on_demand else None
        self._say = say
        self._source: Source | None = None
        self._failure: StreamsegError | None = None

    def connect(self) -> None:
        """Open the source; a failure is kept for `take`. Any thread."""
        try:
            self._source = _open_source(self.settings, self.outputs, self._say, self.demand)
        except StreamsegError as error:
            self._failure = error

    def take(self) -> Source:
        """The source, opened now if it was not yet; the caller closes it.

        Raises:
            StreamsegError: it cannot be had.
        """
        if self._source is None and self._failure is None:
            self.connect()
        if self._failure is not None:
            raise self._failure
        source, self._source = self._source, None
        assert source is not None
        return source

    def discard(self) -> None:
        """Let go of a source that nobody took."""
        if self._source is not None:
            self._source.close()


def prepare(settings: Settings, say: Callable[[str], None], *, protected: Sequence[str] = ()) -> Preparation:
    """Look at what can be wrong before anything is opened.

    Args:
        settings: of the run.
        say: receives one-line remarks for the user.
        protected: files that no output may replace, besides the source, the background and the network.

    Raises:
        ConfigError: something cannot be as asked.
    """
    outputs = output_urls(settings, say)
    check_paths(settings, outputs, protected)
    return Preparation(settings, say, outputs)


def build(
    settings: Settings,
    say: Callable[[str], None],
    *,
    preparation: Preparation | None = None,
    name: str = "",
    sessions: Sessions | None = None,
    several: bool = False,
) -> Run:
    """Open everything that `settings` name; nothing runs yet.

    Args:
        settings: of the run.
        say: receives one-line remarks for the user, such as which network was chosen and why.
        preparation: of the same settings, where there is one already.
        name: of the stream, where there are several.
        sessions: of the networks, which live runs share.
        several: whether other runs want the machine too.

    Raises:
        StreamsegError: something cannot be had as asked; what was opened is closed again.
    """
    ready = preparation or prepare(settings, say)
    # One of our threads runs the network, one decodes, one encodes: OpenCV's own pool would only get in their way.
    cv2.setNumThreads(1)
    # The pipeline closes what it is handed; until it has it, and if anything fails before, we do.
    with ExitStack() as handed, ExitStack() as stack:
        source = ready.take()
        handed.callback(source.close)
        model = resolve(settings.model.name, offline=settings.model.offline, say=say)
        if model.remark:
            say(model.remark)
        metrics = Metrics()
        sessions = sessions or Sessions()
        shared = source.info.live or several
        network = network_of(model, settings, metrics, sessions=sessions, shared=shared, say=say, stack=stack)
        task = VirtualBackground(look_of(settings, source.info, network.keep, metrics, say), metrics)
        stack.callback(task.close)
        process, moments = _seeing(settings, source, network, task)
        alpha = parse_background(settings.background.spec)[0] == "transparent"
        closed: FailClosed | None = None
        card = None
        camera = source.main if isinstance(source, Beside) else source
        if isinstance(camera, Reconnecting):
            slate = Slate(settings, source.info, lambda: task.look)
            card = slate.card("")
            closed = FailClosed(
                process,
                slate,
                state=_state_of(camera),
                metrics=metrics,
                interval_s=float(1 / source.info.rate) if source.info.rate else 1 / 30,
            )
        sinks = open_sinks(settings, ready.outputs, source, alpha=alpha, slate=card, stack=handed)
        if ready.demand is not None:
            ready.demand.ask(_readers(sinks, stack))
        pipeline = Pipeline(source, closed or process, list(sinks.values()), metrics=metrics, stand_in=closed)
        handed.pop_all()
        for line in sessions.take_remarks():  # not before: what is wrong is told in one line alone
            say(line)
        return Run(name, pipeline, source, task, moments, closed, network, sinks, settings, stack.pop_all())


def _seeing(
    settings: Settings, source: Source, network: Network, task: VirtualBackground
) -> tuple[SeeAndPaint, Moments]:
    """What the process thread does with a frame."""
    temporal, live = settings.temporal, source.info.live
    look_at = source.look_at if isinstance(source, Beside) else _itself
    moments = Moments(at_cuts=temporal.scene_cut, look_at=look_at)
    still = StillScene(temporal.still_s) if temporal.still_s else None
    mode, _, every = temporal.mode.partition(":")
    if mode == "every" or (mode == "auto" and not live):
        # One frame more than the networks have, so that none of them waits for us.
        ahead = 0 if live else network.sessions
        return SeeAndPaint(EveryFrame(Asking(network.pool), moments, ahead=ahead, still=still), task), moments
    # The results list everything that was seen; else no more than the matte need be carried.
    whole = bool(settings.output.results)
    ask = Asking(network.pool) if whole else Asking(network.pool, task.matte_of)
    if not live:
        sight = FileKeyframes(ask, moments, every=int(every), both_sides=not whole, ahead=network.sessions, still=still)
        return SeeAndPaint(sight, task), moments
    rate = source.info.rate or Fraction(30)
    pace: Pace = FixedPace(int(every)) if mode == "keyframes" else AutoInterval(float(1 / rate))
    locked = temporal.sync == "locked"
    seeing = LiveKeyframes(ask, moments, pace=pace, took_s=network.took_s, locked=locked, still=still)
    return SeeAndPaint(seeing, task, pace), moments


def _itself(frame: Frame) -> Frame:
    return frame


def _open_source(
    settings: Settings, outputs: Sequence[str], say: Callable[[str], None], demand: Demand | None
) -> Source:
    asked = settings.source
    if is_live_url(asked.url):
        main = connect(settings, asked.url, say, wanted=demand)
        if not main.info.live and any(is_live_output(url) for url in outputs):
            return Paced(main)
        if not asked.sub:
            return main
        try:
            return Beside(main, connect(settings, asked.sub, say, wanted=demand))
        except BaseException:
            main.close()
            raise
    if asked.sub:
        raise ConfigError(f"source.sub is the smaller stream of a camera, and {asked.url} is none; leave it out")
    if demand is not None:
        raise ConfigError(f"--on-demand is for cameras and streams, not for {asked.url}; leave it out")
    source: Source = open_source(asked.url, max_pixels=asked.max_pixels, threads=asked.threads)
    if asked.rotate or asked.mirror:
        source = Oriented(source, asked.rotate, mirror=asked.mirror)
    return Paced(source) if any(is_live_output(url) for url in outputs) else source


def _state_of(source: Reconnecting) -> Callable[[], str]:
    return lambda: _STATES[source.state]


def _readers(sinks: dict[str, Sink], stack: ExitStack) -> Callable[[], bool]:
    for url, sink in sinks.items():
        if url.startswith("virtualcam:") and isinstance(sink, Reopening):
            device = getattr(sink.current, "device", None)
            if device is None:
                raise ConfigError(f"--on-demand needs to know who reads {url}, and it is not open; free it first")
            # Where it does not exist, there is no fcntl either, which it needs.
            from streamseg.sinks.v4l2 import Readers

            try:
                readers = Readers(device)
            except OSError as error:
                raise ConfigError(f"--on-demand cannot tell who reads {device}: {error.strerror}") from error
            stack.callback(readers.close)
            return readers.watched
    raise ConfigError("--on-demand needs a virtual camera: add -o virtualcam:")
