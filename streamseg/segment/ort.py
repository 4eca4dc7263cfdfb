"""ONNX Runtime: sessions, what its execution providers need, thread counts."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamseg.errors import InferenceError, ModelLoadError

__all__ = [
    "PROVIDERS",
    "AbsentError",
    "Running",
    "Runs",
    "Session",
    "load",
    "one_line",
    "tiny_network",
    "try_out",
    "usable_cores",
]

_log = logging.getLogger(__name__)

# What users type: ONNX Runtime's name, and what makes it available.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider", 'pip install "streamseg[cpu]"'),
    "cuda": ("CUDAExecutionProvider", 'pip install "streamseg[gpu]" "onnxruntime-gpu[cuda,cudnn]"'),
    "tensorrt": (
        "TensorrtExecutionProvider",
        'pip install "streamseg[gpu]" "onnxruntime-gpu[cuda,cudnn]" "tensorrt-cu13<11"',
    ),
    "openvino": ("OpenVINOExecutionProvider", 'pip install "streamseg[openvino]"'),
    "directml": ("DmlExecutionProvider", "pip install onnxruntime-directml in place of onnxruntime"),
    "coreml": ("CoreMLExecutionProvider", "pip install onnxruntime on macOS"),
}
# ONNX Runtime's levels of logging; the first is its own default.
_WARNING, _FATAL = 2, 4
# Providers that have run the tiny network in this process; for TensorRT that takes seconds.
_WORKS: set[str] = set()


class AbsentError(ModelLoadError):
    """A runtime is not installed, which is no fault of it."""


@dataclass(frozen=True, slots=True)
class Running:
    """What really runs a network.

    Attributes:
        provider: short name of the execution provider, a key of `PROVIDERS`.
        runtime: the library and its version.
        precision: what it computes in, where that is not what the file holds: "float32", "float16", "bfloat16".
        threads: within an operator, on the CPU.
        cpu_nodes: another provider runs, and part of the graph stays on the CPU.
    """

    provider: str
    runtime: str
    threads: int
    precision: str | None = None
    cpu_nodes: bool = False


class Runs(Protocol):
    """What a segmenter needs of a session."""

    @property
    def on(self) -> Running:
        """What really runs it."""
        ...

    def run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The named outputs for the named inputs.

        Raises:
            InferenceError: the network failed.
        """
        ...


