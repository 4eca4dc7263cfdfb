"""Write small TFLite files, field by field, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

Options = Callable[[flatbuffers.Builder], int]

_TYPES = {np.dtype("f4"): 0, np.dtype("f2"): 1, np.dtype("i4"): 2, np.dtype("i1"): 9}


@dataclass(frozen=True)
class Tensor:
    """`values` None is an activation."""

    shape: Sequence[int]
    values: NDArray[Any] | None = None
    dtype: str = "f4"


@dataclass(frozen=True)
class Operator:
    """`kind` is a field of tflite.BuiltinOperator, or any other name for a custom one."""

    kind: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: tuple[int, Options] | None = None
    custom_options: bytes | None = None


def constant(values: NDArray[Any]) -> Tensor:
    return Tensor(values.shape, values, values.dtype.str[1:])


def options(kind: str, **fields: int) -> tuple[int, Options]:
    """Options of an operator: ``options("Conv2DOptions", Padding=0, StrideW=1, StrideH=1)``."""

    def write(builder: flatbuffers.Builder) -> int:
        getattr(tflite, f"{kind}Start")(builder)
        for name, value in fields.items():
            getattr(tflite, f"{kind}Add{name}")(builder, value)
        return int(getattr(tflite, f"{kind}End")(builder))

    return getattr(tflite.BuiltinOptions, kind), write


def tflite_file(tensors: Sequence[Tensor], operators: Sequence[Operator], source: int, target: int) -> bytes:
    """A file of one graph; buffer 0 is empty, as the format wants it."""
    builder = flatbuffers.Builder(1024)

    def vector(start: Callable[[Any, int], Any], offsets: Sequence[int]) -> int:
        start(builder, len(offsets))
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    def numbers(values: Sequence[int]) -> int:
        return int(builder.CreateNumpyVector(np.asarray(values, np.int32)))

    buffers: list[int] = []
    stored: dict[int, int] = {}
    written: list[int] = []
    for index, tensor in enumerate(tensors):
        if tensor.values is not None:
            stored[index] = len(stored) + 1
    for values in (None, *(tensor.values for tensor in tensors if tensor.values is not None)):
        data = None if values is None else builder.CreateByteVector(np.ascontiguousarray(values).tobytes())
        tflite.BufferStart(builder)
        if data is not None:
            tflite.BufferAddData(builder, data)
        buffers.append(tflite.BufferEnd(builder))
    for index, tensor in enumerate(tensors):
        name, shape = builder.CreateString(f"t{index}"), numbers(tensor.shape)
        tflite.TensorStart(builder)
        tflite.TensorAddName(builder, name)
        tflite.TensorAddShape(builder, shape)
        tflite.TensorAddType(builder, _TYPES[np.dtype(tensor.dtype)])
        tflite.TensorAddBuffer(builder, stored.get(index, 0))
        written.append(tflite.TensorEnd(builder))

    codes, nodes = [], []
    for index, operator in enumerate(operators):
        builtin: Any = getattr(tflite.BuiltinOperator, operator.kind, None)
        custom = builder.CreateString(operator.kind) if builtin is None else None
        tflite.OperatorCodeStart(builder)
        if custom is None:
            tflite.OperatorCodeAddBuiltinCode(builder, builtin)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, min(builtin, 127))
        else:
            tflite.OperatorCodeAddCustomCode(builder, custom)
            tflite.OperatorCodeAddBuiltinCode(builder, tflite.BuiltinOperator.CUSTOM)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, tflite.BuiltinOperator.CUSTOM)
        codes.append(tflite.OperatorCodeEnd(builder))
        inputs, outputs = numbers(operator.inputs), numbers(operator.outputs)
        details = operator.options[1](builder) if operator.options else None
        custom_details = builder.CreateByteVector(operator.custom_options) if operator.custom_options else None
        tflite.OperatorStart(builder)
        tflite.OperatorAddOpcodeIndex(builder, index)
        tflite.OperatorAddInputs(builder, inputs)
        tflite.OperatorAddOutputs(builder, outputs)
        if operator.options and details is not None:
            tflite.OperatorAddBuiltinOptionsType(builder, operator.options[0])
            tflite.OperatorAddBuiltinOptions(builder, details)
        if custom_details is not None:
            tflite.OperatorAddCustomOptions(builder, custom_details)
        nodes.append(tflite.OperatorEnd(builder))

    parts = {
        "Tensors": vector(tflite.SubGraphStartTensorsVector, written),
        "Operators": vector(tflite.SubGraphStartOperatorsVector, nodes),
        "Inputs": numbers([source]),
        "Outputs": numbers([target]),
    }
    tflite.SubGraphStart(builder)
    for name, offset in parts.items():
        getattr(tflite, f"SubGraphAdd{name}")(builder, offset)
    graph = tflite.SubGraphEnd(builder)
    model = {
        "OperatorCodes": vector(tflite.ModelStartOperatorCodesVector, codes),
        "Subgraphs": vector(tflite.ModelStartSubgraphsVector, [graph]),
        "Buffers": vector(tflite.ModelStartBuffersVector, buffers),
    }
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    for name, offset in model.items():
        getattr(tflite, f"ModelAdd{name}")(builder, offset)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())
