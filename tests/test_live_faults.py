"""Real servers die, stall, change and refuse; links are cut, disks fill up: once each, through the command line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.faults import FAULTS, Bench, nothing
from tests.live_parts import need_gstreamer, need_nginx

pytestmark = [pytest.mark.realparts, pytest.mark.slow]

NEEDS = {"link": ("ip",), "loss20": ("ip", "iptables"), "disk": ("mount",)}
# While these last, no picture may come from the camera for longer than the last composite is repeated.
HIDING = ("absent", "model", "kill", "stop", "password", "link")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    need_gstreamer()
    need_nginx()
    return Bench(tmp_path)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "loss5"])
def test_a_fault_is_noticed_and_survived(fault: str, bench: Bench) -> None:
    for program in NEEDS.get(fault, ()):
        if not shutil.which(program):
            pytest.skip(f"the program {program} is missing")
    if fault in NEEDS and os.geteuid() != 0:
        pytest.skip("only root may make network namespaces and disks")
    result = FAULTS[fault](bench, 1)
    # How soon on a quiet machine is what the benchmark tells; here it only has to happen.
    assert all(seconds < 120 for seconds in result.detect_s + result.recover_s)
    for output, seen in result.seen.items():
        assert not seen.room, (output, seen)
        assert seen.subject > 20, (output, seen)
        if fault in HIDING:
            assert seen.pictures - seen.subject > 5, f"{output}: {seen}; was there a fault at all?"
    assert not result.notes.get("password shown", False)
    if fault == "disk":
        assert len(result.seen["recording"].files) > 1
        assert min(result.seen["recording"].files) > 10
    if held := result.notes.get("fds, threads"):
        assert held[0] == held[-1]


def test_the_search_finds_the_room_in_every_output_where_it_is_shown(bench: Bench) -> None:
    """Without a background the room is meant to be seen: a search that finds nothing here would prove nothing."""
    result = nothing(bench, 1)
    assert set(result.seen) == {"recording", "preview", "rtsp", "rtmp"}
    for output, seen in result.seen.items():
        assert seen.subject > 20, (output, seen)
        # Only the slate at the beginning is none.
        assert seen.room == seen.subject, (output, seen)
