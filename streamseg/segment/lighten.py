"""The same network in fewer sums, for processors: what its exporter left as two steps is done in one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from streamseg.errors import ModelLoadError
from streamseg.segment.cache import cache_folder, replacing, sha256_of

__all__ = ["lightened"]

_log = logging.getLogger(__name__)

Doubles = NDArray[np.float64]

# Part of the place in the cache: another number whenever this module makes something else of a file.
_EDITION = 4
# Since then the axis of a softmax is one axis and not all that follow, and a split is told its sizes by an input.
_OPSET = 13
# What makes a cell of its output from the same cell of its inputs.
_BY_CELL = {"Sigmoid", "Mul", "Relu", "LeakyRelu", "HardSwish"}
_DEFAULTS = {
    "auto_pad": b"NOTSET",
    "dilations": [1, 1],
    "group": 1,
    "output_padding": [0, 0],
    "pads": [0] * 4,
    "strides": [1, 1],
}
# Exponentials of this, times the cells of a distribution, stay far below the greatest float32.
_FINITE = 80.0
# Of an even and an odd row of a doubled plane: which row of a kernel of three meets which row of the plane, as (row of
# a kernel of two, half of the doubled row, row of the kernel of three). An even row sees the plane's row before its own
# and its own, an odd one its own and the next.
_ROWS = (((0, 1, 0), (1, 0, 1), (1, 1, 2)), ((0, 0, 0), (0, 1, 1), (1, 0, 2)))


def lightened(path: Path) -> Path:
    """The same network, cheaper to compute: a file in the cache with the same inputs, outputs and metadata.

    Its answers differ by rounding alone. Rewritten is what the exports of YOLOv8-seg and YOLO11-seg hold:

    - a convolution that doubles a plane, with another of 3x3 behind it: together they are four of 2x2 on the small
      plane, one for each quarter of the doubled cells, in four ninths of the products;
    - a convolution whose planes are split behind it: one for each part leaves the planes in the order in which ONNX
      Runtime computes them;
    - a convolution of 1x1 over planes of which some were repeated to twice their size: those are convolved before that;
    - the mean of a distribution: its softmax runs across memory, exponentials and two sums do not.

    Where there is none of them, or the cache cannot be written, it is `path` itself.
    """
    light = cache_folder() / "light" / f"{sha256_of(path)[:16]}-{_EDITION}" / path.name
    if light.exists():
        return light
    graph = _Graph(onnx.load(str(path)))
    if not graph.understood or not graph.rewrite():
        return path
    try:
        with replacing(light) as file:
            file.write(graph.serialized())
    except ModelLoadError as error:
        _log.debug("no lighter network: %s", error)
        return path
    return light


class _Graph:
    """A graph that is rewritten node by node."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._nodes = list(model.graph.node)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._outputs = {tensor.name for tensor in model.graph.output}

    @property
    def understood(self) -> bool:
        """Whether it is of an opset that is known here, and no node holds a graph of its own."""
        opsets = {entry.domain or "ai.onnx": entry.version for entry in self._model.opset_import}
        inner = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        nested = any(attribute.type in inner for node in self._nodes for attribute in node.attribute)
        return opsets.get("ai.onnx", 0) >= _OPSET and not nested

    def rewrite(self) -> bool:
        """Do all that can be done; whether anything could."""
        steps = (self.double_once, self.split_before, self.repeat_after, self.weigh_without_softmax)
        done = [step() for step in steps]
        return any(done)

    def double_once(self) -> bool:
        """Join the first doubling convolution with the one behind it; whether there was one."""
        for up in self._nodes:
            conv = self._only_user(up)
            if conv is None or not _is(up, "ConvTranspose", kernel_shape=[2, 2], strides=[2, 2]):
                continue
            if not _is(conv, "Conv", kernel_shape=[3, 3], pads=[1] * 4):
                continue
            if any(self._array(node, n) is None for node in (up, conv) for n in range(1, len(node.input))):
                continue
            tail = self._tail(conv)
            self._replace([up, conv, *tail], self._quarters(up, conv, tail))
            return True
        return False

    def split_before(self) -> bool:
        """Make two convolutions of each whose planes are split behind it; whether there was one."""
        makers = {name: node for node in self._nodes for name in node.output}
        splits = [node for node in self._nodes if node.op_type == "Split" and _attributes(node).get("axis") == 1]
        found = False
        for split in splits:
            conv = makers.get(split.input[0])
            while conv is not None and conv.op_type in _BY_CELL:
                conv = makers.get(conv.input[0])
            if conv is None or conv.op_type != "Conv" or _attributes(conv).get("group", 1) != 1:
                continue
            tail, constants = self._tail(conv, through=False), [self._array(conv, n) for n in range(1, len(conv.input))]
            sizes = self._sizes(split)
            whole = self._only_user(tail[-1] if tail else conv) is split
            if not whole or sizes is None or any(part is None for part in constants):
                continue
            made, first = [], 0
            for name, size in zip(split.output, sizes, strict=True):
                part, place = onnx.NodeProto(), f"{name}/part"
                part.CopyFrom(conv)
                part.name = part.output[0] = place
                for n, constant in enumerate(constants):
                    assert constant is not None
                    part.input[n + 1] = self._constant(f"{place}/{n}", constant[first : first + size])
                made += [part, *_copies(tail, {conv.output[0]: place}, place)]
                made[-1].output[0] = name
                first += size
            self._replace([conv, *tail, split], made)
            found = True
        return found

    def repeat_after(self) -> bool:
        """Convolve planes before they are repeated to twice their size beside others; whether there were any."""
        makers = {name: node for node in self._nodes for name in node.output}
        found = False
        for concat in [node for node in self._nodes if node.op_type == "Concat" and len(node.input) == 2]:
            repeated = [place for place, name in enumerate(concat.input) if self._repeats(makers.get(name))]
            users = self._users(concat.output[0])
            free = concat.output[0] not in self._outputs and _attributes(concat).get("axis") == 1
            if len(repeated) != 1 or not (users and free and all(self._is_weighing(user) for user in users)):
                continue
            repeat = makers[concat.input[repeated[0]]]
            source = makers.get(repeat.input[0])
            while source is not None and source.op_type in _BY_CELL:
                source = makers.get(source.input[0])
            filters = None if source is None or source.op_type != "Conv" else self._array(source, 1)
            if filters is None:
                continue
            for user in users:
                weights = self._array(user, 1)
                assert weights is not None
                at = len(filters) if repeated == [0] else weights.shape[1] - len(filters)
                parts = np.split(weights, [at], axis=1)
                few, many = (self._constant(f"{user.output[0]}/{n}/weights", parts[n ^ repeated[0]]) for n in (0, 1))
                small, large = (f"{user.output[0]}/{n}/sums" for n in (0, 1))
                (grown,) = _copies([repeat], {repeat.input[0]: small}, user.output[0])
                others = [concat.input[1 - repeated[0]], many, *user.input[2:]]
                made = [
                    helper.make_node("Conv", [repeat.input[0], few], [small], kernel_shape=[1, 1]),
                    grown,
                    helper.make_node("Conv", others, [large], kernel_shape=[1, 1]),
                    helper.make_node("Add", [large, grown.output[0]], [user.output[0]]),
                ]
                self._replace([user], made)
            gone = [repeat] if self._only_user(repeat) is concat else []
            self._replace([concat, *gone], [])
            found = True
        return found

    def weigh_without_softmax(self) -> bool:
        """Divide sums of exponentials where a softmax's output is only weighed and summed; whether there was one."""
        for softmax in self._nodes:
            weigh = self._only_user(softmax)
            if weigh is None or softmax.op_type != "Softmax" or _attributes(softmax).get("axis") != 1:
                continue
            weights = self._array(weigh, 1)
            if not _is(weigh, "Conv", kernel_shape=[1, 1]) or len(weigh.input) != 2 or weights is None:
                continue
            (mean,) = weigh.output
            names = ("clipped", "exp", "sums", "weighed", "total")
            clipped, exponentials, sums, weighed, total = (f"{mean}/{name}" for name in names)
            # In float32 a sum of exponentials beyond is infinite or 0, and the mean no number. Answers lie far within.
            least, most = (self._constant(f"{mean}/{limit:.0f}", np.array(limit)) for limit in (-_FINITE, _FINITE))
            both = self._constant(f"{mean}/weights", np.concatenate([weights, np.ones_like(weights[:1])]))
            parts = self._constant(f"{mean}/parts", np.array([len(weights), 1]))
            made = [
                helper.make_node("Clip", [softmax.input[0], least, most], [clipped]),
                helper.make_node("Exp", [clipped], [exponentials]),
                helper.make_node("Conv", [exponentials, both], [sums], kernel_shape=[1, 1]),
                helper.make_node("Split", [sums, parts], [weighed, total], axis=1),
                helper.make_node("Div", [weighed, total], [mean]),
            ]
            self._replace([softmax, weigh], made)
            return True
        return False

    def serialized(self) -> bytes:
        """The model as it is now, without what nobody uses."""
        graph = self._model.graph
        used = {name for node in self._nodes for name in node.input} | self._outputs
        weights = [tensor for name, tensor in self._weights.items() if name in used]
        for field, content in ((graph.node, self._nodes), (graph.initializer, weights), (graph.value_info, [])):
            del field[:]
            field.extend(content)
        return bytes(self._model.SerializeToString())

    def _quarters(self, up: Any, conv: Any, tail: Sequence[Any]) -> list[Any]:
        """What `conv`, or the last of the `tail` behind it, gives: the quarters of its cells, then put together."""
        last = (tail[-1] if tail else conv).output[0]
        (doubling, offset), (kernel, bias) = ((self._array(node, 1), self._array(node, 2)) for node in (up, conv))
        assert doubling is not None
        assert kernel is not None
        made = []
        if offset is not None:
            # Beyond the border of the doubled plane the 3x3 convolution finds zeros and no offset. So the offset has a
            # convolution of its own, over ones with the same border, which are made of the plane to have its size.
            first, second = (self._constant(f"{last}/{n}", np.array([n])) for n in (0, 1))
            zero, one = (self._constant(f"{last}/{n:.1f}", np.array(float(n))) for n in (0, 1))
            made += [
                helper.make_node("Slice", [up.input[0], first, second, second], [f"{last}/channel"]),
                helper.make_node("Mul", [f"{last}/channel", zero], [f"{last}/zeros"]),
                helper.make_node("Add", [f"{last}/zeros", one], [f"{last}/ones"]),
            ]
        ends = []
        for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
            place = f"{last}/{a}{b}"
            joined = np.zeros((len(kernel), len(doubling), 2, 2))
            shifts = np.zeros((len(kernel), 1, 2, 2))
            for row, half, y in _ROWS[a]:
                for column, side, x in _ROWS[b]:
                    joined[..., row, column] += kernel[..., y, x] @ doubling[..., half, side].T
                    if offset is not None:
                        shifts[:, 0, row, column] += kernel[..., y, x] @ offset
            sums, options = f"{place}/sums", {"kernel_shape": [2, 2], "pads": [1 - a, 1 - b, a, b]}
            inputs = [up.input[0], self._constant(f"{place}/weights", joined)]
            if bias is not None:
                inputs.append(self._constant(f"{place}/bias", bias))
            made.append(helper.make_node("Conv", inputs, [sums], **options))
            if offset is not None:
                inputs = [f"{last}/ones", self._constant(f"{place}/shifts", shifts)]
                made.append(helper.make_node("Conv", inputs, [f"{place}/shift"], **options))
                made.append(helper.make_node("Add", [sums, f"{place}/shift"], [f"{place}/shifted"]))
                sums = f"{place}/shifted"
            made += _copies(tail, {conv.output[0]: sums}, place)
            ends.append(made[-1].output[0])
        made.append(helper.make_node("Concat", ends, [f"{last}/quarters"], axis=1))
        made.append(helper.make_node("DepthToSpace", [f"{last}/quarters"], [last], blocksize=2, mode="DCR"))
        return made

    def _tail(self, conv: Any, *, through: bool = True) -> list[Any]:
        """The nodes behind `conv` that work on each cell by itself, up to where one tensor goes on.

        `through` convolutions of 1x1 too.
        """
        tail: list[Any] = []
        inside, complete = [conv.output[0]], 0
        for node in self._nodes[self._nodes.index(conv) + 1 :]:
            constant = set(node.input[1:]) <= set(self._weights) and _is(node, "Conv", kernel_shape=[1, 1]) and through
            moving = node.input[:1] if constant else node.input
            if not ((constant or node.op_type in _BY_CELL) and set(moving) <= set(inside)):
                continue
            tail.append(node)
            inside.append(node.output[0])
            if [name for name in inside if name in self._outputs or self._users(name, tail)] == [node.output[0]]:
                complete = len(tail)
        return tail[:complete]

    def _replace(self, old: Sequence[Any], new: Sequence[Any]) -> None:
        # What the new nodes read is there where the first of the old ones is.
        at = self._nodes.index(old[0])
        self._nodes[at:at] = new
        self._nodes = [node for node in self._nodes if not any(node is gone for gone in old)]

    def _users(self, name: str, known: Sequence[Any] = ()) -> list[Any]:
        return [node for node in self._nodes if name in node.input and not any(node is one for one in known)]

    def _only_user(self, node: Any) -> Any | None:
        users = self._users(node.output[0]) if len(node.output) == 1 else []
        return users[0] if len(users) == 1 and node.output[0] not in self._outputs else None

    def _array(self, node: Any, place: int) -> Doubles | None:
        """An input that is constant and float32, in double for sums; None where there is none."""
        tensor = self._weights.get(node.input[place]) if len(node.input) > place else None
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            return None
        return numpy_helper.to_array(tensor).astype(np.float64)

    def _is_weighing(self, node: Any) -> bool:
        """Whether it is a convolution of 1x1 whose weights are known."""
        known = all(self._array(node, place) is not None for place in range(1, len(node.input)))
        return known and _is(node, "Conv", kernel_shape=[1, 1])

    def _repeats(self, node: Any) -> bool:
        """Whether each cell becomes two by two that are like it."""
        if node is None or node.op_type != "Resize" or len(node.input) != 3:
            return False
        given, scales = _attributes(node), self._array(node, 2)
        wanted = {"mode": b"nearest", "coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}
        return {**given, **wanted} == given and scales is not None and scales.tolist() == [1, 1, 2, 2]

    def _sizes(self, split: Any) -> list[int] | None:
        """Of the parts; None where they are not known here."""
        tensor = self._weights.get(split.input[1]) if len(split.input) > 1 else None
        return None if tensor is None else [int(size) for size in numpy_helper.to_array(tensor)]

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        kind = np.int64 if value.dtype.kind == "i" else np.float32
        self._weights[name] = numpy_helper.from_array(value.astype(kind), name)
        return name


def _copies(nodes: Sequence[Any], names: dict[str, str], place: str) -> list[Any]:
    """The nodes once more, behind the tensors that `names` gives in the place of others."""
    made = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        names[node.output[0]] = copy.name = f"{place}/{node.output[0]}"
        copy.input[:] = [names.get(name, name) for name in node.input]
        copy.output[:] = [names[node.output[0]]]
        made.append(copy)
    return made


def _attributes(node: Any) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _is(node: Any, kind: str, **asked: Any) -> bool:
    """Whether a node is an operation with these attributes, all others as they are by default."""
    return node.op_type == kind and {**_DEFAULTS, **_attributes(node)} == {**_DEFAULTS, **asked}
