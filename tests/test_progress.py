"""How far a run is, where nobody has a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from streamseg.cli import progress


class Clock:
    """Ten seconds pass between two looks at it."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic(self) -> float:
        self._now_s += 10
        return self._now_s


class Unread(io.StringIO):
    """Standard error whose reader went away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_line_now_and_then_tells_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "time", Clock())
    with progress.progress("talk.mp4", 100, quiet=False) as show:
        show(0)
        show(40)
    assert capsys.readouterr().err == "talk.mp4: 40/100 frames, 2.0 fps, 30 s left\n"


def test_a_reader_that_went_away_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "time", Clock())
    monkeypatch.setattr(sys, "stderr", Unread())
    with progress.progress("talk.mp4", 100, quiet=False) as show:
        show(40)
