"""Cameras of this machine: what there is, what each can do, which mode to take, and why one cannot be opened."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from streamseg.errors import SourceAbsentError, SourceOpenError
from streamseg.sources.address import Address, LiveOptions
from streamseg.sources.v4l2 import Mode, query

__all__ = ["Camera", "camera_address", "choose_mode", "explain", "holders", "list_cameras", "modes_text"]

_LOOPBACK = "v4l2 loopback"
_USUAL_WH = (1280, 720)
_USUAL_RATE = Fraction(30)
_MOST_TOLD = 12
# Above this many pixels, uncompressed pictures do not fit through USB 2 at full rate.
_MOST_RAW = 640 * 480
# The kernel's names of formats, and FFmpeg's; the earlier, the better where the size leaves a choice.
_RAW = {"NV12": "nv12", "YU12": "yuv420p", "YUYV": "yuyv422", "UYVY": "uyvy422", "RGB3": "rgb24", "BGR3": "bgr24",
        "GREY": "gray"}  # fmt: skip
_COMPRESSED = {"MJPG": "mjpeg", "JPEG": "mjpeg", "H264": "h264", "HEVC": "hevc"}
_NAMES = _RAW | _COMPRESSED


@dataclass(frozen=True, slots=True)
class Camera:
    """A device that sends pictures: its path, driver and name, and the modes that it says it has."""

    path: str
    driver: str
    name: str
    modes: tuple[Mode, ...]


def list_cameras(folder: Path = Path("/dev")) -> list[Camera]:
    """The cameras that can be read now, by number. Virtual ones count while somebody feeds them. Linux only."""
    found = []
    for path in sorted(folder.glob("video*"), key=lambda path: (len(path.name), path.name)):
        try:
            about, modes = query(path)
        except OSError:
            continue
        # Without a writer a loopback device has no format, or does not capture at all.
        if about.captures and (modes or about.driver != _LOOPBACK):
            found.append(Camera(str(path), about.driver, about.name, tuple(modes)))
    return found


def camera_address(url: str, options: LiveOptions) -> Address:
    """Of ``0``, ``/dev/video2`` or ``camera:NAME``, with the mode that comes nearest to what is asked for.

    Raises:
        SourceAbsentError: there is no such camera now.
        SourceOpenError: it is no camera, may not be opened, has no such mode, or the name fits several.
    """
    if options.transport not in ("tcp", "udp"):
        raise SourceOpenError(f"no transport {options.transport!r}; tcp and udp are known, and only for networks")
    if sys.platform != "linux":
        return _elsewhere(url, options)
    path = _path(url)
    try:
        about, modes = query(path)
    except OSError as error:
        how, why = explain(path, {}, error)
        raise (SourceOpenError if how == "refused" else SourceAbsentError)(why) from error
    if not about.captures:
        if about.driver == _LOOPBACK:
            raise SourceAbsentError(f"the virtual camera {path} has no picture: nobody feeds it; start its writer")
        raise SourceOpenError(f"{path} ({about.name}) is no camera: it sends no pictures; {_there_is()}")
    if not modes and about.driver == _LOOPBACK:
        raise SourceAbsentError(f"the virtual camera {path} has no picture: nobody feeds it; start its writer")
    return Address(path, f"camera {path}", "v4l2", _device_options(path, modes, options), None)


def _device_options(path: str, modes: Sequence[Mode], options: LiveOptions) -> dict[str, str]:
    chosen = choose_mode(modes, options.size_wh, options.rate, options.pixel_format)
    if isinstance(chosen, str):
        raise SourceOpenError(f"camera {path} has no {chosen}; it has {modes_text(modes)}")
    return chosen


def choose_mode(
    modes: Sequence[Mode], size_wh: tuple[int, int] | None, rate: Fraction | None, pixel_format: str | None
) -> dict[str, str] | str:
    """FFmpeg's options for the best mode, or what of the wishes no mode has.

    >>> chosen = choose_mode([Mode("YUYV", (640, 480), (640, 480), (0, 0), (Fraction(30),))], None, None, None)
    >>> chosen == {"input_format": "yuyv422", "video_size": "640x480", "framerate": "30"}
    True
    """
    fitting = [mode for mode in modes if mode.format in _NAMES]
    if pixel_format:
        wanted = pixel_format.casefold()
        fitting = [mode for mode in fitting if wanted in (mode.format.casefold(), _NAMES[mode.format])]
        if not fitting:
            return f"format {pixel_format!r}"
    if size_wh:
        fitting = [mode for mode in fitting if mode.fits(size_wh)]
        if not fitting:
            return f"{size_wh[0]}x{size_wh[1]}" + (f" in {pixel_format}" if pixel_format else "")
    if rate:
        fitting = [mode for mode in fitting if not mode.rates or min(mode.rates) <= rate <= max(mode.rates)]
        if not fitting:
            return f"{float(rate):g} fps" + (f" at {size_wh[0]}x{size_wh[1]}" if size_wh else "")
    if not fitting:
        return {}  # the driver tells nothing that we know: let the library try
    best = min(fitting, key=lambda mode: _order(mode, size_wh, rate))
    taken_wh = size_wh or _nearest(best)
    options = {"input_format": _NAMES[best.format]}
    if taken_wh != (0, 0):
        options["video_size"] = f"{taken_wh[0]}x{taken_wh[1]}"
    chosen = (
        rate or next((known for known in best.rates if known <= _USUAL_RATE), None) or min(best.rates, default=None)
    )
    if chosen:
        options["framerate"] = str(chosen)
    return options


def _nearest(mode: Mode) -> tuple[int, int]:
    return _USUAL_WH if mode.fits(_USUAL_WH) and mode.size_wh != (0, 0) else mode.size_wh


def _order(mode: Mode, size_wh: tuple[int, int] | None, rate: Fraction | None) -> tuple[float, ...]:
    """Smaller is better: not above 720p, a smooth rate, large, then the format."""
    width, height = size_wh or _nearest(mode)
    pixels = width * height
    above = max(0, pixels - _USUAL_WH[0] * _USUAL_WH[1])
    slow = 0.0 if rate or not mode.rates else max(0.0, 24 - float(mode.rates[0]))
    compressed = mode.format in _COMPRESSED
    order = list(_COMPRESSED) + list(_RAW) if pixels > _MOST_RAW else list(_RAW) + list(_COMPRESSED)
    # Video codecs inside cameras delay by frames.
    late = 10 if compressed and not mode.format.endswith(("JPG", "PEG")) else 0
    return above, slow, -pixels, order.index(mode.format) + late


def modes_text(modes: Sequence[Mode]) -> str:
    """The modes that we can use in one line: ``MJPG 1280x720 at 30, 15 fps; YUYV ...``, at most a dozen."""
    told = []
    usable = [mode for mode in modes if mode.format in _NAMES]
    for mode in usable[:_MOST_TOLD]:
        size = f"{mode.size_wh[0]}x{mode.size_wh[1]}"
        if mode.step_wh != (0, 0):
            size = f"{mode.smallest_wh[0]}x{mode.smallest_wh[1]} to {size}"
        rates = ", ".join(f"{float(rate):.4g}" for rate in mode.rates)
        told.append(
            f"{mode.format}{f' {size}' if mode.size_wh != (0, 0) else ''}" + (f" at {rates} fps" if rates else "")
        )
    if len(usable) > _MOST_TOLD:
        told.append(f"and {len(usable) - _MOST_TOLD} more")
    return "; ".join(told) or "no modes that its driver tells of"


def explain(path: str, options: Mapping[str, str], error: BaseException) -> tuple[str, str]:
    """How a camera failed to open, "absent" or "refused", and one line about it."""
    code = getattr(error, "errno", None)
    if code == errno.EBUSY:
        names = ", ".join(f"{command} (pid {pid})" for pid, command in holders(path))
        return "absent", f"camera {path} is busy: {names or 'another program'} has it; close that"
    if code in (errno.EACCES, errno.EPERM):
        return "refused", f"camera {path} may not be opened: {_group_remedy(path)}"
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "absent", f"there is no camera {path}; {_there_is()}"
    if code in (errno.EINVAL, errno.ENOTTY):
        try:
            about, modes = query(path)
        except OSError:
            return "refused", f"{path} is no camera; {_there_is()}"
        if about.driver != _LOOPBACK and options:
            asked = " ".join(options[name] for name in ("input_format", "video_size", "framerate") if name in options)
            return "refused", f"camera {path} refuses {asked}; it has {modes_text(modes)}"
    return "absent", f"camera {path} cannot be opened: {str(getattr(error, 'strerror', None) or error).lower()}"


def _group_remedy(path: str) -> str:
    import grp

    try:
        state = Path(path).stat()
        group = grp.getgrgid(state.st_gid).gr_name
    except (OSError, KeyError):
        return "permission denied"
    if not state.st_mode & stat.S_IRGRP:
        return "its permissions let only root read it"
    return f"it belongs to the group {group}; sudo usermod -aG {group} $USER, then log in again"


def holders(path: str, proc: Path = Path("/proc")) -> list[tuple[int, str]]:
    """(pid, command) of the processes that have the device open, where /proc lets us see; not this one."""
    device = os.path.realpath(path)
    found = []
    for folder in sorted(proc.glob("[0-9]*/fd"), key=lambda folder: int(folder.parent.name)):
        pid = int(folder.parent.name)
        try:
            held = pid != os.getpid() and any(os.readlink(link) == device for link in folder.iterdir())
        except OSError:
            continue  # not ours to see, or gone meanwhile
        if held:
            try:
                command = (folder.parent / "comm").read_text("utf-8", "replace").strip()
            except OSError:
                command = "a program"
            found.append((pid, command))
    return found


def _there_is() -> str:
    cameras = list_cameras()
    if not cameras:
        return "no camera is connected"
    return "there is " + ", ".join(f"{camera.path} ({camera.name})" for camera in cameras)


def _path(url: str) -> str:
    if url.isdigit():
        return f"/dev/video{int(url)}"
    if not url.lower().startswith("camera:"):
        return url
    name = url.partition(":")[2].strip().casefold()
    if not name:
        raise SourceOpenError(f"camera: names none; {_there_is()}")
    cameras = list_cameras()
    exact = [camera for camera in cameras if camera.name.casefold() == name]
    found = exact or [camera for camera in cameras if name in camera.name.casefold()]
    if not found:
        raise SourceAbsentError(f"there is no camera {url.partition(':')[2]!r}; {_there_is()}")
    if len(found) > 1:
        raise SourceOpenError(
            f"{len(found)} cameras are called {url.partition(':')[2]!r}: "
            f"{', '.join(camera.path for camera in found)}; name one of these"
        )
    return found[0].path


def _elsewhere(url: str, options: LiveOptions) -> Address:
    """On macOS and Windows: the library's own devices, after its manual; not tested on such machines."""
    name = url.partition(":")[2] if url.lower().startswith("camera:") else url
    chosen = {"framerate": str(options.rate or _USUAL_RATE)}
    if options.size_wh:
        chosen["video_size"] = "{}x{}".format(*options.size_wh)
    if options.pixel_format:
        chosen["pixel_format"] = options.pixel_format
    if sys.platform == "darwin":
        return Address(f"{name}:none", f"camera {name}", "avfoundation", chosen, None)
    if re.fullmatch(r"\d+", name):
        raise SourceOpenError(f"cannot open camera {name}: here cameras are opened by name; write camera:NAME")
    return Address(f"video={name}", f"camera {name}", "dshow", chosen, None)
