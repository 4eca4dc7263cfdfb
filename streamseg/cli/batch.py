"""`streamseg batch`: many files through `streamseg run`, a process each; goes on where it stopped."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamseg.child import own_environment
from streamseg.cli import run
from streamseg.cli.ledger import Entry, Ledger, fingerprint, replace_text
from streamseg.cli.log import on_terminal, tell
from streamseg.errors import ConfigError, SinkOpenError, redact
from streamseg.libav import unwritten
from streamseg.sources.grouping import group, video_files
from streamseg.sources.images import has_pictures, is_picture, picture_files

__all__ = ["add_parser"]

_STATE, _SUMMARY, _EVENTS = "batch.json", "summary.csv", "events.csv"
_LOOK_EVERY_S = 0.1
# What is killed leaves no run behind that would go on, in the way of the next batch.
_PROGRAM = """
import sys
from streamseg.child import end_with_parent
end_with_parent()
from streamseg.cli import main
sys.exit(main())
"""
# Nothing is imported from the current folder.
_COMMAND = (sys.executable, "-P", "-c", _PROGRAM, "run")
# The names that every file's own results are made of: {} is its place under --out, without a suffix.
_PLACE = "{}"
# Where no -o is given; what suits the file goes behind it.
_DEFAULT = f"--output={_PLACE}"
_WRITTEN = ("--output", "--events", "--page", "--results", "--report", "--matte")


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "batch",
        help="run many videos, one after the other or several at once; goes on where it stopped",
        epilog="All options of `streamseg run` are passed on. In them, {} stands for a name of its own under --out for "
        "each video: --results '{}.jsonl'. Without -o, '{}.mp4' is written, of pictures '{}.png'. Tables of "
        "--events are also put into one.",
    )
    parser.add_argument(
        "patterns",
        metavar="FILE|FOLDER|GLOB",
        nargs="+",
        help="videos, or pictures where there are none; ** looks into all folders",
    )
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="where results, state, summary.csv and events.csv go"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="videos at the same time (1)")
    parser.add_argument("--join", action="store_true", help="join the files of a drive, see docs/lanes.md")
    passed = _Passed(parser)
    run.add_options(passed)
    parser.set_defaults(function=lambda args: _batch(args, passed))


class _Passed:
    """Options that are handed on as they came."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._actions: list[argparse.Action] = []

    def add_argument(self, *flags: str, **more: Any) -> None:
        self._actions.append(self._parser.add_argument(*flags, **more))

    def words(self, args: argparse.Namespace) -> list[str]:
        """The options that were given, as words of a command line."""
        words = []
        for action in self._actions:
            value = getattr(args, action.dest)
            if value is None or value == action.default:
                continue
            flag = action.option_strings[-1]
            if action.nargs == 0:
                words.append(flag)
            else:
                words += [f"{flag}={each}" for each in (value if isinstance(value, list) else [value])]
        return words


@dataclass(frozen=True, slots=True)
class _Item:
    """One video or picture: what is run, which files it reads, its name under --out, the suffix of what is written."""

    source: Path
    files: tuple[Path, ...]
    place: Path
    suffix: str = ".mp4"


@dataclass(slots=True)
class _Job:
    item: _Item
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    began: float
    options: list[str]
    output: Path | None
    report: Path


