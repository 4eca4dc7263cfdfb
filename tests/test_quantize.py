"""Networks in int8: what is quantised and what is not, that they run, and what is told about the loss."""

from __future__ import annotations

import argparse
import weakref

import av
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from streamseg.cli import models
from streamseg.cli.evaluate import frames_of
from streamseg.errors import ConfigError, ModelLoadError
from streamseg.evaluate.agreement import agreement
from streamseg.segment import load_segmenter
from streamseg.segment.inspect import inspect_onnx
from streamseg.segment.quantize import kept_in_float, quantized, spread
from tests import networks
from tests.test_segmenters import noise
from tests.test_yolo import DETECTIONS, PROTOTYPES

RNG = np.random.default_rng(0)


def conv(name, source, target, outputs, inputs, weights, size=3):
    values = RNG.normal(0, (inputs * size * size) ** -0.5, (outputs, inputs, size, size)).astype(np.float32)
    weights.append(numpy_helper.from_array(values, f"{name}.w"))
    return helper.make_node("Conv", [source, f"{name}.w"], [target], name=name, pads=[size // 2] * 4)


def saved(path, nodes, outputs, weights, metadata=None, opset=17):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, 64, 64))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def portrait(path, opset=17):
    """Three convolutions and a sigmoid; most of its answer is how red a place is."""
    weights = []
    nodes = [conv("stem", "images", "a", 16, 3, weights), helper.make_node("Relu", ["a"], ["b"], name="relu")]
    nodes += [conv("body", "b", "c", 16, 16, weights), helper.make_node("Relu", ["c"], ["d"], name="relu2")]
    nodes += [conv("head", "d", "e", 1, 16, weights), helper.make_node("Sigmoid", ["e"], ["out"], name="sigmoid")]
    return saved(path, nodes, [("out", (1, 1, 64, 64))], weights, {"names": "{0: 'person'}", "author": "me"}, opset)


def yolo(path):
    """The shape of YOLOv8-seg's end: branches for sides, scores and coefficients, a softmax, prototypes."""
    weights = []

    def shape(name, *sizes):
        weights.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
        return name

    nodes = [
        conv("stem", "images", "x", 8, 3, weights),
        conv("neck", "x", "features", 8, 8, weights),
        conv("sides.0", "features", "s0", 8, 8, weights),
        conv("sides.1", "s0", "s1", 16, 8, weights, 1),
        conv("scores.0", "features", "c0", 8, 8, weights),
        conv("scores.1", "c0", "c1", 3, 8, weights, 1),
        conv("coefficients.0", "features", "m0", 8, 8, weights),
        conv("coefficients.1", "m0", "m1", 32, 8, weights, 1),
        conv("prototypes.0", "features", "p0", 8, 8, weights),
        conv("prototypes.1", "p0", "protos", 32, 8, weights, 1),
        helper.make_node("Reshape", ["s1", shape("four", 1, 4, 4, 4096)], ["s2"], name="unfold"),
        helper.make_node("Transpose", ["s2"], ["s3"], name="turn", perm=[0, 2, 1, 3]),
        helper.make_node("Softmax", ["s3"], ["s4"], name="softmax", axis=1),
        conv("mean", "s4", "s5", 1, 4, weights, 1),
        helper.make_node("Reshape", ["s5", shape("flat", 1, 4, 4096)], ["boxes"], name="boxes"),
        helper.make_node("Reshape", ["c1", shape("three", 1, 3, 4096)], ["c2"], name="flat-scores"),
        helper.make_node("Sigmoid", ["c2"], ["c3"], name="sigmoid"),
        helper.make_node("Reshape", ["m1", shape("many", 1, 32, 4096)], ["m2"], name="flat-coefficients"),
        helper.make_node("Concat", ["boxes", "c3", "m2"], ["found"], name="concat", axis=1),
    ]
    outputs = [("found", (1, 39, 4096)), ("protos", (1, 32, 64, 64))]
    metadata = {"names": "{0: 'person', 1: 'bicycle', 2: 'car'}", "stride": "32", "task": "segment"}
    return saved(path, nodes, outputs, weights, metadata)


def pictures(count, start=0):
    return [noise(96, 64, seed) for seed in range(start, start + count)]


def test_the_last_convolutions_and_all_behind_them_stay_in_float(tmp_path):
    path = yolo(tmp_path / "y.onnx")
    kept = kept_in_float(onnx.load(str(path)).graph, inspect_onnx(path))
    named = {node.name for node in onnx.load(str(path)).graph.node}
    assert named - kept == {"stem", "neck", "sides.0", "scores.0", "coefficients.0"}


