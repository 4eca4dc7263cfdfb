"""The child process of a virtual camera: holds the device, shows the latest picture or the slate."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from streamseg.child import Host
from streamseg.sinks.loopback import choose, describe_failure, has_size, remarks
from streamseg.sinks.outside import Finish, Finished, Lost, Opened, Refused, Taken, slot_view

__all__ = ["Request", "serve"]

_INSTALL_LINE = 'pip install "streamseg[virtualcam]"'
_ELSEWHERE = "install OBS Studio, start its virtual camera once and stop it, and close what uses it"


@dataclass(frozen=True, slots=True)
class Request:
    """What to open: "", a device or a label; (w, h); frames a second; the age of a stale picture."""

    target: str
    size_wh: tuple[int, int]
    rate: float
    stale_s: float


def serve(host: Host) -> None:
    """Open what the `Request` names, with the slate in slot 0; show what is handed over until told to finish."""
    request: Request = host.receive(None)
    try:
        # GPL-2.0: imported nowhere else, and only when a virtual camera is asked for.
        import pyvirtualcam
    except ImportError as error:
        host.send(Refused(f"cannot open a virtual camera: pyvirtualcam does not load ({error}); {_INSTALL_LINE}"))
        return
    width, height = request.size_wh
    device: str | None = request.target or None
    if sys.platform == "linux":
        chosen = choose(request.target)
        if isinstance(chosen, Refused):
            host.send(chosen)
            return
        device = chosen.path
    try:
        camera = pyvirtualcam.Camera(
            width, height, request.rate, fmt=pyvirtualcam.PixelFormat.I420, device=device, print_fps=False
        )
    except (RuntimeError, ValueError) as error:
        host.send(_refusal(device, request, str(error)))
        return
    show = _Show(host, camera, request)
    show.write()
    failure = show.failure(wait=True)
    if failure or not has_size(camera.device, request.size_wh):
        camera.close()
        host.send(_refusal(camera.device, request, failure or "it has another size"))
        return
    host.send(Opened(camera.device, remarks(camera.device)))
    show.run()


def _refusal(device: str | None, request: Request, text: str) -> Refused:
    if sys.platform == "linux" and device:
        return describe_failure(device, request.size_wh, text)
    text = " ".join(text.split())
    return Refused(f"cannot open a virtual camera: {text}; {_ELSEWHERE}", absent=True)


class _Show:
    """Writes pictures to the camera by a clock of its own: the library has none that holds."""

    def __init__(self, host: Host, camera: Any, request: Request) -> None:
        self._host = host
        self._camera = camera
        self._period_s = 1 / request.rate
        self._stale_s = request.stale_s
        self._shape = (request.size_wh[1] * 3 // 2, request.size_wh[0])
        self._slot = 0  # of the latest picture; 0 is the slate
        self._given_at = float("-inf")
        self._failure: str | None = None
        self._marks = 0

    def run(self) -> None:
        """Until the parent has had enough or a write fails."""
        written_at = time.monotonic()
        fresh = repeated = False
        while True:
            # A new picture goes out at once, but not so soon after the last that a reader might miss that one. Without
            # a new one the old is shown again: at first half a frame later than due, so that it does not come just
            # before a new one that is a little late.
            wait_s = self._period_s * (0.5 if fresh else 1.0 if repeated else 1.5)
            try:
                message = self._host.receive(max(0.0, written_at + wait_s - time.monotonic()))
            except TimeoutError:
                self.write()
                written_at = time.monotonic()
                fresh, repeated = False, not fresh
                failure = self.failure()
                if failure:
                    self._host.send(Lost(failure))
                    return
                continue
            if isinstance(message, Finish):
                self._camera.close()
                self._host.send(Finished())
                return
            self._host.send(Taken(self._slot or None))
            self._slot, self._given_at, fresh = message.slot, time.monotonic(), True

    def write(self) -> None:
        """Show the latest picture, or the slate where that is too old."""
        stale = time.monotonic() - self._given_at > self._stale_s
        self._camera.send(slot_view(self._host.memory, 0 if stale else self._slot, self._shape))
        # The library prints its errors, without an end of line, and says nothing otherwise.
        os.write(2, b"\n")

    def failure(self, *, wait: bool = False) -> str | None:
        """What the library printed about a write that failed; `wait` for all that it has printed by now."""
        mark = f"mark {self._marks}"
        if wait:
            self._marks += 1
            os.write(2, f"{mark}\n".encode())
        deadline = time.monotonic() + 1.0
        while self._failure is None:
            lines = self._host.native_text()
            self._failure = next((line for line in lines if "error writing frame" in line), None)
            if not wait or mark in lines or time.monotonic() > deadline:
                break
            time.sleep(0.001)
        return self._failure
