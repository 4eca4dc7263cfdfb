"""Networks in int8: weights and what flows between the layers, by what the layers give on sample pictures."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from streamseg.errors import ModelError, ModelLoadError
from streamseg.frame import Frame
from streamseg.segment.inspect import GraphFacts, inspect_onnx
from streamseg.segment.ladder import Wanted
from streamseg.segment.load import load_segmenter
from streamseg.segment.ort import Running, Runs, Session, one_line

__all__ = ["kept_in_float", "quantized", "spread"]

_CONVOLUTIONS = {"Conv", "ConvTranspose"}
# The first with a scale for each channel.
_OPSET = 13
# ONNX Runtime's levels; the second is its own default.
_ERRORS, _WARNINGS = 3, 2
# The first whose weights need not be inputs.
_IR = 4


def quantized(path: Path, frames: Iterable[Frame]) -> bytes:
    """An ONNX file that computes in int8 what `path` computes in float32.

    Static quantisation: a scale for each channel of the weights, and one for each tensor between the layers, from its
    extremes on `frames`. Whatever turns the last features into answers stays in float, see `kept_in_float`.

    Args:
        path: a network that streamseg runs.
        frames: pictures of the kind that it will see; a few dozen.

    Raises:
        ModelLoadError: it is no such network, is not in float32, or ONNX Runtime cannot quantise it.
    """
    facts = inspect_onnx(path)
    if facts.family not in ("yolo-seg", "matte", "classmap"):
        raise ModelLoadError(facts.refusal())
    if facts.precision != "float32":
        raise ModelLoadError(f"{path.name} holds {facts.precision}; quantise the network in float32 that it came from")
    try:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise ModelLoadError(
            f'onnxruntime cannot quantise here ({one_line(error)}); run: pip install "streamseg[cpu]" onnx'
        ) from error
    with tempfile.TemporaryDirectory(prefix="streamseg-quantize-") as scratch, _quiet():
        named, folded, done = (Path(scratch) / name for name in ("named.onnx", "folded.onnx", "done.onnx"))
        onnx.save(_prepared(path, facts), str(named))
        try:
            # Batch normalisations go into the convolutions before them.
            quant_pre_process(str(named), str(folded), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(folded),
                str(done),
                _Reader(_feeds(path, frames)),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=sorted(kept_in_float(onnx.load(str(folded)).graph, facts)),
            )
        except ModelError:
            raise
        except Exception as error:  # whatever the quantiser trips over
            raise ModelLoadError(f"onnxruntime cannot quantise {path.name}: {one_line(error)}") from error
        return _with_metadata(done, facts.metadata)


def kept_in_float(graph: Any, facts: GraphFacts) -> set[str]:
    """Names of the nodes that a quantised network keeps in float.

    From each output back to the first convolutions: these and all that follows, for boxes in pixels, scores and
    coefficients that share a tensor would share one scale. Of a YOLO-seg graph also all that only the prototypes need.

    Args:
        graph: of an ONNX model whose nodes have names.
        facts: of that model.
    """
    makers = {name: node for node in graph.node for name in node.output}

    def features(node: Any) -> bool:
        # The convolution behind a softmax takes the mean of a box side's distribution.
        given = makers.get(node.input[0])
        return node.op_type in _CONVOLUTIONS and (given is None or given.op_type != "Softmax")

    kept = _upstream(makers, [tensor.name for tensor in facts.outputs], features)
    if facts.detections and facts.prototypes:
        kept |= _upstream(makers, [facts.prototypes]) - _upstream(makers, [facts.detections])
    return kept


def _upstream(makers: Mapping[str, Any], tensors: Iterable[str], last: Callable[[Any], bool] | None = None) -> set[str]:
    """Names of the nodes that make `tensors`, and of those before them, up to the `last` and with these."""
    found: set[str] = set()
    waiting = list(tensors)
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            if last is None or not last(node):
                waiting += node.input
    return found


def _prepared(path: Path, facts: GraphFacts) -> Any:
    """The model with a name for each node, and operators that know of a scale for each channel."""
    model = onnx.load(str(path))
    if facts.opset < _OPSET:
        try:
            model = onnx.version_converter.convert_version(model, _OPSET)
        except Exception as error:
            raise ModelLoadError(
                f"{path.name} is of opset {facts.opset} and cannot be brought to {_OPSET}, which int8 needs: "
                f"{one_line(error)}; export it again with a newer one"
            ) from error
    # Weights that are inputs too could be overridden, so nothing is folded into them (old exporters wrote them so).
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in weights]:
        model.graph.input.remove(value)
    model.ir_version = max(model.ir_version, _IR)
    for number, node in enumerate(model.graph.node):
        node.name = f"{number}:{node.op_type}"
    return model


def _with_metadata(path: Path, metadata: Mapping[str, str]) -> bytes:
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, dict(metadata))
    return bytes(model.SerializeToString())


class _Reader:
    """What ONNX Runtime's calibration reads; it asks for no more than this method."""

    def __init__(self, feeds: Iterator[dict[str, NDArray[Any]]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)


def _feeds(path: Path, frames: Iterable[Frame]) -> Iterator[dict[str, NDArray[Any]]]:
    """What the network is given for each frame, from the segmenter itself: no second way to prepare a picture."""
    taken: list[dict[str, NDArray[Any]]] = []

    class Taking:
        def __init__(self, session: Runs) -> None:
            self._session = session

        @property
        def on(self) -> Running:
            return self._session.on

        def run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
            taken.append({name: array.copy() for name, array in feeds.items()})
            return self._session.run(outputs, feeds)

    def open_session(wanted: Wanted) -> Runs:
        return Taking(Session(wanted.path, threads=wanted.threads))

    segment = load_segmenter(path, open_session=open_session, warm_up=False)
    for frame in frames:
        segment(frame)
        yield taken.pop()


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser gives advice to the root logger, and its sessions to standard error."""
    import onnxruntime

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(_ERRORS)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
        logging.disable(before)


def spread(length: int, count: int) -> range:
    """Places of between `count` and twice as many of `length` frames, evenly spaced; of all where there are fewer.

    >>> spread(100, 4)
    range(0, 100, 16)
    """
    step = 1
    while -(-length // step) >= 2 * count:
        step *= 2
    return range(0, length, step)
