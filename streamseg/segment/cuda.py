"""NVIDIA cards: input and outputs stay in place on the card, so that a whole network is one launch (a CUDA graph)."""

from __future__ import annotations

import ctypes
import logging
import math
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamseg.errors import InferenceError, ModelLoadError
from streamseg.segment.inspect import inspect_onnx
from streamseg.segment.ort import Running, load, one_line, try_out, usable_cores

__all__ = ["CudaSession"]

_log = logging.getLogger(__name__)

# The option, and its words for no and yes: TensorRT's are refused in the other's.
_GRAPH = {"cuda": ("enable_cuda_graph", ("0", "1")), "tensorrt": ("trt_cuda_graph_enable", ("False", "True"))}
_TYPES: dict[str, DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}
_FROM_DEVICE = 2


class CudaSession:
    """A network that is loaded and runs on an NVIDIA card through ONNX Runtime; a `Runs`.

    Attributes:
        on: what really runs it.
    """

    def __init__(
        self,
        path: Path,
        *,
        provider: str = "cuda",
        threads: int | None = None,
        options: Mapping[str, str] = MappingProxyType({}),
        precision: str | None = None,
    ) -> None:
        """Load `path`.

        Args:
            path: an ONNX file.
            provider: "cuda" or "tensorrt".
            threads: of what stays on the CPU; None takes the cores that this process may use.
            options: of the provider, in its own words.
            precision: that these choose, for reports.

        Raises:
            ModelLoadError: the provider cannot run, or the file cannot be loaded.
        """
        self._path = path
        self._provider = provider
        self._threads = usable_cores() if threads is None else max(1, threads)
        self._options = options
        self._precision = precision
        try_out(provider)  # loads the CUDA library that `Card` looks for
        # A graph replays the same addresses: free shapes have none, and the copies must be known to be done.
        self._load(graph=Card.found() is not None and not inspect_onnx(path).dynamic)

    def _load(self, *, graph: bool) -> None:
        name, words = _GRAPH[self._provider]
        options = {**self._options, name: words[graph]}
        try:
            runtime, self._session, cpu_nodes = load(self._path, self._provider, self._threads, options)
        except ModelLoadError:
            if not graph:
                raise
            cpu_nodes = True  # ONNX Runtime refuses to load, with a graph, what is not on the card as a whole
        if graph and (cpu_nodes or not Places.fit(self._session)):
            self._load(graph=False)
            return
        self._graph = graph
        self._places = Places(runtime, self._session) if Places.fit(self._session) else None
        self.on = Running(
            self._provider, f"onnxruntime {runtime.__version__}", self._threads, self._precision, cpu_nodes
        )

    def run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The named outputs for the named inputs.

        Raises:
            InferenceError: the network failed.
        """
        try:
            return self._run(outputs, feeds)
        except Exception as error:  # ONNX Runtime's classes share no root but Exception
            if not self._graph:
                raise self._failure(error) from error
            # Another thread that uses the card while the graph is recorded spoils the recording.
            _log.debug("no CUDA graph for %s: %s", self._path.name, one_line(error))
        try:
            self._load(graph=False)
            return self._run(outputs, feeds)
        except Exception as error:
            raise self._failure(error) from error

    def _run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        if self._places is None:
            return list(self._session.run(outputs, feeds))
        return self._places.run(outputs, feeds)

    def _failure(self, error: Exception) -> InferenceError:
        return InferenceError(f"{self._path.name} failed on a frame: {one_line(error)}")


class Places:
    """Fixed places on the card for what goes in and comes out, and page-locked ones in memory for the copies."""

    def __init__(self, runtime: ModuleType, session: Any) -> None:
        """`session` is one that `fit` accepts."""
        self._session = session
        self._binding = session.io_binding()
        self._card = Card.found()
        self._on_card: dict[str, Any] = {}
        self._in_memory: dict[str, NDArray[Any]] = {}
        given, made = session.get_inputs(), session.get_outputs()
        for tensor in (*given, *made):
            dtype = _TYPES[tensor.type]
            self._on_card[tensor.name] = runtime.OrtValue.ortvalue_from_shape_and_type(tensor.shape, dtype, "cuda", 0)
            locked = self._card.page_locked(tensor.shape, dtype) if self._card else None
            self._in_memory[tensor.name] = np.empty(tensor.shape, dtype) if locked is None else locked
        for tensor in given:
            self._binding.bind_ortvalue_input(tensor.name, self._on_card[tensor.name])
        for tensor in made:
            self._binding.bind_ortvalue_output(tensor.name, self._on_card[tensor.name])

    @staticmethod
    def fit(session: Any) -> bool:
        """Whether all shapes are fixed, and all types known."""
        return all(
            tensor.type in _TYPES and all(isinstance(size, int) and size > 0 for size in tensor.shape)
            for tensor in (*session.get_inputs(), *session.get_outputs())
        )

    def run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The named outputs, as arrays of their own."""
        for name, array in feeds.items():
            staged = self._in_memory[name]
            if array.shape != staged.shape:
                raise ValueError(f"{name} is {array.shape}, not {staged.shape}")
            np.copyto(staged, array)
            self._on_card[name].update_inplace(staged)
        if self._card:
            self._card.wait()
        self._session.run_with_iobinding(self._binding)
        return [self._fetch(name) for name in outputs]

    def _fetch(self, name: str) -> NDArray[Any]:
        value = self._on_card[name]
        if self._card is None:
            return np.array(value.numpy())
        staged = self._in_memory[name]
        self._card.fetch(staged, value.data_ptr())
        return staged.copy()


class Card:
    """The CUDA library that ONNX Runtime has loaded, for what its Python interface has no words for."""

    _known: Card | None = None

    def __init__(self, library: Any) -> None:
        self._library = library

    @classmethod
    def found(cls) -> Card | None:
        """The library; None where it is not to be found."""
        if cls._known is None:
            for name in _library_names():
                try:
                    cls._known = cls(ctypes.CDLL(name))
                    break
                except OSError:
                    continue
        return cls._known

    def page_locked(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any] | None:
        """Memory that the card reads and writes by itself, at twice the speed; None where there is none left."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        address = ctypes.c_void_p()
        if self._library.cudaHostAlloc(ctypes.byref(address), ctypes.c_size_t(size), 0) or not address.value:
            return None
        buffer: Any = (ctypes.c_uint8 * size).from_address(address.value)
        weakref.finalize(buffer, self._library.cudaFreeHost, ctypes.c_void_p(address.value))
        return np.frombuffer(buffer, dtype).reshape(shape)

    def wait(self) -> None:
        """Until every copy is done."""
        self._check(self._library.cudaDeviceSynchronize())

    def fetch(self, into: NDArray[Any], address: int) -> None:
        """Copy from the card."""
        where = ctypes.c_void_p(into.ctypes.data), ctypes.c_void_p(address), ctypes.c_size_t(into.nbytes)
        self._check(self._library.cudaMemcpy(*where, _FROM_DEVICE))

    @staticmethod
    def _check(code: int) -> None:
        if code:
            raise RuntimeError(f"CUDA error {code}")


def _library_names() -> tuple[str, ...]:
    """Of the version that ONNX Runtime was built with: another one may want a newer driver."""
    import onnxruntime

    major = str(getattr(onnxruntime, "cuda_version", "") or "").partition(".")[0]
    return (f"libcudart.so.{major}", f"cudart64_{major}.dll") if major else ()
