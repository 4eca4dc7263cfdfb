"""The ladder of runtimes: which one runs a network."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streamseg.errors import ModelLoadError
from streamseg.segment import openvino, tensorrt
from streamseg.segment.cuda import CudaSession
from streamseg.segment.half import in_half
from streamseg.segment.lighten import lightened
from streamseg.segment.ort import AbsentError, Running, Runs, Session, one_line, try_out

__all__ = ["LADDER", "PRECISIONS", "Wanted", "describe_running", "open_session", "probe"]

_log = logging.getLogger(__name__)

LADDER = ("tensorrt", "cuda", "coreml", "directml", "openvino", "cpu")
# From the top: the first that really builds a session of the network.
_AUTO = LADDER
_ON_THE_CPU = ("openvino", "cpu")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A session to open; those who want equal ones can share one.

    Attributes:
        path: an ONNX file.
        provider: "auto" or one of `LADDER`.
        threads: within an operator, on the CPU; None takes the cores that this process may use.
        precision: one of `PRECISIONS`; "auto" is the fastest that loses next to nothing.
    """

    path: Path
    provider: str = "auto"
    threads: int | None = None
    precision: str = "auto"


def open_session(wanted: Wanted, say: Callable[[str], None] = lambda line: None) -> Runs:
    """The session that is wanted.

    Args:
        wanted: on "auto" what cannot run it is passed over.
        say: told in one line each what takes minutes, and why "auto" passed over a GPU that there is a runtime for.

    Raises:
        ModelLoadError: what was asked for cannot run, or nothing can.
    """
    if wanted.provider != "auto":
        if wanted.provider not in LADDER:
            raise ModelLoadError(
                f"no such execution provider: {wanted.provider!r}; there are auto, {', '.join(LADDER)}"
            )
        return _open(wanted, wanted.provider, say)
    failed: dict[str, ModelLoadError] = {}
    for name in _AUTO:
        try:
            session = _open(wanted, name, say)
        except ModelLoadError as error:
            _log.debug("%s passed over: %s", name, error)
            failed[name] = error
        else:
            if name in _ON_THE_CPU:
                for gpu, reason in failed.items():
                    if gpu not in _ON_THE_CPU and not isinstance(reason, AbsentError):
                        say(f"passed over: {reason}")
            return session
    raise failed[_AUTO[-1]]


def describe_running(on: Running) -> str:
    """For people: ``openvino (openvino 2026.4.1, bfloat16, 2 threads)``."""
    facts = [on.runtime, *([on.precision] if on.precision else [])]
    if on.provider in _ON_THE_CPU:
        facts.append(f"{on.threads} thread{'s' if on.threads != 1 else ''}")
    if on.cpu_nodes:
        facts.append("part of it on the CPU")
    return f"{on.provider} ({', '.join(facts)})"


def probe() -> list[tuple[str, bool, str]]:
    """Each rung of the ladder, whether it runs a tiny network, and its runtime, or why not and what to do."""
    found = []
    for name in LADDER:
        try:
            found.append((name, True, openvino.try_out() if _is_package(name) else try_out(name)))
        except ModelLoadError as error:
            found.append((name, False, one_line(error)))
    return found


def _open(wanted: Wanted, name: str, say: Callable[[str], None]) -> Runs:
    path, threads, precision = wanted.path, wanted.threads, wanted.precision
    if _is_package(name):
        return openvino.OpenVinoSession(lightened(path), threads=threads, precision=precision)
    if name == "tensorrt":
        return tensorrt.open_checked(path, threads=threads, precision=precision, say=say)
    if name == "cuda" and precision == "fp16":
        return CudaSession(in_half(path), threads=threads, precision="float16")
    if precision not in ("auto", "fp32"):
        raise ModelLoadError(
            f"{name!r} computes in what the file holds, not in {precision}; leave model.precision at auto"
        )
    if name == "cuda":
        # On cards that have it, convolutions of float32 otherwise run in TF32, with ten bits of mantissa.
        return CudaSession(path, threads=threads, options={"use_tf32": str(int(precision == "auto"))})
    return Session(lightened(path) if name == "cpu" else path, provider=name, threads=threads)


def _is_package(name: str) -> bool:
    """Whether OpenVINO's own package serves, and not ONNX Runtime."""
    return name == "openvino" and openvino.installed()
