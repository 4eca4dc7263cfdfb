"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamseg.cli.log import on_terminal, tell

__all__ = ["Show", "progress", "status_line"]

_PLAIN_EVERY_S = 5.0
_STATUS_EVERY_S = 60.0


class Show(Protocol):
    """Shows how far it is; call it as often as you like."""

    def __call__(self, done: int) -> None:
        """`done` frames are through."""
        ...


@contextmanager
def progress(label: str, total: int | None, *, quiet: bool) -> Iterator[Show]:
    """Show the progress of something counted in frames on standard error.

    Args:
        label: what is being done.
        total: how many frames there are, where that is known.
        quiet: show nothing.
    """
    if quiet:
        yield lambda done: None
    elif on_terminal():
        with _bar(label, total) as show:
            yield show
    else:
        yield _Lines(label, total)


@contextmanager
def status_line(status: Callable[[], str], say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Show how something goes that has no end: a line that changes on a terminal, one a minute elsewhere.

    Args:
        status: gives the line.
        say: says a line where there is no terminal.

    Yields:
        to be called as often as you like.
    """
    if on_terminal():
        with Console(stderr=True).status("") as spinner:
            yield lambda: spinner.update(escape(status()))
        return
    told = time.monotonic()

    def show() -> None:
        nonlocal told
        if time.monotonic() - told >= _STATUS_EVERY_S:
            told = time.monotonic()
            say(status())

    yield show


@contextmanager
def _bar(label: str, total: int | None) -> Iterator[Show]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task(label, total=total, rate="")

        def show(done: int) -> None:
            elapsed = time.monotonic() - began
            # The container's frame count is an estimate: do not show 101 %.
            most = max(total, done) if total else None
            bar.update(task, completed=done, total=most, rate=f"{done / elapsed:.1f} fps" if elapsed > 0.5 else "")

        yield show


class _Lines:
    def __init__(self, label: str, total: int | None) -> None:
        self._label = label
        self._total = total
        self._began = self._told = time.monotonic()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._told < _PLAIN_EVERY_S or not done:
            return
        self._told = now
        rate = done / (now - self._began)
        of = f"/{max(self._total, done)}" if self._total else ""
        left = f", {max(self._total - done, 0) / rate:.0f} s left" if self._total else ""
        tell(f"{self._label}: {done}{of} frames, {rate:.1f} fps{left}")
