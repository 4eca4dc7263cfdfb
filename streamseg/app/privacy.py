"""`--blur-people` and `--blur-vehicles`: any task, with people or vehicles hidden in what it paints.

    hidden = classes_hidden(people=True, vehicles=False)
    plan = look_ahead(open_source(url), segmenter, hidden, say)     # files: the first pass
    task = PrivateTask(task, plan)                                  # the second paints
    task = PrivateTask(task, HiddenClasses(hidden), segmenter)      # live: one pass, with memory

Give the first pass a network of low confidence (0.1): weak sights count where somebody is expected. Clips of events are
cut out of the source, where nobody is hidden: refuse `--clips` together with it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

from streamseg.app.process import Task
from streamseg.app.sight import Seen
from streamseg.config import Settings
from streamseg.effects.privacy import PEOPLE, VEHICLES, Hidden, HiddenClasses, Privacy, cover_records
from streamseg.frame import Frame, Output, Source
from streamseg.segment.result import Segmentation
from streamseg.temporal.covers import PlannedCovers, SightingStore

__all__ = ["PrivateTask", "classes_hidden", "look_ahead"]

Segment = Callable[[Frame], Segmentation]


def classes_hidden(*, people: bool, vehicles: bool) -> frozenset[str]:
    """Names of the classes to hide."""
    return (PEOPLE if people else frozenset()) | (VEHICLES if vehicles else frozenset())


def look_ahead(source: Source, segment: Segment, classes: frozenset[str], say: Callable[[str], None]) -> PlannedCovers:
    """The first pass over a file: what to hide in each of its frames. Closes the source.

    Args:
        source: opened as that of the second pass will be, so that their frames have the same indices.
        segment: gives `Instances` of a frame.
        classes: names of those to hide.
        say: receives a line at the end.

    Raises:
        StreamsegError: the source is lost, or the network fails.
    """
    sightings, store = HiddenClasses(classes), SightingStore()
    count, last_s = 0, None
    try:
        with closing(source):
            while (frame := source.read()) is not None:
                source.take_packets()
                found = sightings(segment(frame), 0.0 if last_s is None else frame.seconds - last_s)
                store.add(found, frame.seconds)
                count, last_s = count + 1, frame.seconds
        say(f"first pass: {', '.join(sorted(classes))} looked for in {count} frames of {source.info.name}")
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
