"""A run: its pipeline, and what there is to say about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import cv2

import streamseg
from streamseg.config import Settings
from streamseg.engine import Pipeline
from streamseg.frame import Sink, Source
from streamseg.segment.load import Segmenter
from streamseg.segment.store import ResolvedModel


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A pipeline and what there is to say about it."""

    pipeline: Pipeline
    source: Source
    segmenter: Segmenter
    model: ResolvedModel
    sinks: Mapping[str, Sink]
    settings: Settings
    resources: ExitStack

    def notices(self) -> list[str]:
        """Remarks of the source and the sinks so far, in one line each."""
        lines = list(self.source.notices)
        for url, sink in self.sinks.items():
            lines.extend(f"{url}: {notice}" for notice in sink.notices)
        return lines

    def report(self, *, wall_s: float, outcome: str) -> dict[str, Any]:
        """What happened, ready for JSON. `outcome` is ``finished``, ``interrupted`` or an error's message."""
        measured = self.pipeline.metrics.snapshot()
        counts = measured["counts"]
        info = self.source.info
        stages = dict(measured["stages"])
        written = {}
        for number, url in enumerate(self.sinks):
            if f"write-{number}" in stages:
                stages[f"write {url}"] = stages.pop(f"write-{number}")
            written[url] = counts.get(f"frames out {number}", 0)
        frames_in = counts.get("frames in", 0)
        return {
            "streamseg": streamseg.__version__,
            "outcome": outcome,
            "source": {
                "url": info.name,
                "size_wh": list(info.original_wh),
                "frame_wh": [info.width, info.height],
                "rate": str(info.rate) if info.rate else None,
                "time_base": str(info.time_base),
                "colour": asdict(info.colour),
                "irregularities": dict(self.source.counts),
            },
            "sinks": [{"url": url, "frames": frames} for url, frames in written.items()],
            "frames": {
                "in": frames_in,
                "out": next(iter(written.values()), 0),
                "dropped": self.pipeline.drops,
            },
            "wall_s": round(wall_s, 3),
            "fps": round(frames_in / wall_s, 2) if wall_s > 0 else None,
            "stages": stages,
            "model": {
                "name": self.model.name,
                "licence": self.model.licence,
                **self.segmenter.describe(),
            },
            "threads": {
                "cores": os.cpu_count(),
                "opencv": cv2.getNumThreads(),
                "decoder": self.settings.source.threads,
                "encoder": self.settings.output.threads,
            },
            "versions": versions(),
            "machine": {"system": platform.platform(), "processor": platform.machine()},
            "notices": self.notices(),
            "settings": self.settings.model_dump(mode="json"),
        }


def versions() -> dict[str, str]:
    """Versions of Python and of what streamseg stands on."""
    found = {"python": platform.python_version()}
    for package in ("av", "numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "pydantic"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
