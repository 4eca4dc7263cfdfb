"""Joins the rooms: from settings to a pipeline ready to start, and from a finished one to its report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import cv2

import streamseg
from streamseg.config import Settings, parse_background
from streamseg.effects import Backdrop, Background, BlurredRoom, Edges, Effect, Pictures, PlainColour
from streamseg.engine import Metrics, Pipeline
from streamseg.errors import ConfigError
from streamseg.frame import Colour, Frame, Output, Sink, Source, VideoInfo
from streamseg.segment.describe import record
from streamseg.segment.load import Segmenter, load_segmenter
from streamseg.segment.result import Matte
from streamseg.segment.store import ResolvedModel, resolve
from streamseg.sinks import LinesSink, MatteSink, open_sink, same_file
from streamseg.sources import open_source
from streamseg.sources.looped import LoopedVideo
from streamseg.temporal import HalfLife, SceneCut, Smoother, Uncertainty

__all__ = ["Run", "VirtualBackground", "background_edges", "background_smoother", "build", "versions"]

# A pause this long says nothing about the next picture.
_FORGET_AFTER_S = 1.0


class VirtualBackground:
    """What the process thread does with a frame: segment, steady, composite.

    Args:
        segmenter: finds the subject.
        effect: paints.
        keep: class ids that count as the subject; None where the network tells no classes apart.
        largest: only the largest subject.
        smoother: steadies the matte; None leaves it as it is.
        scene_cut: tells when to forget the past.
        metrics: receives the time of every stage.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        effect: Effect,
        *,
        keep: frozenset[int] | None,
        largest: bool,
        smoother: Smoother | None,
        scene_cut: SceneCut | None,
        metrics: Metrics,
    ) -> None:
        self._segmenter = segmenter
        self._effect = effect
        self._keep = keep
        self._largest = largest
        self._smoother = smoother
        self._scene_cut = scene_cut
        self._metrics = metrics
        self._seconds: float | None = None

    def __call__(self, frame: Frame) -> Output:
        """Composite one frame; frames come in order."""
        seconds = frame.seconds
        dt_s = 0.0 if self._seconds is None else seconds - self._seconds
        self._seconds = seconds
        with self._metrics.time("segment"):
            segmentation = self._segmenter(frame)
        with self._metrics.time("matte"):
            matte = segmentation.matte(self._keep, largest=self._largest)
        if self._smoother is not None:
            with self._metrics.time("smooth"):
                cut = self._scene_cut is not None and self._scene_cut(frame.y, dt_s)
                if cut or not 0 < dt_s < _FORGET_AFTER_S:
                    self._smoother.reset()
                    dt_s = 0.0
                matte = self._smoother(matte, frame.y, dt_s)
        output = self._effect(frame, Matte(matte, (frame.width, frame.height)), dt_s)
        return replace(output, segmentation=segmentation)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A pipeline and what there is to say about it."""

    pipeline: Pipeline
    source: Source
    segmenter: Segmenter
    model: ResolvedModel
    sinks: Mapping[str, Sink]
    settings: Settings
    resources: ExitStack

    def notices(self) -> list[str]:
        """Remarks of the source and the sinks so far, in one line each."""
        lines = list(self.source.notices)
        for url, sink in self.sinks.items():
            lines.extend(f"{url}: {notice}" for notice in sink.notices)
        return lines

    def report(self, *, wall_s: float, outcome: str) -> dict[str, Any]:
        """What happened, ready for JSON. `outcome` is ``finished``, ``interrupted`` or an error's message."""
        measured = self.pipeline.metrics.snapshot()
        counts = measured["counts"]
        info = self.source.info
        stages = dict(measured["stages"])
        written = {}
        for number, url in enumerate(self.sinks):
            if f"write-{number}" in stages:
                stages[f"write {url}"] = stages.pop(f"write-{number}")
            written[url] = counts.get(f"frames out {number}", 0)
        frames_in = counts.get("frames in", 0)
        return {
            "streamseg": streamseg.__version__,
            "outcome": outcome,
            "source": {
                "url": info.name,
                "size_wh": list(info.original_wh),
                "frame_wh": [info.width, info.height],
                "rate": str(info.rate) if info.rate else None,
                "time_base": str(info.time_base),
                "colour": asdict(info.colour),
                "irregularities": dict(self.source.counts),
            },
            "sinks": [{"url": url, "frames": frames} for url, frames in written.items()],
            "frames": {
                "in": frames_in,
                "out": next(iter(written.values()), 0),
                "dropped": self.pipeline.drops,
            },
            "wall_s": round(wall_s, 3),
            "fps": round(frames_in / wall_s, 2) if wall_s > 0 else None,
            "stages": stages,
            "model": {
                "name": self.model.name,
                "licence": self.model.licence,
                **self.segmenter.describe(),
            },
            "threads": {
                "cores": os.cpu_count(),
                "opencv": cv2.getNumThreads(),
                "decoder": self.settings.source.threads,
                "encoder": self.settings.output.threads,
            },
            "versions": versions(),
            "machine": {"system": platform.platform(), "processor": platform.machine()},
            "notices": self.notices(),
            "settings": self.settings.model_dump(mode="json"),
        }