class Session:
    """A network that is loaded and runs on ONNX Runtime; a `Runs`.

    Attributes:
        on: what really runs it.
    """

    def __init__(self, path: Path, *, provider: str = "cpu", threads: int | None = None) -> None:
        """Load `path`.

        Args:
            path: an ONNX file.
            provider: a key of `PROVIDERS`.
            threads: on the CPU; None takes the cores that this process may use.

        Raises:
            ModelLoadError: ONNX Runtime is missing, the provider cannot run, or the file cannot be loaded.
        """
        self._path = path
        threads = usable_cores() if threads is None else max(1, threads)
        runtime, self._session, cpu_nodes = load(path, provider, threads)
        self.on = Running(provider, f"onnxruntime {runtime.__version__}", threads, cpu_nodes=cpu_nodes)

    def run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The named outputs for the named inputs.

        Raises:
            InferenceError: the network failed.
        """
        try:
            return list(self._session.run(outputs, feeds))
        except Exception as error:  # ONNX Runtime's classes share no root but Exception
            raise InferenceError(f"{self._path.name} failed on a frame: {one_line(error)}") from error


def usable_cores() -> int:
    """Physical cores that this process may use: one thread more than that makes inference three times slower."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not on macOS or Windows
        return max(1, (os.cpu_count() or 2) // (2 if os.name == "nt" else 1))
    cores = set()
    for cpu in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            cores.add(str(cpu))
    return max(1, min(len(cores), _cpu_quota()))


def _cpu_quota() -> int:
    """Whole cores that a container may use (control groups, version 2)."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # none, or "max"
        return 1 << 16


def try_out(provider: str) -> str:
    """Run a tiny network on an execution provider; the version of ONNX Runtime.

    Raises:
        ModelLoadError: it cannot run, and why.
    """
    runtime = _onnxruntime()
    _try_out(runtime, provider)
    return f"onnxruntime {runtime.__version__}"


def _try_out(runtime: ModuleType, name: str) -> None:
    """Run a tiny network, once: libraries that a provider lacks often show at its first convolution only."""
    if name in _WORKS:
        return
    full, remedy = PROVIDERS[name]
    cannot = f"execution provider {name!r} cannot run"
    printed = io.StringIO()
    if full not in runtime.get_available_providers():
        raise AbsentError(f"{cannot}: not in this build of onnxruntime; {remedy}")
    try:
        # What a provider lacks is told in the error; its loader writes it to standard error as well.
        runtime.set_default_logger_severity(_FATAL)
        if name in ("cuda", "tensorrt"):
            with contextlib.redirect_stdout(printed):  # on which a video may go out
                _preload(runtime, name)
        session = _build(runtime, tiny_network(), name, 1, {}, alone=False)
        session.run(None, {"x": np.zeros((1, 3, 8, 8), np.float32)})
    except Exception as error:  # ONNX Runtime's classes share no root but Exception
        missing = ", ".join(re.findall(r"Failed to load ([^\s:]+):", printed.getvalue()))
        why = f"cannot load {missing}" if missing else one_line(error)
        raise ModelLoadError(f"{cannot}: {why}; {remedy}") from error
    finally:
        runtime.set_default_logger_severity(_WARNING)
    _WORKS.add(name)


def _preload(runtime: ModuleType, name: str) -> None:
    """Libraries of NVIDIA's packages, which lie where no loader looks."""
    if hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()
    if name == "tensorrt":
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module("tensorrt_libs")  # loads them


def load(
    path: Path, provider: str, threads: int, options: Mapping[str, str] = MappingProxyType({})
) -> tuple[ModuleType, Any, bool]:
    """ONNX Runtime, its session, and whether part of the graph runs on the CPU beside another provider.

    Args:
        path: an ONNX file.
        provider: a key of `PROVIDERS`.
        threads: on the CPU.
        options: of the provider, in its own words.

    Raises:
        ModelLoadError: ONNX Runtime is missing, the provider cannot run, or the file cannot be loaded.
    """
    runtime = _onnxruntime()
    _try_out(runtime, provider)
    if provider != "cpu":
        try:
            return runtime, _build(runtime, str(path), provider, threads, options, alone=True), False
        except Exception as error:
            _log.debug("graph does not fit provider %s alone: %s", provider, one_line(error))
    try:
        return runtime, _build(runtime, str(path), provider, threads, options, alone=False), provider != "cpu"
    except Exception as error:
        raise ModelLoadError(f"cannot load {path.name} on {provider!r}: {one_line(error)}") from error


def _build(
    runtime: ModuleType, source: str | bytes, name: str, threads: int, own: Mapping[str, str], *, alone: bool
) -> Any:
    full = PROVIDERS[name][0]
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    # Workers that spin between operators save 5 % of a network that runs alone, and take a third of the speed of one
    # that runs beside a decoder and an encoder.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if name == "directml":  # it refuses to run otherwise
        options.enable_mem_pattern = False
    providers: list[Any] = [(full, dict(own)) if own else full]
    if name == "tensorrt":  # what it does not know goes on on the same card
        providers.append(PROVIDERS["cuda"][0])
    if alone:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    elif name != "cpu":
        providers.append(PROVIDERS["cpu"][0])
    # Without enable_fallback=0 the runtime prints a banner and goes on with the CPU.
    session = runtime.InferenceSession(source, options, providers=providers, enable_fallback=0)
    if session.get_providers()[0] != full:
        raise RuntimeError(f"onnxruntime went on with {session.get_providers()[0]}")
    return session


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise AbsentError(
            f'onnxruntime cannot be imported ({one_line(error)}); run: pip install "streamseg[cpu]"'
        ) from error
    onnxruntime.disable_telemetry_events()  # on Windows, where the environment does not say it
    return onnxruntime


def tiny_network() -> bytes:
    """A convolution, as an ONNX file: x (1, 3, 8, 8) float32 in, y (1, 4, 8, 8) out."""
    from onnx import TensorProto, helper

    shape = [1, 3, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 1, 1], [0.1] * 12)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def one_line(error: BaseException) -> str:
    """What a runtime's exception says, on one line and not too long."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))
    text = re.sub(r"^/\S+\.(?:cc|h):\d+ .*?\) (?=\S)", "", text)  # the place in its source
    return text[:300].rstrip(". ") or type(error).__name__
