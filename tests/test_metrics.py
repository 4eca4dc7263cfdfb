from __future__ import annotations

import numpy as np
import pytest

from streamseg.engine.metrics import Histogram, Metrics


def test_quantiles_agree_with_numpy_within_one_percent() -> None:
    times_s = np.random.default_rng(1).lognormal(-5, 1, 20_000)
    histogram = Histogram()
    for duration_s in times_s:
        histogram.add(float(duration_s))
    for share in (0.5, 0.95, 0.99):
        assert histogram.quantile_s(share) == pytest.approx(float(np.quantile(times_s, share)), rel=0.012)
    summary = histogram.summary()
    assert summary.mean_ms == pytest.approx(1e3 * times_s.mean(), rel=1e-3)
    assert summary.max_ms == pytest.approx(1e3 * times_s.max(), abs=1e-3)


def test_memory_does_not_grow_with_the_number_of_durations() -> None:
    histogram = Histogram()
    for n in range(100_000):
        histogram.add(1e-6 + (n % 1000) * 1e-4)
    assert len(histogram._buckets) < 1200


def test_an_empty_histogram_is_all_zeros() -> None:
    assert Histogram().summary().p99_ms == 0.0


def test_a_stage_that_raises_is_not_timed() -> None:
    metrics = Metrics()
    with pytest.raises(ZeroDivisionError), metrics.time("stage"):
        _ = 1 / 0
    with metrics.time("stage"):
        pass
    assert metrics.snapshot()["stages"]["stage"]["count"] == 1
