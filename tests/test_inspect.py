"""The family is read from the graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from streamseg.errors import ModelLoadError
from streamseg.segment.inspect import GraphFacts, inspect_onnx

Shape = Sequence[int | str | None]
Tensors = Sequence[tuple[str, Shape]]
SEG: Tensors = [("output0", [1, 116, 8400]), ("output1", [1, 32, 160, 160])]


def write_onnx(
    path: Path,
    inputs: Tensors,
    outputs: Tensors,
    metadata: dict[str, str] | None = None,
    dtype: int = TensorProto.FLOAT,
) -> Path:
    """A graph with these tensors; what lies between is of no interest here."""
    given = [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs]
    made = [helper.make_tensor_value_info(name, dtype, shape) for name, shape in outputs]
    nodes = [helper.make_node("Identity", [inputs[0][0]], [name]) for name, _ in outputs]
    model = helper.make_model(helper.make_graph(nodes, "g", given, made), opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, metadata or {})
    onnx.save(model, str(path))
    return path


def facts_of(tmp_path: Path, inputs: Tensors, outputs: Tensors, **metadata: str) -> GraphFacts:
    return inspect_onnx(write_onnx(tmp_path / "network.onnx", inputs, outputs, metadata))


RGB: Tensors = [("images", [1, 3, 640, 640])]


@pytest.mark.parametrize(
    ("outputs", "family"),
    [
        (SEG, "yolo-seg"),
        (SEG[::-1], "yolo-seg"),
        ([("a", [1, 37, 8400]), ("b", [1, 32, 160, 160])], "yolo-seg"),  # a single class
        ([("a", ["batch", 116, "anchors"]), ("b", ["batch", 32, "mh", "mw"])], "yolo-seg"),
        ([("a", [1, 300, 38]), ("b", [1, 32, 160, 160])], "yolo-seg-end2end"),
        ([("a", [1, 36, 8400]), ("b", [1, 32, 160, 160])], "unknown"),  # no room for a class
        ([("a", [1, 84, 8400])], "unknown"),  # boxes without masks
        ([("logits", [1, 1000])], "unknown"),
        ([("a", [1, 1, 640, 640])], "matte"),
        ([("a", [1, 640, 640, 1])], "matte"),
        ([("a", [1, 1, "h", "w"])], "matte"),
        ([("a", [1, 1, 160, 160])], "matte"),
        ([("a", [1, 2, 640, 640])], "classmap"),
        ([("a", [1, 640, 640, 21])], "classmap"),
        ([("a", [1, 2, 640, 640]), ("b", [1, 3, 640, 640])], "classmap"),
        ([("a", [1, 1, 640, 640]), ("b", [1, 1, 640, 640])], "unknown"),  # which of the two is the matte?
        ([("det_out", [1, 25200, 6]), ("a", [1, 2, 640, 640]), ("b", [1, 2, 640, 640])], "classmap"),  # YOLOP
        ([("det_out", [1, 25200, 6]), ("a", [1, 2, 640, 640]), ("b", [1, 1, 640, 640])], "unknown"),
        ([("a", [1, 2, 640, 640]), ("b", [1, 2, 640, 640]), ("logits", [1, 1000])], "unknown"),
        ([("a", [1, 2, 640, 640]), ("b", [1, 2, 640, 640]), ("c", [1, 255, 80, 80])], "unknown"),
        ([("a", [1, 255, 80, 80]), ("b", [1, 255, 40, 40]), ("c", [1, 255, 20, 20])], "unknown"),  # a detector's heads
        ([("a", [1, 1, 20, 20])], "unknown"),  # a feature map
        ([("a", [1, 1024, 640, 640])], "unknown"),
    ],
)
def test_family(tmp_path: Path, outputs: Tensors, family: str) -> None:
    assert facts_of(tmp_path, RGB, outputs).family == family


def test_a_recurrent_network_is_told_from_a_plain_one(tmp_path: Path) -> None:
    states: Tensors = [("r1i", ["b", 16, "h", "w"])]
    outputs: Tensors = [("fgr", [1, 3, 8, 8]), ("pha", [1, 1, 8, 8]), ("r1o", ["b", 16, "h", "w"])]
    facts = facts_of(tmp_path, [("src", ["b", 3, "h", "w"]), *states], outputs)
    assert facts.family == "recurrent-matte"
    assert "not supported yet" in facts.refusal()
    assert facts_of(tmp_path, [("src", [1, 3, 8, 8]), ("size", [2])], [("pha", [1, 1, 8, 8])]).family == "unknown"


def test_what_takes_no_picture_has_no_family(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, [("ids", [1, 128])], [("a", [1, 1, 640, 640])])
    assert (facts.family, facts.image, facts.layout) == ("unknown", None, None)


def test_ultralytics_metadata(tmp_path: Path) -> None:
    facts = facts_of(
        tmp_path,
        RGB,
        SEG,
        names="{0: 'person', 2: \"driver's seat\"}",
        stride="32",
        task="segment",
        license="AGPL-3.0 L",
    )
    assert facts.names == {0: "person", 2: "driver's seat"}
    assert (facts.stride, facts.task, facts.licence) == (32, "segment", "AGPL-3.0 L")
    assert (facts.mask_coefficients, facts.class_count, facts.input_hw) == (32, 80, (640, 640))
    assert (facts.detections, facts.prototypes) == ("output0", "output1")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["a", "b"]', {0: "a", 1: "b"}),
        ('{"0": "a"}', {0: "a"}),
        ("not a list", {}),
        ("{'a': 1}", {}),
        ("__import__('os').getcwd()", {}),  # nothing in a file is executed
        ("7", {}),
    ],
)
def test_class_names(tmp_path: Path, text: str, names: dict[int, str]) -> None:
    assert facts_of(tmp_path, RGB, SEG, names=text, stride="wide").names == names


@pytest.mark.parametrize(
    ("shape", "layout", "hw"),
    [
        ([1, 3, 20, 30], "nchw", (20, 30)),
        ([1, 20, 30, 3], "nhwc", (20, 30)),
        (["n", 3, "h", "w"], "nchw", (None, None)),
        ([1, 3, 20, 3], "nchw", (20, 3)),
    ],
)
def test_layout(tmp_path: Path, shape: Shape, layout: str, hw: tuple[int | None, int | None]) -> None:
    facts = facts_of(tmp_path, [("x", shape)], [("a", [1, 5])])
    assert (facts.layout, facts.input_hw, facts.dynamic) == (layout, hw, None in hw)


def test_the_refusal_describes_the_tensors(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, [("data", ["n", 3, 224, 224])], [("logits", [1, 1000])], task="classify")
    assert facts.refusal() == (
        "network.onnx is no segmentation network that streamseg knows (task 'classify'); "
        "inputs: data float32 [?,3,224,224]; outputs: logits float32 [1,1000]"
    )


def test_weights_tell_the_precision_and_are_no_inputs(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "n.onnx", [*RGB, ("w", [64])], SEG)
    model = onnx.load(str(path))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(64, np.float16), "w"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(999, np.int64), "shape"))
    onnx.save(model, str(path))
    facts = inspect_onnx(path)
    assert facts.precision == "float16"
    assert [tensor.name for tensor in facts.inputs] == ["images"]


def test_damaged_files(tmp_path: Path) -> None:
    whole = write_onnx(tmp_path / "whole.onnx", RGB, SEG, {"names": "{}"}).read_bytes()
    broken = tmp_path / "broken.onnx"
    # Every single place where a transfer might have ended; losing exactly the class names at the end cannot be seen.
    names = whole.index(b"names") - 4
    for length in {*range(len(whole))} - {names}:
        broken.write_bytes(whole[:length])
        with pytest.raises(ModelLoadError, match="pull or import it again"):
            inspect_onnx(broken)
    rng = np.random.default_rng(0)
    for _ in range(200):
        broken.write_bytes(rng.bytes(200))
        with pytest.raises(ModelLoadError, match=r"broken\.onnx"):
            inspect_onnx(broken)
    broken.write_bytes(b"PK\3\4rest of a checkpoint")
    with pytest.raises(ModelLoadError, match=r"call it broken\.pt and run: streamseg models import .*broken\.pt$"):
        inspect_onnx(broken)
    with pytest.raises(ModelLoadError, match=r"cannot read model .*nowhere\.onnx: no such file"):
        inspect_onnx(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelLoadError, match="is a directory"):
        inspect_onnx(tmp_path)


@pytest.mark.material
def test_real_networks(material: Path) -> None:
    families = {path.stem: inspect_onnx(path).family for path in (material / "models").glob("*.onnx")}
    assert families == {
        "deeplab_portrait": "classmap",
        "rvm_mobilenetv3_720p": "recurrent-matte",
        "selfie": "matte",
        "sinet_portrait": "classmap",
        "twinlitenet": "classmap",
        "twinlitenetplus_nano": "classmap",
        "twinlitenetplus_small": "classmap",
        "yolov8n-seg": "yolo-seg",
    }
    facts = inspect_onnx(material / "models" / "yolov8n-seg.onnx")
    assert (facts.stride, facts.names[0], len(facts.names), facts.class_count) == (32, "person", 80, 80)
    assert inspect_onnx(material / "models" / "selfie.onnx").layout == "nhwc"
