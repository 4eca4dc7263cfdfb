"""What an ONNX graph is, read from the graph itself: no session is built and no file name is trusted."""

from __future__ import annotations

import ast
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from streamseg.errors import ModelLoadError

__all__ = ["FAMILIES", "GraphFacts", "TensorFacts", "ends_in_range", "inspect_onnx"]

# A Clip is taken for one to 0..1: nobody cuts logits.
_GIVES_0_TO_1 = {"Sigmoid", "HardSigmoid", "Softmax", "Clip"}
_CARRIES_VALUES = {
    "Cast", "Flatten", "Gather", "Identity", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze",
    "Upsample",
}  # fmt: skip

FAMILIES = {
    "yolo-seg": "boxes, class scores and mask coefficients, plus prototype masks (YOLOv8-seg, YOLO11-seg)",
    "yolo-seg-end2end": "the same with suppression inside the graph; known, not supported yet",
    "matte": "one opacity a pixel",
    "classmap": "one plane of scores a class; or several maps of two classes, beside which boxes are left alone",
    "recurrent-matte": "an opacity a pixel, with states carried from frame to frame; known, not supported yet",
    "unknown": "not a segmentation network that streamseg knows",
}

# A class map is scores at the picture's scale; heads of detectors come at an eighth and less.
_COARSEST_CLASSMAP = 8
_MOST_CLASSES = 512


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """An input or output. `shape` has None where a dimension is free; `known` is False where none is declared."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    known: bool = True

    def __str__(self) -> str:
        if not self.known:
            return f"{self.name} {self.dtype} of undeclared shape"
        return f"{self.name} {self.dtype} [{','.join('?' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True, slots=True, eq=False)
class GraphFacts:
    """What an ONNX file says about itself.

    Attributes:
        path: the file.
        family: a key of `FAMILIES`.
        inputs, outputs: in the graph's order; weights listed among the inputs (old IR versions) are left out.
        image: the input that takes the picture; None where there is none.
        layout: "nchw" or "nhwc", of `image`; None where there is none.
        input_hw: (height, width) of `image`, None where free.
        channels: of `image`; None where free or absent.
        detections, prototypes: names of the two outputs of a yolo-seg graph, else None.
        mask_coefficients: how many coefficients an instance has; 0 outside yolo-seg.
        maps: outputs that hold the classes of a classmap; empty for other families.
        class_count: classes of yolo-seg or of the first map of a classmap; None where the graph leaves it open.
        names: class names by index, from the metadata; empty where there are none.
        stride: from the metadata; None where there is none.
        task: ultralytics' task ("segment", "detect"), from the metadata.
        precision: of the weights: "float32", "float16", or "int8" where most are quantised.
        opset: of the default operator set.
        metadata: the file's key and value pairs.
    """

    path: Path
    family: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    image: TensorFacts | None
    layout: str | None
    input_hw: tuple[int | None, int | None]
    channels: int | None
    detections: str | None
    prototypes: str | None
    mask_coefficients: int
    maps: tuple[TensorFacts, ...]
    class_count: int | None
    names: Mapping[int, str]
    stride: int | None
    task: str | None
    precision: str
    opset: int
    metadata: Mapping[str, str]

    @property
    def dynamic(self) -> bool:
        """Whether height or width of the picture is free."""
        return self.image is not None and None in self.input_hw

    @property
    def class_names(self) -> Mapping[int, str]:
        """By index; ``class 0`` and so on where the metadata name none."""
        return {index: f"class {index}" for index in range(self.class_count or 0)} | dict(self.names)

    @property
    def licence(self) -> str | None:
        """As the file states it; None where it does not."""
        return self.metadata.get("license") or self.metadata.get("licence")

    def describe_inputs(self) -> str:
        """For messages: ``inputs: images float32 [1,3,640,640]``."""
        return "inputs: " + ("; ".join(map(str, self.inputs)) or "none")

    def describe_outputs(self) -> str:
        """For messages: ``outputs: logits float32 [1,1000]``."""
        return "outputs: " + ("; ".join(map(str, self.outputs)) or "none")

    @property
    def unread(self) -> tuple[TensorFacts, ...]:
        """Outputs of a classmap that are left alone: the boxes that YOLOP gives beside its maps."""
        return tuple(tensor for tensor in self.outputs if tensor not in self.maps) if self.maps else ()

    def refusal(self) -> str:
        """Why this graph is no network to segment with, in one line with its tensors; for a `ModelLoadError`."""
        task = f" (task {self.task!r})" if self.task and self.task != "segment" else ""
        what = FAMILIES[self.family] if self.family != "unknown" else "is no segmentation network that streamseg knows"
        lead = (
            f"{self.path.name} {what}" if self.family == "unknown" else f"{self.path.name} is a {self.family} ({what})"
        )
        return f"{lead}{task}; {self.describe_inputs()}; {self.describe_outputs()}"


def inspect_onnx(path: str | Path, data: bytes | None = None) -> GraphFacts:
    """Read what the graph takes and gives, and which family that makes it.

    Weights in a file of their own are not read.

    Args:
        path: the file, or what it will be called.
        data: its content, where that is not on the disk yet.

    Raises:
        ModelLoadError: the file is missing, is not ONNX, or is cut off or damaged.
    """
    path = Path(path)
    model = _parse(path, data)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_facts(value) for value in graph.input if value.name not in weights)
    outputs = tuple(_facts(value) for value in graph.output)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    names = _class_names(metadata.get("names"))

    image = next((tensor for tensor in inputs if _layout(tensor)), None)
    layout = _layout(image) if image else None
    hw: tuple[int | None, int | None] = (None, None)
    channels = None
    if image is not None:
        hw = (image.shape[2], image.shape[3]) if layout == "nchw" else (image.shape[1], image.shape[2])
        channels = image.shape[1 if layout == "nchw" else 3]

    family, detections, prototypes = "unknown", None, None
    coefficients, class_count = 0, None
    maps: tuple[TensorFacts, ...] = ()
    if image is not None and (found := _yolo_seg(outputs)):
        boxes, masks = found
        detections, prototypes = boxes.name, masks.name
        coefficients = masks.shape[1] or 0
        # (1, 300, 6 + coefficients): rows are finished instances, not anchors.
        if boxes.shape[2] == 6 + coefficients or "True" in (metadata.get("end2end"), metadata.get("nms")):
            family, class_count = "yolo-seg-end2end", len(names) or None
        else:
            family, class_count = "yolo-seg", (boxes.shape[1] - 4 - coefficients) if boxes.shape[1] else None
    elif image is not None and _recurrent(inputs, outputs):
        family = "recurrent-matte"
    elif image is not None and len(inputs) == 1:
        planes = [_planes(tensor, hw) for tensor in outputs]
        if planes == [1]:
            family = "matte"
        elif maps := _class_maps(outputs, planes):
            family, class_count = "classmap", _planes(maps[0], hw)

    return GraphFacts(
        path=path,
        family=family,
        inputs=inputs,
        outputs=outputs,
        image=image,
        layout=layout,
        input_hw=hw,
        channels=channels,
        detections=detections,
        prototypes=prototypes,
        mask_coefficients=coefficients,
        maps=maps,
        class_count=class_count,
        names=names,
        stride=_whole(metadata.get("stride")),
        task=metadata.get("task"),
        precision=_precision(graph),
        opset=max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0),
        metadata=metadata,
    )


def ends_in_range(path: Path, output: str) -> bool:
    """Whether the graph itself brings an output into 0..1; where it does not, the output is logits."""
    graph = onnx.load(str(path), load_external_data=False).graph
    makers = {name: node for node in graph.node for name in node.output}
    while (node := makers.get(output)) is not None and node.op_type in _CARRIES_VALUES:
        output = node.input[0]
    return node is not None and node.op_type in _GIVES_0_TO_1


def _parse(path: Path, data: bytes | None) -> Any:
    if data is None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelLoadError(f"cannot read model {path}: {(error.strerror or str(error)).lower()}") from error
    again = "pull or import it again"
    if not data:
        raise ModelLoadError(f"model {path} is empty; {again}")
    if data[:2] == b"PK":
        checkpoint = path.with_suffix(".pt")
        rename = "" if path == checkpoint else f"call it {checkpoint.name} and "
        raise ModelLoadError(
            f"{path.name} is no ONNX file but a checkpoint; {rename}run: streamseg models import {checkpoint}"
        )
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError has moved between releases
        raise ModelLoadError(f"{path.name} is no ONNX file, or is damaged; {again}") from error
    # Random bytes can parse, and a file cut off behind the graph does: both lack one of these.
    if not (model.graph.node and model.graph.output and model.opset_import):
        raise ModelLoadError(f"{path.name} is no ONNX file, or is cut off; {again}")
    # Protobuf hands over text that is no UTF-8 as bytes.
    if not all(isinstance(value.name, str) for value in (*model.graph.input, *model.graph.output)):
        raise ModelLoadError(f"{path.name} is damaged; {again}")
    return model


def _facts(value: Any) -> TensorFacts:
    kind = value.type.tensor_type
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    except KeyError:
        dtype = "untyped"
    shape = tuple(
        size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None for size in kind.shape.dim
    )
    return TensorFacts(value.name, dtype, shape, known=kind.HasField("shape"))


def _precision(graph: Any) -> str:
    """The type that most weights have; shapes and indices (int64) are no weights."""
    names = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
    names |= {TensorProto.INT8: "int8", TensorProto.UINT8: "int8"}
    counts: Counter[str] = Counter()
    for tensor in graph.initializer:
        if tensor.data_type in names:
            counts[names[tensor.data_type]] += math.prod(tensor.dims)
    return counts.most_common(1)[0][0] if counts else "float32"


def _layout(tensor: TensorFacts) -> str | None:
    """Layout of a tensor that may be a picture: rank 4, with three channels or one."""
    if len(tensor.shape) != 4:
        return None
    if tensor.shape[1] in (1, 3):
        return "nchw"
    return "nhwc" if tensor.shape[3] in (1, 3) else None


def _yolo_seg(outputs: tuple[TensorFacts, ...]) -> tuple[TensorFacts, TensorFacts] | None:
    """The detections (1, 4 + classes + m, anchors) and the prototypes (1, m, mh, mw), in whichever order they stand."""
    if len(outputs) != 2:
        return None
    boxes, masks = sorted(outputs, key=lambda tensor: len(tensor.shape))
    if (len(boxes.shape), len(masks.shape)) != (3, 4):
        return None
    coefficients, rows, columns = masks.shape[1], boxes.shape[1], boxes.shape[2]
    if not coefficients or (rows is not None and rows <= 4 + coefficients and columns != 6 + coefficients):
        return None
    return boxes, masks


def _recurrent(inputs: tuple[TensorFacts, ...], outputs: tuple[TensorFacts, ...]) -> bool:
    """Robust Video Matting: states r1i ... r4i come back as r1o ... r4o beside an opacity."""
    given = {tensor.name for tensor in inputs}
    return any(
        tensor.name.startswith("r") and tensor.name.endswith("o") and f"{tensor.name[:-1]}i" in given
        for tensor in outputs
    )


def _planes(tensor: TensorFacts, input_hw: tuple[int | None, int | None]) -> int | None:
    """How many planes at the picture's scale this output holds; None where it is no such thing."""
    if len(tensor.shape) != 4:
        return None
    readings = ((tensor.shape[1], tensor.shape[2:]), (tensor.shape[3], tensor.shape[1:3]))
    for count, sizes in readings:
        if count is None or count > _MOST_CLASSES:
            continue
        fits = all(
            size is None or whole is None or size <= whole < size * _COARSEST_CLASSMAP
            for size, whole in zip(sizes, input_hw, strict=True)
        )
        if fits:
            return count
    return None


def _class_maps(outputs: Sequence[TensorFacts], planes: Sequence[int | None]) -> tuple[TensorFacts, ...]:
    """The outputs that hold a class map's scores; none where the graph is no class map.

    All of them, or (YOLOP) at least two maps of two classes beside a list of boxes (1, n, 4 + confidence + classes).
    """
    if all(count and count > 1 for count in planes):
        return tuple(outputs)
    pairs = tuple(tensor for tensor, count in zip(outputs, planes, strict=True) if count == 2)
    rest = [tensor for tensor in outputs if tensor not in pairs]
    boxes = all(len(tensor.shape) == 3 and (tensor.shape[2] or 0) > 5 for tensor in rest)
    return pairs if len(pairs) > 1 and boxes else ()


def _class_names(text: str | None) -> dict[int, str]:
    """Ultralytics writes a Python dict; others write JSON, as a list or an object."""
    if not text:
        return {}
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        try:
            names = json.loads(text)
        except ValueError:
            return {}
    if isinstance(names, list | tuple):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return {}
    try:
        return {int(index): str(name) for index, name in names.items()}
    except (TypeError, ValueError):
        return {}


def _whole(text: str | None) -> int | None:
    try:
        return int(float(text)) if text else None
    except ValueError:
        return None
