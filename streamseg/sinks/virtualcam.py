"""Virtual cameras: v4l2loopback on Linux, OBS or Unity Capture elsewhere.

The camera lives in a child process. It shows the latest picture again and again, so that readers never starve, and the
slate when the parent gives nothing any more: nothing that happens to the parent can freeze the room on the screen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from streamseg.errors import SinkOpenError, SinkWriteError
from streamseg.frame import Colour, Output, Packet, Plane, VideoInfo
from streamseg.libav import Recolour
from streamseg.sinks.outside import Outside
from streamseg.sinks.virtualcam_child import Request

__all__ = ["VirtualCamera", "open_virtual_camera"]

_SLOTS = 4  # the slate; shown; waiting; being filled
_STALL_S = 3.0
_BUSY = "pictures dropped while busy"
# Starting the process counts: at login, on a busy machine that loads its network meanwhile, that may take half a
# minute.
_OPEN_S = 90.0
_DEFAULT_RATE = 30.0
_SHOWN = Colour(full_range=False, matrix=6)


def open_virtual_camera(
    url: str,
    info: VideoInfo,
    *,
    slate: Plane | None = None,
    stale_s: float = 1.0,
    open_s: float = _OPEN_S,
    given_up: Callable[[], bool] = lambda: False,
) -> VirtualCamera:
    """Open a virtual camera for frames like those of `info`.

    Args:
        url: ``virtualcam:`` for the first that is free, ``virtualcam:/dev/video4``, or ``virtualcam:NAME``.
        info: size, rate and colour of the frames.
        slate: (H * 3 / 2, W) uint8 in the colour of `info`, shown until the first picture and whenever none comes;
            None shows black.
        stale_s: how old a picture may get before the slate takes its place; at least three frames are waited for.
        open_s: how long opening may take.
        given_up: asked while it opens; true ends that.

    Raises:
        SinkAbsentError: another program holds it; waiting may help.
        SinkOpenError: there is none, or not as asked; the message says what to do.
    """
    return VirtualCamera(url, info, slate=slate, stale_s=stale_s, open_s=open_s, given_up=given_up)


class VirtualCamera:
    """A virtual camera; a `Sink`. See `open_virtual_camera`.

    Attributes:
        device: what was opened, such as /dev/video4.
    """

    def __init__(
        self,
        url: str,
        info: VideoInfo,
        *,
        slate: Plane | None,
        stale_s: float,
        open_s: float,
        given_up: Callable[[], bool],
    ) -> None:
        if info.width % 2 or info.height % 2:
            raise SinkOpenError(
                f"cannot open {url} for {info.width}x{info.height} pictures: both must be even; choose another --size"
            )
        self._shape = (info.height * 3 // 2, info.width)
        self._converter: tuple[Colour, Recolour] | None = None
        rate = float(info.rate) if info.rate else _DEFAULT_RATE
        first = _black(self._shape) if slate is None else self._as_shown(slate, info.colour)
        request = Request(url.partition(":")[2], (info.width, info.height), rate, max(stale_s, 3 / rate))
        self._outside = Outside(
            "streamseg.sinks.virtualcam_child:serve",
            url,
            request,
            shape=self._shape,
            slots=_SLOTS,
            first=first,
            open_s=open_s,
            stall_s=_STALL_S,
            given_up=given_up,
        )
        self.device = self._outside.opened

    @property
    def pid(self) -> int:
        """Of the process that holds the device."""
        return self._outside.pid

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        return self._outside.notices

    @property
    def counts(self) -> Mapping[str, int]:
        """Pictures that were dropped because the one before was not yet taken."""
        return {_BUSY: self._outside.dropped} if self._outside.dropped else {}

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        """Show a picture; sound has no place here. Returns at once.

        Raises:
            SinkWriteError: the device is gone, or takes nothing any more.
        """
        frame = output.frame
        if frame.planes.shape != self._shape:
            size = f"{self._shape[1]}x{self._shape[0] * 2 // 3}"
            raise SinkWriteError(
                f"cannot show a picture of {frame.width}x{frame.height} on {self.device}: it has {size}"
            )
        self._outside.offer(self._as_shown(frame.planes, frame.colour))

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        """Nothing is kept; the device goes with `close`."""
        self._outside.finish()

    def close(self) -> None:
        """Let go of the device: its readers see no camera any more."""
        self._outside.close()

    def _as_shown(self, planes: Plane, colour: Colour) -> Plane:
        """In limited range and BT.601, which readers take it for; untouched where the picture says nothing else."""
        if not colour.full_range and (colour.matrix in (5, 6) or not colour.says_matrix):
            return planes
        if self._converter is None or self._converter[0] != colour:
            self._converter = (colour, Recolour(colour, _SHOWN))
        return self._converter[1](planes)


def _black(shape: tuple[int, int]) -> Plane:
    planes = np.full(shape, 128, np.uint8)
    planes[: shape[0] * 2 // 3] = 16
    return planes
