"""The watch over a virtual machine: ended, at its limit, or standing still. The processes here are no machines."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.machine import watch


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


@pytest.fixture
def heart(tmp_path: Path) -> Iterator[Path]:
    """A file that is written often."""
    path, over = tmp_path / "heart", threading.Event()

    def beat() -> None:
        while not over.wait(0.1):
            path.write_text(str(time.monotonic_ns()))

    thread = threading.Thread(target=beat)
    thread.start()
    yield path
    over.set()
    thread.join()


def test_one_that_ends_is_not_complained_of(process: subprocess.Popen[bytes], heart: Path) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert watch(process, heart, limit_s=60, standstill_s=60) is None


def test_one_whose_heart_beats_may_run_until_its_limit(process: subprocess.Popen[bytes], heart: Path) -> None:
    assert watch(process, heart, limit_s=4, standstill_s=3) == "the machine was killed after 4 s"


def test_one_without_a_heartbeat_stands_still(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert watch(process, tmp_path / "heart", limit_s=60, standstill_s=1) == "the machine stood still and was killed"


def test_one_whose_heart_stops_stands_still(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    heart = tmp_path / "heart"
    heart.touch()
    assert watch(process, heart, limit_s=60, standstill_s=1) == "the machine stood still and was killed"
