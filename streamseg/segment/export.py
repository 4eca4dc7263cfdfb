"""Make an ONNX file out of an ultralytics checkpoint, or take over one that is ONNX already.

A `.pt` file is a pickle: opening it executes code that is stored in it. Nothing in streamseg does so but this module,
when the user asks for it, and in a process of its own. ultralytics stays out of our environment: it brings
opencv-python, which overwrites the headless build.
"""

from __future__ import annotations

import heapq
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import onnx

from streamseg.errors import ConfigError, ModelLoadError, redact
from streamseg.segment.cache import (
    cache_folder,
    locked,
    models_folder,
    prepare,
    replacing,
    sha256_of,
    unwritable,
    write_record,
)
from streamseg.segment.inspect import GraphFacts, inspect_onnx
from streamseg.segment.store import PLAIN_NAME

__all__ = ["EXPORT_REQUIREMENTS", "ExportOptions", "Imported", "import_checkpoint", "import_onnx", "parse_imgsz"]

EXPORT_REQUIREMENTS = ("ultralytics>=8.3", "torch>=2.2", "onnx>=1.17", "onnxslim>=0.1", "onnxruntime>=1.20")
"""What `--make-env` installs. onnxruntime is not used, but an export with simplification looks for it."""

_STRIDE = 32
_AGPL = (
    "ultralytics and its weights are licensed under AGPL-3.0, or under a licence bought from them; "
    "this applies to the exported file as well (https://ultralytics.com/license)"
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a checkpoint is exported.

    Attributes:
        input_hw: height and width of the picture, in px; multiples of 32. With `dynamic`, of the example.
        dynamic: leave batch, height and width free.
        opset: of the ONNX operators; None leaves it to ultralytics.
        half: fp16 weights.
    """

    input_hw: tuple[int, int] = (640, 640)
    dynamic: bool = False
    opset: int | None = 17
    half: bool = False

    @property
    def suffix(self) -> str:
        """What the file's name gets where the options differ from the defaults: ``-384x640-half``."""
        parts = []
        if self.dynamic:
            parts.append("dynamic")
        elif self.input_hw != (640, 640):
            parts.append(f"{self.input_hw[0]}x{self.input_hw[1]}")
        if self.half:
            parts.append("half")
        return "".join(f"-{part}" for part in parts)


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """An ONNX file in the user cache: where, its hash, what it says of itself, and which programs made it.

    `replaced` tells whether another file had its name.
    """

    path: Path
    sha256: str
    facts: GraphFacts
    made_by: dict[str, str]
    replaced: bool


def parse_imgsz(text: str) -> tuple[int, int]:
    """(height, width) from "640" or "384x640", which is height x width as in ultralytics.

    Raises:
        ConfigError: it is neither, or no multiple of 32.
    """
    match = re.fullmatch(r"(\d{2,4})(?:[x,](\d{2,4}))?", text.strip())
    if match is None:
        raise ConfigError(f"imgsz must be SIZE or HEIGHTxWIDTH, such as 640 or 384x640, not {text!r}")
    height = int(match[1])
    width = int(match[2] or height)
    if height % _STRIDE or width % _STRIDE or not height or not width:
        near = "x".join(str(max(round(size / _STRIDE), 1) * _STRIDE) for size in (height, width))
        raise ConfigError(f"imgsz must be multiples of {_STRIDE}, not {text!r}; near it is {near}")
    return height, width


def import_onnx(file: Path, *, name: str | None = None) -> Imported:
    """Check an ONNX file and copy it into the user cache.

    Args:
        file: the ONNX file.
        name: what it will be called; its own name without the extension where None.

    Raises:
        ModelLoadError: it is missing, damaged, or no network to segment with.
    """
    facts = inspect_onnx(file)
    if facts.family == "unknown":
        raise ModelLoadError(facts.refusal())
    data = _valid(file)
    return _keep(data, _checked_name(name or file.stem), {"made_from": file.name})


def import_checkpoint(
    checkpoint: Path,
    options: ExportOptions,
    *,
    name: str | None = None,
    make_env: bool = False,
    say: Say = lambda line: None,
) -> Imported:
    """Export a checkpoint with ultralytics, in a process of its own, into the user cache.

    Args:
        checkpoint: a `.pt` file of a segmentation network. **It is executed.**
        options: shape, opset, precision.
        name: what the result will be called; the checkpoint's name with the options' suffix where None.
        make_env: build an environment with ultralytics under the cache where there is none; several GB.
        say: told, in lines, what happens.

    Raises:
        ModelLoadError: no ultralytics to be had, the export failed, or the result is no such network.
    """
    if not checkpoint.is_file():
        raise ModelLoadError(f"no model file {str(checkpoint)!r}; check the spelling")
    name = _checked_name(name or checkpoint.stem + options.suffix)
    python = _interpreter(make_env, say)
    _show_notice_once(say)
    say(f"opening {checkpoint.name} executes code that is stored in it; stop now if you do not trust its source")
    with tempfile.TemporaryDirectory(prefix="streamseg-export-") as folder:
        result = _run_child(python, checkpoint, options, Path(folder), say)
        exported = Path(folder) / result["onnx"]
        facts = inspect_onnx(exported)
        data = _valid(exported)
    if facts.family not in ("yolo-seg", "yolo-seg-end2end"):
        raise ModelLoadError(
            f"{checkpoint.name} is no segmentation network (task {result['task']!r}); {facts.describe_outputs()}"
        )
    if options.half and facts.precision != "float16":
        raise ModelLoadError("this ultralytics cannot export half precision without a GPU; upgrade it to 8.4 or later")
    made_by: dict[str, str] = result["versions"]
    return _keep(data, name, {"made_from": checkpoint.name, "source_sha256": sha256_of(checkpoint), **made_by})


def _checked_name(name: str) -> str:
    name = name.removesuffix(".onnx")  # which `--model` takes for the same
    if not PLAIN_NAME.fullmatch(name):
        raise ConfigError(
            f"a model's name may hold up to 100 letters, digits, '.', '_', '+' and '-', not {name!r}; "
            "choose one with --name"
        )
    return name


def _valid(file: Path) -> bytes:
    """The file's content, in one piece and in order, once onnx's own checker has passed it."""
    try:
        model = onnx.load(str(file))  # with weights from files of their own, which would not be copied
        if not _in_order(model.graph):
            # onnxruntime's fp16 conversion puts its casts last; ONNX Runtime does not mind, others do.
            _put_in_order(model.graph)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())
    except Exception as error:  # vendor code over a file from anywhere
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelLoadError(f"{file.name} is no valid ONNX: {reason.rstrip('. ')}") from error


