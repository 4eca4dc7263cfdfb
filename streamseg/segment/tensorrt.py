"""TensorRT: engines that are built once for a network and a card, and not trusted before they agree with the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import logging
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamseg.errors import ModelError, ModelLoadError
from streamseg.segment.cache import cache_folder, locked, prepare, sha256_of
from streamseg.segment.cuda import CudaSession
from streamseg.segment.inspect import GraphFacts, inspect_onnx
from streamseg.segment.ort import AbsentError, Runs, Session, try_out

__all__ = ["disagreement", "engine_folder", "open_checked", "probe_feeds"]

_log = logging.getLogger(__name__)

# ONNX Runtime takes no other words for yes here: it refuses "1".
_YES = "True"
_FLAGS = {"fp32": {}, "fp16": {"trt_fp16_enable": _YES}, "bf16": {"trt_bf16_enable": _YES}}
_WORDS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10", "nvinfer_11.dll", "nvinfer_10.dll")
# Half floats differ by less than a hundredth; an engine of another network or card differs by as much as there is.
_MOST_DISAGREEMENT = 0.1
# Below this a channel's values are as good as zero, and a share of them says nothing.
_SMALL = 0.05
_SMI_TIMEOUT_S = 20


def open_checked(
    path: Path, *, threads: int | None = None, precision: str = "auto", say: Callable[[str], None] = lambda line: None
) -> Runs:
    """A session whose engine gives what the CPU gives.

    Args:
        path: an ONNX file of a fixed input.
        threads: of what stays on the CPU.
        precision: "fp32", "bf16", "fp16"; "auto" is fp16. What a quantised network holds in int8 runs in int8.
        say: told before an engine is built, which takes minutes.

    Raises:
        ModelLoadError: TensorRT cannot run, the input has no fixed size, or a new engine does not agree either.
    """
    runtime = try_out("tensorrt")
    facts = inspect_onnx(path)
    if facts.image is None or None in facts.image.shape:
        raise ModelLoadError(
            f"{path.name} leaves the size of its input open, and TensorRT builds an engine for one size; "
            "export it with a fixed one, or choose --provider cuda"
        )
    chosen = "fp16" if precision == "auto" else precision
    options = {**_FLAGS[chosen], **({"trt_int8_enable": _YES} if facts.precision == "int8" else {})}
    folder = engine_folder(path, facts, chosen, (runtime, *_machine()))
    feeds = probe_feeds(facts)
    with locked(folder):  # two at once would build it twice, and read each other's halves
        return _checked(path, folder, feeds, threads, _WORDS[chosen], options, say)


def _checked(
    path: Path,
    folder: Path,
    feeds: Mapping[str, NDArray[Any]],
    threads: int | None,
    precision: str,
    options: Mapping[str, str],
    say: Callable[[str], None],
) -> Runs:
    names = [tensor.name for tensor in inspect_onnx(path).outputs]
    expected = Session(path, threads=threads).run(names, feeds)
    cached = any(folder.glob("*.engine"))
    while True:
        if not cached:
            say(f"building a TensorRT engine for {path.name}; that takes minutes, and is kept for the next time")
        try:
            session = CudaSession(
                path, provider="tensorrt", threads=threads, precision=precision,
                options={**_engine_options(prepare(folder)), **options},
            )  # fmt: skip
            apart = max(map(disagreement, expected, session.run(names, feeds)), default=0.0)
            if apart <= _MOST_DISAGREEMENT:
                return session
            why = f"it differs from the CPU by {apart:.0%}"
        except ModelError as error:
            why = str(error)
        # Whatever came of it, nobody shall find it here.
        shutil.rmtree(folder, ignore_errors=True)
        if not cached:
            raise ModelLoadError(f"the TensorRT engine of {path.name} is of no use: {why}; choose --provider cuda")
        _log.debug("cached engine of %s thrown away: %s", path.name, why)
        cached = False


def engine_folder(path: Path, facts: GraphFacts, precision: str, machine: tuple[str, ...]) -> Path:
    """Where the engine is kept: a place of its own for each network, shape, precision, card, driver and version.

    `machine` tells card, driver and versions apart.
    """
    shape = "x".join(map(str, facts.image.shape)) if facts.image else ""
    key = "\n".join((sha256_of(path), shape, precision, *machine))
    return cache_folder() / "tensorrt" / hashlib.sha256(key.encode()).hexdigest()[:24]


def probe_feeds(facts: GraphFacts) -> dict[str, NDArray[Any]]:
    """One frame to compare on: smooth waves and a bright disc, so that every layer has something to answer to."""
    assert facts.image is not None
    shape = [size or 1 for size in facts.image.shape]
    height, width = (shape[2], shape[3]) if facts.layout == "nchw" else (shape[1], shape[2])
    y, x = np.mgrid[:height, :width] / max(height, width)
    planes = [0.5 + 0.3 * np.sin((9 + 7 * n) * x + (5 - 3 * n) * y) for n in range(3)]
    disc = (x - 0.4) ** 2 + (y - 0.3) ** 2 < 0.04
    picture = np.stack([np.where(disc, 0.95 - 0.2 * n, plane) for n, plane in enumerate(planes)])
    if facts.layout == "nhwc":
        picture = picture.transpose(1, 2, 0)
    return {facts.image.name: np.ascontiguousarray(picture[None], facts.image.dtype)}


def disagreement(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """How far two answers are apart: the worst channel's RMS difference as a share of its RMS; infinite for NaN."""
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    axes = tuple(axis for axis in range(expected.ndim) if axis != 1)
    difference = found.astype(np.float64) - expected
    size = np.sqrt(np.square(expected, dtype=np.float64).mean(axis=axes))
    return float((np.sqrt(np.square(difference).mean(axis=axes)) / np.maximum(size, _SMALL)).max())


def _engine_options(folder: Path) -> dict[str, str]:
    return {
        "trt_engine_cache_enable": _YES,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": _YES,
        "trt_timing_cache_path": str(folder),
    }


def _machine() -> tuple[str, ...]:
    """The card with its compute capability and driver, and TensorRT's version.

    Raises:
        AbsentError: there is no telling.
    """
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader", "--id=0"],
            capture_output=True, text=True, check=True, timeout=_SMI_TIMEOUT_S,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise AbsentError(
            "nvidia-smi cannot say which card this is, so no TensorRT engine can be kept for it; choose --provider cuda"
        ) from error
    return told, _tensorrt_version()


def _tensorrt_version() -> str:
    for name in _LIBRARIES:
        with contextlib.suppress(OSError, AttributeError):
            return str(ctypes.CDLL(name).getInferLibVersion())
    for package in ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return "unknown"
