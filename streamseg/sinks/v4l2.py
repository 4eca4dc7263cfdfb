"""The kernel's loopback devices: Linux's virtual cameras, who uses them, and when somebody looks."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["Holder", "Loopback", "Readers", "driver_version", "holders", "loopback_devices"]

_DEVICES = Path("/sys/class/video4linux")
_DRIVER = Path("/sys/module/v4l2loopback")
_CAPTURE, _OUTPUT = 1, 2
_CLIENT_USAGE, _SEND_INITIAL = 0x10E00001, 1
_SCAN_S = 0.5  # looking through /proc takes a few milliseconds


class _Capability(ctypes.Structure):
    _fields_ = (
        ("driver", ctypes.c_char * 16),
        ("card", ctypes.c_char * 32),
        ("bus_info", ctypes.c_char * 32),
        ("version", ctypes.c_uint32),
        ("capabilities", ctypes.c_uint32),
        ("device_caps", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
    )


class _Subscription(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 5),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("data", ctypes.c_uint64 * 8),  # its first 32 bits are the number of readers
        ("pending", ctypes.c_uint32),
        ("sequence", ctypes.c_uint32),
        ("timestamp", ctypes.c_long * 2),
        ("id", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 8),
    )


def _request(direction: int, number: int, structure: type[ctypes.Structure]) -> int:
    return direction << 30 | ctypes.sizeof(structure) << 16 | ord("V") << 8 | number


_QUERYCAP = _request(2, 0, _Capability)
_DQEVENT = _request(2, 89, _Event)
_SUBSCRIBE_EVENT = _request(1, 90, _Subscription)


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a device open.

    Attributes:
        access: "reads", "writes", or "both" where it was opened for both, which tells nothing: cameras are.
    """

    pid: int
    program: str
    access: str

    def __str__(self) -> str:
        return f"{self.program} (process {self.pid})"


@dataclass(frozen=True, slots=True)
class Loopback:
    """A loopback device and its state.

    Attributes:
        path: such as /dev/video4.
        name: its label.
        takes_writer: it announces that it can be written to.
        exclusive_caps: it announces itself as a camera only, once it is written to; None where nothing tells.
        size_wh: of the picture that it is fixed to now.
        holders: the processes that have it open, as far as this user may know.
    """

    path: str
    name: str
    takes_writer: bool
    exclusive_caps: bool | None
    size_wh: tuple[int, int] | None
    holders: tuple[Holder, ...]

    @property
    def writers(self) -> tuple[Holder, ...]:
        """The processes that write to it, or, where it is taken and none of them says so, those that may."""
        sure = tuple(holder for holder in self.holders if holder.access == "writes")
        if sure or self.takes_writer:
            return sure
        return tuple(holder for holder in self.holders if holder.access == "both")

    @property
    def readers(self) -> tuple[Holder, ...]:
        """The processes that have it open and are not known to write."""
        return tuple(holder for holder in self.holders if holder not in self.writers)


def driver_version() -> tuple[int, ...] | None:
    """Of the loaded v4l2loopback, such as (0, 13, 2); None where it is not loaded."""
    if not _DRIVER.exists():
        return None
    return tuple(int(part) for part in re.findall(r"\d+", _text(_DRIVER / "version"))[:3])


def loopback_devices() -> list[Loopback]:
    """All loopback devices, by number. Other cameras are not touched."""
    # Only the loopback driver says how often a device may be opened.
    found = [path for path in _DEVICES.glob("video*") if (path / "max_openers").exists()]
    paths = [f"/dev/{path.name}" for path in sorted(found, key=lambda path: int(path.name[5:]))]
    users = _all_holders(paths)
    return [_describe(path, users[path]) for path in paths]


def holders(path: str) -> list[Holder]:
    """The other processes that have a device open, as far as this user may know."""
    return _all_holders([path])[path]


