"""The task `background`: segment, steady, composite."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from streamseg.app.moments import Seen
from streamseg.config import Settings, parse_background
from streamseg.effects import Backdrop, Background, BlurredRoom, Edges, Effect, Pictures, PlainColour
from streamseg.engine import Metrics
from streamseg.errors import ConfigError
from streamseg.frame import Frame, Output, VideoInfo
from streamseg.pixels.planes import coarse_luma
from streamseg.segment.describe import record
from streamseg.segment.result import Matte, Segmentation
from streamseg.sources import open_source
from streamseg.sources.looped import LoopedVideo
from streamseg.temporal import FlowFusion, HalfLife, OneEuro, Smoother, Uncertainty

__all__ = ["Look", "VirtualBackground", "background_edges", "background_smoother", "look_of"]

_HALF_LIFE_S = 0.15


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Everything about a virtual background that may change while it runs.

    Attributes:
        effect: paints.
        keep: class ids that count as the subject; None where the network tells no classes apart.
        largest: only the largest subject.
        smoother: steadies the matte; None leaves it as it is.
        resources: what the effect holds open.
    """

    effect: Effect
    keep: frozenset[int] | None
    largest: bool
    smoother: Smoother | None
    resources: ExitStack = field(default_factory=ExitStack)


class VirtualBackground:
    """The task: steady the matte, composite.

    Args:
        settings: of the run.
        info: of the frames.
        keep: class ids that count as the subject; None where the network tells no classes apart.
        metrics: receives the time of every stage.
        say: receives one-line remarks for the user.

    Raises:
        StreamsegError: a background cannot be had.
    """

    def __init__(
        self,
        settings: Settings,
        info: VideoInfo,
        keep: frozenset[int] | None,
        metrics: Metrics,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._info = info
        self._keep = keep
        self._metrics = metrics
        self._look = self._shown = look_of(settings, info, keep, metrics, say)

    @property
    def look(self) -> Look:
        """The look of the last frame."""
        return self._shown

    def prepare_change(self, settings: Settings, say: Callable[[str], None]) -> Callable[[], None]:
        """See `Task`: background, edges, smoothing and the largest alone may change."""
        was, now = (parse_background(of.background.spec)[0] == "transparent" for of in (self._settings, settings))
        if was != now:
            raise ConfigError("the background cannot become transparent, or cease to be, while it runs; start anew")
        look = look_of(settings, self._info, self._keep, self._metrics, say)

        def change() -> None:
            self._look = look

        return change

    def record(self, output: Output) -> dict[str, Any]:
        """See `Task`."""
        return record(output, output.segmentation)

    def close(self) -> None:
        """Let go of what the looks hold open; when no frame will come."""
        self._look.resources.close()
        self._shown.resources.close()

    def matte_of(self, said: Segmentation) -> Matte:
        """All that has to be carried from a keyframe."""
        look = self._look
        with self._metrics.time("matte"):
            return Matte(said.matte(look.keep, largest=look.largest), said.frame_wh)

    def __call__(self, seen: Seen) -> Output:
        """Composite one frame; frames come in order."""
        look = self._look  # read once: a frame is made with one look
        if look is not self._shown:
            self._shown.resources.close()
            self._shown = look
        assert seen.segmentation is not None
        if isinstance(seen.segmentation, Matte):
            matte = seen.segmentation.matte(look.keep, largest=look.largest)
        else:
            matte = self.matte_of(seen.segmentation).alpha
        frame = seen.frame
        if look.smoother is not None:
            with self._metrics.time("smooth"):
                if seen.dt_s <= 0:
                    look.smoother.reset()
                matte = look.smoother(matte, coarse_luma(frame), seen.dt_s)
        output = look.effect(frame, Matte(matte, (frame.width, frame.height)), seen.dt_s)
        return replace(output, segmentation=seen.segmentation)


def look_of(
    settings: Settings, info: VideoInfo, keep: frozenset[int] | None, metrics: Metrics, say: Callable[[str], None]
) -> Look:
    """The look that the settings choose, for frames like those of `info`.

    Raises:
        StreamsegError: a background cannot be had; what was opened is closed again.
    """
    kind, value = parse_background(settings.background.spec)
    edges = background_edges(settings)
    if kind in ("none", "blur"):
        # The old background stays, or stays in its colours: there is no fringe to take away.
        edges = replace(edges, decontaminate=False)
    with ExitStack() as stack:
        backdrop = _backdrop(kind, value, settings, info, stack, say)
        effect: Effect
        if kind == "none":
            effect = _Untouched(edges)
        else:
            effect = Background(backdrop, edges, wrap=settings.background.light_wrap, timed=metrics.time)
        return Look(
            effect,
            keep,
            settings.keep.largest,
            background_smoother(settings),
            stack.pop_all(),
        )


class _Untouched:
    """`--background none`: the picture as it is; only the matte is made."""

    def __init__(self, edges: Edges) -> None:
        self._background = Background(None, edges)

    def __call__(self, frame: Frame, segmentation: Any, dt_s: float) -> Output:
        output = self._background(frame, segmentation, dt_s)
        return replace(output, frame=frame)


def background_edges(settings: Settings) -> Edges:
    """How the settings bring the matte to the picture's scale."""
    edges = settings.edges
    return Edges(
        edges.mode == "guided", edges.radius, edges.epsilon, edges.threshold, edges.feather, edges.decontaminate
    )


def background_smoother(settings: Settings) -> Smoother | None:
    """The smoother that the settings choose; None for none."""
    half_life_s = settings.temporal.half_life_s
    kinds: dict[str, Callable[[], Smoother]] = {
        "uncertainty": lambda: Uncertainty(half_life_s or _HALF_LIFE_S),
        "half-life": lambda: HalfLife(half_life_s or _HALF_LIFE_S),
        "flow": lambda: FlowFusion(half_life_s) if half_life_s else FlowFusion(),
        "one-euro": OneEuro,
    }
    kind = kinds.get(settings.temporal.smoother)
    return None if kind is None else kind()


def _backdrop(
    kind: str, value: Any, settings: Settings, info: VideoInfo, stack: ExitStack, say: Callable[[str], None]
) -> Backdrop | None:
    if kind == "blur":
        return BlurredRoom(value)
    if kind == "color":
        return PlainColour(value)
    if kind in ("image", "video"):
        colour, limit = info.colour.settled(info.height), settings.source.max_pixels
        if kind == "image":
            still = open_source(value, max_pixels=limit, colour=colour)
            try:
                picture = still.read()
                # Not all kinds say how many pictures they hold.
                moves = still.info.frame_count != 1 and still.read() is not None
            finally:
                still.close()
            for notice in still.notices:
                say(f"{value}: {notice}")
            if moves:
                say(f"{value} holds more than one picture, and the first stands behind; video:{value} plays it")
            if picture is None:
                raise ConfigError(f"background {value} holds no picture; choose another image")
            return Pictures(lambda at_s: picture, settings.background.fit)
        looped = LoopedVideo(lambda: open_source(value, max_pixels=limit, colour=colour))
        stack.callback(looped.close)
        return Pictures(looped, settings.background.fit)
    return None
