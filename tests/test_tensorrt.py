"""TensorRT's engines: where they are kept, and that none is trusted that does not agree with the CPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from streamseg.errors import InferenceError, ModelLoadError
from streamseg.segment import tensorrt
from streamseg.segment.inspect import inspect_onnx
from streamseg.segment.ladder import Wanted, open_session
from streamseg.segment.ort import Running, Session
from streamseg.segment.tensorrt import disagreement, engine_folder, probe_feeds
from tests import networks

MACHINE = ("onnxruntime 1.31", "NVIDIA X, 9.0, 555.1", "101300")


@pytest.fixture
def model(tmp_path):
    return networks.matte(tmp_path / "m.onnx")


@pytest.fixture
def engines(tmp_path, monkeypatch):
    """A machine with TensorRT. `state["answers"]` says what each engine that is opened gives, one after the other."""
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    state = {"answers": [], "built": 0, "options": []}

    class Engine:
        def __init__(self, path, *, provider, threads, options, precision):
            folder = tensorrt.Path(options["trt_engine_cache_path"])
            state["options"].append(options)
            if not list(folder.glob("*.engine")):
                state["built"] += 1
                (folder / "graph.engine").write_text("an engine")
            self.answer = state["answers"].pop(0) if state["answers"] else "right"
            if self.answer == "broken":
                raise ModelLoadError("cannot load m.onnx on 'tensorrt': damaged engine")
            self.real = Session(path)
            self.on = Running(provider, "onnxruntime 1.31", 1, precision)

        def run(self, outputs, feeds):
            if self.answer == "fails":
                raise InferenceError("m.onnx failed on a frame: CUDA error 700")
            factor = {"right": 1.001, "wrong": 0.5, "nan": np.nan}[self.answer]
            return [array * factor for array in self.real.run(outputs, feeds)]

    monkeypatch.setattr(tensorrt, "CudaSession", Engine)
    monkeypatch.setattr(tensorrt, "try_out", lambda name: MACHINE[0])
    monkeypatch.setattr(tensorrt, "_machine", lambda: MACHINE[1:])
    return state


def test_an_engine_is_built_once_and_kept(engines, model):
    said = []
    for _ in range(2):
        session = open_session(Wanted(model, "tensorrt"), said.append)
        assert (session.on.provider, session.on.precision) == ("tensorrt", "float16")
    assert engines["built"] == 1
    assert len(said) == 1
    assert "takes minutes" in said[0]


@pytest.mark.parametrize("wrong", ["wrong", "nan", "broken", "fails"])
def test_a_cached_engine_that_does_not_agree_is_built_anew_once(engines, model, wrong):
    open_session(Wanted(model, "tensorrt"))
    engines["answers"] = [wrong, "right"]
    assert open_session(Wanted(model, "tensorrt")).answer == "right"
    assert engines["built"] == 2


@pytest.mark.parametrize("wrong", ["wrong", "nan", "broken", "fails"])
def test_a_new_engine_that_does_not_agree_is_an_error_and_is_not_kept(engines, model, wrong):
    engines["answers"] = [wrong]
    with pytest.raises(ModelLoadError, match=r"engine of m\.onnx is of no use: .*; choose --provider cuda") as error:
        open_session(Wanted(model, "tensorrt"))
    assert "\n" not in str(error.value)
    assert engines["built"] == 1
    open_session(Wanted(model, "tensorrt"))
    assert engines["built"] == 2
    engines["answers"] = [wrong, wrong]  # the cached one, then the new one
    with pytest.raises(ModelLoadError, match="of no use"):
        open_session(Wanted(model, "tensorrt"))
    assert engines["built"] == 3


@pytest.mark.parametrize(
    ("precision", "flags"),
    [("auto", {"trt_fp16_enable": "True"}), ("bf16", {"trt_bf16_enable": "True"}), ("fp32", {})],
)
def test_the_precision_is_an_option_of_the_engine(engines, model, precision, flags):
    open_session(Wanted(model, "tensorrt", precision=precision))
    (options,) = engines["options"]
    assert {name: value for name, value in options.items() if name in ("trt_fp16_enable", "trt_bf16_enable")} == flags


def test_a_free_input_is_refused_with_what_to_do(engines, tmp_path):
    path = networks.yolo_seg(
        tmp_path / "free.onnx", np.zeros((39, 4)), np.zeros((32, 2, 2)), input_shape=(1, 3, "h", "w")
    )
    with pytest.raises(ModelLoadError, match=r"free\.onnx leaves the size of its input open"):
        open_session(Wanted(path, "tensorrt"))
    assert engines["built"] == 0


def test_every_part_of_the_key_gives_another_place(model, tmp_path):
    facts = inspect_onnx(model)
    wider = dataclasses.replace(facts, image=dataclasses.replace(facts.image, shape=(1, 3, 32, 64)))
    other = networks.matte(tmp_path / "other.onnx", alone=True)
    machines = [tuple("other" if place == n else part for place, part in enumerate(MACHINE)) for n in range(3)]
    places = [
        engine_folder(model, facts, "fp16", MACHINE),
        engine_folder(model, facts, "fp32", MACHINE),
        engine_folder(model, wider, "fp16", MACHINE),
        engine_folder(other, facts, "fp16", MACHINE),
        *(engine_folder(model, facts, "fp16", machine) for machine in machines),
    ]
    assert len(set(places)) == len(places)
    assert engine_folder(model, facts, "fp16", MACHINE) == places[0]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_frame_to_compare_on_is_a_picture_that_the_network_takes(tmp_path, layout):
    path = networks.matte(tmp_path / "m.onnx", layout=layout)
    feeds = probe_feeds(inspect_onnx(path))
    picture = feeds["image"]
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert picture.std() > 0.1
    (answer,) = Session(path).run(["out"], feeds)
    assert answer.std() > 0.1


def test_disagreement_is_that_of_the_worst_channel():
    expected = np.stack([np.full((4, 4), 100.0), np.full((4, 4), 1.0)])[None]
    found = expected.copy()
    assert disagreement(expected, found) == 0
    found[:, 1] = 0.5  # next to nothing beside the first channel
    assert disagreement(expected, found) == pytest.approx(0.5)
    assert disagreement(expected, found[:, :1]) == float("inf")
    found[0, 0, 0, 0] = np.nan
    assert disagreement(expected, found) == float("inf")
