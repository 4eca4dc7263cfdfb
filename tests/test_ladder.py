"""Which runtime a network gets: what was asked, or the first that works, and what is said about it."""

from __future__ import annotations

import pytest

from streamseg.app.network import Sessions
from streamseg.errors import ModelLoadError
from streamseg.segment import ladder, openvino, tensorrt
from streamseg.segment.ladder import Wanted, describe_running, open_session, probe
from streamseg.segment.ort import AbsentError, Running
from tests import networks

RUNGS = ("tensorrt", "cuda", "coreml", "directml", "openvino", "cpu")


@pytest.fixture(autouse=True)
def _whole_ladder(_auto_is_the_processor, monkeypatch):
    monkeypatch.setattr(ladder, "_AUTO", RUNGS)


@pytest.fixture
def model(tmp_path):
    return networks.matte(tmp_path / "m.onnx")


class Opened:
    def __init__(self, name, cpu_nodes=False):
        self.on = Running(name, "runtime 1.0", 2, "float32", cpu_nodes)


@pytest.fixture
def only(monkeypatch):
    """Machines on which but some rungs work; notes which were tried."""
    tried = []

    def machine(*working, package=True):
        def session(path, provider, threads):
            tried.append(provider)
            if provider not in working:
                kind = ModelLoadError if provider == "cuda" else AbsentError
                raise kind(f"execution provider {provider!r} cannot run: not here")
            return Opened(provider)

        def package_session(path, *, threads, precision):
            tried.append("openvino package")
            if "openvino" not in working:
                raise ModelLoadError("cannot load m.onnx on OpenVINO: not here")
            return Opened("openvino")

        monkeypatch.setattr(ladder, "Session", session)
        monkeypatch.setattr(ladder, "CudaSession", lambda path, threads, options: session(path, "cuda", threads))
        monkeypatch.setattr(
            tensorrt, "open_checked", lambda path, threads, precision, say: session(path, "tensorrt", threads)
        )
        monkeypatch.setattr(openvino, "OpenVinoSession", package_session)
        monkeypatch.setattr(openvino, "installed", lambda: package)
        return tried

    return machine


@pytest.mark.parametrize("first", RUNGS)
def test_auto_takes_the_first_that_really_builds_a_session(only, model, first):
    working = RUNGS[RUNGS.index(first) :]
    tried = only(*working)
    assert open_session(Wanted(model)).on.provider == first
    assert [name.split()[0] for name in tried] == list(RUNGS[: RUNGS.index(first) + 1])


def test_a_gpu_that_is_passed_over_for_the_processor_is_not_passed_over_in_silence(only, model):
    said = []
    only("directml", "cpu")
    open_session(Wanted(model), said.append)
    assert said == []
    only("cpu")
    open_session(Wanted(model), said.append)
    assert said == ["passed over: execution provider 'cuda' cannot run: not here"]


def test_what_was_asked_for_is_not_replaced_by_anything_else(only, model):
    tried = only("cpu", "openvino")
    with pytest.raises(ModelLoadError, match="'cuda' cannot run"):
        open_session(Wanted(model, "cuda"))
    assert tried == ["cuda"]


def test_openvino_is_its_own_package_where_that_is_installed(only, model):
    tried = only("openvino")
    open_session(Wanted(model, "openvino"))
    assert tried == ["openvino package"]


def test_openvino_is_a_provider_of_onnx_runtime_where_it_is_not(only, model):
    tried = only("openvino", package=False)
    open_session(Wanted(model, "openvino"))
    assert tried == ["openvino"]


def test_an_absent_openvino_names_its_remedy(model, monkeypatch):
    monkeypatch.setattr(openvino, "installed", lambda: False)
    onnxruntime = pytest.importorskip("onnxruntime")
    if "OpenVINOExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime brings OpenVINO here")
    with pytest.raises(ModelLoadError) as error:
        open_session(Wanted(model, "openvino"))
    assert 'pip install "streamseg[openvino]"' in str(error.value)
    assert "\n" not in str(error.value)


def test_where_nothing_runs_the_error_is_that_of_the_processor(only, model):
    only()
    with pytest.raises(ModelLoadError, match="'cpu' cannot run"):
        open_session(Wanted(model))


def test_a_precision_goes_to_who_can_choose_it(only, model):
    tried = only("cpu", "openvino")
    open_session(Wanted(model, precision="bf16"))
    assert tried == ["tensorrt", "openvino package"]
    with pytest.raises(ModelLoadError, match="'cpu' computes in what the file holds, not in bf16"):
        open_session(Wanted(model, "cpu", precision="bf16"))


def test_an_unknown_provider_lists_those_there_are(model):
    with pytest.raises(ModelLoadError, match="'gpu'; there are auto, tensorrt, cuda"):
        open_session(Wanted(model, "gpu"))


def test_what_runs_is_told_in_full():
    assert describe_running(Running("cpu", "onnxruntime 1.31", 1)) == "cpu (onnxruntime 1.31, 1 thread)"
    on = Running("cuda", "onnxruntime 1.31", 2, "float16", cpu_nodes=True)
    assert describe_running(on) == "cuda (onnxruntime 1.31, float16, part of it on the CPU)"


def test_every_rung_is_probed_and_the_processor_runs():
    found = probe()
    assert [name for name, _, _ in found] == list(RUNGS)
    name, ok, runtime = found[-1]
    assert (name, ok) == ("cpu", True)
    assert runtime.startswith("onnxruntime ")
    assert all(said and "\n" not in said for _, _, said in found)


def test_streams_share_a_session_and_what_auto_took_is_said_once(only, model):
    only("openvino")
    sessions = Sessions()
    shared = sessions(Wanted(model), print)
    assert sessions(Wanted(model.parent / "." / model.name), print) is shared
    assert sessions.take_remarks() == ["the network runs on openvino (runtime 1.0, float32, 2 threads)"]
    assert sessions.take_remarks() == []
    assert sessions(Wanted(model, "openvino", precision="fp32"), print) is not shared
    assert sessions.take_remarks() == []
