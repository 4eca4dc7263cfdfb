"""Standard error that nobody waits for."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamseg.engine import Unblocked
from tests import networks

fcntl = pytest.importorskip("fcntl")
if not hasattr(fcntl, "F_SETPIPE_SZ"):
    pytest.skip("pipes have one size here", allow_module_level=True)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Its two ends; it holds 4096 bytes."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(reading)
    os.close(writing)


@contextmanager
def as_stderr(descriptor: int) -> Iterator[None]:
    """Within, standard error goes into this."""
    with pytest.MonkeyPatch.context() as patch, os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as stream:
        patch.setattr(sys, "stderr", stream)
        patch.setattr(sys, "__stderr__", stream)
        yield


def read(descriptor: int) -> str:
    try:
        return os.read(descriptor, 10_000).decode()
    except BlockingIOError:
        return ""


def test_a_line_is_there_at_once(pipe: tuple[int, int]) -> None:
    with as_stderr(pipe[1]):
        Unblocked(str).say("grüße")
    assert read(pipe[0]) == "grüße\n"


def test_a_reader_that_comes_late_gets_every_line_in_order(pipe: tuple[int, int]) -> None:
    said = [f"{number} {'x' * (number * 37 % 6000)}" for number in range(900)]
    heard = ""
    with as_stderr(pipe[1]):
        lines = Unblocked(str)
        for line in said:
            lines.say(line)
        while more := read(pipe[0]):
            heard += more
            lines.drain()
    assert heard.splitlines() == said


def test_of_too_many_lines_the_oldest_are_told_as_missing(pipe: tuple[int, int]) -> None:
    heard = ""
    with as_stderr(pipe[1]):
        lines = Unblocked(lambda count: f"{count} are missing")
        for number in range(3000):
            lines.say(f"{number:09d}")
        while more := read(pipe[0]):
            heard += more
            lines.drain()
    found = heard.splitlines()
    (place,) = [place for place, line in enumerate(found) if line.endswith("missing")]
    missing = int(found[place].split()[0])
    assert missing > 1000
    assert [int(line) for line in found[:place] + found[place + 1 :]] == [*range(place), *range(place + missing, 3000)]


def test_a_reader_that_went_is_no_reason_to_stop() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with as_stderr(writing):
        Unblocked(str).say("nobody hears this")
    os.close(writing)


@pytest.mark.parametrize("source", ["test:?size=64x36&fps=30&frames=60", "no/such.mp4"])
def test_a_log_that_nobody_reads_does_not_hold_a_run(source: str, pipe: tuple[int, int], tmp_path: Path) -> None:
    os.write(pipe[1], bytes(4096))
    network = networks.matte(tmp_path / "red.onnx", size=64, alone=True)
    command = [sys.executable, "-m", "streamseg", "run", source, "-o", "null:", "--model", str(network)]
    done = subprocess.run(command, stderr=pipe[1], timeout=300)
    assert done.returncode == (0 if source.startswith("test:") else 2)


@pytest.mark.parametrize("live", [False, True])
def test_a_run_without_standard_error(live: bool, tmp_path: Path) -> None:
    source = "test:?size=64x36&fps=30&frames=20" if live else str(tmp_path / "in.png")
    cv2.imwrite(str(tmp_path / "in.png"), np.zeros((36, 64), np.uint8))
    network = networks.matte(tmp_path / "red.onnx", size=64, alone=True)
    command = [sys.executable, "-m", "streamseg", "run", source, "-o", "null:", "--model", str(network)]
    done = subprocess.run(["sh", "-c", f"{shlex.join(command)} 2>&-"], stdout=subprocess.PIPE, timeout=300)
    assert (done.returncode, done.stdout) == (0, b"")
