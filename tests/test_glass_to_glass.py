"""From the camera to the screen, through a real server and a real client: the time stands in the pixels."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamseg.sources.pattern import index_of
from tests import networks
from tests.live_parts import free_port, rtsp_server

pytestmark = pytest.mark.realparts


def test_the_age_of_a_picture_in_a_preview(tmp_path: Path) -> None:
    red = networks.matte(tmp_path / "red.onnx", size=64, alone=True)
    port = free_port()
    with rtsp_server("--clock", "cam=640x360@15") as server:
        command = [sys.executable, "-m", "streamseg", "run", server.url("cam"), "-o", f"http://127.0.0.1:{port}/"]
        command += ["--background", "none", "--model", str(red), "--quiet"]
        process = subprocess.Popen(command)
        try:
            ages_ms: list[int] = []
            deadline = time.monotonic() + 300
            while len(ages_ms) < 40 and time.monotonic() < deadline:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/frame.jpg", timeout=60) as reply:
                        jpeg = np.frombuffer(reply.read(), np.uint8)
                except OSError:
                    time.sleep(0.1)  # it is not up yet
                    continue
                now_ms = int(time.monotonic() * 1000)
                grey = cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)
                assert grey is not None
                if np.ptp(grey[:60]) > 60:  # no slate
                    ages_ms.append((now_ms - index_of(grey)) & 0xFFFF)
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 128 + signal.SIGTERM
        finally:
            process.kill()
            process.wait()
    assert len(ages_ms) == 40
    # Encoding, sending, decoding, processing, JPEG: a fifth of a second where nothing else runs, and more for some
    # pictures where something does. A clock that is read wrongly is off by seconds in all of them.
    assert 0 < min(ages_ms) < 1000, ages_ms
    print(f"glass to glass: median {statistics.median(ages_ms):.0f} ms, most {max(ages_ms)} ms")
