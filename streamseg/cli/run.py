"""`streamseg run`: a picture in, the same picture with another background out."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from streamseg.app import Run, build
from streamseg.cli.progress import progress
from streamseg.config import Settings, load_settings
from streamseg.errors import SinkWriteError, StreamsegError, redact

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
    settings = load_settings(args.config, args.set, arguments)
    return execute(settings, quiet=args.quiet, protected=[args.config] if args.config else [])


def execute(settings: Settings, *, quiet: bool, label: str = "", protected: Sequence[str] = ()) -> int:
    """Run with these settings; returns the exit code.

    Args:
        settings: of the run.
        quiet: say nothing.
        label: what the progress bar calls it.
        protected: files that no output may replace.

    Raises:
        StreamsegError: it could not be begun, or failed on the way.
    """
    say: Callable[[str], None] = (lambda line: None) if quiet else tell
    with _Signals() as signals:
        try:
            run = build(settings, say, protected=protected)
        except (KeyboardInterrupt, StreamsegError):
            if signals.received:
                return 128 + signals.received[0]
            raise
        signals.run = run
        if signals.received:
            run.pipeline.stop()
        return _watch(run, settings, signals, say, quiet=quiet, label=label)


def _watch(
    run: Run, settings: Settings, signals: _Signals, say: Callable[[str], None], *, quiet: bool, label: str
) -> int:
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
        with run.resources:
            run.pipeline.start()
            with progress(label or Path(info.name).name, info.frame_count, quiet=quiet) as show:
                while not run.pipeline.wait(0.2):
                    show(run.pipeline.metrics.get("frames out 0"))
                    remark()
                show(run.pipeline.metrics.get("frames out 0"))
        outcome = "interrupted" if signals.received else "finished"
    except StreamsegError as error:
        outcome = redact(str(error))
        raise
    finally:
        remark()
        wall_s = time.monotonic() - began
        if settings.output.report:
            _write_report(settings.output.report, run.report(wall_s=wall_s, outcome=outcome))
    for what, count in run.source.counts.items():
        if count:
            say(f"{info.name}: {count} {what}")
    frames = run.pipeline.metrics.get("frames out 0")
    written = ", ".join(url for url in run.sinks if url != "null:") or "nowhere"
    say(f"{outcome}: {frames} frames in {wall_s:.1f} s ({frames / max(wall_s, 1e-9):.1f} fps) to {written}")
    return 128 + signals.received[0] if signals.received else 0


def tell(line: str) -> None:
    """One line to the user, on standard error."""
    print(redact(line), file=sys.stderr, flush=True)


class _Signals:
    """The first SIGINT or SIGTERM ends the run in good order, a second one at once."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.run: Run | None = None

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if self.run is None:
            raise KeyboardInterrupt
        if len(self.received) == 1:
            self.run.pipeline.stop()
        else:
            self.run.pipeline.abort()


def _write_report(path: str, report: dict[str, Any]) -> None:
    text = redact(json.dumps(report, indent=2)) + "\n"
    partial = f"{path}.partial"
    try:
        Path(partial).write_text(text, "utf-8")
        os.replace(partial, path)
    except OSError as error:
        Path(partial).unlink(missing_ok=True)
        raise SinkWriteError(f"cannot write report {path}: {error.strerror}; choose another place") from error