def _batch(args: argparse.Namespace, passed: _Passed) -> int:
    if args.jobs < 1:
        raise ConfigError(f"--jobs takes a number from 1 on, not {args.jobs}")
    out = Path(args.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkOpenError(f"cannot write into {out}: {unwritten(error)}") from error
    ledger = Ledger(out / _STATE)
    options = passed.words(args)
    if not args.output:
        options.append(_DEFAULT)
    if not args.report:
        options.append(f"--report={_PLACE}.report.json")
    found = _items(args.patterns, out)
    failed: list[Entry] = []
    items = _joined(found, out, failed) if args.join else found
    if len(items) > 1:
        _refuse_one_for_all(options)
    for entry in failed:
        ledger.put(entry)
        tell(f"{entry.file}: {entry.message}")
    files = [entry.file for entry in failed] + [str(item.source) for item in items]
    waiting = [
        item
        for item in items
        if not ledger.is_done(str(item.source), fingerprint(item.files), options, _output(options, item))
    ]
    if len(waiting) < len(items):
        tell(f"{len(items) - len(waiting)} of {len(items)} are done already")
    crew = _Crew(ledger, options, args.jobs, quiet=args.quiet)
    try:
        with _shown(len(waiting), quiet=args.quiet) as say:
            interrupted = crew.work(waiting, say)
    finally:
        replace_text(out / _SUMMARY, ledger.as_csv(files))
        _gather_events(out / _EVENTS, options, items)
    counted = ledger.summary(files)
    told = ", ".join(f"{count} {outcome}" for outcome, count in counted.items())
    tell(f"{told}; see {out / _SUMMARY}" + ("; the same command goes on from here" if interrupted else ""))
    if interrupted:
        return 128 + interrupted
    return 1 if counted.get("failed") else 0


def _items(patterns: Sequence[str], out: Path) -> list[_Item]:
    """What the patterns name, each file once, in order; nothing that lies under --out."""
    items: dict[Path, _Item] = {}
    taken: set[Path] = set()
    for pattern in patterns:
        path = Path(pattern)
        if path.is_file():
            root, found = path.parent, [path]
        elif path.is_dir():
            root, found = path, _files(pattern)
        else:
            root, found = Path(re.split(r"[*?\[]", pattern, maxsplit=1)[0] + "x").parent, _files(pattern)
        for each in found:
            if each.resolve() in items or each.resolve().is_relative_to(out.resolve()):
                continue
            place = out / each.relative_to(root).with_suffix("")
            if place in taken:
                place = place.with_name(each.name)
            taken.add(place)
            items[each.resolve()] = _Item(each, (each,), place, ".png" if is_picture(each) else ".mp4")
    if not items:
        raise ConfigError(
            f"no videos: {', '.join(map(repr, patterns))} name none; quote patterns, as in 'drives/**/*.mp4'"
        )
    return list(items.values())


def _refuse_one_for_all(options: Sequence[str]) -> None:
    """One file cannot take the results of several videos: the last would be left of them.

    Raises:
        ConfigError: an option names such a file; addresses and folders can take them.
    """
    for word in options:
        flag, _, name = word.partition("=")
        if flag in _WRITTEN and _PLACE not in name and ":" not in name and name != "-" and not name.endswith("/"):
            path = Path(name)
            raise ConfigError(
                f"{flag} {name} would be written by every video; put {_PLACE} into the name, as in "
                f"{flag} '{_PLACE}{path.suffix or path.name}'"
            )


def _files(pattern: str) -> list[Path]:
    """The videos that a folder or glob names; where there are none, the pictures."""
    return video_files(pattern) or (picture_files(pattern) if has_pictures(pattern) else [])


def _joined(items: Sequence[_Item], out: Path, failed: list[Entry]) -> list[_Item]:
    """The drives that the files make; a drive of several files is named by a playlist under --out."""
    places = {item.source: item.place for item in items}
    why: list[str] = []
    drives = group(places, why.append)
    joined = []
    for drive in drives:
        files = tuple(piece.path for pieces in (drive.pieces, *drive.others.values()) for piece in pieces)
        place = places[files[0]]
        source = files[0]
        if len(files) > 1:
            place.parent.mkdir(parents=True, exist_ok=True)
            source = place.with_name(f"{place.name}.m3u")
            replace_text(source, "".join(f"{path.resolve().as_posix()}\n" for path in files))
        joined.append(_Item(source, files, place))
    used = {path for item in joined for path in item.files}
    left_out = [path for path in places if path not in used]
    failed += [Entry(str(path), "failed", text) for path, text in zip(left_out, why, strict=True)]
    return joined


def _gather_events(table: Path, options: Sequence[str], items: Sequence[_Item]) -> None:
    """One table of the events of all videos, where each writes its own; the first column names the video."""
    rows: list[str] = []
    header = ""
    for item in items:
        own = [word.partition("=")[2] for word in _filled(options, item) if word.startswith("--events=")]
        for path in (Path(name) for name in own if name.lower().endswith(".csv")):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                header, *found = path.read_text("utf-8").splitlines()
                name = io.StringIO()
                csv.writer(name, lineterminator="").writerow([str(item.source)])
                rows += [f"{name.getvalue()},{row}" for row in found]
    if header:
        replace_text(table, "\n".join([f"video,{header}", *rows]) + "\n")


def _output(options: Sequence[str], item: _Item) -> Path | None:
    """The first output that is a file."""
    written = [word.partition("=")[2] for word in _filled(options, item) if word.startswith("--output=")]
    return next((Path(url) for url in written if ":" not in url and url != "-"), None)


def _filled(options: Sequence[str], item: _Item) -> list[str]:
    suited = [word + item.suffix if word == _DEFAULT else word for word in options]
    return [word.replace(_PLACE, str(item.place)) for word in suited]


class _Crew:
    """Runs a process for each video, so many at a time.

    Args:
        ledger: remembers how each ended.
        options: of `streamseg run`.
        jobs: processes at the same time.
        quiet: say nothing about what went well.
    """

    def __init__(self, ledger: Ledger, options: Sequence[str], jobs: int, *, quiet: bool) -> None:
        self._ledger = ledger
        self._options = list(options)
        self._jobs = jobs
        self._quiet = quiet
        # Each would take all cores for itself otherwise; what the user sets comes after it and wins.
        cores = max(1, (os.cpu_count() or 1) // jobs)
        self._shared = [f"--set=model.threads={cores}", f"--set=output.threads={cores}"] if jobs > 1 else []

    def work(self, items: Sequence[_Item], say: Callable[[str, int], None]) -> int:
        """Run them all; returns the number of the signal that ended it early, or 0.

        Args:
            items: in the order in which they are begun.
            say: takes a line, which may be empty, and how many are through.
        """
        waiting, running, through = list(items), list[_Job](), 0
        with _Signals() as signals:
            try:
                while running or (waiting and not signals.received):
                    while waiting and len(running) < self._jobs and not signals.received:
                        running.append(self._begin(waiting.pop(0)))
                    for job in [job for job in running if job.process.poll() is not None]:
                        running.remove(job)
                        through += 1
                        say(self._end(job), through)
                    signals.pass_on([job.process for job in running])
                    time.sleep(_LOOK_EVERY_S)
            finally:
                for job in running:  # only after a failure of our own
                    job.process.kill()
                    job.process.wait()
                    _let_go(job.process)
                    job.said.close()
            return signals.received[0] if signals.received else 0

    def _begin(self, item: _Item) -> _Job:
        item.place.parent.mkdir(parents=True, exist_ok=True)
        options = _filled(self._options, item)
        report = next(word.partition("=")[2] for word in options if word.startswith("--report="))
        Path(report).unlink(missing_ok=True)  # that of an earlier run would be taken for this one's
        said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        quiet = [] if "--quiet" in options else ["--quiet"]
        process = subprocess.Popen(
            # A relative path never begins with a dash or looks like a URL this way.
            [*_COMMAND, str(item.source.absolute()), *quiet, *self._shared, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=own_environment(),
            # Control-C is for us: they are told one by one.
            start_new_session=True,
        )
        return _Job(item, process, said, time.monotonic(), self._options, _output(self._options, item), Path(report))

    def _end(self, job: _Job) -> str:
        code = job.process.returncode
        _let_go(job.process)
        with job.said:
            job.said.seek(0)
            lines = redact(job.said.read().decode("utf-8", "replace")).strip().splitlines()
        outcome = {0: "done", 130: "interrupted", 143: "interrupted"}.get(code, "failed")
        message = ""
        if outcome == "failed":
            died = f"the process ended by signal {-code}" if code < 0 else f"the process ended with exit code {code}"
            message = lines[-1].removeprefix("streamseg: ") if lines else died
        report: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            report = json.loads(job.report.read_text("utf-8"))
        entry = Entry(
            file=str(job.item.source),
            outcome=outcome,
            message=message,
            wall_s=round(time.monotonic() - job.began, 2),
            frames=report.get("frames", {}).get("out"),
            fps=report.get("fps"),
            output=str(job.output) if job.output is not None and job.output.exists() else "",
            source=fingerprint(job.item.files),
            options=job.options,
        )
        self._ledger.put(entry)
        if outcome == "failed":
            return f"{job.item.source}: {message}"
        return "" if self._quiet else f"{job.item.source}: {outcome} in {entry.wall_s:.1f} s"


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Close our end of the line by which a process that has ended knew that we live."""
    if process.stdin is not None:
        process.stdin.close()


class _Signals:
    """The first SIGINT or SIGTERM begins nothing new and lets what runs end in good order; a second one ends it now."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._passed_on = 0

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pass_on(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        """Tell the processes what came since the last call."""
        while self._passed_on < len(self.received):
            self._passed_on += 1
            for process in processes:
                process.send_signal(signal.SIGINT)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)


@contextmanager
def _shown(total: int, *, quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """How far the whole is: a bar on a terminal, a line for each video elsewhere."""
    if quiet or not on_terminal():
        yield lambda line, through: tell(f"{through}/{total} {line}") if line else None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("videos", total=total)

        def show(line: str, through: int) -> None:
            if line:
                bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            bar.update(task, completed=through)

        yield show
