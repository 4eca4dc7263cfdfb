"""Processes for pipelines under test."""

from __future__ import annotations

from collections.abc import Callable

from streamseg.frame import Frame, Output


class Each:
    """One picture for each frame, at once."""

    def __init__(self, function: Callable[[Frame], Output]) -> None:
        self._function = function

    def __call__(self, frame: Frame) -> list[Output]:
        return [self._function(frame)]

    def finish(self) -> list[Output]:
        return []
