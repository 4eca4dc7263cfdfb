"""NVIDIA cards: what can be told without one, with stand-ins for ONNX Runtime's API; and real ones where they are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from streamseg.errors import InferenceError, ModelLoadError
from streamseg.segment import cuda, ladder, load_segmenter
from streamseg.segment.cuda import CudaSession
from streamseg.segment.ladder import Wanted, open_session
from streamseg.segment.ort import Session
from tests import networks
from tests.test_segmenters import noise

ONES = {"image": np.ones((1, 3, 32, 32), np.float32)}


class OnCard:
    """A tensor on the card."""

    def __init__(self, shape, dtype):
        self.array = np.zeros(shape, dtype)

    def update_inplace(self, array):
        np.copyto(self.array, array)

    def numpy(self):
        return self.array

    def data_ptr(self):
        return self.array.ctypes.data


class Binding:
    def __init__(self):
        self.inputs, self.outputs = {}, {}

    def bind_ortvalue_input(self, name, value):
        self.inputs[name] = value

    def bind_ortvalue_output(self, name, value):
        self.outputs[name] = value


class OnnxSession:
    """out = 2 * image, on the card; a graph cannot be recorded where `disturbed`."""

    def __init__(self, options, shape, disturbed, made="tensor(float)"):
        self.options, self.shape, self.disturbed, self.made = options, shape, disturbed, made
        self.bindings = []

    def get_inputs(self):
        return [SimpleNamespace(name="image", shape=self.shape, type="tensor(float)")]

    def get_outputs(self):
        return [SimpleNamespace(name="out", shape=self.shape, type=self.made)]

    def io_binding(self):
        return Binding()

    def run(self, outputs, feeds):
        return [feeds["image"] * 2]

    def run_with_iobinding(self, binding):
        if self.disturbed and self.options["enable_cuda_graph"] == "1":
            raise RuntimeError("CUDA error 900")
        self.bindings.append(binding)
        np.multiply(binding.inputs["image"].array, 2, out=binding.outputs["out"].array)


class FakeCard:
    waits = 0

    def page_locked(self, shape, dtype):
        return np.empty(shape, dtype)

    def wait(self):
        FakeCard.waits += 1

    def fetch(self, into, address):
        import ctypes

        ctypes.memmove(into.ctypes.data, address, into.nbytes)


@pytest.fixture
def model(tmp_path):
    return networks.matte(tmp_path / "m.onnx")


@pytest.fixture
def card(monkeypatch):
    """A machine with a card; gives the options that sessions were built with."""
    built, found = [], []

    def machine(*, library=True, cpu_nodes=False, shape=(1, 3, 32, 32), disturbed=False, made="tensor(float)"):
        runtime = SimpleNamespace(
            __version__="1.99",
            OrtValue=SimpleNamespace(ortvalue_from_shape_and_type=lambda shape, dtype, *device: OnCard(shape, dtype)),
        )

        def load(path, provider, threads, options):
            built.append(dict(options))
            if cpu_nodes and "1" in (options.get("enable_cuda_graph"), options.get("trt_cuda_graph_enable")):
                raise ModelLoadError("all compute graph nodes have not been partitioned to the CUDAExecutionProvider")
            return runtime, OnnxSession(options, shape, disturbed, made), cpu_nodes

        monkeypatch.setattr(cuda, "try_out", lambda provider: found.append(provider))
        monkeypatch.setattr(cuda, "load", load)
        # Before the provider was tried, its libraries are not there.
        monkeypatch.setattr(cuda.Card, "found", classmethod(lambda cls: FakeCard() if library and found else None))
        return built

    return machine


@pytest.mark.parametrize("library", [True, False])
def test_input_and_outputs_stay_in_place_and_answers_are_copies(card, model, library):
    built = card(library=library)
    session = CudaSession(model)
    (first,) = session.run(["out"], ONES)
    before = first.copy()
    (second,) = session.run(["out"], {"image": ONES["image"] * 3})
    assert np.array_equal(first, before)
    assert (first == 2).all()
    assert (second == 6).all()
    bindings = session._session.bindings
    assert bindings[0] is bindings[1]
    assert [options["enable_cuda_graph"] for options in built] == ["1" if library else "0"]


def test_the_card_has_copied_before_a_graph_is_replayed(card, model):
    card()
    FakeCard.waits = 0
    CudaSession(model).run(["out"], ONES)
    assert FakeCard.waits == 1


def test_free_shapes_and_what_is_partly_on_the_cpu_are_no_graph(card, model, tmp_path):
    built = card(cpu_nodes=True)
    assert CudaSession(model).on.cpu_nodes
    assert [options["enable_cuda_graph"] for options in built] == ["1", "0"]
    built.clear()
    free = networks.yolo_seg(
        tmp_path / "free.onnx", np.zeros((39, 4)), np.zeros((32, 2, 2)), input_shape=(1, 3, "h", "w")
    )
    card(shape=(1, 3, "h", "w"))
    (answer,) = CudaSession(free).run(["out"], ONES)
    assert (answer == 2).all()
    assert [options["enable_cuda_graph"] for options in built] == ["0"]


@pytest.mark.parametrize(("made", "graphs"), [("tensor(int64)", ["1"]), ("tensor(string)", ["1", "0"])])
def test_what_has_no_fixed_place_is_no_graph(card, model, made, graphs):
    """A graph that is replayed reads and writes where it was recorded, whatever it is fed."""
    built = card(made=made)
    CudaSession(model)
    assert [options["enable_cuda_graph"] for options in built] == graphs


def test_tensorrt_has_words_of_its_own(card, model):
    built = card()
    CudaSession(model, provider="tensorrt")
    assert built == [{"trt_cuda_graph_enable": "True"}]


@pytest.mark.parametrize(
    ("version", "names"),
    [("13.0", ("libcudart.so.13", "cudart64_13.dll")), ("12.8", ("libcudart.so.12", "cudart64_12.dll")), ("", ())],
)
def test_the_cuda_library_is_that_of_onnx_runtime(monkeypatch, version, names):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "cuda_version", version, raising=False)
    assert cuda._library_names() == names


def test_a_graph_that_cannot_be_recorded_is_done_without(card, model):
    built = card(disturbed=True)
    (answer,) = CudaSession(model).run(["out"], ONES)
    assert (answer == 2).all()
    assert [options["enable_cuda_graph"] for options in built] == ["1", "0"]


def test_another_shape_is_an_inference_error(card, model):
    card(library=False)
    with pytest.raises(InferenceError, match=r"m\.onnx failed on a frame: image is \(1, 3, 7, 7\)"):
        CudaSession(model).run(["out"], {"image": np.ones((1, 3, 7, 7), np.float32)})


@pytest.mark.parametrize(("precision", "tf32"), [("auto", "1"), ("fp32", "0")])
def test_fp32_is_no_tf32(card, model, precision, tf32):
    built = card()
    open_session(Wanted(model, "cuda", precision=precision))
    assert built[0]["use_tf32"] == tf32


def test_bf16_is_not_to_be_had(model):
    with pytest.raises(ModelLoadError, match="'cuda' computes in what the file holds, not in bf16"):
        open_session(Wanted(model, "cuda", precision="bf16"))


@pytest.fixture(params=["cuda", "tensorrt"])
def real(request, tmp_path, monkeypatch):
    """A provider that really runs here."""
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    try:
        ladder.try_out(request.param)
    except ModelLoadError as error:
        pytest.skip(f"needs an NVIDIA card: {error}")
    return request.param


@pytest.mark.nvidia
@pytest.mark.parametrize("half", [False, True])
def test_a_real_card_answers_as_the_cpu_does(real, tmp_path, half):
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 1, (4 + 3 + 32, 20)).astype(np.float32)
    path = networks.yolo_seg(
        tmp_path / "m.onnx", boxes, rng.normal(0, 1, (32, 16, 16)), dtype=np.float16 if half else np.float32
    )
    expected, found = (load_segmenter(path, provider=name)(noise(128, 96)) for name in ("cpu", real))
    assert len(expected)
    assert np.allclose(found.matte(), expected.matte(), atol=0.02)


@pytest.mark.nvidia
@pytest.mark.material
def test_yolo_on_a_real_card_answers_as_on_the_cpu_frame_after_frame(real, material):
    path = material / "models/yolov8n-seg.onnx"
    session, reference = open_session(Wanted(path, real)), Session(path)
    assert session.on.provider == real
    assert not session.on.cpu_nodes
    for seed in range(5):  # a graph is recorded at the third, and replayed from then on
        picture = {"images": np.random.default_rng(seed).random((1, 3, 640, 640), np.float32)}
        names = ["output0", "output1"]
        for expected, found in zip(reference.run(names, picture), session.run(names, picture), strict=True):
            assert np.abs(found - expected).mean() < 0.02 * np.abs(expected).mean()
