"""Networks that answer with one opacity a pixel."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamseg.errors import InferenceError
from streamseg.frame import Frame
from streamseg.pixels.letterbox import ModelInput, Placement
from streamseg.pixels.masks import sigmoid
from streamseg.segment.inspect import GraphFacts, ends_in_range
from streamseg.segment.ort import Runs
from streamseg.segment.result import Matte

__all__ = ["MatteSegmenter"]


class MatteSegmenter:
    """Segments frames with a single-channel matte network; one frame at a time, from one thread."""

    class_names: tuple[str, ...] = ("person",)

    def __init__(self, session: Runs, facts: GraphFacts, size_wh: tuple[int, int]) -> None:
        """`facts` are of a matte graph with an RGB input; `size_wh` is the input's."""
        assert facts.image is not None
        self._session = session
        self._facts = facts
        self._size_wh = size_wh
        self._image = facts.image.name
        self._dtype: type[np.floating] = np.float16 if facts.image.dtype == "float16" else np.float32
        self._input: ModelInput | None = None
        self._logits = not ends_in_range(facts.path, facts.outputs[0].name)

    def __call__(self, frame: Frame) -> Matte:
        """Segment one frame.

        Raises:
            InferenceError: the network failed.
        """
        frame_wh = (frame.width, frame.height)
        if self._input is None or self._input.placement.frame_wh != frame_wh:
            self._input = ModelInput(
                Placement.stretch(frame_wh, self._size_wh),
                channels_last=self._facts.layout == "nhwc",
                dtype=self._dtype,
                smooth=True,
            )
        (output,) = self._session.run([self._facts.outputs[0].name], {self._image: self._input(frame)})
        if output.ndim != 4 or 1 not in (output.shape[1], output.shape[3]):
            raise InferenceError(f"{self._facts.path.name} gave {output.shape}, not one opacity a pixel")
        alpha = (output[0, 0] if output.shape[1] == 1 else output[0, ..., 0]).astype(np.float32)
        return Matte(sigmoid(alpha) if self._logits else np.clip(alpha, 0, 1, out=alpha), frame_wh)

    def describe(self) -> dict[str, Any]:
        """What runs, for reports; `load_segmenter` adds the file and the session."""
        width, height = self._size_wh
        shape = [1, 3, height, width] if self._facts.layout == "nchw" else [1, height, width, 3]
        return {"family": self._facts.family, "input_shape": shape}
