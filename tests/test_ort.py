"""Sessions of ONNX Runtime: threads, and one line for whatever is wrong with a file or the installation."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys

import numpy as np
import pytest

from streamseg.errors import InferenceError, ModelLoadError
from streamseg.segment import load_segmenter, ort
from streamseg.segment.ort import PROVIDERS, Session, try_out, usable_cores
from tests import networks


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert not text.endswith(".")
    return text


@pytest.fixture
def model(tmp_path):
    return networks.matte(tmp_path / "m.onnx")


def test_runs_and_says_on_what(model):
    session = Session(model, provider="cpu", threads=1)
    assert (session.on.provider, session.on.threads, session.on.cpu_nodes) == ("cpu", 1, False)
    assert session.on.runtime.startswith("onnxruntime 1.")
    (out,) = session.run(["out"], {"image": np.ones((1, 3, 32, 32), np.float32)})
    assert np.allclose(out, 1 / (1 + np.exp(-5)))


def test_onnxruntime_keeps_no_book_about_this_machine(model, tmp_path):
    """Its telemetry begins with a file under the user's folder; it refrains by itself where it sees a CI or tests."""
    home = tmp_path / "home"
    home.mkdir()
    silent = ("CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in silent} | {"HOME": str(home)}
    program = f"from pathlib import Path; from streamseg.segment.ort import Session; Session(Path({str(model)!r}))"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(home.rglob("*onnxruntime*")) == []


MISSING = "Failed to load libcublas.so.13: libcublas.so.13: cannot open shared object file: No such file or directory"


def test_what_the_runtime_prints_of_missing_libraries_is_the_reason_and_not_on_standard_output(monkeypatch, capfd):
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print(MISSING, "Please follow https://...", sep="\n"))
    with pytest.raises(ModelLoadError) as error:
        try_out("cuda")
    assert "'cuda' cannot run: cannot load libcublas.so.13; pip install" in one_line(error)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("name", "full"), [("tensorrt", "TensorrtExecutionProvider"), ("cuda", PROVIDERS["cuda"][0])])
def test_tensorrt_is_loaded_from_its_package(monkeypatch, tmp_path, name, full):
    import onnxruntime

    (tmp_path / "tensorrt_libs.py").write_text("print('Failed to load libnvinfer.so.10: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [full, "CPUExecutionProvider"])
    with pytest.raises(ModelLoadError) as error:
        try_out(name)
    sys.modules.pop("tensorrt_libs", None)
    assert ("cannot load libnvinfer.so.10" in one_line(error)) == (name == "tensorrt")


def test_no_place_in_its_source_is_told():
    text = (
        "/onnxruntime_src/onnxruntime/python/state.cc:729 void onnxruntime::Register(Options&, int) Please install it"
    )
    assert ort.one_line(RuntimeError(text)) == "Please install it"


def unusable():
    for name in PROVIDERS:
        try:
            try_out(name)
        except ModelLoadError:
            return name
    pytest.skip("every provider runs here")


def test_a_provider_that_cannot_run_is_an_error_with_its_remedy(model):
    missing = unusable()
    with pytest.raises(ModelLoadError) as error:
        Session(model, provider=missing)
    assert f"{missing!r} cannot run" in one_line(error)
    assert PROVIDERS[missing][1] in str(error.value)


def test_a_provider_that_the_runtime_passes_over_in_silence(model, monkeypatch):
    """ONNX Runtime may go on with the CPU when a provider's libraries are missing; that must not pass."""
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    real = onnxruntime.InferenceSession

    def falls_back(source, options, providers, **rest):
        assert rest == {"enable_fallback": 0}
        return real(source, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", falls_back)
    with pytest.raises(ModelLoadError) as error:
        Session(model, provider="cuda")
    assert "went on with CPUExecutionProvider" in one_line(error)


def test_without_onnxruntime_the_error_names_the_extra(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelLoadError) as error:
        Session(model)
    assert 'pip install "streamseg[cpu]"' in one_line(error)


def test_a_broken_runtime_is_no_traceback(model, monkeypatch):
    monkeypatch.delitem(sys.modules, "onnxruntime")
    real = builtins.__import__

    def broken(name, *args, **rest):
        if name == "onnxruntime":
            raise ImportError("libonnxruntime.so.1: cannot open shared object file")
        return real(name, *args, **rest)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(ModelLoadError) as error:
        ort.try_out("cpu")
    assert "cannot open shared object" in one_line(error)


@pytest.mark.parametrize("keep", [0, 3, 40, 0.5, 0.95])
def test_a_file_cut_off_is_one_line(model, tmp_path, keep, capfd):
    data = model.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(ModelLoadError) as error:
        load_segmenter(path)
    assert "cut.onnx" in one_line(error)
    assert capfd.readouterr() == ("", "")


def test_a_file_with_flipped_bytes_never_escapes_as_anything_else(model, tmp_path):
    rng = np.random.default_rng(0)
    refusals = []
    for _ in range(40):
        data = bytearray(model.read_bytes())
        for place in rng.integers(0, len(data), 6):
            data[place] = rng.integers(0, 256)
        path = tmp_path / "flipped.onnx"
        path.write_bytes(data)
        try:
            load_segmenter(path, threads=1, warm_up=False)
        except ModelLoadError as error:
            refusals.append(str(error))
    assert len(refusals) > 10


def test_a_graph_that_the_runtime_refuses_is_one_line(tmp_path):
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["x"], ["y"])],
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 8, 8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "odd.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelLoadError) as error:
        load_segmenter(path)
    assert "odd.onnx" in one_line(error)


def test_a_failure_while_running_is_an_inference_error(model):
    session = Session(model, threads=1)
    with pytest.raises(InferenceError) as error:
        session.run(["out"], {"image": np.ones((1, 3, 7, 7), np.float32)})
    assert "m.onnx failed on a frame" in one_line(error)


def test_threads_follow_the_processors_that_this_process_may_use(monkeypatch):
    assert usable_cores() >= 1
    monkeypatch.setattr(ort.os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert usable_cores() == 1


def test_threads_follow_a_containers_quota(monkeypatch):
    monkeypatch.setattr(ort.os, "sched_getaffinity", lambda _: set(range(1000, 1016)), raising=False)
    monkeypatch.setattr(ort, "_cpu_quota", lambda: 3)
    assert usable_cores() == 3
