"""`streamseg run`: a picture in, the same picture with another background, or with what was found in it, out."""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from streamseg.app import Fleet, Run
from streamseg.cli.log import Voice, logged
from streamseg.cli.progress import progress, status_line
from streamseg.config import Settings, load_runs
from streamseg.errors import (
    ConfigError,
    ModelAbsentError,
    PipelineStuckError,
    SinkWriteError,
    StreamsegError,
    redact,
)
from streamseg.libav import unwritten
from streamseg.sinks.partial import Partial
from streamseg.sources import is_live_url
from streamseg.web.notify import Notifier
from streamseg.web.server import listen_address
from streamseg.web.status import StatusServer

__all__ = ["add_parser", "execute"]

# timeout(1) signals the process, and its group besides: what comes so close together is one request.
_ONE_REQUEST_S = 0.3

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
    "hwaccel": "source.hwaccel",
    "quality": "output.quality",
    "size": "source.size",
    "fps": "source.fps",
    "transport": "source.transport",
    "mirror": "source.mirror",
    "rotate": "source.rotate",
    "segment": "output.segment",
    "keep_for": "output.keep_for",
    "max_disk": "output.max_disk",
    "audio_delay": "output.audio_delay_ms",
    "mode": "temporal.mode",
    "classes": "instances.classes",
    "users": "lanes.users",
    "telemetry": "lanes.telemetry",
    "telemetry_offset": "lanes.telemetry_offset_s",
    "events": "events.files",
    "page": "events.page",
    "clips": "events.clips",
    "clips_exact": "events.clip_exact",
    "blur_people": "privacy.blur_people",
    "blur_vehicles": "privacy.blur_vehicles",
    "on_demand": "live.on_demand",
    "slate": "live.slate",
    "metrics": "live.metrics",
    "report": "output.report",
    "matte": "output.matte",
    "results": "output.results",
}

# What a task does not know is refused: whoever asks for another background wants nobody to see the room.
_TASKS = {
    "background": ("background",),
    "fit": ("background",),
    "keep": ("background",),
    "keep_largest": ("background",),
    "classes": ("instances", "lanes"),
    "users": ("lanes",),
    "telemetry": ("lanes",),
    "telemetry_offset": ("lanes",),
}
# What only a source has use for that is asked for a picture, or that goes on for as long as it likes.
_LIVE = ("size", "fps", "segment", "keep_for", "max_disk", "audio_delay", "slate")


class _Joined(argparse.Action):
    """A list with commas, given once or in several parts."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, values if before is None else f"{before},{values}")


class _Once(argparse.Action):
    """What is given twice by those who expect both to count."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "one file alone; what shall differ from it goes into --set")
        setattr(namespace, self.dest, values)


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("run", help="run a video or pictures through the pipeline")
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="video file, image, folder, glob, -, camera (0, /dev/video2, camera:NAME), rtsp://, screen:, test:",
    )
    add_options(parser)
    parser.set_defaults(function=_run)


