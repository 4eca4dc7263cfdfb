"""Networks that answer with one opacity a pixel."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamseg.errors import InferenceError
from streamseg.frame import Frame
from streamseg.pixels.letterbox import ModelInput, picture_size
from streamseg.pixels.masks import fit_frame, sigmoid
from streamseg.segment.inspect import GraphFacts, ends_in_range
from streamseg.segment.ort import Runs
from streamseg.segment.preprocess import Normaliser, Preprocess
from streamseg.segment.result import Matte
from streamseg.segment.sane import refuse_nan

__all__ = ["MatteSegmenter"]


class MatteSegmenter:
    """Segments frames with a single-channel matte network; one frame at a time, from one thread."""

    class_names: tuple[str, ...] = ("person",)

    def __init__(
        self, session: Runs, facts: GraphFacts, size_wh: tuple[int, int], *, preprocess: Preprocess | None = None
    ) -> None:
        """`facts` are of a matte graph with an RGB input of `size_wh`; without `preprocess` its metadata tell."""
        assert facts.image is not None
        self._preprocess = preprocess or Preprocess.from_metadata(facts.metadata)
        self._normalise = Normaliser(self._preprocess, channels_last=facts.layout == "nhwc")
        self._session = session
        self._facts = facts
        self._size_wh = size_wh
        self._image = facts.image.name
        self._dtype: type[np.floating] = np.float16 if facts.image.dtype == "float16" else np.float32
        self._input: ModelInput | None = None
        self._frame_sizes = ((0, 0), (0, 0))
        self._logits = not ends_in_range(facts.path, facts.outputs[0].name)

    def __call__(self, frame: Frame) -> Matte:
        """Segment one frame.

        Raises:
            InferenceError: the network failed.
        """
        frame_wh = (frame.width, frame.height)
        sizes = (frame_wh, picture_size(frame))
        if self._input is None or self._frame_sizes != sizes:
            self._frame_sizes = sizes
            placement = self._preprocess.place(frame_wh, self._size_wh, sizes[1])
            self._input = ModelInput(
                placement, channels_last=self._facts.layout == "nhwc", dtype=self._dtype, smooth=True
            )
        blob = self._normalise(self._input(frame))
        (output,) = self._session.run([self._facts.outputs[0].name], {self._image: blob})
        if output.ndim != 4 or 1 not in (output.shape[1], output.shape[3]):
            raise InferenceError(f"{self._facts.path.name} gave {output.shape}, not one opacity a pixel")
        alpha = (output[0, 0] if output.shape[1] == 1 else output[0, ..., 0]).astype(np.float32)
        refuse_nan(self._facts.path.name, alpha)
        alpha = sigmoid(alpha) if self._logits else np.clip(alpha, 0, 1, out=alpha)
        return Matte(fit_frame(alpha, self._input.placement), frame_wh)

    def describe(self) -> dict[str, Any]:
        """What runs, for reports; `load_segmenter` adds the file and the session."""
        width, height = self._size_wh
        shape = [1, 3, height, width] if self._facts.layout == "nchw" else [1, height, width, 3]
        return {"family": self._facts.family, "input_shape": shape}
