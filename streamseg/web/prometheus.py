"""Measurements as Prometheus reads them (text format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamseg.errors import redact

__all__ = ["CONTENT_TYPE", "FAMILIES", "STATES", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("live", "connecting", "reconnecting", "idle", "ended", "failed")

# Name: (type, help). What a dashboard may ask for.
FAMILIES = {
    "streamseg_uptime_seconds": ("gauge", "Time since the program was started."),
    "streamseg_resident_memory_bytes": ("gauge", "Memory of the process that is held in RAM."),
    "streamseg_stream_state": ("gauge", "1 for the state that the stream is in, 0 for the others."),
    "streamseg_events_total": ("counter", "What was counted, by name: frames in, frames out, irregularities."),
    "streamseg_stage_seconds": ("summary", "How long a stage took for one frame, over the whole run."),
    "streamseg_stage_max_seconds": ("gauge", "The longest that a stage took for one frame."),
    "streamseg_drops_total": ("counter", "Frames discarded, by reason."),
    "streamseg_reconnects_total": ("counter", "How often a lost source was found again."),
    "streamseg_frame_age_seconds": ("gauge", "Time since the newest frame was captured."),
    "streamseg_frames_per_second": ("gauge", "Frames processed a second, lately."),
    "streamseg_sink_state": ("gauge", "1 for the state that the sink is in."),
    "streamseg_sink_frames_total": ("counter", "Frames that the sink took."),
    "streamseg_sink_reopens_total": ("counter", "How often a lost sink was opened again."),
}
_QUANTILES = {"0.5": "p50_ms", "0.95": "p95_ms", "0.99": "p99_ms"}


@dataclass(slots=True)
class _Family:
    lines: list[str] = field(default_factory=list)

    def add(self, name: str, value: float, **labels: str) -> None:
        inner = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        self.lines.append(f"{name}{{{inner}}} {value!r}" if inner else f"{name} {value!r}")


def render(sample: Mapping[str, Any]) -> str:
    """One scrape. What the sample lacks, or knows as None, is left out.

    Args:
        sample: ``{"streams": {name: {"state", "counts", "stages", "drops", "reconnects", "frame_age_s", "fps",
            "sinks": {url: {"state", "frames", "reopens"}}}}, "rss_bytes", "uptime_s"}``; stages as
            `Metrics.snapshot` has them.
    """
    families = {name: _Family() for name in FAMILIES}
    for name, key in (("streamseg_uptime_seconds", "uptime_s"), ("streamseg_resident_memory_bytes", "rss_bytes")):
        if sample.get(key) is not None:
            families[name].add(name, sample[key])
    for stream, found in sample.get("streams", {}).items():
        for family, name, value, labels in _of_stream(found):
            families[family].add(name, value, stream=stream, **labels)
    return "".join(_text(name, family) for name, family in families.items() if family.lines)


def _text(name: str, family: _Family) -> str:
    kind, help_text = FAMILIES[name]
    return "\n".join((f"# HELP {name} {help_text}", f"# TYPE {name} {kind}", *family.lines, ""))


def _of_stream(stream: Mapping[str, Any]) -> Iterator[tuple[str, str, float, dict[str, str]]]:
    """(family, name, value, labels besides the stream's)."""

    def one(name: str, value: float, **labels: str) -> tuple[str, str, float, dict[str, str]]:
        return name, name, value, labels

    for state in STATES:
        yield one("streamseg_stream_state", int(stream.get("state") == state), state=state)
    for event, count in stream.get("counts", {}).items():
        yield one("streamseg_events_total", count, event=event)
    for stage, times in stream.get("stages", {}).items():
        family = "streamseg_stage_seconds"
        for quantile, key in _QUANTILES.items():
            yield one(family, times[key] / 1e3, stage=stage, quantile=quantile)
        yield family, f"{family}_sum", times["mean_ms"] * times["count"] / 1e3, {"stage": stage}
        yield family, f"{family}_count", times["count"], {"stage": stage}
        yield one("streamseg_stage_max_seconds", times["max_ms"] / 1e3, stage=stage)
    for why, count in stream.get("drops", {}).items():
        yield one("streamseg_drops_total", count, reason=why)
    for name, key in (
        ("streamseg_reconnects_total", "reconnects"),
        ("streamseg_frame_age_seconds", "frame_age_s"),
        ("streamseg_frames_per_second", "fps"),
    ):
        if stream.get(key) is not None:
            yield one(name, stream[key])
    for url, sink in stream.get("sinks", {}).items():
        shown = redact(url)
        yield one("streamseg_sink_state", 1, sink=shown, state=str(sink["state"]))
        yield one("streamseg_sink_frames_total", sink.get("frames", 0), sink=shown)
        yield one("streamseg_sink_reopens_total", sink.get("reopens", 0), sink=shown)


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
