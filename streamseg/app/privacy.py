"""`--blur-people` and `--blur-vehicles`: any task, with people or vehicles hidden in what it paints.

    hidden = classes_hidden(people=True, vehicles=False)
    plan = look_ahead(open_source(url), pool.submit, hidden, say)   # files: the first pass
    task = PrivateTask(task, plan)                                  # the second paints
    task = PrivateTask(task, HiddenClasses(hidden), segmenter)      # live: one pass, with memory

Give the first pass a network of low confidence (0.1): weak sights count where somebody is expected. Clips of events are
cut out of the source, where nobody is hidden: refuse `--clips` together with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamseg.app.moments import Seen
from streamseg.app.process import Task
from streamseg.config import Settings
from streamseg.effects.privacy import PEOPLE, VEHICLES, Hidden, HiddenClasses, Privacy, cover_records
from streamseg.frame import Frame, Output, Source
from streamseg.segment.result import Segmentation
from streamseg.temporal.covers import PlannedCovers, SightingStore

__all__ = ["PrivateTask", "Progress", "classes_hidden", "look_ahead", "unwatched"]

Segment = Callable[[Frame], Segmentation]

# ``with progress(label, total) as show: show(done)``: frames that are through, of so many where that is known.
Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


def unwatched(label: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
    """A `Progress` that shows nothing."""
    return nullcontext(lambda done: None)


def classes_hidden(*, people: bool, vehicles: bool) -> frozenset[str]:
    """Names of the classes to hide."""
    return (PEOPLE if people else frozenset()) | (VEHICLES if vehicles else frozenset())


def look_ahead(
    source: Source,
    submit: Callable[[Frame], Future[Segmentation]],
    classes: frozenset[str],
    say: Callable[[str], None],
    *,
    ahead: int = 1,
    progress: Progress = unwatched,
) -> PlannedCovers:
    """The first pass over a file: what to hide in each of its frames. Closes the source.

    Args:
        source: opened as that of the second pass will be, so that their frames have the same indices.
        submit: asks for `Instances` of a frame.
        classes: names of those to hide.
        say: receives a line at the end.
        ahead: how many frames are asked about before the first answer is awaited.
        progress: shows how far it is.

    Raises:
        StreamsegError: the source is lost, or the network fails.
    """
    sightings, store = HiddenClasses(classes), SightingStore()
    waiting: deque[tuple[float, Future[Segmentation]]] = deque()
    last_s: float | None = None
    info = source.info
    try:
        with closing(source), progress(f"first pass, {Path(info.name).name}", info.frame_count) as show:
            ended = False
            while not ended or waiting:
                frame = None if ended else source.read()
                ended = frame is None
                source.take_packets()
                if frame is not None:
                    waiting.append((frame.seconds, submit(frame)))
                if waiting and (ended or len(waiting) > ahead):
                    at_s, answer = waiting.popleft()
                    found = sightings(answer.result(), 0.0 if last_s is None else at_s - last_s)
                    store.add(found, at_s)
                    last_s = at_s
                show(len(store))
        say(f"first pass: {', '.join(sorted(classes))} looked for in {len(store)} frames of {info.name}")
        return store.plan()
    finally:
        store.close()


class PrivateTask:
    """A task whose pictures hide somebody; a `Task` itself.

    Args:
        task: what is painted.
        covers: the plan of a first pass, or what is to be hidden as it is seen.
        segment: gives `Instances` of a frame; needed without a plan.
        hold_s: how long something stays hidden after its last sight, without a plan.
    """

    def __init__(
        self,
        task: Task,
        covers: HiddenClasses | PlannedCovers,
        segment: Segment | None = None,
        *,
        hold_s: float = 1.0,
    ) -> None:
        self._task = task
        self._segment = segment
        self._seen: Seen | None = None
        self._privacy = Privacy(covers, then=self._paint, hold_s=hold_s)

    def __call__(self, seen: Seen) -> Output:
        """Paint one frame; frames come in order."""
        self._seen = seen
        return self._privacy(seen.frame, self._segment(seen.frame) if self._segment else None, seen.dt_s)

    def prepare_change(self, settings: Settings, say: Callable[[str], None]) -> Callable[[], None]:
        """See `Task`; who is hidden stays."""
        return self._task.prepare_change(settings, say)

    def record(self, output: Output) -> dict[str, Any]:
        """See `Task`; under `hidden` stands the audit."""
        hidden = output.segmentation
        assert isinstance(hidden, Hidden)
        inner = self._task.record(replace(output, segmentation=hidden.seen))
        return {**inner, "hidden": cover_records(hidden.covers)}

    def close(self) -> None:
        """Let go of what the task holds open."""
        self._task.close()

    def _paint(self, frame: Frame, segmentation: Segmentation | None, dt_s: float) -> Output:
        assert self._seen is not None
        return self._task(self._seen)
