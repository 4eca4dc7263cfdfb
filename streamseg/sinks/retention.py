"""Which recordings lie in a folder, and which have to go."""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["Recordings"]

_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class _Recording:
    started: tuple[str, int]
    path: Path
    size: int
    ended_s: float


class Recordings:
    """The files that recording to one path makes: ``cam-20261121T024600Z.mkv`` for ``cam.mkv``, in the same folder.

    The time is UTC, when the file's first picture or sound was captured: unlike local time it sorts, and no hour comes
    twice. Nothing else in the folder is ever counted or removed: no other name, no link, no folder.

    Args:
        pattern: the path that the user named.
        keep_for_s: files that were last written to longer ago are removed.
        max_bytes: of all files together, the one that is being written included.
        min_free_bytes: of the disk, to stay free; for `short_of_room`.
        now_s: seconds since 1970.
    """

    def __init__(
        self,
        pattern: Path,
        *,
        keep_for_s: float | None,
        max_bytes: int | None,
        min_free_bytes: int,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._pattern = pattern
        self._keep_for_s = keep_for_s
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._now_s = now_s
        stem, suffix = re.escape(pattern.stem), re.escape(pattern.suffix)
        self._name = re.compile(rf"{stem}-(\d{{8}}T\d{{6}}Z)(?:-(\d{{1,3}}))?{suffix}")

    def path_for(self, started_s: float) -> Path:
        """The path of a file that begins at `started_s`, seconds since 1970."""
        stamp = datetime.fromtimestamp(started_s, UTC).strftime(_STAMP)
        return self._pattern.with_name(f"{self._pattern.stem}-{stamp}{self._pattern.suffix}")

    def tidy(self, open_files: Collection[Path]) -> list[Path]:
        """Remove what is too old or too much, oldest first, but none of `open_files`; returns what was removed.

        Never to make room on the disk: what fills it may be something else, and every recording would go in vain.
        """
        if self._keep_for_s is None and self._max_bytes is None:
            return []
        found = self._find()
        total = sum(recording.size for recording in found)
        oldest_s = -1.0 if self._keep_for_s is None else self._now_s() - self._keep_for_s
        removed = []
        for recording in found:
            too_much = self._max_bytes is not None and total > self._max_bytes
            if recording.path in open_files or (recording.ended_s >= oldest_s and not too_much):
                continue
            try:
                recording.path.unlink()
            except OSError:  # somebody else's, or open elsewhere: the next one may go
                continue
            total -= recording.size
            removed.append(recording.path)
        return removed

    def free_bytes(self) -> int:
        """What the disk has left for us."""
        return shutil.disk_usage(self._pattern.parent).free

    @property
    def short_of_room(self) -> bool:
        """Whether the disk has less left than has to stay free."""
        return self.free_bytes() < self._min_free_bytes

    def _find(self) -> list[_Recording]:
        """Oldest first."""
        found = []
        with os.scandir(self._pattern.parent) as entries:
            for entry in entries:
                match = self._name.fullmatch(entry.name)
                if match is None:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    path = self._pattern.parent / entry.name
                    started = (match[1], int(match[2] or 1))
                    found.append(_Recording(started, path, status.st_size, status.st_mtime))
        return sorted(found, key=lambda recording: recording.started)
