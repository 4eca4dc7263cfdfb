"""Contestants in turns: each run is a process of its own, and what counts are ratios within one run of all."""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamseg.errors import ConfigError, StreamsegError
from streamseg.libav import reason

__all__ = ["BenchError", "Contestant", "Spread", "Standing", "Turn", "machine", "race", "run_once", "table"]

# What networks run faster with.
_INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "bf16")
# Libraries can be told to do without some of them.
_SWITCHES = ("ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS")


class BenchError(StreamsegError):
    """A contestant did not finish."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something that turns a clip into a video file, as a command that prints one JSON document at its end.

    The document has ``frames``, ``wall_s`` and ``cpu_s`` from the first frame to the last, loading and warming up left
    out; whatever else it has is kept.

    Attributes:
        name: for people.
        commands: one or more ways to run it; the fastest of them competes.
        masks: a folder's place, in the words that are appended to a command so that it also writes every opacity there
            as PNG, ``{}`` standing for the folder.
    """

    name: str
    commands: Sequence[Sequence[str]]
    masks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One run: what the contestant's document says."""

    frames: int
    wall_s: float
    cpu_s: float
    details: Mapping[str, Any]

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.frames / self.wall_s

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per frame, of all threads together."""
        return 1e3 * self.cpu_s / self.frames


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int) -> str:
        """As ``2.10 (2.03 to 2.18)``."""
        return f"{self.median:.{digits}f} ({self.least:.{digits}f} to {self.most:.{digits}f})"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a contestant reached.

    Attributes:
        name: of the contestant.
        fps: frames per second.
        cpu_ms: CPU milliseconds per frame.
        ratio: of its fps to the first contestant's, turn by turn.
        cpu_ratio: of the first contestant's CPU time per frame to its own, turn by turn.
        details: of its last turn.
    """

    name: str
    fps: Spread
    cpu_ms: Spread
    ratio: Spread
    cpu_ratio: Spread
    details: Mapping[str, Any] = field(default_factory=dict)


def run_once(name: str, command: Sequence[str]) -> Turn:
    """Run one command to its end.

    Args:
        name: of the contestant, for the message.
        command: prints a JSON document in its last line.

    Raises:
        ConfigError: the program cannot be started.
        BenchError: it failed, or said nothing that can be read.
    """
    # The peer's interpreter must not find our packages.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        returncode, out, complaints = _output_of(command, environment)
    except OSError as error:
        raise ConfigError(f"{name}: cannot run {command[0]}: {reason(error)}") from error
    lines = out.strip().splitlines()
    try:
        said = json.loads(lines[-1]) if returncode == 0 and lines else {}
        frames, wall_s, cpu_s = (said.pop(key) for key in ("frames", "wall_s", "cpu_s"))
    except (ValueError, KeyError) as error:
        why = (complaints.strip().splitlines() or ["it said nothing"])[-1]
        raise BenchError(f"{name} failed: {why}") from error
    if not frames:
        raise BenchError(f"{name} gave no frames; choose another clip")
    return Turn(frames, wall_s, cpu_s, said)


def _output_of(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
    process = None
    try:
        with _sigterm_waits():
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", env=environment
            )
        out, complaints = process.communicate()
    except BaseException:
        if process is not None:
            with process:  # closes its pipes, and waits for it
                process.kill()
        raise
    return process.returncode, out, complaints


@contextmanager
def _sigterm_waits() -> Iterator[None]:
    """Within, SIGTERM waits: raised between a process's start and its handle, it would leave the process behind."""
    came: list[int] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    except ValueError:  # not the main thread, which alone hears of signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if came:
        signal.raise_signal(signal.SIGTERM)


def race(contestants: Sequence[Contestant], turns: int, say: Callable[[str], None]) -> list[Standing]:
    """Run all of them in turns, after one turn that does not count, in which each chooses its fastest command.

    Args:
        contestants: at least one; the ratios are to the first.
        turns: how often each runs, at least 1.
        say: receives a line of progress for every turn.

    Raises:
        StreamsegError: one of them failed.
    """
    commands = []
    for contestant in contestants:
        tried = [(run_once(contestant.name, command).fps, command) for command in contestant.commands]
        commands.append(max(tried, key=lambda one: one[0])[1])
    results: list[list[Turn]] = [[] for _ in contestants]
    for number in range(turns):
        for contestant, command, own in zip(contestants, commands, results, strict=True):
            own.append(run_once(contestant.name, command))
            say(f"turn {number + 1} of {turns}: {contestant.name} {own[-1].fps:.1f} fps")
    first = results[0]
    return [
        Standing(
            contestant.name,
            Spread.of([turn.fps for turn in own]),
            Spread.of([turn.cpu_ms for turn in own]),
            Spread.of([turn.fps / base.fps for turn, base in zip(own, first, strict=True)]),
            Spread.of([base.cpu_ms / turn.cpu_ms for turn, base in zip(own, first, strict=True)]),
            own[-1].details,
        )
        for contestant, own in zip(contestants, results, strict=True)
    ]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equally many cells as aligned columns, the first flush left; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def machine() -> dict[str, Any]:
    """The processor, its cores and instructions, and what else asks for it; ready for JSON."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
    except OSError:
        pass  # not Linux: the name alone
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "system": platform.platform(),
        "processor": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": [flag for flag in _INSTRUCTIONS if flag in flags],
        "switches": {key: os.environ[key] for key in _SWITCHES if key in os.environ},
        "load": round(load, 2) if load is not None else None,
    }
