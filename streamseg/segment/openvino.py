"""OpenVINO as a runtime of its own: on Intel and AMD processors faster than ONNX Runtime, most of all in bfloat16."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamseg.errors import InferenceError, ModelLoadError
from streamseg.segment.cache import cache_folder, prepare, sha256_of
from streamseg.segment.ort import PROVIDERS, Running, one_line, tiny_network, usable_cores

__all__ = ["OpenVinoSession", "installed", "try_out"]

_log = logging.getLogger(__name__)

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
# The words of its execution graph, as numpy says them.
_TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "i8": "int8", "u8": "int8"}


class OpenVinoSession:
    """A network that is loaded and runs on OpenVINO's processor plugin; a `Runs`.

    Attributes:
        on: what really runs it; the precision is read back from the compiled network.
    """

    def __init__(self, path: Path, *, threads: int | None = None, precision: str = "auto") -> None:
        """Load `path`.

        Args:
            path: an ONNX file.
            threads: None takes the cores that this process may use.
            precision: "fp32", "bf16", "fp16", or "auto": bf16 on a processor that has it, else fp32. Whatever is
                chosen, what a quantised network holds in int8 runs in int8.

        Raises:
            ModelLoadError: OpenVINO is missing, the processor has no such precision, or the file cannot be loaded.
        """
        openvino = _openvino()
        self._path = path
        threads = usable_cores() if threads is None else max(1, threads)
        try:
            core = openvino.Core()
            able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            if precision == "auto":
                precision = "bf16" if "BF16" in able else "fp32"
            elif precision.upper() not in able:
                raise ModelLoadError(
                    f"this processor computes no {precision} in OpenVINO; leave model.precision at auto, or choose fp32"
                )
            options = {
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
                # Pinned, two sessions side by side share one core and leave the other idle.
                "ENABLE_CPU_PINNING": False,
                **_cached(path),
            }
            model, self._channels_last = _channels_last(core.read_model(str(path)))
            compiled = core.compile_model(model, "CPU", options)
            self._request = compiled.create_infer_request()
            computes_in = _precision(compiled)
        except ModelLoadError:
            raise
        except Exception as error:  # OpenVINO raises RuntimeError, and other things from its bindings
            raise ModelLoadError(f"cannot load {path.name} on OpenVINO: {_last_line(error)}") from error
        self.on = Running("openvino", f"openvino {_version(openvino)}", threads, computes_in)

    def run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The named outputs for the named inputs.

        Raises:
            InferenceError: the network failed.
        """
        try:
            results = self._request.infer(dict(feeds), share_inputs=True, share_outputs=True)
            # The next run writes into the same places.
            arrays = {name: np.array(results[name]) for name in outputs}
            return [a.transpose(0, 3, 1, 2) if name in self._channels_last else a for name, a in arrays.items()]
        except Exception as error:
            raise InferenceError(f"{self._path.name} failed on a frame: {_last_line(error)}") from error


def installed() -> bool:
    """Whether the package is there; it may still fail to load."""
    return importlib.util.find_spec("openvino") is not None


def try_out() -> str:
    """Run a tiny network: OpenVINO's version, and what this processor computes fastest in.

    Raises:
        ModelLoadError: it cannot run, and why.
    """
    openvino = _openvino()
    try:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(tiny_network()), "CPU")
        compiled.create_infer_request().infer([np.zeros((1, 3, 8, 8), np.float32)])
        return f"openvino {_version(openvino)}, {_precision(compiled)}"
    except Exception as error:
        raise ModelLoadError(f"openvino cannot run: {_last_line(error)}; {PROVIDERS['openvino'][1]}") from error


def _openvino() -> Any:
    # Its import sends a note to Google Analytics through this package, unasked, and starts a thread for it. Where the
    # package is missing it sends nothing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise ModelLoadError(
            f"openvino cannot be imported ({one_line(error)}); run: {PROVIDERS['openvino'][1]}"
        ) from error
    return openvino


def _channels_last(model: Any) -> tuple[Any, set[str]]:
    """The model with outputs of several planes in the order that the convolutions write them in, and their names.

    Brought into planes, prototypes take as long as a layer of the network.
    """
    from openvino import Layout
    from openvino.preprocess import PrePostProcessor

    steps, names = PrePostProcessor(model), set()
    for number, output in enumerate(model.outputs):
        shape = output.partial_shape
        if len(shape) == 4 and shape[1].min_length > 1 and shape[3].max_length != 1:
            steps.output(number).model().set_layout(Layout("NCHW"))
            steps.output(number).tensor().set_layout(Layout("NHWC"))
            names |= output.names
    return steps.build(), names


def _version(openvino: Any) -> str:
    return str(openvino.__version__).split("-")[0]


def _cached(path: Path) -> dict[str, str]:
    """Where the compiled network is kept: a folder for what the file holds, for OpenVINO goes by its name and date."""
    folder = cache_folder() / "openvino" / sha256_of(path)[:16]
    try:
        return {"CACHE_DIR": str(prepare(folder))}
    except ModelLoadError as error:
        _log.debug("no cache for OpenVINO: %s", error)
        return {}


def _precision(compiled: Any) -> str:
    """What most convolutions really run in; the hint is only a wish."""
    kinds: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        if facts["layerType"].astype(str) == "Convolution":
            kinds[facts["runtimePrecision"].astype(str)] += 1
    found = kinds.most_common(1)[0][0] if kinds else str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    return _TYPES.get(found, found)


def _last_line(error: Exception) -> str:
    """OpenVINO tells where in its source it failed, line by line; why comes last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(RuntimeError(lines[-1])) if lines else type(error).__name__
