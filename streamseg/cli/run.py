"""`streamseg run`: a picture in, the same picture with another background out."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from streamseg.app import Run, build
from streamseg.cli.progress import progress
from streamseg.config import Settings, load_settings
from streamseg.errors import SinkError, StreamsegError, redact

__all__ = ["add_parser", "execute", "tell"]

# Command line option -> dotted key.
_KEYS = {
    "source": "source.url",
    "output": "output.sinks",
    "task": "task",
    "background": "background.spec",
    "fit": "background.fit",
    "model": "model.name",
    "provider": "model.provider",
    "offline": "model.offline",
    "keep": "keep.classes",
    "keep_largest": "keep.largest",
    "encoder": "output.encoder",
    "quality": "output.quality",
    "format": "output.format",
    "report": "output.report",
    "matte": "output.matte",
    "results": "output.results",
}


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("run", help="run a video or pictures through the pipeline")
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="video file, image, folder, glob, or - for stdin")
    parser.add_argument("-o", "--output", metavar="SINK", action="append", help="video file, image pattern, null: or -")
    parser.add_argument("--task", choices=["background"])
    backgrounds = "blur[:0.6], image:PATH, video:PATH, color:#rrggbb, green, transparent or none"
    parser.add_argument("--background", metavar="SPEC", help=backgrounds)
    parser.add_argument("--fit", choices=["cover", "contain", "stretch"], help="how a background fills the picture")
    parser.add_argument("--model", metavar="auto|NAME|PATH")
    parser.add_argument("--provider", metavar="NAME", help="auto, cpu, cuda, tensorrt, ...")
    parser.add_argument("--keep", metavar="CLASS,...", help="classes that stay in the picture (person)")
    parser.add_argument("--keep-largest", action="store_true", default=None, help="only the largest of them")
    parser.add_argument("--encoder", metavar="NAME", help="video encoder, such as libx264 or h264_nvenc")
    parser.add_argument("--quality", metavar="Q", help="low, medium, high, lossless or the encoder's number")
    parser.add_argument("--format", metavar="NAME", help="container of standard output (-o -)")
    parser.add_argument("--config", metavar="FILE|PRESET", help="YAML file, or zoom, dashcam, rtsp")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="any setting by its dotted key")
    parser.add_argument("--report", metavar="FILE.json", help="write what happened as one JSON document")
    parser.add_argument("--matte", metavar="FILE", help="write the matte as lossless grey video or PNG sequence")
    parser.add_argument(
        "--results", metavar="FILE.jsonl", help="write boxes, classes, scores and masks, a line a frame"
    )
    parser.add_argument("--offline", action="store_true", default=None, help="never download anything")
    parser.add_argument("--quiet", action="store_true", help="say nothing unless it fails")
    parser.set_defaults(function=_run)


def _run(args: argparse.Namespace) -> int:
    arguments = {key: value for name, key in _KEYS.items() if (value := getattr(args, name)) is not None}
    return execute(load_settings(args.config, args.set, arguments), quiet=args.quiet)


def execute(settings: Settings, *, quiet: bool, label: str = "") -> int:
    """Run with these settings; returns the exit code.

    Raises:
        StreamsegError: it could not be begun, or failed on the way.
    """
    say: Callable[[str], None] = (lambda line: None) if quiet else tell
    run = build(settings, say)
    said: set[str] = set()

    def remark() -> None:
        for line in run.notices():
            if line not in said:
                said.add(line)
                say(line)

    began = time.monotonic()
    outcome = "failed"
    info = run.source.info
    try:
        with run.resources, _stop_on_signals(run) as received:
            run.pipeline.start()
            with progress(label or Path(info.name).name, info.frame_count, quiet=quiet) as show:
                while not run.pipeline.wait(0.2):
                    show(run.pipeline.metrics.get("frames out 0"))
                    remark()
                show(run.pipeline.metrics.get("frames out 0"))
        outcome = "interrupted" if received else "finished"
    except InterruptedError:
        outcome = "aborted"
    except StreamsegError as error:
        outcome = redact(str(error))
        raise
    finally:
        remark()
        wall_s = time.monotonic() - began
        if settings.output.report:
            _write_report(settings.output.report, run.report(wall_s=wall_s, outcome=outcome))
    frames = run.pipeline.metrics.get("frames out 0")
    written = ", ".join(url for url in run.sinks if url != "null:") or "nowhere"
    say(f"{outcome}: {frames} frames in {wall_s:.1f} s ({frames / max(wall_s, 1e-9):.1f} fps) to {written}")
    return 128 + received[0] if received else 0


def tell(line: str) -> None:
    """One line to the user, on standard error."""
    print(redact(line), file=sys.stderr, flush=True)


@contextmanager
def _stop_on_signals(run: Run) -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM ends the run in good order, a second one at once; yields those received."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            run.pipeline.stop()
        else:
            run.pipeline.abort()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_report(path: str, report: dict[str, Any]) -> None:
    partial = f"{path}.partial"
    try:
        Path(partial).write_text(json.dumps(report, indent=2) + "\n", "utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise SinkError(f"cannot write report {path}: {error.strerror}; choose another place") from error
