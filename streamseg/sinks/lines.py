"""Results as JSON lines."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from streamseg.errors import SinkOpenError, SinkWriteError
from streamseg.frame import Output, Packet
from streamseg.libav import unwritten
from streamseg.sinks.partial import Partial

__all__ = ["LinesSink"]


class LinesSink:
    """One JSON document a line, one line a frame; a `Sink`. The file has its name only when it is whole.

    Args:
        path: of the file.
        describe: makes of an output what is written; anything that JSON knows.
        numbered: leave a file of that name where it is and put a number behind the new one's.

    Raises:
        SinkOpenError: it cannot be written.
    """

    def __init__(self, path: str, describe: Callable[[Output], Mapping[str, Any]], *, numbered: bool = False) -> None:
        self._describe = describe
        self._partial = Partial(Path(path), numbered=numbered)
        self._size = 0  # bytes of whole lines
        self._refused = b""
        self._finished = False
        self._file = self._open()

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        return self._partial.notices

    def keeps(self, output: Output) -> bool:
        """Whether it has a line, however late."""
        return not output.stands_in

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        """Write one line; packets have no place here. A stand-in says nothing of what was seen: it has no line."""
        if output.stands_in:
            return
        line = json.dumps(self._describe(output), separators=(",", ":"), allow_nan=False)
        data = f"{line}\n".encode("ascii")
        try:
            self._put(data)
        except OSError as error:
            self._refused = data
            raise SinkWriteError(self._explain(error)) from error
        self._size += len(data)

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        """Complete the file and give it its name."""
        try:
            self._file.close()
            self._partial.keep()
        except OSError as error:
            raise SinkWriteError(self._explain(error)) from error
        self._finished = True

    def close(self) -> None:
        """Let go of the file; without `finish`, whole lines stay under the temporary name."""
        if not self._file.closed:
            with contextlib.suppress(OSError), self._file:  # said already, by write or finish
                self._file.truncate(self._size)
        if self._finished or self._size:
            self._partial.release()
        else:
            self._partial.discard()

    def reopen(self) -> LinesSink:
        """Go on behind the last whole line; after `close`, which came after a failed `write`.

        Raises:
            SinkOpenError: the line that failed does not fit now, either.
        """
        self._file = self._open()
        try:
            self._put(self._refused)
            self._file.truncate(self._size)  # whoever called `write` was told that it is lost
        except OSError as error:
            self.close()
            raise SinkOpenError(self._explain(error)) from error
        return self

    def _open(self) -> FileIO:
        try:
            self._partial.hold()
            # Without a buffer: what is written is on its way to the disk, and what fails is this line alone.
            file = self._partial.path.open("ab", buffering=0)
            self._size = min(self._size, file.seek(0, os.SEEK_END))
            file.truncate(self._size)
        except OSError as error:
            raise SinkOpenError(self._explain(error)) from error
        return file

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _explain(self, error: OSError) -> str:
        return f"cannot write {self._partial.path}: {unwritten(error)}"
