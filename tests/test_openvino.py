"""OpenVINO's own package: the same answers as ONNX Runtime, the precision that really runs, errors in one line."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from streamseg.errors import InferenceError, ModelLoadError
from streamseg.segment import load_segmenter
from streamseg.segment import openvino as ours
from streamseg.segment.openvino import OpenVinoSession, try_out
from streamseg.segment.ort import Session
from streamseg.segment.pool import Pool
from tests import networks
from tests.test_segmenters import KINDS, noise

needs_openvino = pytest.mark.skipif(not ours.installed(), reason="the package openvino is not installed")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path):
    return networks.matte(tmp_path / "m.onnx")


def has_bf16():
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@needs_openvino
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_answers_as_on_onnx_runtime(kind, tmp_path):
    path = KINDS[kind](tmp_path)
    theirs, segment = (load_segmenter(path, provider=name, precision="fp32", threads=1) for name in ("cpu", "openvino"))
    for size in ((128, 96), (98, 202)):
        assert np.allclose(segment(noise(*size)).matte(), theirs(noise(*size)).matte(), atol=1e-3)
    report = segment.describe()
    assert (report["provider"], report["threads"], report["computes_in"]) == ("openvino", 1, "float32")
    assert report["runtime"].startswith("openvino 20")


@needs_openvino
def test_auto_is_bfloat16_where_the_processor_has_it_and_says_what_runs(model):
    session = OpenVinoSession(model)
    assert session.on.precision == ("bfloat16" if has_bf16() else "float32")
    again = OpenVinoSession(model)  # from the cache, which must not change what is told
    assert again.on == session.on


@needs_openvino
def test_a_precision_that_the_processor_lacks_is_an_error(model):
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    lacking = next((name for name in ("bf16", "fp16") if name.upper() not in able), None)
    if lacking is None:
        pytest.skip("this processor computes in all of them")
    with pytest.raises(ModelLoadError, match=f"this processor computes no {lacking}"):
        OpenVinoSession(model, precision=lacking)


@needs_openvino
def test_an_answer_outlives_the_next_run(model):
    session = OpenVinoSession(model, precision="fp32")
    (ones,) = session.run(["out"], {"image": np.ones((1, 3, 32, 32), np.float32)})
    before = ones.copy()
    session.run(["out"], {"image": np.zeros((1, 3, 32, 32), np.float32)})
    assert np.array_equal(ones, before)


@needs_openvino
def test_a_failure_while_running_is_one_line(model):
    with pytest.raises(InferenceError, match=r"m\.onnx failed on a frame: .*1.3.7.7") as error:
        OpenVinoSession(model).run(["out"], {"image": np.ones((1, 3, 7, 7), np.float32)})
    assert "\n" not in str(error.value)


@needs_openvino
def test_a_network_it_does_not_know_is_one_line(tmp_path):
    path = tmp_path / "odd.onnx"
    path.write_bytes(model_of_unknown_operator())
    with pytest.raises(ModelLoadError, match=r"cannot load odd\.onnx on OpenVINO: ") as error:
        OpenVinoSession(path)
    assert "\n" not in str(error.value)


def model_of_unknown_operator():
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["x"], ["y"])],
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 8, 8])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@needs_openvino
def test_another_network_under_the_same_name_is_not_taken_from_the_cache(tmp_path):
    picture = np.ones((1, 3, 32, 32), np.float32)
    path = networks.matte(tmp_path / "m.onnx")
    stat = path.stat()
    (first,) = OpenVinoSession(path, precision="fp32").run(["out"], {"image": picture})
    networks.matte(path, alone=True)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (second,) = OpenVinoSession(path, precision="fp32").run(["out"], {"image": picture})
    assert first.mean() > 0.9 > 0.1 > second.mean()


@needs_openvino
def test_without_a_writable_cache_it_runs_all_the_same(model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "file" / "cache"))
    OpenVinoSession(model).run(["out"], {"image": np.ones((1, 3, 32, 32), np.float32)})


@needs_openvino
def test_the_probe_says_version_and_precision():
    assert try_out().endswith("bfloat16" if has_bf16() else "float32")


@needs_openvino
def test_nobody_is_told_that_it_is_used(tmp_path):
    """The package reports every import to Google Analytics; it leaves a folder in the home where it does."""
    code = "import sys; from streamseg.segment.openvino import try_out; try_out(); print(*sys.modules)"
    where = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=where, capture_output=True, text=True, check=True)
    assert not [name for name in done.stdout.split() if name.startswith("openvino_telemetry.")]
    assert not (tmp_path / "intel").exists()


def test_without_the_package_the_error_names_the_extra(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    for attempt in (lambda: OpenVinoSession(model), try_out):
        with pytest.raises(ModelLoadError, match=r'pip install "streamseg\[openvino\]"'):
            attempt()


@needs_openvino
@pytest.mark.material
def test_on_photographs_it_agrees_with_onnx_runtime(material):
    """Raw outputs of yolov8n-seg in fp32, relative to the size of each output's values."""
    path = material / "models/yolov8n-seg.onnx"
    sessions = [Session(path), OpenVinoSession(path, precision="fp32")]
    for photo in sorted((material / "media/people").glob("*.jpg"))[:3]:
        theirs, mine = (session.run(["output0", "output1"], {"images": blob_of(photo)}) for session in sessions)
        for expected, found in zip(theirs, mine, strict=True):
            assert np.abs(found - expected).max() < 2e-4 * np.abs(expected).max()


def blob_of(photo):
    import cv2

    picture = cv2.resize(cv2.imread(str(photo)), (640, 640))[..., ::-1]
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32) / 255


@needs_openvino
def test_sessions_side_by_side_answer_as_one_alone(tmp_path):
    path = KINDS["matte"](tmp_path)
    alone, *pair = (load_segmenter(path, provider="openvino", threads=1) for _ in range(3))
    frames = [noise(128, 96, seed) for seed in range(16)]
    pool = Pool(pair)
    waiting = [pool.submit(frame) for frame in frames]
    for frame, future in zip(frames, waiting, strict=True):
        assert np.array_equal(future.result(20).alpha, alone(frame).alpha)
    pool.close()
