"""What the process thread does with a frame: see, then paint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from streamseg.app.keyframes import Pace
from streamseg.app.moments import Seen
from streamseg.app.sight import Sight
from streamseg.config import Settings
from streamseg.frame import Frame, Output

__all__ = ["SeeAndPaint", "Task"]


class Task(Protocol):
    """What is painted; used from the process thread."""

    def __call__(self, seen: Seen) -> Output:
        """Paint one frame; frames come in order."""
        ...

    def prepare_change(self, settings: Settings, say: Callable[[str], None]) -> Callable[[], None]:
        """Make ready what other settings change; the call that comes back takes it over, from any thread.

        Raises:
            StreamsegError: it cannot be had as asked.
        """
        ...

    def record(self, output: Output) -> dict[str, Any]:
        """What was seen in one frame, ready for JSON. Any thread."""
        ...

    def close(self) -> None:
        """Let go of what it holds open; when no frame will come."""
        ...


class SeeAndPaint:
    """An `engine.Process` of a way of seeing and a task.

    Args:
        sight: tells what is known of each frame.
        paint: makes the picture; called once a frame, in order.
        paces: are told how long a frame takes besides the networks; None has none.

    Attributes:
        paint: may be exchanged before the first frame.
    """

    def __init__(self, sight: Sight, paint: Callable[[Seen], Output], *paces: Pace | None) -> None:
        self._sight = sight
        self.paint = paint
        self._paces = [pace for pace in paces if pace is not None]

    def __call__(self, frame: Frame) -> Sequence[Output]:
        """Take one frame; the pictures of those that are ready."""
        began = time.perf_counter()
        seen = self._sight.see(frame)
        outputs = [self.paint(one) for one in seen]
        if seen:
            other_s = time.perf_counter() - began - self._sight.waited_s
            for pace in self._paces:
                pace.processed(other_s, seen[-1].dt_s)
        return outputs

    def finish(self) -> Iterator[Output]:
        """The pictures of the frames that wait."""
        return (self.paint(one) for one in self._sight.finish())
