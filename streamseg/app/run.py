"""A run: its pipeline, and what there is to say about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

import streamseg
from streamseg.app.journey import EventLog
from streamseg.app.moments import Moments
from streamseg.app.network import Network
from streamseg.app.process import Task
from streamseg.config import Settings, differing
from streamseg.engine import Beside, FailClosed, Pipeline, Reconnecting, Reopening
from streamseg.errors import ConfigError
from streamseg.frame import Sink, Source
from streamseg.sinks import LinesSink, NullSink
from streamseg.sinks.images import is_picture_name

__all__ = ["Run", "rss_bytes", "versions"]

# Sections and settings that are taken over while a run goes on, by tasks that know them.
_CHANGING = frozenset(
    {
        "background",
        "edges",
        "instances.classes",
        "instances.colour_by",
        "instances.half_life_s",
        "instances.opacity",
        "instances.show",
        "keep.largest",
        "lanes.opacity",
        "lanes.show",
        "model.confidence",
        "model.iou",
        "temporal.half_life_s",
        "temporal.scene_cut",
        "temporal.smoother",
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A pipeline and what there is to say about it.

    `name` is that of the stream where there are several; `sinks` are under what a user may read of their URLs.
    """

    name: str
    pipeline: Pipeline
    source: Source
    task: Task
    moments: Sequence[Moments]
    closed: FailClosed | None
    networks: Sequence[Network]
    sinks: Mapping[str, Sink]
    settings: Settings
    resources: ExitStack

    def stop(self) -> None:
        """Ask it to end in good order; any thread."""
        self.pipeline.stop()
        self._give_up_sinks()

    def abort(self) -> None:
        """Ask it to end at once; any thread."""
        self.pipeline.abort()
        self._give_up_sinks()

    def _give_up_sinks(self) -> None:
        for sink in self.sinks.values():
            if isinstance(sink, Reopening):
                sink.give_up()

    def discard(self) -> None:
        """Let go of everything; for a run that was never started."""
        for sink in self.sinks.values():
            sink.close()
        self.source.close()
        self.resources.close()

    def notices(self) -> list[str]:
        """Remarks of the source and the sinks so far, in one line each."""
        lines = list(self.source.notices)
        for url, sink in self.sinks.items():
            lines.extend(f"{url}: {notice}" for notice in sink.notices)
        return [f"{self.name}: {line}" for line in lines] if self.name else lines

    @property
    def state(self) -> tuple[str, str]:
        """``live``, ``connecting``, ``reconnecting``, ``idle`` or ``failed``, and why not live.

        A run that is over is the fleet's to tell.
        """
        if self.closed is not None and self.closed.failing:
            return "failed", self.closed.failing
        source = self.source.main if isinstance(self.source, Beside) else self.source
        return (source.state, source.reason) if isinstance(source, Reconnecting) else ("live", "")

    @property
    def incomplete(self) -> list[str]:
        """The outputs that were lost for good, or could not be completed, while the others went on."""
        return [url for url, sink in self.sinks.items() if isinstance(sink, Reopening) and sink.incomplete]

    @property
    def frames_out(self) -> int:
        """Pictures written to the first output."""
        return self.pipeline.metrics.get("frames out 0")

    def prepare_change(self, settings: Settings, say: Callable[[str], None]) -> Callable[[], None]:
        """Make ready what may change while it runs; the call that comes back changes it.

        Raises:
            StreamsegError: it cannot be had as asked.
        """
        if settings.task != self.settings.task:
            raise ConfigError(f"the task cannot become {settings.task} while it runs; start anew")
        changed = differing(self.settings, settings)
        if any(key.startswith("privacy.") for key in changed):
            raise ConfigError("who is blurred cannot change while it runs; start anew")
        change_task = self.task.prepare_change(settings, say)
        classes = [network.classes_of(settings) for network in self.networks]
        if kept := [key for key in changed if key not in _CHANGING and key.split(".")[0] not in _CHANGING]:
            say(f"this waits for the next start: {', '.join(kept)}")

        def change() -> None:
            change_task()
            for moments in self.moments:
                moments.at_cuts = settings.temporal.scene_cut
            for network, wanted in zip(self.networks, classes, strict=True):
                if network.settled:
                    continue
                network.pool.retune(confidence=settings.model.confidence, iou=settings.model.iou, classes=wanted)

        return change

    def measured(self) -> dict[str, Any]:
        """Counts, stages by name, drops by reason and what the sinks did, so far."""
        snapshot = self.pipeline.metrics.snapshot()
        counts, stages = snapshot["counts"], snapshot["stages"]
        sinks = {}
        for number, (url, sink) in enumerate(self.sinks.items()):
            for stage in ("write", "latency"):
                if f"{stage}-{number}" in stages:
                    stages[f"{stage} {url}"] = stages.pop(f"{stage}-{number}")
            own = dict(getattr(sink, "counts", {}))
            refused = sum(own.get(name, 0) for name in ("pictures dropped while closed", "dropped"))
            sinks[url] = {
                "state": sink.state if isinstance(sink, Reopening) else "open",
                "frames": counts.pop(f"frames out {number}", 0) - refused,
                "reopens": own.pop("reopened", 0),
                "counts": own,
            }
        return {
            "counts": counts,
            "irregularities": dict(self.source.counts),
            "stages": stages,
            "drops": self.pipeline.drops,
            "sinks": sinks,
        }

    def report(self, *, wall_s: float, outcome: str) -> dict[str, Any]:
        """What happened, ready for JSON. `outcome` is ``finished``, ``interrupted`` or an error's message."""
        measured = self.measured()
        info = self.source.info
        frames_in = measured["counts"].get("frames in", 0)
        sinks = measured["sinks"]
        return {
            "streamseg": streamseg.__version__,
            **({"stream": self.name} if self.name else {}),
            "outcome": outcome,
            "source": {
                "url": info.name,
                "size_wh": list(info.original_wh),
                "frame_wh": [info.width, info.height],
                "rate": str(info.rate) if info.rate else None,
                "time_base": str(info.time_base),
                "colour": asdict(info.colour),
                "live": info.live,
                "decoder": info.decoder or None,
                "irregularities": measured["irregularities"],
            },
            "sinks": [{"url": url, "size_wh": self._size_wh(url), **sink} for url, sink in sinks.items()],
            "frames": {
                "in": frames_in,
                "out": next((sink["frames"] for sink in sinks.values()), 0),
                "dropped": measured["drops"],
                **{name: count for name, count in measured["counts"].items() if name != "frames in"},
            },
            "wall_s": round(wall_s, 3),
            "fps": round(measured["stages"].get("process", {}).get("count", 0) / wall_s, 2) if wall_s > 0 else None,
            "stages": measured["stages"],
            "rss_bytes": rss_bytes(),
            **self._models(),
            "threads": {
                "cores": os.cpu_count(),
                "opencv": cv2.getNumThreads(),
                "decoder": self.settings.source.threads or "auto",
                "encoder": self.settings.output.threads or "auto",
            },
            "versions": versions(),
            "machine": {"system": platform.platform(), "processor": platform.machine()},
            "notices": self.notices(),
            "settings": self.settings.without_secrets(),
        }

    def _size_wh(self, url: str) -> list[int] | None:
        """Of the pictures in an output; None where there are none, or each has its own."""
        sink = self.sinks[url]
        if isinstance(sink.current if isinstance(sink, Reopening) else sink, LinesSink | EventLog | NullSink):
            return None
        info = self.source.info
        if is_picture_name(url):
            return None if info.varying_size else list(info.original_wh)
        return [info.width, info.height]

    def _models(self) -> dict[str, Any]:
        told = [
            {"name": network.model.name, "licence": network.model.licence, **network.pool.describe()}
            for network in self.networks
        ]
        return {"model": told[0] if told else None, **({"more_models": told[1:]} if told[1:] else {})}


def versions() -> dict[str, str]:
    """Versions of Python and of what streamseg stands on."""
    found = {"python": platform.python_version()}
    for package in ("av", "numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "pydantic"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def rss_bytes() -> int | None:
    """Memory held in RAM by this process and its children; None where that cannot be told."""
    try:
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in (os.getpid(), *_children()))
    except (OSError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _children() -> list[int]:
    pids: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        pids += map(int, (task / "children").read_text().split())
    return pids
