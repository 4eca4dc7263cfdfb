"""The guest itself: the devices that other checks count on."""

from __future__ import annotations

import os
from pathlib import Path

from tests.guest.checks import run_checks

GUESTS = {"exclusive": (), "shared": ()}


def check_devices() -> dict[str, object]:
    cards = {path.name: (path / "name").read_text().strip() for path in Path("/sys/class/video4linux").glob("video*")}
    assert cards["video0"] == "StreamSeg Cam"
    assert cards["video1"] == "Feeder Cam"
    assert cards["video10"].startswith("vivid")
    exclusive = Path("/sys/module/v4l2loopback/parameters/exclusive_caps").read_text().split(",")[:2]
    assert exclusive == ["Y" if os.environ["STREAMSEG_GUEST_CAPS"] == "1" else "N"] * 2
    return {"cards": cards, "version": Path("/sys/module/v4l2loopback/version").read_text().strip()}


if __name__ == "__main__":
    run_checks(globals())
