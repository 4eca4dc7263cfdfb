"""`streamseg models quantize`: a network in int8, and what that loses and gains."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from streamseg.cli.evaluate import frames_of
from streamseg.errors import ConfigError
from streamseg.evaluate.agreement import agreement, coco_scores
from streamseg.evaluate.instances import Truth
from streamseg.frame import Frame
from streamseg.segment.export import import_onnx
from streamseg.segment.load import Segmenter, load_segmenter
from streamseg.segment.quantize import quantized, spread
from streamseg.segment.store import resolve

__all__ = ["add_parser"]

_TIMED_RUNS = 15
_ANNOTATIONS = "instances.json"


def add_parser(actions: Any) -> None:
    """Add `quantize` to the actions of `models`."""
    action = actions.add_parser(
        "quantize",
        help="make an int8 copy of a network, and measure what it loses",
        description="Make an int8 copy of a network. Its scales come from pictures that you show it; what it loses is "
        "measured on other pictures of theirs, and against ground truth where you have some.",
    )
    action.add_argument("model", metavar="NAME|PATH", help="a network in float32")
    action.add_argument(
        "--calibrate", nargs="+", required=True, metavar="CLIP", help="what it will look at: clips, folders of pictures"
    )
    action.add_argument(
        "--frames", type=int, default=32, metavar="N", help="to calibrate on, of each clip, at least (default: 32)"
    )
    action.add_argument("--name", metavar="NAME", help="what to call the result (default: NAME-int8)")
    action.add_argument(
        "--labels",
        type=Path,
        metavar="FOLDER",
        help=f"score both on ground truth too: COCO's {_ANNOTATIONS} and the pictures in images/",
    )
    action.add_argument("--threads", type=int, metavar="N", help="of both, when their speed is measured")
    action.set_defaults(function=_run)


def _run(args: argparse.Namespace) -> int:
    if args.frames < 1:
        raise ConfigError(f"--frames must be at least 1, not {args.frames}")
    path = resolve(args.model).path
    truth = _truth(args.labels) if args.labels else None
    learnt, others = _samples(args.calibrate, args.frames)
    print(f"calibrating {path.stem} on {len(learnt)} frames", flush=True)
    data = quantized(path, learnt)
    with tempfile.TemporaryDirectory(prefix="streamseg-quantize-") as scratch:
        made = Path(scratch) / path.name
        made.write_bytes(data)
        done = import_onnx(made, name=args.name or f"{path.stem}-int8")
    before, after = path.stat().st_size, done.path.stat().st_size
    print(f"{done.path.stem} is ready: {done.path}")
    print(f"sha256 {done.sha256}; use it with --model {done.path.stem}")
    print(f"size: {before / 1e6:.1f} MB, now {after / 1e6:.1f} MB")
    pair = [load_segmenter(file, provider="cpu", threads=args.threads) for file in (path, done.path)]
    if others:
        found = agreement(pair[0], pair[1], others)
        print(f"agreement on {len(others)} other frames: {_listed(found)}")
    else:
        print("agreement: no frames are left to measure it on; give a longer clip")
    if truth is not None:
        was, now = (coco_scores(one, truth, frames_of(str(args.labels / "images"))) for one in pair)
        for name in was:
            print(f"{name} on {args.labels}: {was[name]:.4f}, now {now[name]:.4f} ({now[name] - was[name]:+.4f})")
    slow, fast = _milliseconds(pair, next(iter(learnt)))
    threads = pair[0].describe()["threads"]
    print(f"speed, {threads} threads: {slow:.1f} ms a frame, now {fast:.1f} ms ({slow / fast:.2f} times as fast)")
    return 0


class _Frames:
    """Some frames of some clips, decoded anew whenever they are asked for: together they may be large."""

    def __init__(self, places: Sequence[tuple[str, range]]) -> None:
        self._places = places

    def __len__(self) -> int:
        return sum(len(places) for _, places in self._places)

    def __iter__(self) -> Iterator[Frame]:
        for url, places in self._places:
            if places:
                yield from (f for place, f in enumerate(islice(frames_of(url), places[-1] + 1)) if place in places)


def _samples(urls: Sequence[str], count: int) -> tuple[_Frames, _Frames]:
    """Frames to calibrate on, and others from between them to measure on."""
    chosen = [(url, spread(sum(1 for _ in frames_of(url)), 2 * count)) for url in urls]
    learnt, others = (_Frames([(url, places[first::2]) for url, places in chosen]) for first in (0, 1))
    if not learnt:
        raise ConfigError(f"there is no picture in {', '.join(urls)}")
    return learnt, others


def _truth(folder: Path) -> Truth:
    if not (folder / "images").is_dir():
        raise ConfigError(f"{folder} holds no folder images; --labels takes one with {_ANNOTATIONS} and images/")
    return Truth(folder / _ANNOTATIONS)


def _milliseconds(pair: Sequence[Segmenter], frame: Frame) -> Iterator[float]:
    """Median time that each takes for a frame, in turns."""
    times: list[list[float]] = [[] for _ in pair]
    for segment in pair:
        segment.retune(confidence=0.25, iou=0.7)
    for _ in range(_TIMED_RUNS):
        for segment, own in zip(pair, times, strict=True):
            start = time.perf_counter()
            segment(frame)
            own.append((time.perf_counter() - start) * 1e3)
    return map(median, times)


def _listed(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
