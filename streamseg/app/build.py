"""From settings to a run that is ready to start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2

from streamseg.app.background import VirtualBackground
from streamseg.app.clips import Clips, legs_of
from streamseg.app.journey import EventLog
from streamseg.app.live import Demand, LiveOpening, Slate, connect
from streamseg.app.network import Sessions
from streamseg.app.outputs import check_paths, check_task, is_live_output, open_sinks, output_urls
from streamseg.app.overlays import LanesTask
from streamseg.app.privacy import Progress, unwatched
from streamseg.app.run import Run
from streamseg.app.tasks import Seeing, Setting, see_and_paint, unwrapped
from streamseg.config import Settings, parse_background
from streamseg.engine import Beside, FailClosed, Metrics, Paced, Pipeline, Reconnecting, Reopening
from streamseg.errors import ConfigError, StreamsegError
from streamseg.frame import Plane, Sink, Source
from streamseg.sources import is_live_url, open_source
from streamseg.sources.drive import DriveSource
from streamseg.sources.oriented import Oriented

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
        self._openings: list[LiveOpening] = []
        self._interrupted = False

    def connect(self) -> None:
        """Open the source; a failure is kept for `take`. Any thread."""
        try:
            self._source = _open_source(self.settings, self.outputs, self._say, self.demand, self._begin)
        except StreamsegError as error:
            self._failure = error

    def interrupt(self) -> None:
        """Make a `connect` under way or to come end soon, for good; any thread."""
        self._interrupted = True
        for opening in self._openings:
            opening.interrupt()

    def _begin(self, opening: LiveOpening) -> None:
        self._openings.append(opening)
        if self._interrupted:
            opening.interrupt()

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
    check_task(settings)
    outputs = output_urls(settings, say)
    check_paths(settings, outputs, protected)
    if settings.events.clips and (settings.privacy.blur_people or settings.privacy.blur_vehicles):
        raise ConfigError("--clips are cut out of the source, in which nobody is blurred; leave out one of the two")
    return Preparation(settings, say, outputs)


def build(
    settings: Settings,
    say: Callable[[str], None],
    *,
    preparation: Preparation | None = None,
    name: str = "",
    sessions: Sessions | None = None,
    several: bool = False,
    progress: Progress = unwatched,
) -> Run:
    """Open everything that `settings` name; nothing runs yet.

    Args:
        settings: of the run.
        say: receives one-line remarks for the user, such as which network was chosen and why.
        preparation: of the same settings, where there is one already.
        name: of the stream, where there are several.
        sessions: of the networks, which live runs share.
        several: whether other runs want the machine too.
        progress: shows how far that is which has to be done before the run begins.

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
        metrics = Metrics()
        sessions = sessions or Sessions()
        shared = source.info.live or several
        reopen = _second_opening(settings, say)
        setting = Setting(settings, source, metrics, sessions, shared, say, stack, reopen, progress)
        seeing = see_and_paint(setting)
        task = seeing.task
        background = task if isinstance(task, VirtualBackground) else None
        alpha = background is not None and parse_background(settings.background.spec)[0] == "transparent"
        closed, card = _failing_closed(setting, seeing, background)
        sinks = open_sinks(settings, ready.outputs, source, seeing.record, alpha=alpha, slate=card, stack=handed)
        if isinstance(task, LanesTask) and (log := _event_log(settings, unwrapped(source), task)) is not None:
            handed.callback(log.close)
            name_of_log = "events"
            while name_of_log in sinks:  # a file may be called so
                name_of_log += "'"
            sinks[name_of_log] = Reopening(None, name=name_of_log, first=log) if source.info.live else log
        if ready.demand is not None:
            ready.demand.ask(_readers(sinks, stack))
        pipeline = Pipeline(source, closed or seeing.process, list(sinks.values()), metrics=metrics, stand_in=closed)
        handed.pop_all()
        for line in sessions.take_remarks():  # not before: what is wrong is told in one line alone
            say(line)
        return Run(
            name,
            pipeline,
            source,
            task,
            seeing.moments,
            closed,
            seeing.networks,
            sinks,
            settings,
            stack.pop_all(),
        )


def _failing_closed(
    setting: Setting, seeing: Seeing, background: VirtualBackground | None
) -> tuple[FailClosed | None, Plane | None]:
    """What shows the slate while a source that comes back is away, and the slate's own card; None for other sources."""
    source = setting.source
    camera = source.main if isinstance(source, Beside) else source
    if not isinstance(camera, Reconnecting):
        return None, None
    slate = Slate(setting.settings, source.info, background)
    closed = FailClosed(
        seeing.process,
        slate,
        state=_state_of(camera),
        metrics=setting.metrics,
        interval_s=float(1 / source.info.rate) if source.info.rate else 1 / 30,
    )
    return closed, slate.card("")


def _event_log(settings: Settings, source: Source, task: LanesTask) -> EventLog | None:
    """What writes a drive's events, where that is asked for."""
    events, path = settings.events, Path(settings.source.url)
    if not (events.files or events.page or events.clips):
        return None
    clips = None
    if events.clips:
        clips = Clips(
            Path(events.clips),
            legs=legs_of(source, path),
            name=path.stem,
            before_s=events.clip_before_s,
            after_s=events.clip_after_s,
            exact=events.clip_exact,
            others=source.drive.others if isinstance(source, DriveSource) else None,
        )
    return EventLog(
        source,
        path,
        finish=task.events.finish,
        tables=events.files,
        page=events.page,
        clips=clips,
        where=task.where,
    )


def _second_opening(settings: Settings, say: Callable[[str], None]) -> Callable[[], Source] | None:
    if settings.source.url == "-" or is_live_url(settings.source.url):
        return None
    return lambda: _open_source(settings, (), say, None, lambda opening: None)


def _open_source(
    settings: Settings,
    outputs: Sequence[str],
    say: Callable[[str], None],
    demand: Demand | None,
    begun: Callable[[LiveOpening], None],
) -> Source:
    asked = settings.source
    if is_live_url(asked.url):
        main = connect(settings, asked.url, say, wanted=demand, begun=begun)
        if not main.info.live and any(is_live_output(url) for url in outputs):
            return Paced(main)
        if not asked.sub:
            return main
        try:
            return Beside(main, connect(settings, asked.sub, say, wanted=demand, begun=begun))
        except BaseException:
            main.close()
            raise
    if asked.sub:
        raise ConfigError(f"source.sub is the smaller stream of a camera, and {asked.url} is none; leave it out")
    if demand is not None:
        raise ConfigError(f"--on-demand is for cameras and streams, not for {asked.url}; leave it out")
    source: Source = open_source(asked.url, max_pixels=asked.max_pixels, threads=asked.threads, hwaccel=asked.hwaccel)
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
