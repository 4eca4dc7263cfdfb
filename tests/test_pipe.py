"""Standard input as the library reads it."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator

import pytest

from streamseg.sources.pipe import Pipe


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    pair = os.pipe()
    yield pair
    for end in pair:
        os.close(end)


def test_what_there_is_comes_at_once(ends: tuple[int, int]) -> None:
    pipe = Pipe(ends[0])
    os.write(ends[1], b"abcdef")
    assert [pipe.read(4), pipe.read(4)] == [b"abcd", b"ef"]


def test_a_waiting_read_ends_when_it_is_told(ends: tuple[int, int]) -> None:
    pipe = Pipe(ends[0])
    threading.Timer(0.05, pipe.stop).start()
    assert pipe.read(4) == b""
    os.write(ends[1], b"late")
    assert pipe.read(4) == b""


def test_an_interrupt_that_came_while_the_library_ran_is_not_lost(ends: tuple[int, int]) -> None:
    """From C to C: nothing of ours runs between the signal and the read."""
    pipe = Pipe(ends[0])
    os.write(ends[1], b"abcdef")
    signalled = iter(ctypes.pythonapi.PyErr_SetInterrupt, None)
    try:
        data = next(map(pipe.read, signalled))
    except KeyboardInterrupt:
        pytest.fail("it reached the library, which throws it away")
    assert data == b""
    assert pipe.read(4) == b"", "and it has ended"
