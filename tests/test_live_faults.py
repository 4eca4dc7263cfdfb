"""Real servers die, stall, change and refuse; links are cut, disks fill up: once each, through the command line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.faults import FAULTS, Bench
from tests.live_parts import need_gstreamer

pytestmark = [pytest.mark.realparts, pytest.mark.slow]

NEEDS = {"link": ("ip",), "loss20": ("ip", "iptables"), "disk": ("mount",)}


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "loss5"])
def test_a_fault_is_noticed_and_survived(fault: str, tmp_path: Path) -> None:
    need_gstreamer()
    for program in NEEDS.get(fault, ()):
        if not shutil.which(program):
            pytest.skip(f"the program {program} is missing")
    if fault in NEEDS and os.geteuid() != 0:
        pytest.skip("only root may make network namespaces and disks")
    result = FAULTS[fault](Bench(tmp_path), 1)
    # How soon on a quiet machine is what the benchmark tells; here it only has to happen.
    assert all(seconds < 15 for seconds in result.detect_s + result.recover_s)
    assert result.notes.get("show the room", 0) == 0
    assert result.notes.get("recorded", 100) > 20
    assert not result.notes.get("password shown", False)
    if "playable" in result.notes:
        assert result.notes["playable"] == result.notes["files"] > 1
    if held := result.notes.get("fds, threads"):
        assert held[0] == held[-1]
