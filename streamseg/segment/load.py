"""From a model file to a segmenter."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from streamseg.errors import ModelLoadError
from streamseg.frame import Colour, Frame, Origin
from streamseg.segment.inspect import GraphFacts, inspect_onnx
from streamseg.segment.matte import MatteSegmenter
from streamseg.segment.ort import Session, runtime_version
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

    def describe(self) -> dict[str, Any]:
        """What runs, for reports: model, sha256, family, provider, threads, input_shape, precision, onnxruntime."""
        ...


def load_segmenter(
    path: str | Path,
    *,
    provider: str = "auto",
    threads: int | None = None,
    size_wh: tuple[int, int] | None = None,
    confidence: float = 0.25,
    iou: float = 0.7,
    max_instances: int = 300,
    classes: Collection[int] | None = None,
    warm_up: bool = True,
) -> Segmenter:
    """Load an ONNX model; what kind of network it is, is read from its graph.

    Args:
        path: the file.
        provider: "auto" or a key of `ort.PROVIDERS`.
        threads: within an operator on the CPU; None takes the cores that this process may use.
        size_wh: the input of a graph with free shapes; None is the best rectangle for each frame's aspect.
        confidence: an instance's score is above it, in [0, 1).
        iou: overlap from which the weaker of two instances of a class goes.
        max_instances: the best so many.
        classes: instances of other classes are dropped before their boxes are decoded; None keeps all.
        warm_up: run once on a grey picture, so that the first frame takes no longer than the others.

    Raises:
        ModelLoadError: the file is no usable network, the provider cannot run, or the runtime is missing.
    """
    path = Path(path)
    facts = inspect_onnx(path)
    if facts.family not in ("yolo-seg", "matte"):
        raise ModelLoadError(facts.refusal())
    session = Session(path, provider=provider, threads=threads)
    segmenter: YoloSegmenter | MatteSegmenter
    if facts.family == "yolo-seg":
        segmenter = YoloSegmenter(
            session, facts, size_wh=size_wh, confidence=confidence, iou=iou, max_instances=max_instances,
            classes=classes,
        )  # fmt: skip
    else:
        segmenter = MatteSegmenter(session, facts, size_wh=size_wh)
    loaded = _Loaded(segmenter, session, facts)
    if warm_up:
        loaded(_grey_frame())
    return loaded


class _Loaded:
    """A segmenter and what there is to report of its file and session."""

    def __init__(self, segmenter: YoloSegmenter | MatteSegmenter, session: Session, facts: GraphFacts) -> None:
        self._segmenter = segmenter
        self._session = session
        self._facts = facts
        self._sha256 = _sha256(facts.path)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._segmenter.class_names

    def __call__(self, frame: Frame) -> Segmentation:
        return self._segmenter(frame)

    def describe(self) -> dict[str, Any]:
        image = self._facts.image
        return {
            "model": self._facts.path.name,
            "sha256": self._sha256,
            **self._segmenter.describe(),
            "provider": self._session.provider,
            "cpu_nodes": self._session.cpu_nodes,
            "threads": self._session.threads,
            "precision": image.dtype if image else None,
            "onnxruntime": runtime_version(),
        }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _grey_frame() -> Frame:
    planes = np.full((720 * 3 // 2, 1280), 128, np.uint8)
    return Frame(planes, 0, Fraction(1, 30), 0, 0.0, Colour(), Origin("warm-up", (1280, 720)))
