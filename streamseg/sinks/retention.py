"""Which recordings lie in a folder, and which have to go."""

from __future__ import annotations

import math
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from streamseg.sinks.partial import is_locked

__all__ = ["Recordings"]

_STAMP = "%Y%m%dT%H%M%SZ"
# A clock on the wall that is set by more than this is believed after a day: a wrong one would make every recording old.
_STEP_S, _BELIEVED_AFTER_S = 3600.0, 86400.0


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

    The clock on the wall may be set meanwhile. What was open since is younger than all else, and as old as the time
    that has passed.

    Args:
        pattern: the path that the user named.
        keep_for_s: files that were last written to longer ago are removed.
        max_bytes: of all files together, the one that is being written included.
        min_free_bytes: of the disk, to stay free; for `short_of_room`.
        now_s: seconds since 1970.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        pattern: Path,
        *,
        keep_for_s: float | None,
        max_bytes: int | None,
        min_free_bytes: int,
        now_s: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pattern = pattern
        self._keep_for_s = keep_for_s
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._now_s = now_s
        self._clock = clock
        self._wall_s = now_s() - clock()  # between the zeros of the two clocks, as far as it is believed
        self._stepped_at: float | None = None
        self._open_at: dict[Path, float] = {}  # when files were open last, on the monotonic clock
        stem, suffix = re.escape(pattern.stem), re.escape(pattern.suffix)
        self._name = re.compile(rf"{stem}-(\d{{8}}T\d{{6}}Z)(?:-(\d{{1,3}}))?{suffix}")

    def path_for(self, started_s: float) -> Path:
        """The path of a file that begins at `started_s`, seconds since 1970."""
        stamp = datetime.fromtimestamp(started_s, UTC).strftime(_STAMP)
        return self._pattern.with_name(f"{self._pattern.stem}-{stamp}{self._pattern.suffix}")

    def tidy(self, open_files: Collection[Path]) -> list[Path]:
        """Remove what is too old or too much, oldest first; returns what was removed.

        None of `open_files` goes, and none that another run is writing.

        Never to make room on the disk: what fills it may be something else, and every recording would go in vain.
        """
        if self._keep_for_s is None and self._max_bytes is None:
            return []
        now = self._clock()
        self._look_at_the_wall(now)
        self._open_at.update(dict.fromkeys(open_files, now))
        found = self._find()
        self._open_at = {one.path: self._open_at[one.path] for one in found if one.path in self._open_at}
        total = sum(recording.size for recording in found)
        longest_s = math.inf if self._keep_for_s is None else self._keep_for_s
        removed = []
        for recording in found:
            too_much = self._max_bytes is not None and total > self._max_bytes
            ended_at = self._open_at.get(recording.path, recording.ended_s - self._wall_s)
            if recording.path in open_files or (now - ended_at <= longest_s and not too_much):
                continue
            if is_locked(recording.path):  # another run records to this path
                continue
            try:
                recording.path.unlink()
            except OSError:  # somebody else's, or open elsewhere: the next one may go
                continue
            total -= recording.size
            removed.append(recording.path)
        return removed

    @property
    def short_of_room(self) -> bool:
        """Whether the disk has less left than has to stay free."""
        return shutil.disk_usage(self._pattern.parent).free < self._min_free_bytes

    def _find(self) -> list[_Recording]:
        """Oldest first, those that were open since behind all others."""
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
        return sorted(found, key=lambda one: (self._open_at.get(one.path, -math.inf), one.started))

    def _look_at_the_wall(self, now: float) -> None:
        wall_s = self._now_s() - now
        if abs(wall_s - self._wall_s) <= _STEP_S:
            self._stepped_at = None
        elif self._stepped_at is None:
            self._stepped_at = now
        if self._stepped_at is None or now - self._stepped_at >= _BELIEVED_AFTER_S:
            self._wall_s, self._stepped_at = wall_s, None
