"""Networks in float16, for cards that compute in it twice as fast."""

from __future__ import annotations

from pathlib import Path

import onnx

from streamseg.errors import ModelLoadError
from streamseg.segment.cache import cache_folder, replacing, sha256_of
from streamseg.segment.inspect import inspect_onnx
from streamseg.segment.ort import one_line

__all__ = ["in_half"]


def in_half(path: Path) -> Path:
    """The same network with weights and sums in float16; its input and outputs stay as they are.

    A network that holds float16 is given back as it is. What was made is kept in the cache.

    Raises:
        ModelLoadError: it is in int8, cannot be turned, or the cache cannot be written.
    """
    precision = inspect_onnx(path).precision
    if precision == "float16":
        return path
    if precision != "float32":
        raise ModelLoadError(f"{path.name} holds {precision}, which has no half; leave model.precision at auto")
    half = cache_folder() / "half" / f"{sha256_of(path)[:16]}.onnx"
    if not half.exists():
        try:
            from onnxruntime.transformers.float16 import convert_float_to_float16

            data = convert_float_to_float16(onnx.load(str(path)), keep_io_types=True).SerializeToString()
        except Exception as error:  # whatever the converter trips over
            raise ModelLoadError(
                f"{path.name} cannot be turned into float16: {one_line(error)}; leave model.precision at auto"
            ) from error
        with replacing(half) as file:
            file.write(data)
    return half
