"""From settings to a run that is ready to start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import cv2

from streamseg.app.background import VirtualBackground, look_of
from streamseg.app.network import segmenter_of
from streamseg.app.outputs import check_paths, open_sinks, output_urls
from streamseg.app.run import Run
from streamseg.config import Settings, parse_background
from streamseg.engine import Metrics, Pipeline
from streamseg.segment.store import resolve
from streamseg.sources import open_source


def build(settings: Settings, say: Callable[[str], None], *, protected: Sequence[str] = ()) -> Run:
    """Open everything that `settings` name; nothing runs yet.

    Args:
        settings: of the run.
        say: receives one-line remarks for the user, such as which network was chosen and why.
        protected: files that no output may replace, besides the source, the background and the network.

    Raises:
        StreamsegError: something cannot be had as asked; what was opened is closed again.
    """
    outputs = output_urls(settings, say)
    check_paths(settings, outputs, protected)
    # One of our threads runs the network, one decodes, one encodes: OpenCV's own pool would only get in their way.
    cv2.setNumThreads(1)
    # The pipeline closes what it is handed; until it has it, and if anything fails before, we do.
    with ExitStack() as handed, ExitStack() as stack:
        source = open_source(
            settings.source.url, max_pixels=settings.source.max_pixels, threads=settings.source.threads
        )
        handed.callback(source.close)
        model = resolve(settings.model.name, offline=settings.model.offline, say=say)
        if model.remark:
            say(model.remark)
        segmenter, keep = segmenter_of(model, settings)
        metrics = Metrics()
        process = VirtualBackground(segmenter, look_of(settings, source.info, keep, metrics, say), metrics)
        stack.callback(process.close)
        kind, _ = parse_background(settings.background.spec)
        sinks = open_sinks(settings, outputs, source.info, alpha=kind == "transparent", stack=handed)
        pipeline = Pipeline(source, process, list(sinks.values()), metrics=metrics)
        handed.pop_all()
        return Run(pipeline, source, segmenter, model, sinks, settings, stack.pop_all())
