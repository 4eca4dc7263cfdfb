"""`streamseg bench`: how fast, and how good, on this machine: models, runtimes and modes, and the loops of others."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import streamseg
from streamseg.app import build, versions
from streamseg.cli.demo import write_clip
from streamseg.cli.log import tell
from streamseg.config import load_settings
from streamseg.errors import ConfigError, SinkWriteError, SourceOpenError, StreamsegError, redact
from streamseg.evaluate import bench_peer
from streamseg.evaluate.bench import Contestant, Standing, machine, race, table
from streamseg.evaluate.bench_chart import Point, write_chart
from streamseg.evaluate.bench_clip import prepared, video_of
from streamseg.evaluate.bench_quality import opacities, truth_score, union_iou
from streamseg.evaluate.davis import clips
from streamseg.libav import unwritten
from streamseg.segment.ort import usable_cores
from streamseg.segment.store import ResolvedModel, resolve
from streamseg.sources import open_source

__all__ = ["add_parser", "contend"]

# What others' writers take by default.
_QUALITY = "23"
_CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from streamseg.cli.bench import contend; contend(*sys.argv[2:])"


@dataclass(frozen=True, slots=True)
class _Ours:
    """One of our own ways: a network, what runs it, and the frames that it looks at."""

    model: ResolvedModel
    provider: str
    mode: str
    assignments: Sequence[str]

    @property
    def name(self) -> str:
        return f"{self.model.name} {self.provider} {self.mode}"

    def contestant(self, clip: Path, folder: Path) -> Contestant:
        arguments: dict[str, Any] = {
            "source.url": str(clip),
            "output.sinks": [str(folder / "ours.mp4")],
            "output.encoder": "libx264:preset=ultrafast",
            "output.quality": _QUALITY,
            "background.spec": "blur",
            "model.name": str(self.model.path),
            "model.provider": self.provider,
            "temporal.mode": self.mode,
        }
        if self.mode == "every":
            # Every frame means every frame, also of a still scene.
            arguments["temporal.still_s"] = 0
        load_settings(None, self.assignments, arguments)  # a wrong one is told before anything runs
        document = json.dumps({"assignments": list(self.assignments), "arguments": arguments})
        root = str(Path(streamseg.__file__).parent.parent)
        return Contestant(self.name, [[sys.executable, "-P", "-c", _CHILD, root, document]], ["{}"])


@dataclass(frozen=True, slots=True)
class _Peer:
    """The loop of others: which, the interpreter that has it, and the network."""

    kind: str
    python: str
    model: str

    @property
    def name(self) -> str:
        return f"{self.kind} {Path(self.model).stem}" if self.kind == "ultralytics" else self.kind

    def contestant(self, clip: Path, folder: Path) -> Contestant:
        command = [self.python, bench_peer.__file__, self.kind, str(clip), "--out", str(folder / "peer.mp4")]
        if self.model:
            command += ["--model", self.model]
        threads = sorted({1, usable_cores()})
        return Contestant(self.name, [[*command, "--threads", str(count)] for count in threads], ["--masks", "{}"])


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "bench",
        help="measure speed and quality on this machine",
        description="Measure in turns, each run in a process of its own: the same clip, blur, libx264 ultrafast. "
        "Networks are warmed up, and ratios are to the first line: the first peer, where there is one.",
    )
    parser.add_argument("clip", metavar="CLIP", nargs="?", help="video file (default: the clip of `streamseg demo`)")
    parser.add_argument("--model", action="append", metavar="auto|NAME|PATH", help="repeatable (auto)")
    parser.add_argument("--provider", action="append", metavar="NAME", help="auto, cpu, openvino, ...; repeatable")
    parser.add_argument(
        "--mode", action="append", metavar="MODE", help="every, keyframes:N or auto; repeatable (every, keyframes:3)"
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="any setting of ours by its dotted key"
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=WHERE",
        help="ultralytics=PYTHON[,MODEL], mediapipe=PYTHON or rvm=FILE.onnx, where PYTHON is an interpreter that has "
        "it; ultralytics takes the first YOLO network of --model unless MODEL names another",
    )
    parser.add_argument("--height", type=int, metavar="PX", help="scale the clip to this height first")
    parser.add_argument("--frames", type=int, metavar="N", help="only the first N frames of the clip")
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="how often each runs (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw speed against quality")
    parser.add_argument(
        "--quality",
        type=Path,
        metavar="FOLDER",
        help="measure J and boundary F on this DAVIS folder; without it, --plot shows the IoU with our every-frame "
        "masks by the first model and provider",
    )
    parser.add_argument("--sequence", action="append", default=[], metavar="NAME", help="only these of --quality")
    parser.add_argument("--offline", action="store_true", help="never download anything")
    parser.set_defaults(function=_bench)


def _bench(args: argparse.Namespace) -> int:
    _check(args)
    models = [resolve(name, offline=args.offline, say=tell) for name in args.model or ["auto"]]
    ours = [
        _Ours(model, provider, mode, args.set)
        for model in models
        for provider in args.provider or ["auto"]
        for mode in args.mode or ["every", "keyframes:3"]
    ]
    peers = [_peer(spec, models) for spec in args.peer]
    contestants: list[_Peer | _Ours] = [*peers, *ours]
    with tempfile.TemporaryDirectory(prefix="streamseg-bench-") as name:
        folder = Path(name)
        clip = _clip(args, folder)
        around = machine()
        tell(_machine_line(around))
        standings = race([one.contestant(clip, folder) for one in contestants], args.turns, tell)
        quality, called = _quality(args, clip, folder, contestants, ours[0]) if args.plot or args.quality else ({}, "")
    print(_lines(standings, quality, called))
    if stages := _stage_lines(standings):
        print(f"\nmean ms a frame, side by side; they overlap\n{stages}")
    if args.json:
        document = {
            "streamseg": streamseg.__version__,
            "machine": {**around, "load after": machine()["load"]},
            "versions": versions(),
            "clip": clip.name,
            "turns": args.turns,
            "contestants": [{**asdict(one), **quality.get(one.name, {})} for one in standings],
        }
        try:
            args.json.write_text(redact(json.dumps(document, indent=2)) + "\n", "utf-8")
        except OSError as error:
            raise SinkWriteError(f"cannot write {args.json}: {unwritten(error)}") from error
    if args.plot:
        groups = {one.name: f"{one.model.name} {one.provider}" for one in ours}
        points = [
            Point(one.name, one.fps.median, quality[one.name][called], groups.get(one.name, one.name))
            for one in standings
        ]
        write_chart(args.plot, points, title=f"{clip.stem}, blur, {around['processor']}", quality=called)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.clip is not None and not Path(args.clip).is_file():
        raise SourceOpenError(f"cannot open {args.clip}: a benchmark takes a video file, and there is none")
    for option in ("turns", "frames", "height"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise ConfigError(f"--{option} takes a number of 1 or more, not {value}")
    if args.height is not None and args.height % 2:
        raise ConfigError(f"--height takes an even number, not {args.height}")
    if args.plot and args.plot.suffix.lower() != ".svg":
        raise ConfigError(f"--plot draws SVG; {args.plot.name} does not end in .svg")
    for path in filter(None, (args.json, args.plot)):
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"cannot write {path}: its folder does not exist; make it first")
    if args.sequence and not args.quality:
        raise ConfigError("--sequence is of --quality; name its folder too")


def _peer(spec: str, models: Sequence[ResolvedModel]) -> _Peer:
    kind, _, where = spec.partition("=")
    if kind not in ("ultralytics", "mediapipe", "rvm") or not where:
        raise ConfigError(
            f"--peer takes ultralytics=PYTHON[,MODEL], mediapipe=PYTHON or rvm=FILE.onnx, not {spec!r}"
        )  # fmt: skip
    if kind == "rvm":
        python, model = sys.executable, where
    else:
        python, _, model = where.partition(",")
        if not Path(python).is_file():
            raise ConfigError(f"--peer {kind}: there is no interpreter {python}; name one that has {kind}")
    if kind == "ultralytics" and not model:
        model = next((str(one.path) for one in models if one.family == "yolo-seg"), "")
        if not model:
            raise ConfigError("--peer ultralytics needs a YOLO network: add --model, or name one after the interpreter")
    if model and not Path(model).exists():
        raise ConfigError(f"--peer {kind}: there is no file {model}")
    return _Peer(kind, python, model)


def _clip(args: argparse.Namespace, folder: Path) -> Path:
    if args.clip is None:
        clip = folder / "demo.mkv"
        write_clip(clip, offline=args.offline, say=tell)
    else:
        clip = Path(args.clip)
        source = open_source(str(clip))
        source.close()
    return prepared(clip, folder, height=args.height, frames=args.frames)


def _quality(
    args: argparse.Namespace, clip: Path, folder: Path, contestants: Sequence[_Peer | _Ours], first: _Ours
) -> tuple[dict[str, dict[str, float]], str]:
    """Quality by contestant, and which of its numbers the chart shows."""
    if not args.quality:
        tell("once more, for the masks")
        reference = opacities(replace(first, mode="every").contestant(clip, folder))
        found = {}
        for one in (contestant.contestant(clip, folder) for contestant in contestants):
            mean, worst = union_iou(opacities(one), reference, one.name)
            found[one.name] = {"IoU": mean, "IoU, worst frame": worst}
        return found, "IoU"
    sequences = clips(args.quality, args.sequence)
    scores: dict[str, list[tuple[float, float]]] = {}
    for sequence in sequences:
        tell(f"masks of {sequence.name}")
        video = video_of(sequence, folder)
        for one in (contestant.contestant(video, folder) for contestant in contestants):
            scores.setdefault(one.name, []).append(truth_score(opacities(one), sequence, one.name))
    return {
        name: {"J": sum(j for j, _ in own) / len(own), "F": sum(f for _, f in own) / len(own)}
        for name, own in scores.items()
    }, "J"  # fmt: skip


def _machine_line(around: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    words = [f"{around['processor']}, {around['cores']} cores", *around["instructions"]]
    words += [f"{key}={value}" for key, value in around["switches"].items()]
    load = "" if around["load"] is None else f"; load {around['load']}"
    return f"{' '.join(words)}{load}; streamseg {streamseg.__version__}, {packages}"


def _lines(standings: Sequence[Standing], quality: dict[str, dict[str, float]], called: str) -> str:
    rows = [["", "fps", "ratio", "CPU ms/frame", "CPU ratio", called]]
    for one in standings:
        good = quality.get(one.name, {}).get(called)
        rows.append(
            [one.name, one.fps.text(1), one.ratio.text(2), one.cpu_ms.text(1), one.cpu_ratio.text(2)]
            + ([f"{good:.4f}"] if good is not None else [""])
        )  # fmt: skip
    return table(rows)


def _stage_lines(standings: Sequence[Standing]) -> str:
    ours = {one.name: one.details["stages"] for one in standings if "stages" in one.details}
    stages = list(dict.fromkeys(stage for own in ours.values() for stage in own))
    if not ours:
        return ""
    rows = [["", *stages]]
    rows += [[name, *(f"{own[s]:.1f}" if s in own else "" for s in stages)] for name, own in ours.items()]
    return table(rows)


def contend(document: str, masks: str = "") -> None:
    """The child process of one of our contestants: run once, print what it took as JSON.

    Args:
        document: ``{"assignments": [...], "arguments": {...}}``, as `load_settings` takes them.
        masks: a folder that receives every opacity as PNG.
    """
    asked = json.loads(document)
    if masks:
        asked["arguments"]["output.matte"] = f"{masks}/"
    try:
        run = build(load_settings(None, asked["assignments"], asked["arguments"]), lambda line: None)
        wall_began, cpu_began = time.perf_counter(), time.process_time()
        run.pipeline.start()
        run.pipeline.wait()
        wall_s, cpu_s = time.perf_counter() - wall_began, time.process_time() - cpu_began
        run.resources.close()
    except StreamsegError as error:
        print(redact(str(error)), file=sys.stderr)
        sys.exit(1)
    frames = run.frames_out
    stages = run.measured()["stages"]
    report = {
        "frames": frames,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "encoder": "libx264 ultrafast",
        "networks": [network.pool.describe() for network in run.networks],
        # By frame of the clip, also what is done for keyframes alone.
        "stages": {
            name.split()[0]: stage["mean_ms"] * stage["count"] / max(frames, 1)
            for name, stage in stages.items()
            if not name.startswith("latency")
        },
        "versions": versions(),
    }
    print(json.dumps(report))
