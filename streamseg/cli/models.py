"""`streamseg models`: what networks there are, getting them, and what is inside."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from streamseg.cli import quantize
from streamseg.cli.log import on_terminal
from streamseg.errors import ConfigError, ModelLoadError
from streamseg.segment.cache import read_records
from streamseg.segment.download import Progress
from streamseg.segment.export import ExportOptions, import_checkpoint, import_onnx, parse_imgsz
from streamseg.segment.inspect import inspect_onnx
from streamseg.segment.registry import registry
from streamseg.segment.store import find_local, known, local_models, pull, resolve

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `models` and its subcommands."""
    parser = subparsers.add_parser("models", help="list, fetch, import and inspect networks", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="list | pull | import | quantize | info")

    action = actions.add_parser("list", help="networks known by name and those in local folders")
    action.add_argument("--json", action="store_true", help="as one JSON document")
    action.set_defaults(function=run)

    action = actions.add_parser("pull", help="fetch a network into the user cache, verified")
    action.add_argument("name", metavar="NAME")
    action.add_argument("--force", action="store_true", help="fetch it again although it is here")
    _add_transfer_options(action)
    action.set_defaults(function=run)

    action = actions.add_parser(
        "import",
        help="turn a .pt into ONNX, or take over an .onnx",
        description="Turn a checkpoint into ONNX with ultralytics, or copy an ONNX file into the user cache. "
        "Opening a .pt executes code that is stored in it: import only what you trust.",
    )
    action.add_argument("model", metavar="FILE|NAME", help="a .pt or .onnx file, or a known name whose .pt is fetched")
    action.add_argument("--imgsz", metavar="SIZE|HxW", help="of the network's picture (default: 640)")
    action.add_argument("--dynamic", action="store_true", help="leave the picture's size free")
    action.add_argument("--opset", type=int, metavar="N", help="of the ONNX operators (default: 17)")
    action.add_argument("--half", action="store_true", help="store the weights as fp16")
    action.add_argument("--name", metavar="NAME", help="what to call the result")
    action.add_argument("--make-env", action="store_true", help="install ultralytics into an environment of its own")
    _add_transfer_options(action)
    action.set_defaults(function=run)

    quantize.add_parser(actions)

    action = actions.add_parser("info", help="what a network takes, gives and is")
    action.add_argument("model", metavar="NAME|PATH")
    action.add_argument("--json", action="store_true", help="as one JSON document")
    action.set_defaults(function=run)


def _add_transfer_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--offline", action="store_true", help="fetch nothing (as STREAMSEG_OFFLINE=1)")
    parser.add_argument("--quiet", action="store_true", help="say nothing unless it fails")


def run(args: argparse.Namespace) -> int:
    """Carry out a subcommand; returns the exit code."""
    {"list": _list, "pull": _pull, "import": _import, "info": _info}[args.action](args)
    return 0


def _list(args: argparse.Namespace) -> None:
    here = local_models()
    rows: list[tuple[Any, ...]] = []
    for name, entry in registry().items():
        path, origin = here.pop(name, (None, None))
        family, size, licence = entry.family, "{}x{}".format(*entry.input_hw), entry.licence
        if path is not None:  # which may be another export, or cut off
            _, family, size, stated = _seen(path)
            licence = licence if stated.startswith(licence) else stated or licence
        rows.append((name, entry.task, family, size, licence, origin, path))
    rows += [(name, *_seen(path), origin, path) for name, (path, origin) in sorted(here.items())]
    if args.json:
        keys = ("name", "task", "family", "input", "licence", "found_in", "path")
        print(json.dumps([dict(zip(keys, map(_plain, row), strict=True)) for row in rows], indent=2))
        return
    table: list[tuple[str, ...]] = [("NAME", "TASK", "FAMILY", "INPUT", "LICENCE", "FOUND IN")]
    for *fields, origin, _ in rows:
        known_name = fields[0] in registry()
        verb = "import" if known_name and registry()[fields[0]].format == "pt" else "pull"
        table.append((*map(str, fields), origin or f"not here; streamseg models {verb} {fields[0]}"))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _seen(path: Path) -> tuple[str, str, str, str]:
    """Task, family, input and licence of a network that is not known by name, as its file tells them."""
    try:
        facts = inspect_onnx(path)
    except ModelLoadError:
        return "", "damaged", "", ""
    size = "dynamic" if facts.dynamic else "x".join(map(str, facts.input_hw)) if facts.image else ""
    return facts.task or "", facts.family, size, (facts.licence or "").split(" (")[0]