def _in_order(graph: Any) -> bool:
    made: set[str] = set()
    late = {name for node in graph.node for name in node.output}
    for node in graph.node:
        if any(name in late and name not in made for name in _needs(node)):
            return False
        made.update(node.output)
    return True


def _put_in_order(graph: Any) -> None:
    """Sort the nodes so that each follows what it needs; their order stays where it may."""
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output}
    waiting = [{maker[name] for name in _needs(node) if name in maker} for node in graph.node]
    readers: dict[int, list[int]] = {}
    for index, needs in enumerate(waiting):
        for need in needs:
            readers.setdefault(need, []).append(index)
    ready = [index for index, needs in enumerate(waiting) if not needs]
    heapq.heapify(ready)
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers.get(index, ()):
            waiting[reader].discard(index)
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    if len(order) != len(graph.node):
        raise ValueError("its nodes need one another in a circle")
    nodes = [graph.node[index] for index in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _needs(node: Any) -> set[str]:
    """Names that a node reads, those inside its branches and loops included."""
    inner = (child for attribute in node.attribute for child in attribute.g.node)
    return set(node.input).union(*(_needs(child) for child in inner))


def _keep(data: bytes, name: str, record: dict[str, str]) -> Imported:
    path = models_folder() / f"{name}.onnx"
    with locked(path):
        before = sha256_of(path) if path.is_file() else None
        with replacing(path) as file:
            file.write(data)
        sha256 = sha256_of(path)
        write_record(path.name, {**record, "sha256": sha256})
    return Imported(path, sha256, inspect_onnx(path), record, before not in (None, sha256))


def _show_notice_once(say: Say) -> None:
    shown = prepare(cache_folder()) / "agpl-notice-shown"
    if not shown.exists():
        say(_AGPL)
        try:
            shown.touch()
        except OSError as error:
            raise unwritable(shown, error) from error


def _run_child(python: str, checkpoint: Path, options: ExportOptions, folder: Path, say: Say) -> dict[str, Any]:
    # ultralytics writes its result beside the checkpoint, under its name.
    copy = folder / checkpoint.name
    shutil.copyfile(checkpoint, copy)
    height, width = options.input_hw
    order = {
        "checkpoint": copy.name,
        "imgsz": [height, width],
        "dynamic": options.dynamic,
        "opset": options.opset,
        "half": options.half,
    }
    environment = {
        **os.environ,
        "YOLO_AUTOINSTALL": "false",  # an export installs nothing behind the user's back,
        "YOLO_OFFLINE": "true",  # asks no server,
        "YOLO_CONFIG_DIR": str(prepare(cache_folder() / "ultralytics")),  # and leaves the user's settings alone
        "YOLO_VERBOSE": "false",
        "PYTHONIOENCODING": "utf-8",
    }
    code = files(__package__).joinpath("export_child.py").read_text(encoding="utf-8")
    say(f"exporting {checkpoint.name} ({'any size' if options.dynamic else f'{height}x{width}'}) with ultralytics")
    try:
        done = subprocess.run(
            [python, "-c", code, json.dumps(order)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except OSError as error:
        raise ModelLoadError(f"cannot start {python}: {error.strerror or error}") from error
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        reason = redact(lines[-1]) if lines else f"exit code {done.returncode}"
        raise ModelLoadError(f"ultralytics could not export {checkpoint.name}: {reason}") from error
    if "error" in result:
        raise ModelLoadError(f"ultralytics could not export {checkpoint.name}: {redact(result['error'])}")
    return result


def _interpreter(make_env: bool, say: Say) -> str:
    """A Python that has ultralytics: the one that was named, this one, or the one of our own environment."""
    named = os.environ.get("STREAMSEG_ULTRALYTICS_PYTHON")
    if named:
        if shutil.which(named) is None:
            raise ModelLoadError(f"STREAMSEG_ULTRALYTICS_PYTHON names no program: {named}")
        return named
    if importlib.util.find_spec("ultralytics") and importlib.util.find_spec("torch"):
        return sys.executable
    folder = cache_folder() / "export-env"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = folder / "complete"
    if complete.is_file() and python.exists():
        return str(python)
    if not make_env:
        raise ModelLoadError(
            "turning a checkpoint into ONNX needs ultralytics; add --make-env to install it into an environment of "
            f"its own under {cache_folder()} (several GB), or set STREAMSEG_ULTRALYTICS_PYTHON to a Python with it"
        )
    with locked(folder, say):
        if not complete.is_file():
            _make_environment(folder, python, say)
            complete.touch()
    return str(python)


def _make_environment(folder: Path, python: Path, say: Say) -> None:
    say(f"making an environment for the export under {folder}; this fetches several GB, once")
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *EXPORT_REQUIREMENTS],
    )
    for step in steps:
        try:
            done = subprocess.run(
                step, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False
            )
        except OSError as error:
            raise ModelLoadError(f"cannot start {step[0]}: {error.strerror or error}") from error
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith(("ERROR:", "Error:"))]
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            reason = (errors or last or ["no reason given"])[0]
            text = redact(reason).removeprefix("ERROR: ").rstrip(".")
            raise ModelLoadError(f"cannot make the export environment: {text}")
