"""What the network says of a frame, and how long that is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from streamseg.engine import Metrics
from streamseg.errors import InferenceError
from streamseg.frame import Frame
from streamseg.segment.load import Segmenter
from streamseg.segment.pool import Pool
from streamseg.segment.result import Segmentation

__all__ = ["HANGS", "Answer", "Timed", "in_good_time"]

# A live picture waits so long for a network that hangs; then there are slates until it answers. Many streams that take
# turns at one network wait for each other, too.
_PATIENCE_S = 5.0
HANGS = f"the network has not answered for {_PATIENCE_S:g} s"


class Timed:
    """A segmenter whose time is noted as the stage ``segment``; `took_s` is that of the last frame."""

    def __init__(self, segmenter: Segmenter, metrics: Metrics) -> None:
        self._segmenter = segmenter
        self._metrics = metrics
        self.took_s = 0.0
        self.class_names = segmenter.class_names
        self.retune = segmenter.retune
        self.describe = segmenter.describe

    def __call__(self, frame: Frame) -> Segmentation:
        """See `Segmenter`."""
        began = time.perf_counter()
        segmentation = self._segmenter(frame)
        self.took_s = time.perf_counter() - began
        self._metrics.add("segment", self.took_s)
        return segmentation


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the network will say of a frame."""

    future: Future[Segmentation]
    frame: Frame
    looked_at: Frame
    digest: Callable[[Segmentation], Segmentation]

    @property
    def done(self) -> bool:
        """Whether `result` comes at once."""
        return self.future.done()

    def result(self, *, live: bool = False) -> Segmentation:
        """What it says, about the frame that is shown; waits for it, `live` not without end.

        Raises:
            InferenceError: the network failed, or has not answered.
        """
        try:
            said = self.future.result(_PATIENCE_S if live else None)
        except TimeoutError:
            raise InferenceError(HANGS) from None
        if self.looked_at is not self.frame:
            said = said.on((self.frame.width, self.frame.height))
        return self.digest(said)


def in_good_time(pool: Pool) -> Callable[[Frame], Segmentation]:
    """What a network says of one live frame after the other; one that hangs is not waited for without end.

    The call that comes back raises `InferenceError`: the network failed, or has not answered.
    """
    last: Future[Segmentation] | None = None

    def segment(frame: Frame) -> Segmentation:
        nonlocal last
        if last is not None and not last.done():
            raise InferenceError(HANGS)  # it was waited for already
        last = pool.submit(frame)
        try:
            return last.result(_PATIENCE_S)
        except TimeoutError:
            raise InferenceError(HANGS) from None

    return segment