def _pull(args: argparse.Namespace) -> None:
    entry = known(args.name)
    say = _say(args)
    with _bars(args) as progress:
        got = pull(args.name, force=args.force, offline=args.offline, say=say, progress=progress)
    if got.source == "here":
        say(f"{args.name} is here: {got.path}")
    else:
        say(f"{args.name} from {got.source}: {got.path}")
        say(entry.notice)
    say(f"sha256 {got.sha256}")
    if entry.format == "pt":
        say(f"this is a checkpoint; to run it, turn it into ONNX: streamseg models import {args.name}")


def _import(args: argparse.Namespace) -> None:
    say = _say(args)
    path = Path(args.model).expanduser()
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        of_checkpoints = ("imgsz", "dynamic", "opset", "half", "make_env")
        given = {f"--{name.replace('_', '-')}": getattr(args, name) for name in of_checkpoints}
        if vain := [option for option, value in given.items() if value not in (None, False)]:
            raise ConfigError(f"{', '.join(vain)}: for checkpoints alone, {path.name} is ONNX already; leave it out")
        done = import_onnx(path, name=args.name)
    else:
        hw = parse_imgsz("640" if args.imgsz is None else args.imgsz)
        options = ExportOptions(hw, args.dynamic, 17 if args.opset is None else args.opset, args.half)
        name = args.name
        if suffix not in (".pt", ".pth"):
            if path.is_file():
                raise ModelLoadError(f"{args.model} is neither .pt nor .onnx; nothing else can be imported")
            entry = known(args.model)
            if entry.format != "pt":
                raise ModelLoadError(f"{entry.name} needs no import; run: streamseg models pull {entry.name}")
            with _bars(args) as progress:
                path = pull(entry.name, offline=args.offline, say=say, progress=progress).path
        done = import_checkpoint(path, options, name=name, make_env=args.make_env, say=say)
    say(f"{done.path.stem} is ready: {done.path}{', in place of the one that had this name' * done.replaced}")
    say(f"{done.facts.family}, {done.facts.describe_inputs()}; {done.facts.describe_outputs()}")
    say(f"sha256 {done.sha256}; use it with --model {done.path.stem}")
    if done.facts.family in ("yolo-seg-end2end", "recurrent-matte"):
        say(f"note: networks of the family {done.facts.family} cannot be run yet")


def _info(args: argparse.Namespace) -> None:
    entry = registry().get(args.model)
    if entry is not None and find_local(args.model) is None:
        facts: dict[str, Any] = {
            "name": entry.name,
            "found_in": None,
            "task": entry.task,
            "family": entry.family,
            "inputs": ["[1,3,{},{}]".format(*entry.input_hw)],
            "classes": list(entry.classes),
            "licence": entry.licence,
            "notice": entry.notice,
            "sources": [str(source) for source in entry.sources],
            "source_sha256": entry.sha256,
            "get_it": f"streamseg models {'import' if entry.format == 'pt' else 'pull'} {entry.name}",
        }
    else:
        model = resolve(args.model, offline=True)
        graph = model.facts
        facts = {
            "name": model.name,
            "path": str(model.path),
            "found_in": model.origin,
            "sha256": model.sha256,
            "task": model.task or graph.task,
            "family": graph.family,
            "inputs": [str(tensor) for tensor in graph.inputs],
            "outputs": [str(tensor) for tensor in graph.outputs],
            "not_read": [str(tensor) for tensor in graph.unread],
            "layout": graph.layout,
            "dynamic": graph.dynamic,
            "precision": graph.precision,
            "opset": graph.opset,
            "stride": graph.stride,
            "classes": list(graph.names.values()) or (list(entry.classes) if entry else []),
            "licence": model.licence,
            "made": _record(model.path.name, model.sha256),
        }
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        if value is not None and value != [] and value != {}:
            print(f"{key.replace('_', ' '):<14} {_shown(value)}")


def _record(name: str, sha256: str) -> dict[str, Any] | None:
    """What the lock file remembers of this very file."""
    record = read_records().get(name)
    return (
        {key: value for key, value in record.items() if key != "sha256"}
        if record and record.get("sha256") == sha256
        else None
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_shown(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return f"{', '.join(map(str, value))}" if len(value) < 100 else f"{', '.join(value[:100])}, ... ({len(value)})"
    return str(value)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else (value or None)


def _say(args: argparse.Namespace) -> Any:
    return (lambda line: None) if args.quiet else (lambda line: print(line, file=sys.stderr, flush=True))


@contextmanager
def _bars(args: argparse.Namespace) -> Iterator[Progress]:
    """A bar for each download on a terminal; elsewhere the lines that are said anyway must do."""
    if args.quiet or not on_terminal():
        yield lambda name, done, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield show