def _describe(path: str, users: Sequence[Holder]) -> Loopback:
    attributes = _DEVICES / Path(path).name
    capabilities = 0
    with contextlib.suppress(OSError):  # not ours to open, or gone meanwhile
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            answer = _Capability()
            fcntl.ioctl(fd, _QUERYCAP, answer)
            capabilities = answer.device_caps
        finally:
            os.close(fd)
    size = re.search(r":(\d+)x(\d+)", _text(attributes / "format"))
    return Loopback(
        path,
        _text(attributes / "name"),
        bool(capabilities & _OUTPUT),
        _exclusive(path, capabilities),
        (int(size[1]), int(size[2])) if size else None,
        tuple(users),
    )


def _exclusive(path: str, capabilities: int) -> bool | None:
    """From the driver's parameters where it was told the numbers, from what the device announces otherwise."""
    numbers = _text(_DRIVER / "parameters/video_nr").split(",")
    flags = _text(_DRIVER / "parameters/exclusive_caps").split(",")
    number = path.removeprefix("/dev/video")
    if number in numbers and numbers.index(number) < len(flags):
        return flags[numbers.index(number)] == "Y"
    # Both at once is also what an exclusive one says whose writer left before its reader, in driver 0.13.
    return not capabilities & _CAPTURE or not capabilities & _OUTPUT if capabilities else None


def _all_holders(paths: Sequence[str]) -> dict[str, list[Holder]]:
    found: dict[str, list[Holder]] = {path: [] for path in paths}
    wanted = {}
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if stat.S_ISCHR(status.st_mode):
                wanted[status.st_rdev] = path
    if not wanted:
        return found
    own = os.getpid()
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == own:
            continue
        # Processes end while they are looked at, and those of others may not be.
        with contextlib.suppress(OSError):
            seen: dict[str, set[str]] = {}
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if not os.readlink(link).startswith("/dev/"):
                        continue
                    path = wanted.get(os.stat(link).st_rdev, "")
                    if path:
                        seen.setdefault(path, set()).add(_access(process, link.name))
            for path, ways in seen.items():
                access = "writes" if "writes" in ways else "both" if "both" in ways else "reads"
                found[path].append(Holder(int(process.name), _text(process / "comm"), access))
    return found


def _access(process: Path, fd: str) -> str:
    flags = re.search(r"^flags:\s*(\d+)", _text(process / "fdinfo" / fd), re.MULTILINE)
    mode = int(flags[1], 8) & os.O_ACCMODE if flags else os.O_RDWR
    return {os.O_RDONLY: "reads", os.O_WRONLY: "writes"}.get(mode, "both")


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


class Readers:
    """Whether somebody reads a virtual camera.

    The driver tells since 0.13; before, the processes that have the device open are looked for, twice a second. It
    stays open meanwhile, which does not disturb writers and readers.

    Args:
        path: of a loopback device.
        ignore: processes that do not count, such as the one that writes; this one never does.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str, *, ignore: Sequence[int] = ()) -> None:
        self._path = path
        self._ignore = frozenset(ignore)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._count: int | None = None
        self._scanned_at = float("-inf")
        self._scanned = False
        try:
            fcntl.ioctl(self._fd, _SUBSCRIBE_EVENT, _Subscription(_CLIENT_USAGE, 0, _SEND_INITIAL))
            self.by_event = True
        except OSError:
            self.by_event = False

    def fileno(self) -> int:
        """For select and poll: exceptional (POLLPRI) when the number of readers may have changed."""
        return self._fd

    def watched(self) -> bool:
        """Whether somebody reads now. Returns at once."""
        if self.by_event:
            self._take_events()
        # Until the first event nothing is known: not every driver sends one at the start.
        return self._count > 0 if self._count is not None else self._scan()

    def _take_events(self) -> None:
        event = _Event()
        while True:
            try:
                fcntl.ioctl(self._fd, _DQEVENT, event)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EAGAIN):
                    self.by_event = False  # the device is gone
                return
            if event.type == _CLIENT_USAGE:
                self._count = event.data[0] & 0xFFFFFFFF

    def _scan(self) -> bool:
        now = time.monotonic()
        if now - self._scanned_at >= _SCAN_S:
            found = holders(self._path)
            self._scanned = any(user.access != "writes" and user.pid not in self._ignore for user in found)
            self._scanned_at = now
        return self._scanned

    def close(self) -> None:
        """Let go of the device."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
