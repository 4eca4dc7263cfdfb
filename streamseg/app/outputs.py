"""The outputs of a run: which, whether they may be written, and their sinks."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from streamseg.config import Settings, parse_background
from streamseg.engine import Backoff, Reopening
from streamseg.errors import ConfigError, SinkAbsentError, shown
from streamseg.frame import Output, Plane, Sink, Source
from streamseg.sinks import LinesSink, MatteSink, open_sink, same_file
from streamseg.sinks.images import is_picture_name
from streamseg.sinks.recording import RecordingSink
from streamseg.sources import drive_files, is_live_url, local_path
from streamseg.units import parse_duration_s, parse_size_bytes
from streamseg.web.preview import PreviewSink
from streamseg.web.server import listen_address

__all__ = ["check_paths", "check_task", "is_live_output", "open_sinks", "output_urls", "written_files"]

_log = logging.getLogger(__name__)


def output_urls(settings: Settings, say: Callable[[str], None]) -> list[str]:
    """The outputs asked for, or the ones that suit the source.

    Raises:
        ConfigError: there is no source, or nothing suits it.
    """
    if not settings.source.url:
        raise ConfigError(
            "no source: name a video file, an image, a folder, a glob, a camera, a stream or - for standard input"
        )
    if settings.output.sinks:
        return list(settings.output.sinks)
    output, events = settings.output, settings.events
    if output.matte or output.results or events.files or events.page or events.clips:
        return ["null:"]
    source = Path(settings.source.url)
    if not source.is_file():
        raise ConfigError("no output: name one with -o, such as -o out.mp4, or -o null: for none")
    still = source.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
    suffix = ".png" if still else ".webm" if settings.background.spec == "transparent" else ".mp4"
    chosen = f"{source.stem}-streamseg{suffix}"
    say(f"no -o given: writing {chosen}")
    return [chosen]


def check_task(settings: Settings) -> None:
    """Refuse outputs that the task has nothing for.

    Raises:
        ConfigError: such an output is asked for.
    """
    task, events = settings.task, settings.events
    if task != "background" and settings.output.matte:
        raise ConfigError(f"--matte is for task background, and the task is {task}; leave it out")
    if task != "lanes" and (events.files or events.page or events.clips):
        raise ConfigError(f"--events, --page and --clips are for task lanes, and the task is {task}; add --task lanes")


def check_paths(settings: Settings, outputs: Sequence[str], protected: Sequence[str]) -> None:
    """Refuse outputs that would overwrite an input or each other.

    Raises:
        ConfigError: an output cannot be as asked.
    """
    url, output = settings.source.url, settings.output
    if (url == "-" and sys.stdin is None) or ("-" in outputs and sys.stdout is None):
        raise ConfigError("- names a standard stream that is closed; open it or name a file")
    kind, value = parse_background(settings.background.spec)
    inputs = [(url, "the source itself")]
    if url != "-" and not is_live_url(url):
        inputs += [(str(file), "a file of the source") for file in drive_files(local_path(url))]
    if kind in ("image", "video"):
        inputs.append((value, "the background itself"))
    read = (settings.model.name, settings.lanes.users, settings.instances.stuff, settings.lanes.telemetry, *protected)
    inputs += [(path, "an input of this run") for path in read if path]
    beside = [output.matte, output.results, output.report, *settings.events.files, settings.events.page]
    written = [path for path in (*outputs, *beside) if path]
    if taken := {"-", "null:"} & set(beside):
        raise ConfigError(
            f"{taken.pop()} is for the picture (-o) alone; name a file for the matte, results, report, events"
        )
    if outputs.count("-") > 1:
        raise ConfigError("two outputs write standard output; leave one out")
    for number, path in enumerate(written):
        if path in ("-", "null:") or is_live_output(path):
            continue
        for source, name in inputs:
            if same_file(source, path):
                raise ConfigError(f"output {path} is {name}; choose another name")
        # Through links too: two writers of one file would each replace the other's.
        if os.path.realpath(path) in {os.path.realpath(other) for other in written[:number]}:
            raise ConfigError(f"two outputs write {path}; choose different names")
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            raise ConfigError(f"output {path} is no regular file; name a file, or null: for none")
    if output.report:
        folder = Path(output.report).absolute().parent
        if not folder.is_dir():
            raise ConfigError(f"cannot write report {output.report}: its folder does not exist; make it first")
        if Path(output.report).is_dir() or not os.access(folder, os.W_OK):
            raise ConfigError(f"cannot write report {output.report}: no file can be made there; choose another place")


def written_files(settings: Settings) -> list[str]:
    """Everything that a run writes under a name."""
    output = settings.output
    events = settings.events
    named = (*output.sinks, output.matte, output.results, output.report, *events.files, events.page)
    return [path for path in named if path and path not in ("-", "null:")]


def is_live_output(url: str) -> bool:
    """Whether it is watched while the run goes on: a virtual camera, a stream or a preview."""
    return url.startswith("virtualcam:") or "://" in url


def open_sinks(
    settings: Settings,
    outputs: Sequence[str],
    source: Source,
    record: Callable[[Output], dict[str, Any]],
    *,
    alpha: bool,
    slate: Plane | None,
    stack: ExitStack,
) -> dict[str, Sink]:
    """The sinks by what a user may read of their URL, each to be closed by `stack`.

    Args:
        settings: of the run.
        outputs: where the picture goes.
        source: whose frames they take.
        record: what the results tell of a frame.
        alpha: write the frames' opacity.
        slate: (H * 3 / 2, W) uint8, what a virtual camera shows when the run itself gives nothing.
        stack: closes them.

    Raises:
        SinkOpenError: one cannot be opened as asked.
    """
    output = settings.output
    sinks: dict[str, Sink] = {}

    def add(url: str, sink: Sink) -> None:
        name = shown(url)
        while name in sinks:  # two URLs that differ only in what is not shown
            name += "'"
        sinks[name] = sink
        stack.callback(sink.close)

    for url in outputs:
        add(url, _open_one(settings, url, source, alpha=alpha, slate=slate))
    if output.matte:
        add(output.matte, MatteSink(output.matte, source.info))
    if output.results:
        lines = LinesSink(output.results, record, numbered=source.info.live)
        add(output.results, _persistent(settings, output.results, lines) if source.info.live else lines)
    if not source.info.live or len(sinks) == 1:
        return sinks
    # One that fails must not end the others.
    return {
        name: sink if isinstance(sink, Reopening) else Reopening(None, name=name, first=sink)
        for name, sink in sinks.items()
    }


def _open_one(settings: Settings, url: str, source: Source, *, alpha: bool, slate: Plane | None) -> Sink:
    output, info = settings.output, source.info
    encoding: dict[str, Any] = {
        "encoder": output.encoder or None,
        "quality": output.quality or None,
        "threads": output.threads,
    }
    if alpha and is_live_output(url):
        raise ConfigError(
            f"background transparent cannot go to {shown(url)}, which has no opacity: the room would show"
        )
    if url.lower().startswith(("http://", "https://")):
        host, port = listen_address(url)
        return PreviewSink(host, port, token=output.token or None, title=info.name)
    if url.startswith("virtualcam:"):
        from streamseg.sinks.virtualcam import open_virtual_camera

        return _lasting(settings, url, lambda given_up: open_virtual_camera(url, info, slate=slate, given_up=given_up))
    if "://" in url:
        from streamseg.sinks.publish import open_publisher

        transport = settings.source.transport
        return _lasting(
            settings,
            url,
            # With the sound that is known by then.
            lambda given_up: open_publisher(url, source.info, transport=transport, given_up=given_up, **encoding),
        )
    if info.live and not alpha and url not in ("-", "null:") and not is_picture_name(url):
        return _lasting(
            settings,
            url,
            lambda given_up: RecordingSink(
                url,
                info,
                segment_s=parse_duration_s(output.segment) if output.segment else None,
                keep_for_s=parse_duration_s(output.keep_for) if output.keep_for else None,
                max_bytes=parse_size_bytes(output.max_disk) if output.max_disk else None,
                **encoding,
            ),
        )
    return open_sink(url, info, container_format=output.format or None, alpha=alpha and url != "null:", **encoding)


def _persistent(settings: Settings, path: str, lines: LinesSink) -> Sink:
    """Lines of a live run: where they cannot be written for a while, the file goes on afterwards."""
    backoff = Backoff(longest_s=settings.source.longest_backoff_s)
    return Reopening(lambda given_up: lines.reopen(), name=path, first=lines, backoff=backoff)


def _lasting(settings: Settings, url: str, open_it: Callable[[Callable[[], bool]], Sink]) -> Sink:
    """A sink that is opened again when it was lost; one that is only absent is waited for."""
    backoff = Backoff(longest_s=settings.source.longest_backoff_s)
    try:
        first = open_it(lambda: False)
    except SinkAbsentError as error:
        _log.warning("%s; waiting for it", error)
        first = None
    return Reopening(open_it, name=shown(url), first=first, backoff=backoff)
