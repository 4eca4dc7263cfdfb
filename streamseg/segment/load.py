"""From a model file to a segmenter."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from streamseg.errors import ModelLoadError
from streamseg.frame import Colour, Frame, Origin
from streamseg.segment.cache import sha256_of
from streamseg.segment.classmap import ClassMapSegmenter
from streamseg.segment.inspect import GraphFacts, inspect_onnx
from streamseg.segment.ladder import Wanted, open_session
from streamseg.segment.matte import MatteSegmenter
from streamseg.segment.ort import Runs
from streamseg.segment.preprocess import Preprocess
from streamseg.segment.result import Segmentation
from streamseg.segment.yolo import YoloSegmenter

__all__ = ["Segmenter", "load_segmenter"]


class Segmenter(Protocol):
    """Picture in, segmentation out; used from one thread."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """By index."""
        ...

    def __call__(self, frame: Frame) -> Segmentation:
        """Segment one frame.

        Raises:
            InferenceError: the network failed.
        """
        ...

    def retune(self, *, confidence: float, iou: float, classes: Collection[int] | None = None) -> None:
        """Change the thresholds from the next frame on; a network without them takes no notice. Any thread.

        `classes` are those that stay; None leaves them as they are.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What runs, for reports: model, sha256, family, input_shape, precision, provider, runtime, threads ..."""
        ...


def load_segmenter(
    path: str | Path,
    *,
    provider: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    size_wh: tuple[int, int] | None = None,
    confidence: float = 0.25,
    iou: float = 0.7,
    max_instances: int = 300,
    classes: Collection[int] | None = None,
    warm_up: bool = True,
    open_session: Callable[[Wanted], Runs] = open_session,
    preprocess: Preprocess | None = None,
    class_names: Sequence[str] | None = None,
) -> Segmenter:
    """Load an ONNX model; what kind of network it is, is read from its graph.

    Args:
        path: the file.
        provider: "auto" or a rung of `ladder.LADDER`.
        threads: within an operator on the CPU; None takes the cores that this process may use.
        precision: that the runtime computes in, one of `ladder.PRECISIONS`.
        size_wh: the input of a graph with free shapes; None is the best rectangle for each frame's aspect.
        confidence: an instance's score is above it, in [0, 1).
        iou: overlap from which the weaker of two instances of a class goes.
        max_instances: the best so many.
        classes: instances of other classes are dropped before their boxes are decoded; None keeps all.
        warm_up: run once on a grey picture, so that the first frame takes no longer than the others.
        open_session: gives the session; for segmenters that share one, or whose user is told what runs.
        preprocess: of a semantic or matte network; None reads it from the file's metadata, or takes R, G, B in 0..1.
        class_names: of a semantic network, by index; None reads them from the file.

    Raises:
        ModelLoadError: the file is no usable network, the provider cannot run, or the runtime is missing.
    """
    path = Path(path)
    facts = inspect_onnx(path)
    _check(facts)
    size_wh = _input_size(facts, size_wh)
    if size_wh is None and facts.family in ("matte", "classmap"):
        raise ModelLoadError(f"{path.name} leaves its input's size open; set one, such as 256x256")
    session = open_session(Wanted(path, provider, threads, precision))
    segmenter: YoloSegmenter | MatteSegmenter | ClassMapSegmenter
    if facts.family == "yolo-seg":
        segmenter = YoloSegmenter(
            session, facts, size_wh=size_wh, confidence=confidence, iou=iou, max_instances=max_instances,
            classes=classes,
        )  # fmt: skip
    elif facts.family == "classmap":
        assert size_wh is not None
        segmenter = ClassMapSegmenter(session, facts, size_wh, preprocess=preprocess, class_names=class_names)
    else:
        assert size_wh is not None
        segmenter = MatteSegmenter(session, facts, size_wh, preprocess=preprocess)
    loaded = _Loaded(segmenter, session, facts)
    if warm_up:
        loaded(_grey_frame())
    return loaded


def _check(facts: GraphFacts) -> None:
    """Raise `ModelLoadError` for a graph that no module here can run."""
    if facts.family not in ("yolo-seg", "matte", "classmap"):
        raise ModelLoadError(facts.refusal())
    image = facts.image
    if image is None or facts.channels != 3 or image.dtype not in ("float32", "float16"):
        raise ModelLoadError(f"{facts.path.name} takes no RGB picture of floats; {facts.describe_inputs()}")
    if facts.family == "yolo-seg" and facts.layout != "nchw":
        raise ModelLoadError(f"{facts.path.name} takes no picture of layout [1,3,h,w]; {facts.describe_inputs()}")
    if facts.family == "yolo-seg" and facts.names and facts.class_count not in (len(facts.names), None):
        raise ModelLoadError(
            f"{facts.path.name} names {len(facts.names)} classes and gives scores for {facts.class_count}; "
            f"export it again with the layout of ultralytics; {facts.describe_outputs()}"
        )


def _input_size(facts: GraphFacts, size_wh: tuple[int, int] | None) -> tuple[int, int] | None:
    """The input's (w, h): `size_wh` where the graph allows it, else the graph's; None where both leave it open."""
    height, width = facts.input_hw
    if size_wh is None:
        if (width is None) != (height is None):
            raise ModelLoadError(f"{facts.path.name} leaves one side of its input open; set the size")
        return (width, height) if width and height else None
    asked = f"{size_wh[0]}x{size_wh[1]}"
    if (width or size_wh[0], height or size_wh[1]) != size_wh:
        raise ModelLoadError(
            f"{facts.path.name} has a fixed input of {width or 'any'}x{height or 'any'}, not {asked}; "
            "leave the size out, or export the model with dynamic shapes"
        )
    stride = facts.stride or 1
    if min(size_wh) < stride or size_wh[0] % stride or size_wh[1] % stride:
        raise ModelLoadError(f"input size {asked} is no multiple of the network's stride, {stride}")
    return size_wh


class _Loaded:
    """A segmenter and what there is to report of its file and session."""

    def __init__(
        self, segmenter: YoloSegmenter | MatteSegmenter | ClassMapSegmenter, session: Runs, facts: GraphFacts
    ) -> None:
        self._segmenter = segmenter
        self._session = session
        self._facts = facts
        self._sha256 = sha256_of(facts.path)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._segmenter.class_names

    def __call__(self, frame: Frame) -> Segmentation:
        return self._segmenter(frame)

    def retune(self, *, confidence: float, iou: float, classes: Collection[int] | None = None) -> None:
        if isinstance(self._segmenter, YoloSegmenter):
            self._segmenter.confidence, self._segmenter.iou = confidence, iou
            if classes is not None:
                self._segmenter.look_for(classes)

    def describe(self) -> dict[str, Any]:
        on = self._session.on
        return {
            "model": self._facts.path.name,
            "sha256": self._sha256,
            **self._segmenter.describe(),
            "precision": self._facts.precision,
            "provider": on.provider,
            "runtime": on.runtime,
            "computes_in": on.precision or _computed(self._facts.precision, on.provider),
            "cpu_nodes": on.cpu_nodes,
            "threads": on.threads,
        }


def _computed(held: str, provider: str) -> str:
    """What a provider that says nothing of it computes in, of a file that holds `held`."""
    # ONNX Runtime has no convolutions of half floats for these processors: it puts casts around float32 ones.
    cast = provider == "cpu" and held == "float16" and platform.machine().lower() in ("x86_64", "amd64")
    return "float32" if cast else held


def _grey_frame() -> Frame:
    planes = np.full((720 * 3 // 2, 1280), 128, np.uint8)
    return Frame(planes, 0, Fraction(1, 30), 0, 0.0, Colour(), Origin("warm-up", (1280, 720)))
