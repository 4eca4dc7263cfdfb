"""What every segmenter keeps to, whatever its network."""

from __future__ import annotations

import hashlib
import json
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from streamseg.errors import ModelLoadError
from streamseg.frame import Colour, Frame, Origin
from streamseg.segment import load_segmenter
from tests import networks
from tests.test_yolo import DETECTIONS, PROTOTYPES

KINDS = {
    "yolo": lambda folder: networks.yolo_seg(folder / "net.onnx", DETECTIONS, PROTOTYPES),
    "yolo-half": lambda folder: networks.yolo_seg(folder / "net.onnx", DETECTIONS, PROTOTYPES, dtype=np.float16),
    "yolo-dynamic": lambda folder: networks.yolo_seg(
        folder / "net.onnx", DETECTIONS, PROTOTYPES, input_shape=(1, 3, "h", "w")
    ),
    "matte": lambda folder: networks.matte(folder / "net.onnx"),
    "matte-last": lambda folder: networks.matte(folder / "net.onnx", layout="nhwc"),
}


@pytest.fixture(params=KINDS)
def path(request, tmp_path):
    return KINDS[request.param](tmp_path)


def has_no_half() -> bool:
    """Whether ONNX Runtime's CPU has no convolution of half floats: asked of itself, what it makes of one."""
    half = onnx.TensorProto.FLOAT16
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"])],
        "half",
        [onnx.helper.make_tensor_value_info("x", half, [1, 1, 4, 4])],
        [onnx.helper.make_tensor_value_info("y", half, [1, 1, 4, 4])],
        [onnx.helper.make_tensor("w", half, [1, 1, 1, 1], [1.0])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "as-it-runs.onnx")
        options.log_severity_level = 4
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return "Cast" in {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}


def noise(width, height, seed=0):
    planes = np.random.default_rng(seed).integers(0, 256, (height * 3 // 2, width), dtype=np.uint8)
    return Frame(planes, 7, Fraction(1, 30), 3, 0.0, Colour(), Origin("noise", (width, height)))


@pytest.mark.parametrize("size", [(128, 96), (64, 64), (2, 2), (98, 202), (400, 2)])
def test_the_matte_is_opacity_over_the_frame(path, size):
    segment = load_segmenter(path, threads=1)
    seen = segment(noise(*size))
    assert seen.frame_wh == size
    for largest in (False, True):
        alpha = seen.matte([0], largest=largest)
        assert alpha.dtype == np.float32
        assert alpha.ndim == 2
        assert alpha.size
        assert alpha.min() >= 0
        assert alpha.max() <= 1


def test_the_frame_is_left_alone_and_the_answer_repeats(path):
    segment = load_segmenter(path, threads=1)
    picture = noise(128, 96)
    before = picture.planes.copy()
    first = segment(picture).matte().copy()
    segment(noise(128, 96, seed=1))
    assert np.array_equal(segment(picture).matte(), first)
    assert np.array_equal(picture.planes, before)


def test_an_answer_outlives_the_next_frame(path):
    segment = load_segmenter(path, threads=1)
    seen = segment(noise(128, 96))
    first = seen.matte().copy()
    segment(noise(128, 96, seed=1))
    assert np.array_equal(seen.matte(), first)


def test_a_report_says_what_ran(path):
    report = load_segmenter(path, provider="cpu", threads=1).describe()
    json.dumps(report)
    assert report["model"] == "net.onnx"
    assert report["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report["provider"] == "cpu"
    assert report["threads"] == 1
    assert len(report["input_shape"]) == 4
    assert report["family"] in ("yolo-seg", "matte")
    assert report["precision"] in ("float32", "float16")
    assert report["runtime"].startswith("onnxruntime 1.")
    half = report["precision"] == "float16"
    assert report["computes_in"] == ("float32" if half and has_no_half() else report["precision"])


def test_a_fixed_input_takes_no_other_size(tmp_path):
    path = KINDS["yolo"](tmp_path)
    with pytest.raises(ModelLoadError, match="fixed input of 64x64, not 320x192; leave the size out"):
        load_segmenter(path, size_wh=(320, 192))
    load_segmenter(path, size_wh=(64, 64), threads=1)


@pytest.mark.parametrize("size", [(100, 64), (64, 33), (0, 0)])
def test_a_size_that_the_stride_does_not_divide(tmp_path, size):
    with pytest.raises(ModelLoadError, match="multiple of the network's stride, 32"):
        load_segmenter(KINDS["yolo-dynamic"](tmp_path), size_wh=size)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: networks.matte(path, channels=1), "takes no RGB picture"),
        (lambda path: networks.yolo_seg(path, DETECTIONS, PROTOTYPES, input_shape=(1, 64, 64, 3)), "layout"),
        (lambda path: networks.yolo_seg(path, DETECTIONS, PROTOTYPES, input_shape=(1, 1, 64, 64)), "no RGB picture"),
        (lambda path: networks.yolo_seg(path, DETECTIONS, PROTOTYPES, input_shape=(1, 4, 64, 64)), "images float32"),
        (lambda path: networks.yolo_seg(path, DETECTIONS, PROTOTYPES, names=("a", "b")), "names 2 classes"),
        (lambda path: networks.yolo_seg(path, DETECTIONS[:9], PROTOTYPES[:0]), "no segmentation network"),
    ],
)
def test_another_input_or_output_is_described(tmp_path, make, says):
    path = make(tmp_path / "net.onnx")
    with pytest.raises(ModelLoadError, match=says) as error:
        load_segmenter(path)
    assert "\n" not in str(error.value)
    assert "net.onnx" in str(error.value)


@pytest.mark.material
@pytest.mark.parametrize("name", ["rvm_mobilenetv3_720p"])
def test_networks_of_other_families_are_described(material, name):
    with pytest.raises(ModelLoadError, match="outputs: "):
        load_segmenter(material / f"models/{name}.onnx")


@pytest.mark.material
def test_a_checkpoint_is_no_model_to_run(material):
    with pytest.raises(ModelLoadError, match="models import"):
        load_segmenter(material / "models/yolov8n-seg.pt")