def versions() -> dict[str, str]:
    """Versions of Python and of what streamseg stands on."""
    found = {"python": platform.python_version()}
    for package in ("av", "numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "pydantic"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def build(settings: Settings, say: Callable[[str], None], *, protected: Sequence[str] = ()) -> Run:
    """Open everything that `settings` name; nothing runs yet.

    Args:
        settings: of the run.
        say: receives one-line remarks for the user, such as which network was chosen and why.
        protected: files that no output may replace, besides the source, the background and the network.

    Raises:
        StreamsegError: something cannot be had as asked; what was opened is closed again.
    """
    outputs = _outputs(settings, say)
    _check_paths(settings, outputs, protected)
    # One of our threads runs the network, one decodes, one encodes: OpenCV's own pool would only get in their way.
    cv2.setNumThreads(1)
    # The pipeline closes what it is handed; until it has it, and if anything fails before, we do.
    with ExitStack() as handed, ExitStack() as stack:
        source = open_source(
            settings.source.url, max_pixels=settings.source.max_pixels, threads=settings.source.threads
        )
        handed.callback(source.close)
        kind, value = parse_background(settings.background.spec)
        backdrop = _backdrop(kind, value, settings, source.info, stack, say)
        model = resolve(settings.model.name, offline=settings.model.offline, say=say)
        if model.remark:
            say(model.remark)
        segmenter, keep = _segmenter(model, settings)
        metrics = Metrics()
        edges = background_edges(settings)
        if kind in ("none", "blur"):
            # The old background stays, or stays in its colours: there is no fringe to take away.
            edges = replace(edges, decontaminate=False)
        effect: Effect
        if kind == "none":
            effect = _Untouched(edges)
        else:
            effect = Background(backdrop, edges, wrap=settings.background.light_wrap, timed=metrics.time)
        process = VirtualBackground(
            segmenter,
            effect,
            keep=keep,
            largest=settings.keep.largest,
            smoother=background_smoother(settings),
            scene_cut=SceneCut() if settings.temporal.scene_cut else None,
            metrics=metrics,
        )
        sinks = _sinks(settings, outputs, source.info, alpha=kind == "transparent", stack=handed)
        pipeline = Pipeline(source, process, list(sinks.values()), metrics=metrics)
        handed.pop_all()
        return Run(pipeline, source, segmenter, model, sinks, settings, stack.pop_all())


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
    kinds: dict[str, Callable[[float], Smoother]] = {"uncertainty": Uncertainty, "half-life": HalfLife}
    kind = kinds.get(settings.temporal.smoother)
    return None if kind is None else kind(half_life_s)


def _backdrop(
    kind: str, value: Any, settings: Settings, info: VideoInfo, stack: ExitStack, say: Callable[[str], None]
) -> Backdrop | None:
    if kind == "blur":
        return BlurredRoom(value)
    if kind == "color":
        return PlainColour(value)
    if kind in ("image", "video"):
        colour, limit = _computed(info.colour, info.height), settings.source.max_pixels
        if kind == "image":
            still = open_source(value, max_pixels=limit, colour=colour)
            try:
                picture = still.read()
            finally:
                still.close()
            for notice in still.notices:
                say(f"{value}: {notice}")
            if picture is None:
                raise ConfigError(f"background {value} holds no picture; choose another image")
            return Pictures(lambda at_s: picture, settings.background.fit)
        looped = LoopedVideo(lambda: open_source(value, max_pixels=limit, colour=colour))
        stack.callback(looped.close)
        return Pictures(looped, settings.background.fit)
    return None


def _computed(colour: Colour, height: int) -> Colour:
    """The same colour with the matrix spelt out that an unspecified one stands for at this height."""
    if colour.matrix in (0, 2, 3):
        return replace(colour, matrix=6 if height <= 576 else 1)
    return colour


def _segmenter(resolved: ResolvedModel, settings: Settings) -> tuple[Segmenter, frozenset[int] | None]:
    path, model = resolved.path, settings.model
    keep = None
    if resolved.family == "yolo-seg":
        keep = _class_ids(settings.keep.classes, resolved.facts.names, path)
    size_wh = None
    if model.size != "auto":
        width, height = model.size.split("x")
        size_wh = (int(width), int(height))
    segmenter = load_segmenter(
        path,
        provider=model.provider,
        threads=model.threads or None,
        size_wh=size_wh,
        confidence=model.confidence,
        iou=model.iou,
        max_instances=model.max_instances,
        # The results list everything that was seen; else what is not kept need not even be decoded.
        classes=None if settings.output.results else keep,
    )
    if keep is None and settings.keep.classes != ["person"]:
        raise ConfigError(
            f"{path.name} finds people and tells no classes apart; "
            f"leave out --keep {','.join(settings.keep.classes)} or choose a YOLO model with --model"
        )
    return segmenter, keep


def _class_ids(wanted: Sequence[str], names: Mapping[int, str], path: Path) -> frozenset[int]:
    by_name = {name: index for index, name in names.items()}
    ids = set()
    for name in wanted:
        if name not in by_name:
            near = get_close_matches(name, by_name, 3, 0.5)
            known = near or list(by_name)[:10]
            hint = "near matches" if near else "some of its classes"
            raise ConfigError(f"{path.name} has no class {name!r}; {hint}: {', '.join(known)}")
        ids.add(by_name[name])
    if not ids:
        raise ConfigError("keep.classes is empty; name at least one class, such as person")
    return frozenset(ids)


def _outputs(settings: Settings, say: Callable[[str], None]) -> list[str]:
    if settings.output.sinks:
        return list(settings.output.sinks)
    if settings.output.matte or settings.output.results:
        return ["null:"]
    source = Path(settings.source.url)
    if not source.is_file():
        raise ConfigError("no output: name one with -o, such as -o out.mp4, or -o null: for none")
    still = source.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
    suffix = ".png" if still else ".webm" if settings.background.spec == "transparent" else ".mp4"
    chosen = f"{source.stem}-streamseg{suffix}"
    say(f"no -o given: writing {chosen}")
    return [chosen]


def _check_paths(settings: Settings, outputs: Sequence[str], protected: Sequence[str]) -> None:
    url, output = settings.source.url, settings.output
    if not url:
        raise ConfigError("no source: name a video file, an image, a folder, a glob or - for standard input")
    if (url == "-" and sys.stdin is None) or ("-" in outputs and sys.stdout is None):
        raise ConfigError("- names a standard stream that is closed; open it or name a file")
    kind, value = parse_background(settings.background.spec)
    inputs = [(url, "the source itself")]
    if kind in ("image", "video"):
        inputs.append((value, "the background itself"))
    inputs += [(path, "an input of this run") for path in (settings.model.name, *protected)]
    written = [path for path in (*outputs, output.matte, output.results, output.report) if path]
    for path in (output.matte, output.results, output.report):
        if path == "-":
            raise ConfigError("standard output is for the picture (-o -); name a file for the matte, results or report")
    for number, path in enumerate(written):
        if path in ("-", "null:"):
            continue
        for source, name in inputs:
            if same_file(source, path):
                raise ConfigError(f"output {path} is {name}; choose another name")
        # Through links too: two writers of one file would each replace the other's.
        if os.path.realpath(path) in {os.path.realpath(other) for other in written[:number]}:
            raise ConfigError(f"two outputs write {path}; choose different names")
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            raise ConfigError(f"output {path} is no regular file; name a file, or null: for none")
    if output.report:
        folder = Path(output.report).absolute().parent
        if not folder.is_dir():
            raise ConfigError(f"cannot write report {output.report}: its folder does not exist; make it first")
        if Path(output.report).is_dir() or not os.access(folder, os.W_OK):
            raise ConfigError(f"cannot write report {output.report}: no file can be made there; choose another place")


def _sinks(
    settings: Settings, outputs: Sequence[str], info: VideoInfo, *, alpha: bool, stack: ExitStack
) -> dict[str, Sink]:
    output = settings.output
    sinks: dict[str, Sink] = {}
    for url in outputs:
        sinks[url] = open_sink(
            url,
            info,
            encoder=output.encoder or None,
            quality=output.quality or None,
            container_format=output.format or None,
            alpha=alpha and url != "null:",
            threads=output.threads,
        )
        stack.callback(sinks[url].close)
    if output.matte:
        sinks[output.matte] = MatteSink(output.matte, info)
        stack.callback(sinks[output.matte].close)
    if output.results:
        sinks[output.results] = LinesSink(output.results, record)
        stack.callback(sinks[output.results].close)
    return sinks
