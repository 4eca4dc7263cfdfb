"""What a file is called while it is written."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from streamseg.errors import SinkOpenError
from streamseg.libav import unwritten
from streamseg.locks import try_lock

__all__ = ["Claim", "Named", "Partial", "behind_links", "is_locked"]

_CLAIM = ".streamseg-lock"
_SETTLED_S = 60


class Partial:
    """For a file that has its own name only when it is whole: another one beside it, such as ``out.partial.mp4``.

    The extension stays usable. What an earlier run left is never overwritten: another name is taken then and `notices`
    say so. While it is written it is locked, so that another run can tell it from what was left.

    Args:
        final: the name that it shall have; a link stays one, and the file goes to where it points.
        numbered: leave a file of that name where it is, instead of taking its place, and put a number behind the new
            one's, as `Named` does.

    Attributes:
        path: to write to; it exists, empty.
        final: the name it gets from `keep`.

    Raises:
        SinkOpenError: the folder is missing or cannot be written, the final name is a folder, or another run is writing
            the file.
    """

    def __init__(self, final: Path, *, numbered: bool = False) -> None:
        self.final = final = behind_links(final)
        self.notices: list[str] = []
        self._numbered = numbered
        self._lock: int | None = None
        if final.is_dir():
            raise SinkOpenError(f"cannot write {final}: it is a folder; name a file in it")
        if not final.parent.is_dir():
            raise SinkOpenError(f"cannot write {final}: the folder {final.parent} does not exist; make it first")
        if numbered and final.exists():
            self.notices.append(f"{final.name} is an earlier run's and stays; a number goes behind the new one's name")
        self.path = self._reserve()

    def _reserve(self) -> Path:
        for number in range(1, 1000):
            mark = "partial" if number == 1 else f"partial-{number}"
            path = self.final.with_name(f"{self.final.stem}.{mark}{self.final.suffix}")
            try:
                self._lock = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                if is_locked(path):
                    raise _in_use(self.final) from None
                self.notices.append(
                    f"an earlier run left {path.name} ({path.stat().st_size / 1e6:.1f} MB, "
                    "playable up to where it stopped); it is kept"
                )
            except OSError as error:
                raise SinkOpenError(f"cannot write {self.final}: {unwritten(error)}") from error
            else:
                try_lock(self._lock)
                return path
        raise SinkOpenError(f"cannot write {self.final}: 1000 unfinished files lie beside it; remove them")

    def keep(self) -> None:
        """Give it the final name."""
        self.release()
        if self._numbered:
            name = Named(self.final)
            name.release()
            self.final = name.path
        os.replace(self.path, self.final)

    def discard(self) -> None:
        """Remove it."""
        self.release()
        self.path.unlink(missing_ok=True)

    def hold(self) -> None:
        """Go on writing to it after `release`.

        Raises:
            OSError: it cannot be opened.
        """
        if self._lock is None:
            self._lock = os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o666)
            try_lock(self._lock)

    def release(self) -> None:
        """Nothing more is written to it for now; it stays where it is."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Claim:
    """Keeps other runs from a name for many files, such as ``out_%05d.png``: a hidden file beside them is locked.

    What a killed run left of the kind goes with the next claim in that folder.

    Args:
        path: the name; its folder exists.
        shown: what the user called it.

    Raises:
        SinkOpenError: another run has claimed it, or the folder cannot be written.
    """

    def __init__(self, path: Path, shown: str) -> None:
        self._path = path.with_name(f".{path.name}{_CLAIM}")
        try:
            _tidy(path.parent)
            self._lock: int | None = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError as error:
            raise SinkOpenError(f"cannot write {shown}: {unwritten(error)}") from error
        if not try_lock(self._lock):
            os.close(self._lock)
            raise _in_use(shown)

    def release(self) -> None:
        """Others may have it."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


def _tidy(folder: Path) -> None:
    """Remove what killed runs left to claim a name by, whichever it was."""
    for left in folder.glob(f".*{_CLAIM}"):
        with contextlib.suppress(OSError):
            # One that was made just now may not be locked yet.
            if time.time() - left.stat().st_mtime > _SETTLED_S and not is_locked(left):
                left.unlink()


def behind_links(path: Path) -> Path:
    """Where a link points, although nothing may be there yet; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _in_use(name: Path | str) -> SinkOpenError:
    return SinkOpenError(f"cannot write {name}: another run is writing it now; wait for that or name another file")


def is_locked(path: Path) -> bool:
    """Whether a `Partial` or `Named` of this or another run is writing the file now."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


class Named:
    """A file that has its name from its first byte, as a recording that must be found after a kill; none is replaced.

    It is locked while it is written: no other run that records to the same path removes it as an old one.

    Attributes:
        path: to write to; it exists, empty. Where the name was taken, a number stands behind it: ``out-2.mkv``.

    Raises:
        SinkOpenError: the folder is missing or cannot be written.
    """

    notices: Sequence[str] = ()

    def __init__(self, wanted: Path) -> None:
        for number in range(1, 1000):
            self.path = wanted if number == 1 else wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
            try:
                self._lock: int | None = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                continue
            except OSError as error:
                raise SinkOpenError(f"cannot write {wanted}: {unwritten(error)}") from error
            try_lock(self._lock)
            return
        raise SinkOpenError(f"cannot write {wanted}: 1000 files of that name lie there; remove them")

    def keep(self) -> None:
        """It has its name, and may grow old."""
        self.release()

    def discard(self) -> None:
        """Remove it."""
        self.release()
        self.path.unlink(missing_ok=True)

    def release(self) -> None:
        """It is written no more."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
