"""The user's cache: where it is, and files in it that are either whole or absent, whoever else writes.

<cache>/models/NAME.onnx     ready to run
<cache>/sources/NAME.EXT     what they were made from, as downloaded
<cache>/lock.json            the sha256 of each file as it was first seen, and where it came from
<cache>/export-env/          the environment that `models import --make-env` makes
<cache>/half/                networks turned into float16
<cache>/light/               networks with fewer sums, for processors
<cache>/openvino/, tensorrt/ networks compiled for this machine
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

from streamseg.errors import ModelLoadError
from streamseg.locks import try_lock

__all__ = [
    "cache_folder",
    "locked",
    "models_folder",
    "prepare",
    "read_records",
    "replacing",
    "sha256_of",
    "sources_folder",
    "unwritable",
    "write_record",
]

_LOCK_WAIT_S = 900.0
_LOCK_POLL_S = 0.1


def cache_folder() -> Path:
    """`$STREAMSEG_CACHE`, or the system's place for caches; it may not exist yet."""
    chosen = os.environ.get("STREAMSEG_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("streamseg", appauthor=False)


def models_folder() -> Path:
    """Where networks that are ready to run are kept."""
    return cache_folder() / "models"


def sources_folder() -> Path:
    """Where the files are kept that networks were made from."""
    return cache_folder() / "sources"


def prepare(folder: Path) -> Path:
    """Make the folder where it is missing.

    Raises:
        ModelLoadError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def unwritable(path: Path, error: OSError) -> ModelLoadError:
    """The error for a file or folder that cannot be written."""
    reason = (error.strerror or str(error)).lower()
    return ModelLoadError(f"cannot write {path}: {reason}; free it, or choose another folder with STREAMSEG_CACHE")


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears as `path`, whole, when the block ends well, and leaves nothing when it does not.

    Raises:
        ModelLoadError: it cannot be written.
    """
    # In the same folder: only there is the renaming atomic.
    temporary = prepare(path.parent) / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Let one process at a time work on `path`; a killed one frees it. The lock is a small file beside it that stays.

    Raises:
        ModelLoadError: another process has held it for a quarter of an hour.
    """
    lock = prepare(path.parent) / f".{path.name}.lock"
    try:
        file = lock.open("ab")
    except OSError as error:
        raise unwritable(lock, error) from error
    with file:
        deadline, told = time.monotonic() + _LOCK_WAIT_S, False
        # Without locks there, every write is atomic by itself: at worst the work is done twice.
        while not try_lock(file.fileno()):
            if time.monotonic() > deadline:
                raise ModelLoadError(f"another streamseg is at work on {path}; wait for it or end it")
            if not told:
                say(f"waiting for another streamseg that is at work on {path.name}")
                told = True
            time.sleep(_LOCK_POLL_S)
        # Closing the file gives the lock back, also when the process dies.
        yield


def read_records() -> dict[str, dict[str, Any]]:
    """What `lock.json` holds, by file name; empty where it is missing or unreadable."""
    try:
        records = json.loads((cache_folder() / "lock.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return (
        {name: entry for name, entry in records.items() if isinstance(entry, dict)} if isinstance(records, dict) else {}
    )


def write_record(name: str, entry: Mapping[str, Any]) -> None:
    """Set one entry of `lock.json`; the others stay, whoever writes at the same time.

    Raises:
        ModelLoadError: it cannot be written.
    """
    path = cache_folder() / "lock.json"
    with locked(path):
        records = {**read_records(), name: dict(entry)}
        with replacing(path) as file:
            file.write(json.dumps(records, indent=2, sort_keys=True).encode() + b"\n")
