"""The tasks `instances` and `lanes`: paint what is there, hide nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streamseg.app.moments import Seen
from streamseg.app.telemetry import Where
from streamseg.config import EventSettings, InstanceSettings, LaneSettings, Settings, parse_vanishing
from streamseg.effects.instances import InstanceOverlay, InstancePainter, RoadUsers, Tracked
from streamseg.effects.lanes import Drive, LaneOverlay
from streamseg.engine import Metrics
from streamseg.frame import Frame, Output
from streamseg.lanes import LaneFinder, Lanes
from streamseg.lanes.camera import Camera
from streamseg.lanes.classical import ClassicalLaneFinder
from streamseg.lanes.events import LaneEvents, Thresholds
from streamseg.lanes.network import NetworkLaneFinder
from streamseg.lanes.record import lane_record
from streamseg.segment.describe import head, record
from streamseg.segment.result import ClassMap, Segmentation
from streamseg.temporal.library_tracks import LibraryTracker
from streamseg.temporal.tracks import BuiltinTracker, Tracker

__all__ = ["InstancesTask", "LanesTask", "lane_finder"]


class InstancesTask:
    """The task `instances`.

    Args:
        settings: of the run.
        metrics: receives the time of every stage.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tracker = _tracker(settings.instances) if settings.instances.track else None
        self._overlay = self._made(settings)

    def __call__(self, seen: Seen) -> Output:
        """Paint one frame; frames come in order."""
        stuff = seen.beside if isinstance(seen.beside, ClassMap) else None
        return self._overlay(seen.frame, seen.segmentation, seen.dt_s, stuff)

    def prepare_change(self, settings: Settings, say: Callable[[str], None]) -> Callable[[], None]:
        """See `Task`."""
        overlay = self._made(settings)

        def change() -> None:
            self._overlay = overlay

        return change

    def record(self, output: Output) -> dict[str, Any]:
        """See `Task`."""
        seen = output.segmentation
        return record(output, seen.instances, seen.numbers) if isinstance(seen, Tracked) else record(output, seen)

    def close(self) -> None:
        """Nothing is held open."""

    def _made(self, settings: Settings) -> InstanceOverlay:
        chosen = settings.instances
        return InstanceOverlay(
            _painter(chosen),
            classes=chosen.classes or None,
            tracker=self._tracker,
            opacity=chosen.opacity,
            timed=self._metrics.time,
        )


class LanesTask:
    """The task `lanes`.

    Args:
        settings: of the run.
        finder: of lanes.
        metrics: receives the time of every stage.
        users: classes of road users that a second network looks for where the settings name none; None: there is none.
        where: position and speed at a time of the video; None: nobody knows.
    """

    def __init__(
        self,
        settings: Settings,
        finder: LaneFinder,
        metrics: Metrics,
        *,
        users: Sequence[str] | None,
        where: Where | None = None,
    ) -> None:
        self.where = where
        self._finder = finder
        self._metrics = metrics
        self._events = LaneEvents(_thresholds(settings.events))
        self._camera = _camera(settings.lanes)
        self._seen: Seen | None = None
        self._users = users
        self._tracker = None if users is None else _tracker(settings.instances)
        self._overlay = self._made(settings)

    def __call__(self, seen: Seen) -> Output:
        """Paint one frame; frames come in order."""
        self._seen = seen
        return self._overlay(seen.frame, seen.segmentation, seen.dt_s)

    def prepare_change(self, settings: Settings, say: Callable[[str], None]) -> Callable[[], None]:
        """See `Task`; what is painted may change, thresholds of events may not."""
        overlay = self._made(settings)

        def change() -> None:
            self._overlay = overlay

        return change

    @property
    def events(self) -> LaneEvents:
        """Notes what happens."""
        return self._events

    def record(self, output: Output) -> dict[str, Any]:
        """See `Task`."""
        drive = output.segmentation
        assert isinstance(drive, Drive)
        return {**head(output), **lane_record(drive.lanes, drive.users, drive.events, self._camera)}

    def close(self) -> None:
        """Nothing is held open."""

    def _followed(self, frame: Frame, segmentation: Segmentation | None, dt_s: float) -> Lanes:
        """The finder's answer; lanes outlast pauses, such as those between pictures a second apart."""
        assert self._seen is not None
        return self._finder(frame, segmentation, self._seen.shot_s)

    def _beside(self) -> Any:
        assert self._seen is not None
        return self._seen.beside

    def _road_users(self, settings: InstanceSettings) -> RoadUsers | None:
        if self._users is None:
            return None
        return RoadUsers(
            lambda frame: self._beside(),
            classes=settings.classes or self._users,
            painter=_painter(settings),
            tracker=self._tracker,
        )

    def _made(self, settings: Settings) -> LaneOverlay:
        return LaneOverlay(
            self._followed,
            show=settings.lanes.show,
            camera=self._camera,
            events=self._events,
            opacity=settings.lanes.opacity,
            users=self._road_users(settings.instances),
            where=self.where,
            timed=self._metrics.time,
        )


def lane_finder(settings: LaneSettings, class_names: tuple[str, ...] | None) -> LaneFinder:
    """The finder that the settings ask for.

    Args:
        settings: of the lanes.
        class_names: of the network; None where there is none.

    Raises:
        ConfigError: the network has no class for lines.
    """
    vanishing = parse_vanishing(settings.vanishing)
    if class_names is None:
        return ClassicalLaneFinder(vanishing, bonnet=settings.bonnet)
    return NetworkLaneFinder(
        class_names,
        lines=settings.lines or None,
        roads=settings.roads or None,
        vanishing=vanishing,
        bonnet=settings.bonnet,
    )


def _painter(settings: InstanceSettings) -> InstancePainter:
    return InstancePainter(
        settings.show, colour_by=settings.colour_by, opacity=settings.opacity, half_life_s=settings.half_life_s
    )


def _tracker(settings: InstanceSettings) -> Tracker:
    kind = LibraryTracker if settings.tracker == "bytetrack" else BuiltinTracker
    return kind(sure=settings.sure, lasts_s=settings.lasts_s)


def _camera(settings: LaneSettings) -> Camera | None:
    return Camera(settings.camera_height_m, settings.view_deg) if settings.camera_height_m else None


def _thresholds(settings: EventSettings) -> Thresholds:
    return Thresholds(
        **{
            name: getattr(settings, name)
            for name in (
                "depart",
                "back",
                "depart_s",
                "lost_s",
                "seen_s",
                "near",
                "enter",
                "outside",
                "user_s",
                "cut_in_s",
                "confidence",
            )
        }
    )
