"""Networks in float16: nearly the same answers from half the weights, kept for the next time."""

from __future__ import annotations

import numpy as np
import pytest

from streamseg.errors import ModelLoadError
from streamseg.segment import ladder, load_segmenter
from streamseg.segment.half import in_half
from streamseg.segment.inspect import inspect_onnx
from streamseg.segment.ladder import Wanted, open_session
from streamseg.segment.quantize import quantized
from tests import networks
from tests.test_quantize import pictures, portrait
from tests.test_segmenters import noise
from tests.test_yolo import DETECTIONS, PROTOTYPES


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))


def test_the_answers_are_nearly_the_same_and_input_and_outputs_are_as_before(tmp_path):
    path = portrait(tmp_path / "p.onnx")
    half = in_half(path)
    before, after = inspect_onnx(path), inspect_onnx(half)
    assert (after.precision, after.family, after.inputs, after.outputs) == (
        "float16", before.family, before.inputs, before.outputs,
    )  # fmt: skip
    assert after.metadata == before.metadata
    expected, found = (load_segmenter(each, threads=1)(noise(96, 64)).matte() for each in (path, half))
    assert not np.array_equal(found, expected)
    assert np.abs(found - expected).max() < 0.01


def test_it_is_made_once_for_a_networks_content(tmp_path):
    path = portrait(tmp_path / "p.onnx")
    half = in_half(path)
    made = half.stat().st_mtime_ns
    assert in_half(path) == half
    assert half.stat().st_mtime_ns == made
    assert in_half(networks.matte(tmp_path / "other.onnx")) != half


def test_what_is_in_half_already_stays_and_int8_is_refused(tmp_path):
    path = networks.yolo_seg(tmp_path / "h.onnx", DETECTIONS, PROTOTYPES, dtype=np.float16)
    assert in_half(path) == path
    small = tmp_path / "small.onnx"
    small.write_bytes(quantized(portrait(tmp_path / "p.onnx"), pictures(1)))
    with pytest.raises(ModelLoadError, match=r"small\.onnx holds int8"):
        in_half(small)


def test_cuda_runs_it_where_fp16_is_asked_for(tmp_path, monkeypatch):
    path = portrait(tmp_path / "p.onnx")
    opened = []
    monkeypatch.setattr(ladder, "CudaSession", lambda path, **rest: opened.append((path, rest)))
    open_session(Wanted(path, "cuda", precision="fp16"))
    ((given, rest),) = opened
    assert given == in_half(path)
    assert rest["precision"] == "float16"
