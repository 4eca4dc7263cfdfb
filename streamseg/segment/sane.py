"""Refuse what a network gives when its numbers have overflowed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamseg.errors import InferenceError

__all__ = ["refuse_nan"]

_HALF_INFINITY = 0x7C00


def refuse_nan(model: str, *outputs: NDArray[np.floating]) -> None:
    """Raise where an output of the network in the file `model` holds NaN; infinities pass.

    A smoother that had taken one in would never be rid of it.

    Raises:
        InferenceError: there is one.
    """
    if any(_has_nan(output) for output in outputs if output.size):
        raise InferenceError(f"{model} gave values that are no numbers; try model.precision fp32, or an fp32 export")


def _has_nan(values: NDArray[np.floating]) -> bool:
    if values.dtype == np.float16 and values.flags.c_contiguous:
        # numpy compares integers 100 times faster than half floats; NaN lies beyond infinity in either sign.
        bits = values.view(np.int16)
        return bool(bits.max() > _HALF_INFINITY or bits.view(np.uint16).max() > _HALF_INFINITY | 0x8000)
    return bool(np.isnan(values.max()))
