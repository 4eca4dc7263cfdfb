"""Real virtual and physical cameras, in a virtual machine: every check of the scripts ``tests/guest/*_check.py``."""

from __future__ import annotations

import ast
import functools
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.guest.checks import MARK
from tests.guest.machine import SUITES, Guest, GuestMissingError, Result

pytestmark = [pytest.mark.guest, pytest.mark.slow]

FOLDER = Path(__file__).parent / "guest"
# What a script may name in its constant GUESTS.
GUESTS: dict[str, dict[str, Any]] = {
    "exclusive": {"exclusive_caps": True},
    "shared": {"exclusive_caps": False},
    "old": {"exclusive_caps": True, "suite": "bookworm"},
    "new": {"exclusive_caps": True, "suite": "trixie"},
}
_LIMIT_S = 1500


def _cases() -> list[tuple[str, str, str]]:
    """(script, guest, check) of every check, read from the scripts without running them."""
    cases = []
    for path in sorted(FOLDER.glob("*_check.py")):
        tree = ast.parse(path.read_text("utf-8"))
        guests: dict[str, tuple[str, ...]] = {"exclusive": ()}
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "GUESTS":
                guests = ast.literal_eval(node.value)
        checks = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[:6] == "check_"]
        cases += [(path.stem, guest, check) for guest, chosen in guests.items() for check in chosen or checks]
    return cases


@functools.cache
def _prepared(suite: str) -> Guest | str:
    if not find_spec("pyvirtualcam"):
        return 'the package pyvirtualcam is not installed; pip install "streamseg[virtualcam]"'
    guest = Guest()
    wanted = "guest" in os.environ.get("STREAMSEG_MUST_RUN", "").split(",")
    if not wanted and not guest.folder.exists():
        # It installs an emulator and fetches a kernel: not what somebody expects who only runs the tests.
        return "no virtual machine was made; make it with: python tests/guest/machine.py prepare"
    try:
        guest.prepare([suite])
    except GuestMissingError as error:
        return str(error)
    return guest


@functools.cache
def _outcome(script: str, name: str) -> Result | str:
    """One boot for all checks of a script."""
    options = GUESTS[name]
    guest = _prepared(options.get("suite", SUITES[0]))
    if isinstance(guest, str):
        return guest
    checks = [case[2] for case in _cases() if case[:2] == (script, name)]
    return guest.run([sys.executable, "-m", f"tests.guest.{script}", *checks], limit_s=_LIMIT_S, **options)


def test_scripts_were_found() -> None:
    assert _cases()


@pytest.mark.parametrize(("script", "guest", "check"), _cases())
def test_in_the_guest(script: str, guest: str, check: str) -> None:
    result = _outcome(script, guest)
    if isinstance(result, str):
        pytest.skip(f"no virtual machine: {result}")
    lines = [json.loads(line[len(MARK) :]) for line in result.console.splitlines() if line.startswith(MARK)]
    (line,) = [line for line in lines if line["check"] == check] or [None]
    assert line is not None, f"{script} ended before {check}; the console ends with\n{result.console[-9000:]}"
    assert line["error"] is None, line["error"]
