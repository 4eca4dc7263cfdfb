"""What a batch remembers between runs: which files are done, which failed and why. Written anew after every file."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from streamseg.errors import ConfigError, SinkWriteError
from streamseg.libav import unwritten

__all__ = ["Entry", "Ledger", "fingerprint", "replace_text"]

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the batch.

    Attributes:
        file: as the user named it; a joined drive by its playlist.
        outcome: "done", "failed" or "interrupted".
        message: why it failed, on one line.
        wall_s: how long it took.
        frames, fps: pictures written, and how many a second; None where no report tells.
        output: what was written.
        source: `fingerprint` of what was read.
        options: the command that did it.
    """

    file: str
    outcome: str
    message: str = ""
    wall_s: float = 0.0
    frames: int | None = None
    fps: float | None = None
    output: str = ""
    source: str = ""
    options: Sequence[str] = ()


def fingerprint(paths: Iterable[Path]) -> str:
    """Changes when one of the files is exchanged or written to; "gone" where one is not there."""
    try:
        stats = [path.stat() for path in paths]
    except OSError:
        return "gone"
    return " ".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)


class Ledger:
    """The entries of a batch, by file, in a JSON file that is always whole.

    Raises:
        ConfigError: the file is there and is no ledger.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Entry] = {}
        try:
            tree = json.loads(path.read_text("utf-8"))
            if tree["version"] != _VERSION:
                raise ValueError
            self._entries = {row["file"]: Entry(**row) for row in tree["files"]}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is no state of a batch; remove it, or choose another --out") from error

    def is_done(self, file: str, source: str, options: Sequence[str], output: Path | None) -> bool:
        """Whether the same file was done by the same command, and what it wrote is still there."""
        entry = self._entries.get(file)
        return (
            entry is not None
            and entry.outcome == "done"
            and (entry.source, list(entry.options)) == (source, list(options))
            and (output is None or output.exists())
        )

    def put(self, entry: Entry) -> None:
        """Remember, on disk too.

        Raises:
            SinkWriteError: it cannot be written.
        """
        self._entries[entry.file] = entry
        rows = [asdict(row) for row in self._entries.values()]
        replace_text(self._path, json.dumps({"version": _VERSION, "files": rows}, indent=1) + "\n")

    def summary(self, files: Sequence[str]) -> Mapping[str, int]:
        """How many of these files have which outcome; "waiting" are those that were not begun."""
        outcomes = [self._entries[file].outcome if file in self._entries else "waiting" for file in files]
        return {outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)}

    def as_csv(self, files: Sequence[str]) -> str:
        """A table of these files with a header; those that were not begun are "waiting"."""
        names = [field.name for field in fields(Entry) if field.name not in ("source", "options")]
        text = io.StringIO()
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for file in files:
            writer.writerow(asdict(self._entries.get(file) or Entry(file, "waiting")))
        return text.getvalue()


def replace_text(path: Path, text: str) -> None:
    """Write a file so that it is never half there.

    Raises:
        SinkWriteError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, "utf-8", newline="\n")
        os.replace(partial, path)
    except OSError as error:
        raise SinkWriteError(f"cannot write {path}: {unwritten(error)}") from error
