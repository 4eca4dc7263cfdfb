"""The outputs of a run: which, whether they may be written, and their sinks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from streamseg.config import Settings, parse_background
from streamseg.errors import ConfigError
from streamseg.frame import Sink, VideoInfo
from streamseg.segment.describe import record
from streamseg.sinks import LinesSink, MatteSink, open_sink, same_file


def output_urls(settings: Settings, say: Callable[[str], None]) -> list[str]:
    """The outputs asked for, or the ones that suit the source."""
    if settings.output.sinks:
        return list(settings.output.sinks)
    if settings.output.matte or settings.output.results:
        return ["null:"]
    source = Path(settings.source.url)
    if not source.is_file():
        raise ConfigError("no output: name one with -o, such as -o out.mp4, or -o null: for none")
    still = source.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
    suffix = ".png" if still else ".webm" if settings.background.spec == "transparent" else ".mp4"
    chosen = f"{source.stem}-streamseg{suffix}"
    say(f"no -o given: writing {chosen}")
    return [chosen]


def check_paths(settings: Settings, outputs: Sequence[str], protected: Sequence[str]) -> None:
    """Refuse outputs that would overwrite an input or each other.

    Raises:
        ConfigError: an output cannot be as asked.
    """
    url, output = settings.source.url, settings.output
    if not url:
        raise ConfigError("no source: name a video file, an image, a folder, a glob or - for standard input")
    if (url == "-" and sys.stdin is None) or ("-" in outputs and sys.stdout is None):
        raise ConfigError("- names a standard stream that is closed; open it or name a file")
    kind, value = parse_background(settings.background.spec)
    inputs = [(url, "the source itself")]
    if kind in ("image", "video"):
        inputs.append((value, "the background itself"))
    inputs += [(path, "an input of this run") for path in (settings.model.name, *protected)]
    written = [path for path in (*outputs, output.matte, output.results, output.report) if path]
    for path in (output.matte, output.results, output.report):
        if path == "-":
            raise ConfigError("standard output is for the picture (-o -); name a file for the matte, results or report")
    for number, path in enumerate(written):
        if path in ("-", "null:"):
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


def open_sinks(
    settings: Settings, outputs: Sequence[str], info: VideoInfo, *, alpha: bool, stack: ExitStack
) -> dict[str, Sink]:
    """The sinks by URL, each to be closed by `stack`.

    Raises:
        SinkOpenError: one cannot be opened as asked.
    """
    output = settings.output
    sinks: dict[str, Sink] = {}
    for url in outputs:
        sinks[url] = open_sink(
            url,
            info,
            encoder=output.encoder or None,
            quality=output.quality or None,
            container_format=output.format or None,
            alpha=alpha and url != "null:",
            threads=output.threads,
        )
        stack.callback(sinks[url].close)
    if output.matte:
        sinks[output.matte] = MatteSink(output.matte, info)
        stack.callback(sinks[output.matte].close)
    if output.results:
        sinks[output.results] = LinesSink(output.results, record)
        stack.callback(sinks[output.results].close)
    return sinks
