"""What a network was trained to see, where that is not R, G, B in 0..1, and the picture made so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamseg.errors import ModelLoadError
from streamseg.pixels.letterbox import Placement

__all__ = ["Normaliser", "Preprocess"]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """What a network was trained to see: (value - mean) / std of R, G, B in 0..1.

    Attributes:
        mean: of R, G, B.
        std: of R, G, B.
        swapped: the network takes B, G, R; mean and std stay in the order R, G, B.
        letterbox: the aspect is kept and the rest is grey, instead of stretching the picture.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    swapped: bool = False
    letterbox: bool = False

    def __post_init__(self) -> None:
        """Raise `ModelLoadError` for what nothing can be divided by."""
        if 0 in self.std or not np.isfinite([*self.mean, *self.std]).all():
            given = f"{','.join(map(str, self.mean))} and {','.join(map(str, self.std))}"
            raise ModelLoadError(f"mean and std of a network's input must be numbers, std not 0, not {given}")

    def place(self, frame_wh: tuple[int, int], input_wh: tuple[int, int], picture_wh: tuple[int, int]) -> Placement:
        """How a frame lies in the network's input; `picture_wh` is the part of it that shows picture. All in px."""
        if self.letterbox:
            return Placement.letterbox(frame_wh, input_wh, picture_wh)
        return Placement.stretch(frame_wh, input_wh)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Preprocess:
        """From the keys `mean`, `std` (JSON lists), `channel_order` ("rgb" or "bgr") and `letterbox` ("true").

        Raises:
            ModelLoadError: a list is not one of three numbers.
        """

        def three(key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
            if key not in metadata:
                return default
            try:
                first, second, third = (float(value) for value in json.loads(metadata[key]))
            except (TypeError, ValueError) as error:
                raise ModelLoadError(f"metadata {key!r} is no list of three numbers: {metadata[key]!r}") from error
            return first, second, third

        return cls(
            three("mean", (0.0, 0.0, 0.0)),
            three("std", (1.0, 1.0, 1.0)),
            swapped=metadata.get("channel_order", "rgb").lower() == "bgr",
            letterbox=metadata.get("letterbox", "").lower() == "true",
        )


class Normaliser:
    """Brings R, G, B in 0..1 to what a network was trained to see.

    Args:
        preprocess: what that is.
        channels_last: the input is (1, h, w, 3) instead of (1, 3, h, w).
    """

    def __init__(self, preprocess: Preprocess, *, channels_last: bool) -> None:
        self._chosen = preprocess
        self._axis = 3 if channels_last else 1
        self._blob: NDArray[np.floating] | None = None

    def __call__(self, blob: NDArray[np.floating]) -> NDArray[np.floating]:
        """The input itself where there is nothing to do, else a buffer that the next call overwrites."""
        chosen = self._chosen
        if chosen.mean == (0, 0, 0) and chosen.std == (1, 1, 1) and not chosen.swapped:
            return blob
        if self._blob is None or self._blob.shape != blob.shape:
            self._blob = np.empty_like(blob)
        source, target = np.moveaxis(blob, self._axis, 0), np.moveaxis(self._blob, self._axis, 0)
        for channel in range(3):
            place = 2 - channel if chosen.swapped else channel
            np.subtract(source[channel], blob.dtype.type(chosen.mean[channel]), out=target[place])
            target[place] *= blob.dtype.type(1 / chosen.std[channel])
        return self._blob
