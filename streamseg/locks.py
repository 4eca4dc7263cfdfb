"""Locks between processes that a killed one gives back."""

from __future__ import annotations

import os

__all__ = ["try_lock"]

# Windows keeps others from writing to what is locked: a byte that no file reaches.
_FAR = 1 << 40


def try_lock(descriptor: int) -> bool:
    """Lock an open file for as long as it is open; False where somebody else holds it.

    True, too, on a file system without locks: nobody can be kept out there.
    """
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True
