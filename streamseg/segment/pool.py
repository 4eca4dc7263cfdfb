"""Several frames segmented at once: an ordered pool of single-thread sessions, for files and fast sources."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from streamseg.errors import PipelineStuckError
from streamseg.frame import Frame
from streamseg.segment.load import Segmenter
from streamseg.segment.result import Segmentation

__all__ = ["Pool"]

_CLOSE_TIMEOUT_S = 10.0


class Pool:
    """Segments as many frames at once as it has segmenters.

    A network leaves a second thread idle between its layers, so sessions of one thread each, side by side, do more
    frames a second than one session with all the threads; a single frame takes longer. Whoever awaits the futures in
    the order of `submit` has the frames in order. The caller bounds how many wait.
    """

    def __init__(self, segmenters: Sequence[Segmenter]) -> None:
        """Each of `segmenters`, at least one and all of the same network, is used by one thread at a time."""
        assert segmenters
        self._segmenters = tuple(segmenters)
        self._free = deque(self._segmenters)
        self._workers = ThreadPoolExecutor(len(self._segmenters), thread_name_prefix="segment")
        self._under_way: set[Future[Segmentation]] = set()

    @property
    def class_names(self) -> tuple[str, ...]:
        """By index."""
        return self._segmenters[0].class_names

    def submit(self, frame: Frame) -> Future[Segmentation]:
        """Have a frame segmented; after `close` the future is cancelled. The future raises what the segmenter raises.

        Any thread; the frame must not change until the future is done.
        """
        future: Future[Segmentation]
        try:
            future = self._workers.submit(self._segment, frame)
        except RuntimeError:  # closed
            future = Future()
            future.cancel()
            return future
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def retune(self, *, confidence: float, iou: float, classes: Collection[int] | None = None) -> None:
        """Change the thresholds and classes of frames that are not yet under way; see `Segmenter`. Any thread."""
        for segmenter in self._segmenters:
            segmenter.retune(confidence=confidence, iou=iou, classes=classes)

    def describe(self) -> dict[str, Any]:
        """What each segmenter says of itself, and ``sessions``, how many there are."""
        return {**self._segmenters[0].describe(), "sessions": len(self._segmenters)}

    def close(self) -> None:
        """Cancel what waits, and wait for what is under way. Any thread but its own; may be called again.

        Raises:
            PipelineStuckError: a network has not come back for ten seconds.
        """
        self._workers.shutdown(wait=False, cancel_futures=True)
        stuck = wait(tuple(self._under_way), _CLOSE_TIMEOUT_S).not_done
        if stuck:
            raise PipelineStuckError(f"{len(stuck)} of {len(self._segmenters)} networks did not come back")
        self._workers.shutdown(wait=True)

    def _segment(self, frame: Frame) -> Segmentation:
        segmenter = self._free.popleft()  # never empty: there are as many segmenters as threads
        try:
            return segmenter(frame)
        finally:
            self._free.append(segmenter)
