"""From settings to a task, its networks and its ways of seeing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamseg.app.answers import in_good_time
from streamseg.app.background import VirtualBackground
from streamseg.app.keyframes import Pace
from streamseg.app.moments import Moments
from streamseg.app.network import Network, Sessions, class_ids, kept_classes, network_of
from streamseg.app.overlays import InstancesTask, LanesTask, lane_finder
from streamseg.app.privacy import PrivateTask, Progress, classes_hidden, look_ahead
from streamseg.app.process import SeeAndPaint, Task
from streamseg.app.seeing import sight_of
from streamseg.app.sight import TwoSights, Unseen
from streamseg.app.telemetry import whereabouts
from streamseg.config import Settings
from streamseg.effects.privacy import HiddenClasses
from streamseg.engine import Beside, Metrics, Paced
from streamseg.errors import ConfigError
from streamseg.frame import Frame, Output, Source
from streamseg.segment.result import Segmentation
from streamseg.segment.store import ResolvedModel, resolve
from streamseg.sources.drive import DriveSource
from streamseg.sources.file import FileSource
from streamseg.sources.oriented import Oriented

__all__ = ["Seeing", "Setting", "see_and_paint", "unwrapped"]

# What a drive's road users are, where nobody says.
_ROAD_USERS = ("person", "bicycle", "car", "motorcycle", "bus", "truck", "traffic light")
_INSTANCES_MODEL = "yolov8n-seg"


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What a task is built from.

    Attributes:
        settings: of the run.
        source: of the frames.
        metrics: receives the time of every stage.
        sessions: of the process.
        shared: the networks are shared with other runs.
        say: receives one-line remarks for the user.
        stack: closes what was opened.
        reopen: opens the source a second time, where that gives the same frames again.
        progress: shows how far that is which has to be done before the run begins.
    """

    settings: Settings
    source: Source
    metrics: Metrics
    sessions: Sessions
    shared: bool
    say: Callable[[str], None]
    stack: ExitStack
    reopen: Callable[[], Source] | None
    progress: Progress

    def moments(self) -> Moments:
        """Of the frames, for one way of seeing."""
        look_at = self.source.look_at if isinstance(self.source, Beside) else _itself
        return Moments(at_cuts=self.settings.temporal.scene_cut, look_at=look_at)

    def resolved(self, name: str) -> ResolvedModel:
        """The network of a name, with the user told which it is."""
        model = resolve(name, offline=self.settings.model.offline, say=self.say)
        if model.remark:
            self.say(model.remark)
        return model

    def network(self, model: ResolvedModel, classes: frozenset[int] | None) -> Network:
        """The network itself."""
        return network_of(
            model,
            self.settings,
            self.metrics,
            classes=classes,
            sessions=self.sessions,
            shared=self.shared,
            say=self.say,
            stack=self.stack,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Seeing:
    """A task that is ready: what the process thread does, and what that is made of; `private` hides somebody in it."""

    process: SeeAndPaint
    task: Task
    moments: tuple[Moments, ...]
    networks: tuple[Network, ...]
    private: PrivateTask | None = None

    @property
    def record(self) -> Callable[[Output], dict[str, Any]]:
        """What was seen in one frame, ready for JSON."""
        return (self.private or self.task).record


def see_and_paint(setting: Setting) -> Seeing:
    """The task that the settings ask for.

    Raises:
        StreamsegError: something cannot be had as asked.
    """
    build = {"background": _background, "instances": _instances, "lanes": _lanes}[setting.settings.task]
    seeing = build(setting)
    setting.stack.callback(seeing.task.close)
    privacy = setting.settings.privacy
    hidden = classes_hidden(people=privacy.blur_people, vehicles=privacy.blur_vehicles)
    return _with_hidden(setting, seeing, hidden) if hidden else seeing


def _with_hidden(setting: Setting, seeing: Seeing, hidden: frozenset[str]) -> Seeing:
    privacy = setting.settings.privacy
    model = setting.resolved(privacy.model)
    if model.family != "yolo-seg":
        raise ConfigError(f"privacy.model needs a YOLO segmentation network, and {model.path.name} is none")
    known = sorted(hidden & set(model.facts.names.values()))
    if not known:
        raise ConfigError(f"{model.path.name} knows none of {', '.join(sorted(hidden))}; choose another privacy.model")
    found = setting.settings.model.model_copy(update={"confidence": privacy.confidence})
    own = replace(setting, settings=setting.settings.model_copy(update={"model": found}))
    network = replace(own.network(model, class_ids(known, model.facts.names, model.path)), settled=True)
    if privacy.two_passes and setting.reopen is not None:
        plan = look_ahead(
            setting.reopen(),
            network.pool.submit,
            frozenset(known),
            setting.say,
            ahead=network.sessions,
            progress=setting.progress,
        )
        private = PrivateTask(seeing.task, plan)
    else:
        pool = network.pool
        segment = in_good_time(pool) if setting.source.info.live else lambda frame: pool.submit(frame).result()
        private = PrivateTask(seeing.task, HiddenClasses(known), segment, hold_s=privacy.hold_s)
    seeing.process.paint = private
    return replace(seeing, private=private, networks=(*seeing.networks, network))


def _background(setting: Setting) -> Seeing:
    settings = setting.settings
    model = setting.resolved(settings.model.name)
    keep = None if model.family == "classmap" else kept_classes(model, settings)
    # The results list everything that was seen; else no more than the matte is needed of what is kept.
    whole = bool(settings.output.results)
    if whole and settings.temporal.roi:
        setting.say("temporal.roi is left out: the results tell of whole pictures")
    network = setting.network(model, None if whole else keep)
    if model.family == "classmap":
        keep = kept_classes(model, settings, network.pool.class_names)
    task = VirtualBackground(settings, setting.source.info, keep, setting.metrics, setting.say)
    moments = setting.moments()
    digest: Callable[[Segmentation], Segmentation] | None = None if whole else task.matte_of
    sight, pace = sight_of(
        settings, setting.source, network, moments, both_sides=not whole, digest=digest, careful=True
    )
    return Seeing(SeeAndPaint(sight, task, pace), task, (moments,), (network,))


def _instances(setting: Setting) -> Seeing:
    settings = setting.settings
    name = settings.model.name
    model = setting.resolved(_INSTANCES_MODEL if name == "auto" else name)
    names: Mapping[int, str] = model.facts.class_names
    wanted = None
    if model.family == "yolo-seg":
        wanted = class_ids(settings.instances.classes, names, model.path) or None
    elif model.family != "classmap":
        raise ConfigError(
            f"task instances needs a network that tells objects or classes apart, and {model.path.name} gives one "
            f"opacity; choose another with --model, such as {_INSTANCES_MODEL}"
        )
    network = setting.network(model, wanted)
    if model.family == "classmap":
        names = dict(enumerate(network.pool.class_names))
        class_ids(settings.instances.classes, names, model.path)
    network = replace(network, classes_of=_classes_of(model, names, list(names.values())))
    moments = setting.moments()
    sight, pace = sight_of(settings, setting.source, network, moments, both_sides=model.family == "classmap")
    networks, all_moments = [network], [moments]
    below_pace: Pace | None = None
    if settings.instances.stuff:
        stuff = setting.resolved(settings.instances.stuff)
        if stuff.family != "classmap":
            raise ConfigError(f"instances.stuff needs a semantic network, and {stuff.path.name} is none; leave it out")
        networks.append(setting.network(stuff, None))
        all_moments.append(setting.moments())
        below, below_pace = sight_of(settings, setting.source, networks[1], all_moments[1], both_sides=True)
        sight = TwoSights(sight, below)
    task = InstancesTask(settings, setting.metrics)
    return Seeing(SeeAndPaint(sight, task, pace, below_pace), task, tuple(all_moments), tuple(networks))


def _lanes(setting: Setting) -> Seeing:
    settings, source = setting.settings, setting.source
    lanes = settings.lanes
    by_network = lanes.finder == "network" or (lanes.finder == "auto" and settings.model.name != "auto")
    networks: list[Network] = []
    moments = [setting.moments()]
    pace: Pace | None = None
    usual: Sequence[str] | None = None
    if by_network:
        if settings.model.name == "auto":
            raise ConfigError("lanes.finder network needs a network for lanes; name one with --model")
        model = setting.resolved(settings.model.name)
        networks.append(setting.network(model, None))
        finder = lane_finder(lanes, networks[0].pool.class_names)
        both_sides = model.family == "classmap"
        sight, pace = sight_of(settings, source, networks[0], moments[0], both_sides=both_sides)
    else:
        sight, finder = Unseen(moments[0]), lane_finder(lanes, None)
    if lanes.users:
        model = setting.resolved(lanes.users)
        if model.family != "yolo-seg":
            raise ConfigError(f"lanes.users needs a YOLO segmentation network, and {model.path.name} is none")
        names = model.facts.class_names
        usual = [name for name in _ROAD_USERS if name in names.values()]
        classes_of = _classes_of(model, names, usual)
        networks.append(replace(setting.network(model, classes_of(settings)), classes_of=classes_of))
        moments.append(setting.moments())
        beside, _ = sight_of(settings, source, networks[-1], moments[-1], both_sides=False, fps=lanes.users_fps)
        sight = TwoSights(sight, beside)
    where = None
    file = unwrapped(source)
    if isinstance(file, FileSource | DriveSource):
        where = whereabouts(
            file,
            Path(settings.source.url),
            file=lanes.telemetry,
            offset_s=lanes.telemetry_offset_s,
            say=setting.say,
        )
    elif lanes.telemetry:
        raise ConfigError(f"lanes.telemetry is for video files, and {source.info.name} is none; leave it out")
    task = LanesTask(settings, finder, setting.metrics, users=usual, where=where)
    return Seeing(SeeAndPaint(sight, task, pace), task, tuple(moments), tuple(networks))


def _classes_of(
    model: ResolvedModel, names: Mapping[int, str], usual: Sequence[str]
) -> Callable[[Settings], frozenset[int]]:
    """The ids of ``instances.classes``, of the `usual` where nobody says, under any settings."""
    return lambda settings: class_ids(settings.instances.classes or usual, names, model.path)


def unwrapped(source: Source) -> Source:
    """The source itself, of one that is turned or played in real time."""
    while isinstance(source, Paced | Oriented):
        source = source.inner
    return source


def _itself(frame: Frame) -> Frame:
    return frame
