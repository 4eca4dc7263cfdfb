"""Fixtures for every test: leaked threads and logged errors fail it, material is found by an environment variable."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamseg import child
from streamseg.segment import ladder


def pytest_sessionstart() -> None:
    """A shell that runs the tests in its background has them ignore interrupts, which they send to themselves."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("material") and not os.environ.get("STREAMSEG_MATERIAL"):
            item.add_marker(pytest.mark.skip(reason="STREAMSEG_MATERIAL names no folder with real weights and clips"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A test of a part that was installed on purpose may not be skipped: STREAMSEG_MUST_RUN names such markers."""
    report = yield
    must_run = [name for name in os.environ.get("STREAMSEG_MUST_RUN", "").split(",") if name]
    if report.skipped and any(item.get_closest_marker(name) for name in must_run) and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome, report.longrepr = "failed", f"skipped although its part was installed: {why}"
    return report


@pytest.fixture
def material() -> Path:
    """The folder of real weights, clips and ground truth."""
    return Path(os.environ["STREAMSEG_MATERIAL"])


@pytest.fixture(autouse=True)
def _auto_is_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runtimes are installed, "auto" is ONNX Runtime on the CPU, whose figures the other tests know."""
    monkeypatch.setattr(ladder, "_AUTO", ("cpu",))


@pytest.fixture(autouse=True)
def _killed_children_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine: what is left of one would fail a test, this or another."""
    monkeypatch.setattr(child, "_REAP_TIMEOUT_S", 60.0)


@pytest.fixture(autouse=True)
def _no_leaked_threads() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    leaked = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in leaked:
        thread.join(60)
    alive = [thread.name for thread in leaked if thread.is_alive()]
    assert not alive, f"threads still alive after the test: {alive}"


@pytest.fixture(autouse=True)
def _no_logged_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not errors, f"errors were logged: {[record.getMessage() for record in errors]}"