def add_options(parser: Any) -> None:
    """Add what `run` takes besides its source; `batch` passes it on."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="SINK",
        action="append",
        help="video file, image pattern, virtualcam:, rtsp://, rtmp://, http://127.0.0.1:PORT/, null: or -; repeatable",
    )
    parser.add_argument("--task", choices=["background", "instances", "lanes"], help="what is painted (background)")
    backgrounds = "blur[:0.6], image:PATH, video:PATH, color:#rrggbb, green, transparent or none"
    parser.add_argument("--background", metavar="SPEC", help=backgrounds)
    parser.add_argument("--fit", choices=["cover", "contain", "stretch"], help="how a background fills the picture")
    parser.add_argument("--model", metavar="auto|NAME|PATH", help="the network: of models list, or an ONNX file (auto)")
    parser.add_argument("--provider", metavar="NAME", help="auto, cpu, cuda, tensorrt, ...")
    parser.add_argument(
        "--keep", metavar="CLASS,...", action=_Joined, help="classes that stay in the picture (person); repeatable"
    )
    parser.add_argument("--keep-largest", action="store_true", default=None, help="only the largest of them")
    parser.add_argument("--mode", metavar="MODE", help="frames the network looks at: every, keyframes:N or auto")
    parser.add_argument(
        "--classes", metavar="CLASS,...", action=_Joined, help="task instances, --users: classes that are painted (all)"
    )
    parser.add_argument("--users", metavar="NAME|PATH", help="task lanes: a network that finds road users")
    parser.add_argument("--telemetry", metavar="FILE", help="task lanes: GPX, NMEA or CSV (beside or in the video)")
    parser.add_argument("--telemetry-offset", type=float, metavar="S", help="seconds that its clock is ahead")
    parser.add_argument("--events", metavar="FILE", action="append", help="task lanes: events as .csv or .json")
    parser.add_argument("--page", metavar="FILE.html", help="task lanes: one page about the drive")
    parser.add_argument("--clips", metavar="DIR", help="task lanes: a clip of each event")
    for hidden in ("people", "vehicles"):
        parser.add_argument(f"--blur-{hidden}", action="store_true", default=None, help=f"make {hidden} unrecognisable")
    exactly = "encode clips anew, so that they begin exactly"
    parser.add_argument("--clips-exact", action="store_true", default=None, help=exactly)
    parser.add_argument("--encoder", metavar="NAME", help="video encoder: libx264, h264_nvenc, auto, ...")
    parser.add_argument("--hwaccel", metavar="NAME", help="what decodes: none (the processor), auto, cuda, vaapi, ...")
    parser.add_argument("--quality", metavar="Q", help="low, medium, high, lossless or the encoder's number")
    parser.add_argument(
        "--format", metavar="NAME", help="what a camera sends (mjpeg, yuyv422), or the container of -o -"
    )
    parser.add_argument("--size", metavar="WxH", help="size asked of a camera or screen")
    parser.add_argument("--fps", type=float, metavar="N", help="frames per second asked of a camera or screen")
    parser.add_argument("--transport", choices=["tcp", "udp"], help="how RTSP pictures travel (tcp)")
    parser.add_argument("--mirror", action="store_true", default=None, help="exchange left and right")
    parser.add_argument("--rotate", type=int, choices=[0, 90, 180, 270], help="turn the picture clockwise")
    parser.add_argument("--segment", metavar="10m", help="cut a live recording into files of this length")
    parser.add_argument("--keep-for", metavar="7d", help="remove files of the recording when they are this old")
    parser.add_argument("--max-disk", metavar="50GB", help="most that the files of the recording take together")
    parser.add_argument("--audio-delay", type=int, metavar="MS", help="play the carried sound this much later")
    parser.add_argument(
        "--on-demand", action="store_true", default=None, help="open the camera only while somebody reads"
    )
    parser.add_argument("--slate", metavar="SPEC", help="shown without a picture: card, background or image:PATH")
    parser.add_argument("--metrics", metavar="[HOST:]PORT", help="answer /metrics (Prometheus) and /healthz here")
    parser.add_argument("--config", metavar="FILE|PRESET", action=_Once, help="YAML file, or zoom, dashcam, rtsp")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="any setting by its dotted key")
    parser.add_argument("--report", metavar="FILE.json", help="write what happened as one JSON document")
    parser.add_argument("--matte", metavar="FILE", help="write the matte as lossless grey video or PNG sequence")
    parser.add_argument(
        "--results", metavar="FILE.jsonl", help="write boxes, classes, scores and masks, a line a frame"
    )
    parser.add_argument("--offline", action="store_true", default=None, help="never download anything")
    parser.add_argument("--log-json", action="store_true", help="say everything as one JSON document a line")
    parser.add_argument("--quiet", action="store_true", help="say nothing unless it fails")


def _run(args: argparse.Namespace) -> int:
    arguments = {key: value for name, key in _KEYS.items() if (value := getattr(args, name)) is not None}
    if args.format is not None:
        # One word for two things, as cameras and standard output never meet: what a camera sends, else a container.
        camera = is_live_url(args.source or "") and "://" not in (args.source or "")
        arguments["source.format" if camera and "-" not in (args.output or []) else "output.format"] = args.format

    given = {name for name in (*_TASKS, *_LIVE, "transport", "clips_exact") if getattr(args, name) is not None}
    if "output.format" in arguments:
        given.add("format")

    def load() -> Mapping[str, Settings]:
        settings = load_runs(args.config, args.set, arguments)
        _refuse_vain(given, settings)
        return settings

    voice = Voice(quiet=args.quiet, as_json=args.log_json)
    settings: Mapping[str, Settings] = {}
    try:
        settings = load()
        return execute(settings, voice, protected=[args.config] if args.config else [], reload=load)
    except PipelineStuckError:
        raise  # the program has to end at once
    except StreamsegError as error:
        # For the user of a file it is final; a service manager shall start a camera's run again.
        if isinstance(error, ModelAbsentError) and any(is_live_url(own.source.url) for own in settings.values()):
            error.exit_code = 1
        if not args.log_json:
            raise
        voice.event("error", str(error))
        voice.catch_up(last=True)
        return error.exit_code


def _refuse_vain(given: Set[str], settings: Mapping[str, Settings]) -> None:
    """Refuse options that would change nothing, for whoever gives one believes that it does."""
    runs = settings.values()
    tasks = {own.task for own in runs}
    for name in _TASKS:
        if name in given and not tasks & set(_TASKS[name]):
            raise ConfigError(
                f"{_flag(name)} is for task {' or '.join(_TASKS[name])}, and the task is "
                f"{', '.join(sorted(tasks))}; leave it out"
            )
    if "clips_exact" in given and not any(own.events.clips for own in runs):
        raise ConfigError("--clips-exact tells how --clips are cut, and there are none; add --clips DIR")
    sources = [own.source.url for own in runs if own.source.url]
    sinks = [url for own in runs for url in own.output.sinks]
    if not sources:
        return  # which is told in its turn
    live = any(is_live_url(url) for url in sources)
    for name in _LIVE:
        if name in given and not live:
            raise ConfigError(f"{_flag(name)} is for cameras and streams, not for {sources[0]}; leave it out")
    if "transport" in given and not live and not any(url.startswith("rtsp") for url in sinks):
        raise ConfigError(f"--transport is for RTSP, and {sources[0]} is a file; leave it out")
    if "format" in given and "-" not in sinks:
        raise ConfigError(
            "--format is for -o - and for a camera named beside it; a file's extension names its container: leave out"
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def execute(
    settings: Mapping[str, Settings],
    voice: Voice,
    *,
    protected: Sequence[str] = (),
    reload: Callable[[], Mapping[str, Settings]] | None = None,
) -> int:
    """Run with these settings; returns the exit code.

    Args:
        settings: of the runs, by the name of the stream.
        voice: says what happens.
        protected: files that no output may replace.
        reload: gives the settings anew, when the user asks for it with SIGHUP.

    Raises:
        StreamsegError: it could not be begun, or failed on the way.
    """
    with logged(voice), _Signals() as signals, ExitStack() as stack:
        try:
            unseen = voice.quiet or voice.as_json
            fleet = Fleet(settings, voice, protected=protected, progress=partial(progress, quiet=unseen))
        except BaseException:  # also what a library makes of an interrupt that comes while it is imported
            if signals.received:
                return 128 + signals.received[0]
            raise
        signals.fleet = fleet
        watch = _Watch(fleet, settings, voice)
        try:
            watch.listen(stack)
        except BaseException:
            fleet.discard()
            raise
        if signals.received:
            fleet.stop()
        return watch.run(signals, reload)


class _Watch:
    """What the main thread does while the runs go on: shows, tells, answers signals."""

    def __init__(self, fleet: Fleet, settings: Mapping[str, Settings], voice: Voice) -> None:
        self._fleet = fleet
        self._settings = settings
        self._voice = voice
        self._said: set[str] = set()
        self._sample: Mapping[str, Any] = {}
        self._notifier = Notifier()

    def listen(self, stack: ExitStack) -> None:
        """Open the address that answers how it goes, where one was asked for."""
        stack.callback(self._notifier.close)
        self._sample = self._fleet.sample()
        addresses = {own.live.metrics: own.output.token for own in self._settings.values() if own.live.metrics}
        for address, token in addresses.items():
            host, port = listen_address(address)
            server = StatusServer(host, port, sample=lambda: self._sample, token=token or None)
            stack.callback(server.close)

    def run(self, signals: _Signals, reload: Callable[[], Mapping[str, Settings]] | None) -> int:
        fleet, voice = self._fleet, self._voice
        began = time.monotonic()
        outcome = "failed"
        unwritten: list[StreamsegError] = []
        try:
            fleet.start()
            self._notifier.ready()
            with self._shown() as show:
                told = 0.0
                tell_every_s = min(1.0, self._notifier.watchdog_every_s or 1.0)
                while not fleet.wait(0.1 if signals.received else 0.2):
                    self._remark()
                    voice.catch_up()
                    if signals.reload and reload is not None:
                        signals.reload = False  # before: what is asked for meanwhile is another reload
                        self._reload(reload)
                    if time.monotonic() - told >= tell_every_s:
                        told = time.monotonic()
                        self._sample = fleet.sample()
                        if fleet.is_moving():
                            self._notifier.alive(_status(self._sample))
                    show()
                show()
            outcome = "interrupted" if signals.received else "finished"
        except StreamsegError as error:
            outcome = redact(str(error))
            raise
        finally:
            self._notifier.stopping()
            # Whatever went wrong, nothing of ours goes on behind the user's back.
            fleet.end()
            try:
                fleet.close()
            finally:  # a network that does not come back is told there, too
                self._remark()
                wall_s = time.monotonic() - began
                for name, report in fleet.reports(outcome=outcome).items():
                    if path := self._settings[name].output.report:
                        live = self._fleet.runs[name].source.info.live
                        try:
                            for notice in _write_report(path, report, numbered=live):
                                voice(notice)
                        except StreamsegError as error:  # nothing else is lost for it: other reports, why it failed
                            unwritten.append(error)
                            voice.event("error", str(error))
        for name, run in fleet.runs.items():
            lead = f"{name}: " if name else ""
            for what, count in run.source.counts.items():
                if count:
                    voice(f"{lead}{run.source.info.name}: {count} {what}")
            frames = run.frames_out
            written = ", ".join(url for url in run.sinks if url != "null:") or "nowhere"
            rate = f"{frames / max(wall_s, 1e-9):.1f} fps"
            counted = f"{frames} frame{'s' * (frames != 1)}"
            voice(f"{lead}{outcome}: {counted} in {wall_s:.1f} s ({rate}) to {written}")
        if unwritten:
            return unwritten[0].exit_code
        if signals.received:
            return 128 + signals.received[0]
        for name, run in fleet.runs.items():
            for url in run.incomplete:
                voice.event("warning", f"{name}: {url} is not complete" if name else f"{url} is not complete")
        return 1 if fleet.failed or any(run.incomplete for run in fleet.runs.values()) else 0

    def _shown(self) -> AbstractContextManager[Callable[[], None]]:
        runs = list(self._fleet.runs.values())
        if self._voice.quiet:
            return nullcontext(lambda: None)
        if len(runs) > 1 or runs[0].source.info.live:
            return status_line(lambda: _status(self._sample), self._voice)
        return self._bar(runs[0])

    @contextmanager
    def _bar(self, run: Run) -> Iterator[Callable[[], None]]:
        info = run.source.info
        with progress(Path(info.name).name, info.frame_count, quiet=self._voice.as_json) as show:
            yield lambda: show(run.frames_out)

    def _remark(self) -> None:
        for line in self._fleet.notices():
            if line not in self._said:
                self._said.add(line)
                self._voice(line)

    def _reload(self, reload: Callable[[], Mapping[str, Settings]]) -> None:
        self._notifier.reloading()
        try:
            self._fleet.change(reload())
            self._voice("settings read again")
        except StreamsegError as error:
            self._voice.event("warning", f"settings not taken over: {error}")
        self._notifier.ready()


def _status(sample: Mapping[str, Any]) -> str:
    """One line about all streams."""
    streams: Mapping[str, Mapping[str, Any]] = sample.get("streams", {})
    parts = []
    for name, stream in streams.items():
        latencies = [stage for key, stage in stream.get("stages", {}).items() if key.startswith("latency ")]
        words = [f"{stream['state']} {stream.get('fps', 0):.1f} fps"]
        if latencies:
            words.append(f"{max(stage['p95_ms'] for stage in latencies):.0f} ms")
        if dropped := sum(stream.get("drops", {}).values()):
            words.append(f"{dropped} dropped")
        if stream.get("reconnects"):
            words.append(f"{stream['reconnects']} reconnects")
        lead = f"{name}: " if len(streams) > 1 else ""
        parts.append(lead + ", ".join(words))
    return "; ".join(parts)


class _Signals:
    """The first SIGINT or SIGTERM ends the run in good order, a later one at once; SIGHUP reads the settings again."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._asked_at = -math.inf
        self.reload = False
        self.fleet: Fleet | None = None
        self._terminal = next((fd for fd in (0, 1, 2) if os.isatty(fd)), None)

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        # Who detached from the terminal on purpose (nohup) is not to be disturbed by its closing.
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._ask_for_reload)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask_for_reload(self, number: int, frame: FrameType | None) -> None:
        # The terminal was closed: who started it there does not want it to go on unseen, with the camera open.
        if self._terminal is not None and not _answers(self._terminal):
            self._handle(number, frame)
        else:
            self.reload = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._asked_at < _ONE_REQUEST_S:
            return
        self._asked_at = time.monotonic()
        self.received.append(number)
        if self.fleet is None:
            raise KeyboardInterrupt
        if len(self.received) == 1:
            self.fleet.stop()
        else:
            self.fleet.abort()


def _answers(terminal: int) -> bool:
    """Whether a terminal is still there; one that was closed stays a file that can only be closed."""
    try:
        os.tcgetpgrp(terminal)
    except OSError as error:
        # One that is there and belongs to another session.
        return error.errno == errno.ENOTTY
    return True


def _write_report(path: str, report: dict[str, Any], *, numbered: bool) -> Sequence[str]:
    """Write it; `numbered` leaves a file of that name where it is. Returns remarks for the user."""
    text = redact(json.dumps(report, indent=2)) + "\n"
    file = Partial(Path(path), numbered=numbered)
    try:
        file.path.write_text(text, "utf-8")
        file.keep()
    except OSError as error:
        file.discard()
        raise SinkWriteError(f"cannot write report {path}: {unwritten(error)}") from error
    return file.notices
