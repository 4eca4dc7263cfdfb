"""Small ONNX graphs with known answers, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save(graph: onnx.GraphProto, path: Path, metadata: dict[str, str] | None = None) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def yolo_seg(
    path: Path,
    detections: np.ndarray,
    prototypes: np.ndarray,
    *,
    names: tuple[str, ...] = ("person", "bicycle", "car"),
    input_shape: tuple[int | str, ...] = (1, 3, 64, 64),
    dtype: type = np.float32,
) -> Path:
    """A network that gives the same (4 + classes + m, anchors) and (m, mh, mw) for every picture."""
    kind = TensorProto.FLOAT16 if dtype is np.float16 else TensorProto.FLOAT
    nodes = [
        # The mean of the picture, times 0, so that the outputs depend on it.
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["d", "nothing"], ["output0"]),
        helper.make_node("Add", ["p", "nothing"], ["output1"]),
    ]
    weights = {"zero": np.zeros((), dtype), "d": detections[None].astype(dtype), "p": prototypes[None].astype(dtype)}
    graph = helper.make_graph(
        nodes,
        "yolo",
        [helper.make_tensor_value_info("images", kind, input_shape)],
        [
            helper.make_tensor_value_info("output0", kind, (1, *detections.shape)),
            helper.make_tensor_value_info("output1", kind, (1, *prototypes.shape)),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    metadata = {"names": str(dict(enumerate(names))), "stride": "32", "task": "segment"}
    return save(graph, path, metadata)


def matte(
    path: Path,
    *,
    layout: str = "nchw",
    last: str = "Sigmoid",
    size: int = 32,
    channels: int = 3,
    alone: bool = False,
    brittle: bool = False,
) -> Path:
    """A network whose logit is 10 * (red - 0.5), or 10 * (red - green - 0.5) with `alone`: red is the subject.

    A `brittle` one fails on a picture whose green is six tenths or more of white, on average.
    """
    red = np.zeros((1, channels, 1, 1), np.float32)
    red[0, 0] = 10
    if alone:
        red[0, 1] = -10
    shape = [1, channels, size, size] if layout == "nchw" else [1, size, size, channels]
    out = [1, 1, size, size] if layout == "nchw" else [1, size, size, 1]
    nodes = []
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]))
    else:
        nodes.append(helper.make_node("Identity", ["image"], ["first"]))
    nodes.append(helper.make_node("Conv", ["first", "red", "minus"], ["logits"]))
    logits, weights = "logits", {"red": red, "minus": np.array([-5], np.float32)}
    if brittle:
        # There is nothing at place 1.
        weights |= {"green": np.array([[0], [1], [0]], np.float32), "rest": np.array(0.4, np.float32)}
        weights["nothing"] = np.zeros(1, np.float32)
        nodes += [
            helper.make_node("ReduceMean", ["first"], ["means"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["means", "green"], ["mean"]),
            helper.make_node("Add", ["mean", "rest"], ["sure"]),
            helper.make_node("Cast", ["sure"], ["place"], to=TensorProto.INT64),
            helper.make_node("Gather", ["nothing", "place"], ["taken"]),
            helper.make_node("Add", ["logits", "taken"], ["sum"]),
        ]
        logits = "sum"
    nodes.append(helper.make_node(last, [logits], ["opacity"]))
    nodes.append(
        helper.make_node("Transpose", ["opacity"], ["out"], perm=[0, 2, 3, 1] if layout == "nhwc" else [0, 1, 2, 3])
    )
    graph = helper.make_graph(
        nodes,
        "matte",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return save(graph, path)


def yolop(path: Path, size: int = 32) -> Path:
    """YOLOP's three outputs: boxes that are nothing, road where red is above its mean and lines where green is."""
    nodes, weights = [], [numpy_helper.from_array(np.zeros((1, 12, 6), np.float32), "boxes")]
    nodes.append(helper.make_node("Identity", ["boxes"], ["det_out"]))
    outputs = [helper.make_tensor_value_info("det_out", TensorProto.FLOAT, (1, 12, 6))]
    for channel, name in enumerate(("drive_area_seg", "lane_line_seg")):
        kernel = np.zeros((2, 3, 1, 1), np.float32)
        kernel[:, channel, 0, 0] = -8, 8
        weights.append(numpy_helper.from_array(kernel, f"{name}_w"))
        nodes.append(helper.make_node("Conv", ["images", f"{name}_w"], [f"{name}_scores"]))
        nodes.append(helper.make_node("Sigmoid", [f"{name}_scores"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2, size, size)))
    picture = helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, size, size))
    return save(helper.make_graph(nodes, "yolop", [picture], outputs, weights), path)
