"""Turn a TFLite graph into ONNX: the few operators that MediaPipe's portrait networks are made of.

TFLite keeps pictures as (1, H, W, C), ONNX Runtime is fastest on (1, C, H, W). Every operator here is either
per-pixel or names its axes, so the whole graph is written in NCHW and no transposition is left in it. fp16 weights are
unfolded to float32 while converting.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import tflite
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from streamseg.errors import ModelLoadError

__all__ = ["CONVERTER_VERSION", "convert"]

# Raised whenever the same TFLite file would give another ONNX file.
CONVERTER_VERSION = "1"

_OPSET = 17
_IR_VERSION = 8

_OPERATORS = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}
_ACTIVATIONS = {code: name for name, code in vars(tflite.ActivationFunctionType).items() if isinstance(code, int)}
_DTYPES = {
    tflite.TensorType.FLOAT32: np.dtype("<f4"),
    tflite.TensorType.FLOAT16: np.dtype("<f2"),
    tflite.TensorType.INT32: np.dtype("<i4"),
}
_TRANSPOSE_CONV_BIAS = "Convolution2DTransposeBias"


def convert(data: bytes, *, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """The same network as ONNX.

    The result takes `image`, (1, C, H, W) float32, and gives `output`, (1, C', H', W') float32; values mean what they
    meant in the TFLite file.

    Args:
        data: a `.tflite` file with one graph, one picture in and one out.
        metadata: written into the result.

    Raises:
        ModelLoadError: not TFLite, damaged, or it holds an operator that is not known here, which is named.
    """
    if data[4:8] != b"TFL3":
        raise ModelLoadError("not a tflite file, or damaged: its identifier is missing")
    try:
        writer = _Writer.read(data)
        for index in range(writer.graph.OperatorsLength()):
            _convert_operator(writer, writer.graph.Operators(index))
        model = writer.model(metadata or {})
        onnx.checker.check_model(model, full_check=True)
    except ModelLoadError:
        raise
    except Exception as error:  # offsets into rubbish end in every kind of exception
        raise ModelLoadError(f"damaged tflite file: {error}") from error
    return model


@dataclass
class _Writer:
    """The graph that is read and the one that is written."""

    source: Any
    graph: Any
    constants: dict[int, NDArray[Any]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    @classmethod
    def read(cls, data: bytes) -> _Writer:
        source = tflite.Model.GetRootAs(data, 0)
        if source.SubgraphsLength() != 1:
            raise ModelLoadError(f"tflite file holds {source.SubgraphsLength()} graphs; only one is supported")
        graph = source.Subgraphs(0)
        if (graph.InputsLength(), graph.OutputsLength()) != (1, 1):
            raise ModelLoadError(
                f"tflite graph has {graph.InputsLength()} inputs and {graph.OutputsLength()} outputs, not one each"
            )
        writer = cls(source, graph)
        for index in range(graph.TensorsLength()):
            tensor = graph.Tensors(index)
            stored = source.Buffers(tensor.Buffer())
            if stored.DataLength():
                dtype = _DTYPES.get(tensor.Type())
                if dtype is None:
                    raise ModelLoadError(
                        f"tflite tensor {tensor.Name().decode()!r} has an unsupported type ({tensor.Type()})"
                    )
                writer.constants[index] = stored.DataAsNumpy().view(dtype).reshape(writer.shape(index))
        writer.names[graph.Inputs(0)] = "image"
        return writer

    def shape(self, index: int) -> tuple[int, ...]:
        tensor = self.graph.Tensors(index)
        return tuple(int(size) for size in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()

    def picture(self, index: int) -> tuple[int, int, int]:
        """(height, width, channels) of an activation."""
        shape = self.shape(index)
        if len(shape) != 4 or shape[0] != 1:
            raise ModelLoadError(f"tflite tensor of shape {list(shape)}; only single pictures [1,h,w,c] are supported")
        return shape[1], shape[2], shape[3]

    def constant(self, index: int) -> NDArray[Any]:
        if index not in self.constants:
            raise ModelLoadError("tflite weights are computed inside the graph; only stored ones are supported")
        return self.constants[index]

    def weight(self, values: NDArray[Any]) -> str:
        """Add an initialiser; its name."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def operand(self, index: int) -> str:
        """Name of an input in NCHW, be it an activation or a constant that broadcasts against one."""
        if index in self.names:
            return self.names[index]
        values = self.constant(index).astype(np.float32)
        if values.ndim > 4:
            raise ModelLoadError(f"tflite constant of shape {list(values.shape)} is not supported")
        aligned = values.reshape((1,) * (4 - values.ndim) + values.shape)
        return self.weight(aligned.transpose(0, 3, 1, 2))

    def emit(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node; the name of its output."""
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"{kind}_{len(self.nodes)}", **attributes))
        return name

    def model(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        source, target = self.graph.Inputs(0), self.graph.Outputs(0)
        if self.graph.Tensors(source).Type() != tflite.TensorType.FLOAT32:
            raise ModelLoadError("tflite graph does not take float32; quantised graphs are not supported")
        self.nodes[-1].output[0] = "output"
        if self.names[target] != f"n{len(self.nodes) - 1}":
            raise ModelLoadError("tflite graph goes on behind its output")
        values = []
        for name, index in (("image", source), ("output", target)):
            height, width, channels = self.picture(index)
            values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, height, width]))
        graph = helper.make_graph(self.nodes, "streamseg", values[:1], values[1:], self.weights)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="streamseg", ir_version=_IR_VERSION
        )
        helper.set_model_props(model, {**metadata, "streamseg.converter": CONVERTER_VERSION})
        return model


def _convert_operator(writer: _Writer, operator: Any) -> None:
    code = writer.source.OperatorCodes(operator.OpcodeIndex())
    # Old files keep the code in the first field, new ones in the second; the unused one is 0.
    name = _OPERATORS.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "?")
    if name == "CUSTOM":
        name = code.CustomCode().decode()
    if name not in _CONVERSIONS:
        raise ModelLoadError(f"tflite operator {name} is not supported; known are {', '.join(sorted(_CONVERSIONS))}")
    output = operator.Outputs(0)
    result = _CONVERSIONS[name](writer, operator)
    if result is not None:
        writer.names[output] = result


def _options(operator: Any, kind: Callable[[], Any]) -> Any:
    options, table = kind(), operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return options


def _activate(writer: _Writer, name: str, code: int) -> str:
    kind = _ACTIVATIONS.get(code, str(code))
    if kind == "NONE":
        return name
    if kind == "RELU":
        return writer.emit("Relu", [name])
    if kind in ("RELU6", "RELU_N1_TO_1"):
        low, high = (0.0, 6.0) if kind == "RELU6" else (-1.0, 1.0)
        bounds = [writer.weight(np.float32(value)) for value in (low, high)]  # type: ignore[arg-type]
        return writer.emit("Clip", [name, *bounds])
    raise ModelLoadError(f"tflite fused activation {kind} is not supported")


def _same_pads(
    sizes: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> list[int]:
    """Begin and end pads as ONNX wants them; where the total is odd, TFLite puts the larger half at the end."""
    begins, ends = [], []
    for size, taps, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        outputs = -(-size // stride)
        total = max((outputs - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
        begins.append(total // 2)
        ends.append(total - total // 2)
    return begins + ends


def _pads(
    writer: _Writer,
    operator: Any,
    padding: int,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
) -> list[int]:
    if padding == tflite.Padding.VALID:
        return [0, 0, 0, 0]
    return _same_pads(writer.picture(operator.Inputs(0))[:2], kernel, strides, dilations)


def _dequantize(writer: _Writer, operator: Any) -> None:
    stored = writer.constant(operator.Inputs(0))
    if stored.dtype != np.float16:
        raise ModelLoadError("tflite operator DEQUANTIZE of integers is not supported; only fp16 weights are")
    writer.constants[operator.Outputs(0)] = stored.astype(np.float32)


def _convolution(writer: _Writer, operator: Any, *, depthwise: bool) -> str:
    options = _options(operator, tflite.DepthwiseConv2DOptions if depthwise else tflite.Conv2DOptions)
    weights = writer.constant(operator.Inputs(1))
    channels = writer.picture(operator.Inputs(0))[2]
    if depthwise:
        # (1, kh, kw, channels * multiplier) to (channels * multiplier, 1, kh, kw)
        kernel, groups = weights.transpose(3, 0, 1, 2), channels
    else:
        # (out, kh, kw, in) to (out, in, kh, kw)
        kernel, groups = weights.transpose(0, 3, 1, 2), channels // weights.shape[3]
    taps = (int(kernel.shape[2]), int(kernel.shape[3]))
    strides = (options.StrideH(), options.StrideW())
    dilations = (options.DilationHFactor(), options.DilationWFactor())
    inputs = [writer.operand(operator.Inputs(0)), writer.weight(kernel.astype(np.float32))]
    if operator.InputsLength() > 2 and operator.Inputs(2) >= 0:
        inputs.append(writer.weight(writer.constant(operator.Inputs(2)).astype(np.float32)))
    name = writer.emit(
        "Conv",
        inputs,
        kernel_shape=list(taps),
        strides=list(strides),
        dilations=list(dilations),
        group=groups,
        pads=_pads(writer, operator, options.Padding(), taps, strides, dilations),
    )
    return _activate(writer, name, options.FusedActivationFunction())


def _transpose_convolution(writer: _Writer, operator: Any) -> str:
    # The options are the runtime's C struct: padding, stride across, stride down.
    _, across, down = struct.unpack_from("<3i", operator.CustomOptionsAsNumpy().tobytes())
    weights = writer.constant(operator.Inputs(1))  # (out, kh, kw, in)
    begins: list[int] = []
    ends: list[int] = []
    extra: list[int] = []
    sizes = zip(
        writer.picture(operator.Inputs(0))[:2],
        writer.picture(operator.Outputs(0))[:2],
        weights.shape[1:3],
        (down, across),
        strict=True,
    )
    for size, wanted, taps, stride in sizes:
        surplus = (size - 1) * stride + int(taps) - wanted
        begins.append(max(surplus, 0) // 2)
        ends.append(max(surplus, 0) - max(surplus, 0) // 2)
        extra.append(max(-surplus, 0))
    return writer.emit(
        "ConvTranspose",
        [
            writer.operand(operator.Inputs(0)),
            writer.weight(weights.transpose(3, 0, 1, 2).astype(np.float32)),
            writer.weight(writer.constant(operator.Inputs(2)).astype(np.float32)),
        ],
        kernel_shape=[int(taps) for taps in weights.shape[1:3]],
        strides=[down, across],
        pads=begins + ends,
        output_padding=extra,
    )


def _average_pool(writer: _Writer, operator: Any) -> str:
    options = _options(operator, tflite.Pool2DOptions)
    taps, strides = (options.FilterHeight(), options.FilterWidth()), (options.StrideH(), options.StrideW())
    pads = _pads(writer, operator, options.Padding(), taps, strides, (1, 1))
    source = writer.operand(operator.Inputs(0))
    if taps == writer.picture(operator.Inputs(0))[:2] and not any(pads):
        name = writer.emit("GlobalAveragePool", [source])
    else:
        # TFLite divides by the pixels that lie inside the picture.
        name = writer.emit(
            "AveragePool", [source], kernel_shape=list(taps), strides=list(strides), pads=pads, count_include_pad=0
        )
    return _activate(writer, name, options.FusedActivationFunction())


def _mean(writer: _Writer, operator: Any) -> str:
    axes = sorted(int(axis) % 4 for axis in writer.constant(operator.Inputs(1)).reshape(-1))
    keep = _options(operator, tflite.ReducerOptions).KeepDims()
    if axes != [1, 2] or not keep:
        raise ModelLoadError(f"tflite operator MEAN over axes {axes} is not supported; only over height and width")
    return writer.emit("GlobalAveragePool", [writer.operand(operator.Inputs(0))])


def _resize_bilinear(writer: _Writer, operator: Any) -> str:
    options = _options(operator, tflite.ResizeBilinearOptions)
    height, width = (int(size) for size in writer.constant(operator.Inputs(1)).reshape(-1))
    centred = "half_pixel" if options.HalfPixelCenters() else "asymmetric"
    grid = "align_corners" if options.AlignCorners() else centred
    channels = writer.picture(operator.Inputs(0))[2]
    sizes = writer.weight(np.array([1, channels, height, width], np.int64))
    return writer.emit(
        "Resize",
        [writer.operand(operator.Inputs(0)), "", "", sizes],
        mode="linear",
        coordinate_transformation_mode=grid,
    )


def _arithmetic(writer: _Writer, operator: Any, kind: str, options: Callable[[], Any]) -> str:
    name = writer.emit(kind, [writer.operand(operator.Inputs(0)), writer.operand(operator.Inputs(1))])
    return _activate(writer, name, _options(operator, options).FusedActivationFunction())


def _pointwise(kind: str) -> Callable[[_Writer, Any], str]:
    return lambda writer, operator: writer.emit(kind, [writer.operand(operator.Inputs(0))])


_CONVERSIONS: dict[str, Callable[[_Writer, Any], str | None]] = {
    "ADD": lambda writer, operator: _arithmetic(writer, operator, "Add", tflite.AddOptions),
    "AVERAGE_POOL_2D": _average_pool,
    "CONV_2D": lambda writer, operator: _convolution(writer, operator, depthwise=False),
    "DEPTHWISE_CONV_2D": lambda writer, operator: _convolution(writer, operator, depthwise=True),
    "DEQUANTIZE": _dequantize,
    "HARD_SWISH": _pointwise("HardSwish"),
    "LOGISTIC": _pointwise("Sigmoid"),
    "MEAN": _mean,
    "MUL": lambda writer, operator: _arithmetic(writer, operator, "Mul", tflite.MulOptions),
    "RELU": _pointwise("Relu"),
    "RELU6": lambda writer, operator: _activate(
        writer, writer.operand(operator.Inputs(0)), tflite.ActivationFunctionType.RELU6
    ),
    "RESIZE_BILINEAR": _resize_bilinear,
    _TRANSPOSE_CONV_BIAS: _transpose_convolution,
}