def test_what_is_not_kept_is_in_int8_with_a_scale_for_each_channel(tmp_path):
    path = portrait(tmp_path / "p.onnx")
    model = onnx.load_from_string(quantized(path, pictures(4)))
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    makers = {name: node for node in model.graph.node for name in node.output}
    from_int8 = [makers.get(node.input[1]) for node in convolutions]
    assert [maker is not None for maker in from_int8] == [True, True, False]
    for maker in from_int8[:2]:
        assert maker.op_type == "DequantizeLinear"
        assert weights[maker.input[0]].dtype == np.int8
        assert weights[maker.input[1]].shape == (16,)


@pytest.mark.parametrize("opset", [11, 17])
def test_the_copy_is_a_network_of_the_same_kind_and_says_nearly_the_same(tmp_path, opset):
    path = portrait(tmp_path / "p.onnx", opset)
    copy = tmp_path / "p-int8.onnx"
    copy.write_bytes(quantized(path, pictures(8)))
    facts = inspect_onnx(copy)
    assert (facts.family, facts.metadata) == ("matte", inspect_onnx(path).metadata)
    pair = [load_segmenter(file, threads=1) for file in (path, copy)]
    found = agreement(*pair, pictures(4, 100))
    assert found["IoU"] > 0.9
    assert 0 < found["difference"] < 0.02


def test_a_yolo_copy_runs(tmp_path):
    path = yolo(tmp_path / "y.onnx")
    copy = tmp_path / "y-int8.onnx"
    copy.write_bytes(quantized(path, pictures(3)))
    assert inspect_onnx(copy).family == "yolo-seg"
    load_segmenter(copy, threads=1, confidence=0.9)(noise(96, 64))


@pytest.mark.parametrize("kind", ["half", "int8", "classifier"])
def test_what_cannot_be_quantised_is_refused_in_one_line(tmp_path, kind):
    path = tmp_path / "net.onnx"
    if kind == "half":
        networks.yolo_seg(path, DETECTIONS, PROTOTYPES, dtype=np.float16)
    elif kind == "int8":
        path.write_bytes(quantized(portrait(tmp_path / "p.onnx"), pictures(1)))
    else:
        weights = []
        saved(path, [conv("c", "images", "out", 3, 3, weights)], [("out", (1, 3, 64, 64))], weights)
        model = onnx.load(str(path))
        model.graph.output[0].type.tensor_type.shape.dim.pop()
        path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelLoadError) as error:
        quantized(path, pictures(1))
    assert "net.onnx" in str(error.value)
    assert "\n" not in str(error.value)


def test_frames_are_spread_evenly_over_a_clip_of_any_length():
    for length in (0, 1, 7, 8, 50, 1000):
        kept = list(spread(length, 4))
        assert len(kept) == length if length < 8 else 4 <= len(kept) < 8
        steps = set(np.diff(kept))
        assert len(steps) <= 1
        if length >= 8:
            assert kept[-1] >= length - 2 * steps.pop()


def test_agreement_with_itself_is_full_and_with_another_is_not(tmp_path):
    one = networks.yolo_seg(tmp_path / "one.onnx", DETECTIONS, PROTOTYPES)
    none = networks.yolo_seg(tmp_path / "none.onnx", DETECTIONS * 0.01, PROTOTYPES)
    first, second = (load_segmenter(path, threads=1) for path in (one, none))
    assert agreement(first, load_segmenter(one, threads=1), pictures(2))["mask AP"] == pytest.approx(1)
    assert agreement(first, second, pictures(2))["mask AP"] == 0


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for seed in range(12):
            picture = np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path


def call(*words):
    parser = argparse.ArgumentParser(prog="streamseg")
    models.add_parser(parser.add_subparsers())
    args = parser.parse_args(["models", "quantize", *map(str, words)])
    return args.function(args)


def test_the_command_makes_a_network_by_name_and_tells_size_loss_and_speed(tmp_path, monkeypatch, capsys, clip):
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    planes, most = [], 0

    def counted(url):
        nonlocal most
        for frame in frames_of(url):
            planes.append(weakref.ref(frame.planes))
            most = max(most, sum(one() is not None for one in planes))
            yield frame

    monkeypatch.setattr("streamseg.cli.quantize.frames_of", counted)
    assert call(portrait(tmp_path / "p.onnx"), "--calibrate", clip, "--frames", 3, "--threads", 1) == 0
    assert len(planes) > 24
    assert most <= 3, "a long clip does not have to fit into memory"
    said = capsys.readouterr().out
    assert "p-int8 is ready" in said
    assert "agreement on " in said
    assert "IoU 0.9" in said or "IoU 1.0" in said
    assert "times as fast" in said
    assert inspect_onnx(tmp_path / "cache/models/p-int8.onnx").family == "matte"


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["--frames", "0"], "--frames must be at least 1, not 0"),
        (["--labels", "nowhere"], "nowhere holds no folder images"),
    ],
)
def test_bad_words_are_one_line(tmp_path, clip, words, pattern):
    with pytest.raises(ConfigError, match=pattern):
        call(portrait(tmp_path / "p.onnx"), "--calibrate", clip, *words)
