"""Semantic networks: from one or several planes of scores a class to `ClassMap`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.errors import InferenceError, ModelLoadError
from streamseg.frame import Frame
from streamseg.pixels.letterbox import ModelInput, picture_size
from streamseg.pixels.masks import fit_frame, sigmoid
from streamseg.segment.inspect import GraphFacts, TensorFacts, ends_in_range
from streamseg.segment.ort import Runs
from streamseg.segment.preprocess import Normaliser, Preprocess
from streamseg.segment.result import ClassMap
from streamseg.segment.sane import refuse_nan

__all__ = ["ClassMapSegmenter"]

Floats = NDArray[np.float32]

# What networks with a two-class map each for road and lines call them; YOLOP and the TwinLiteNets are among them.
_HEADS = {
    "road": ("da", "drive", "drivable", "drive_area", "road"),
    "line": ("ll", "lane", "line", "lane_line"),
}


class ClassMapSegmenter:
    """Segments frames with a semantic network; one frame at a time, from one thread.

    A network with one output gives its classes. One with several outputs of two classes each (background and
    something) gives "background" and one class an output, whose probabilities need not sum to one; boxes beside such
    outputs are not asked for.
    """

    def __init__(
        self,
        session: Runs,
        facts: GraphFacts,
        size_wh: tuple[int, int],
        *,
        preprocess: Preprocess | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """`facts` are of a classmap graph with an RGB input of `size_wh`.

        Args:
            session: that runs it.
            facts: of the graph.
            size_wh: of its input.
            preprocess: None reads it from the file's metadata.
            class_names: by index; None reads them from the metadata.

        Raises:
            ModelLoadError: the names do not fit the classes.
        """
        assert facts.image is not None
        self._session = session
        self._facts = facts
        self._size_wh = size_wh
        self._preprocess = preprocess or Preprocess.from_metadata(facts.metadata)
        self._image = facts.image.name
        self._dtype: type[np.floating] = np.float16 if facts.image.dtype == "float16" else np.float32
        self._heads = facts.maps
        self._in_range = [ends_in_range(facts.path, tensor.name) for tensor in self._heads]
        self._input: ModelInput | None = None
        self._frame_sizes = ((0, 0), (0, 0))
        self._normalise = Normaliser(self._preprocess, channels_last=facts.layout == "nhwc")
        self.class_names = _names(facts, self._heads, class_names)

    def __call__(self, frame: Frame) -> ClassMap:
        """Segment one frame.

        Raises:
            InferenceError: the network failed.
        """
        sizes = ((frame.width, frame.height), picture_size(frame))
        if self._input is None or self._frame_sizes != sizes:
            self._frame_sizes = sizes
            placement = self._preprocess.place(sizes[0], self._size_wh, sizes[1])
            nhwc = self._facts.layout == "nhwc"
            self._input = ModelInput(placement, channels_last=nhwc, dtype=self._dtype, smooth=True)
        blob = self._normalise(self._input(frame))
        outputs = self._session.run([tensor.name for tensor in self._heads], {self._image: blob})
        maps = [
            self._probabilities(output, tensor, in_range=in_range)
            for output, tensor, in_range in zip(outputs, self._heads, self._in_range, strict=True)
        ]
        if len(maps) > 1:
            # Of each head, what is not its background.
            heads = [1 - head[:1] if len(head) == 2 else head[1:] for head in maps]
            found = np.concatenate(heads)
            maps = [np.concatenate([1 - found.max(axis=0, keepdims=True), found])]
        placement = self._input.placement
        refuse_nan(self._facts.path.name, *maps)
        fitted = np.stack([fit_frame(np.ascontiguousarray(plane), placement) for plane in maps[0]])
        return ClassMap(fitted, self.class_names, sizes[0])

    def describe(self) -> dict[str, Any]:
        """What runs, for reports; `load_segmenter` adds the file and the session."""
        width, height = self._size_wh
        shape = [1, 3, height, width] if self._facts.layout == "nchw" else [1, height, width, 3]
        return {"family": self._facts.family, "input_shape": shape, "classes": list(self.class_names)}

    def _probabilities(self, output: NDArray[Any], tensor: TensorFacts, *, in_range: bool) -> Floats:
        """(classes, h, w) float32 in [0, 1] of one head's output."""
        if output.ndim != 4:
            raise InferenceError(
                f"{self._facts.path.name} gave {output.shape} for {tensor.name}, not planes of classes"
            )
        scores = output[0] if _channels_first(output.shape, self._size_wh) else np.moveaxis(output[0], 2, 0)
        scores = scores.astype(np.float32, copy=False)
        if in_range:
            return np.clip(scores, 0, 1)
        if len(scores) == 2:
            second = sigmoid(np.subtract(scores[1], scores[0]))
            return np.stack([1 - second, second])
        flat = np.ascontiguousarray(scores.reshape(len(scores), -1))
        flat = cv2.exp(flat - flat.max(axis=0, keepdims=True))
        flat /= flat.sum(axis=0, keepdims=True)
        return flat.reshape(scores.shape)


def _channels_first(shape: tuple[int, ...], input_wh: tuple[int, int]) -> bool:
    """Whether (1, a, b, c) is (1, classes, h, w): the sides of a map are in the proportions of the input."""
    ratio = input_wh[1] / input_wh[0]
    first, last = (abs(shape[i] / shape[i + 1] - ratio) for i in (2, 1))
    return first < last or (first == last and shape[1] < shape[3])


def _names(facts: GraphFacts, heads: Sequence[TensorFacts], given: Sequence[str] | None) -> tuple[str, ...]:
    if len(heads) > 1:
        names: list[str] = ["background"]
        for tensor in heads:
            own = tensor.name.lower()
            known = next(
                (name for name, words in _HEADS.items() if any(_has(own, word) for word in words)), tensor.name
            )
            classes = next((c for c in (tensor.shape[1], tensor.shape[3]) if c and c <= 64), 2)
            names += [known] if classes == 2 else [f"{known} {index}" for index in range(1, classes)]
        expected = len(names)
    else:
        expected = facts.class_count or len(facts.names)
        names = [facts.names.get(index, f"class {index}") for index in range(expected)]
    if given is None:
        return tuple(names)
    if len(given) != expected:
        raise ModelLoadError(f"{facts.path.name} gives {expected} classes ({', '.join(names)}), not {len(given)} names")
    return tuple(given)


def _has(name: str, word: str) -> bool:
    """Whether a word stands in an output's name, between other letters than letters."""
    parts = "".join(letter if letter.isalpha() else " " for letter in name).split()
    return all(part in parts for part in word.split("_"))
