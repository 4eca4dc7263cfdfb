"""Which loopback device to write to, and what to do when there is none: words for every way in which it can fail."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from streamseg.sinks.outside import Refused
from streamseg.sinks.v4l2 import Holder, Loopback, driver_version, loopback_devices

__all__ = ["LOAD_LINE", "choose", "describe_failure", "has_size", "remarks"]

LOAD_LINE = 'sudo modprobe v4l2loopback exclusive_caps=1 card_label="StreamSeg"'
_RELOAD_LINE = f"sudo modprobe -r v4l2loopback && {LOAD_LINE}"
_FIRST_GOOD_DRIVER = (0, 13)


def choose(target: str) -> Loopback | Refused:
    """The device that `target` names ("" the first that is free, a path, or a label), or why it cannot be used."""
    devices = loopback_devices()
    if driver_version() is None:
        return Refused(f"cannot open a virtual camera: the module v4l2loopback is not loaded; {LOAD_LINE}")
    if not devices:
        return Refused(f"cannot open a virtual camera: v4l2loopback has no device; {_RELOAD_LINE}")
    if target:
        device = _named(target, devices)
        return device if isinstance(device, Refused) else _usable(device) or device
    refusals = []
    for device in devices:
        refusal = _usable(device)
        if refusal is None:
            return device
        refusals.append(refusal)
    # What time mends counts for more than what it does not.
    return next((refusal for refusal in refusals if refusal.absent), refusals[0])


def describe_failure(path: str, size_wh: tuple[int, int], text: str) -> Refused:
    """Why a device that looked usable was not, after the library has said `text`."""
    device = next((device for device in loopback_devices() if device.path == path), None)
    if device is None:
        return Refused(f"cannot open {path}: it is gone", absent=True)
    return (
        _usable(device)
        or _held(device, size_wh)
        or Refused(f"cannot open {path}: {' '.join(text.split())}; another program may write to it", absent=True)
    )


def has_size(path: str, size_wh: tuple[int, int]) -> bool:
    """Whether the device has the size that it was asked for: it may keep another one without a word."""
    return all(device.size_wh in (None, size_wh) for device in loopback_devices() if device.path == path)


def remarks(path: str) -> tuple[str, ...]:
    """What the user should know about a device that works."""
    if any(device.path == path and device.exclusive_caps is False for device in loopback_devices()):
        seen = "OBS reads it, but browsers and Zoom do not list it"
        return (f"{path} was made without exclusive_caps: {seen}; {_RELOAD_LINE}",)
    return ()


def _named(target: str, devices: Sequence[Loopback]) -> Loopback | Refused:
    known = ", ".join(f"{device.path} ({device.name})" for device in devices)
    if not target.startswith("/"):
        found = [device for device in devices if device.name.casefold() == target.casefold()]
        return found[0] if found else Refused(f"no virtual camera is called {target!r}; there are {known}")
    path = os.path.realpath(target)
    found = [device for device in devices if device.path == path]
    if found:
        return found[0]
    what = "is not a virtual camera" if Path(path).exists() else "does not exist"
    return Refused(f"cannot open {target}: it {what}; there are {known}")


def _usable(device: Loopback) -> Refused | None:
    """Why it cannot be written to, as far as can be told without trying."""
    if not os.access(device.path, os.W_OK):
        return Refused(
            f"cannot open {device.path}: no permission; sudo usermod -aG video $USER, then log out and in again"
        )
    if device.writers:
        return Refused(
            f"cannot open {device.path}: {_names(device.writers)} writes to it; stop that, or name another device",
            absent=True,
        )
    if device.takes_writer:
        return None
    if (driver_version() or ()) < _FIRST_GOOD_DRIVER:
        return Refused(
            f"cannot open {device.path}: v4l2loopback before 0.13 with exclusive_caps=1 can be written to only once; "
            f"{_RELOAD_LINE}, or install v4l2loopback 0.13"
        )
    return Refused(
        f"cannot open {device.path}: another program writes to it, or one that did left it so; stop that, name another "
        f"device, or {_RELOAD_LINE}",
        absent=True,
    )


def _held(device: Loopback, size_wh: tuple[int, int]) -> Refused | None:
    if device.size_wh in (None, size_wh):
        return None
    size = "x".join(map(str, device.size_wh or ()))
    who = _names(device.readers) or "a program"
    return Refused(
        f"cannot open {device.path} with {size_wh[0]}x{size_wh[1]}: it keeps {size} while {who} has it open; "
        f"close that, or with a camera add --size {size}",
        absent=True,
    )


def _names(users: Sequence[Holder]) -> str:
    return " and ".join(map(str, users))
