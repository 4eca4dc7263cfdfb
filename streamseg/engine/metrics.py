"""Counts and times of a run, in memory that does not grow with it."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Histogram", "Metrics", "Summary"]

_GROWTH = math.log(1.01)
_SMALLEST_S = 1e-6


@dataclass(frozen=True, slots=True)
class Summary:
    """Times of one stage, in milliseconds; percentiles are exact to 1 %."""

    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class Histogram:
    """Durations in buckets that grow by 1 %, so that a run of months costs what a run of seconds does."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._count = 0
        self._sum_s = 0.0
        self._max_s = 0.0

    def add(self, duration_s: float) -> None:
        """Record one duration in seconds; below a microsecond counts as one."""
        self._buckets[int(math.log(max(duration_s, _SMALLEST_S) / _SMALLEST_S) / _GROWTH)] += 1
        self._count += 1
        self._sum_s += duration_s
        self._max_s = max(self._max_s, duration_s)

    def quantile_s(self, share: float) -> float:
        """The duration that `share` of all stay at or below; 0 when there are none."""
        wanted = share * self._count
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return min(_SMALLEST_S * math.exp((bucket + 0.5) * _GROWTH), self._max_s)
        return 0.0

    def summary(self) -> Summary:
        """Count, mean, percentiles and maximum."""
        mean = self._sum_s / self._count if self._count else 0.0
        times_s = (mean, self.quantile_s(0.5), self.quantile_s(0.95), self.quantile_s(0.99), self._max_s)
        return Summary(self._count, *(round(seconds * 1e3, 3) for seconds in times_s))


class Metrics:
    """What happened in a run: durations by stage and counts by name. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._counts: Counter[str] = Counter()

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Record how long the block took; a block that raises is not recorded."""
        begin = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - begin)

    def add(self, stage: str, duration_s: float) -> None:
        """Record one duration of `stage`."""
        with self._lock:
            self._times[stage].add(duration_s)

    def count(self, name: str, by: int = 1) -> None:
        """Add to the count `name`."""
        with self._lock:
            self._counts[name] += by

    def get(self, name: str) -> int:
        """The count `name`; 0 when it was never counted."""
        with self._lock:
            return self._counts[name]

    def snapshot(self) -> dict[str, Any]:
        """``{"counts": {name: n}, "stages": {name: Summary as a dict}}`` at this moment, ready for JSON."""
        with self._lock:
            return {
                "counts": dict(self._counts),
                "stages": {stage: asdict(times.summary()) for stage, times in self._times.items()},
            }
