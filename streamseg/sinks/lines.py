"""Results as JSON lines."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from streamseg.errors import SinkOpenError, SinkWriteError
from streamseg.frame import Output, Packet
from streamseg.libav import reason
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
        self._written = 0
        self._finished = False
        try:
            self._file = self._partial.path.open("w", encoding="ascii", newline="\n")
        except OSError as error:
            raise SinkOpenError(f"cannot write {path}: {reason(error)}") from error

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
        try:
            self._file.write(line + "\n")
        except OSError as error:
            raise self._failed(error) from error
        self._written += 1

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        """Complete the file and give it its name."""
        try:
            self._file.close()
            self._partial.keep()
        except OSError as error:
            raise self._failed(error) from error
        self._finished = True

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(OSError):  # said already, by write or finish
            self._file.close()
        if not self._finished and not self._written:
            self._partial.discard()

    def _failed(self, error: OSError) -> SinkWriteError:
        return SinkWriteError(f"cannot write {self._partial.path}: {reason(error)}")
