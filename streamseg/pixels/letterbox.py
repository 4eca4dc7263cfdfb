"""A frame's planes as the RGB float input of a network, and the way back from its coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Colour, Frame, Plane
from streamseg.pixels.planes import half_luma, halve, yuv_from_rgb_matrix

__all__ = ["ModelInput", "Placement", "best_rectangle", "picture_size", "rgb_from_yuv_matrix"]

# The grey that YOLO networks are trained with.
_PAD = 114 / 255
# Of the input that a network of any size is given, px.
_LONG_SIDE = 640
_HALVES = (np.arange(256) / 255).astype(np.float16).view(np.uint16)


@dataclass(frozen=True, slots=True)
class Placement:
    """How a frame lies in a network's input.

    Attributes:
        frame_wh: of the frame, px.
        picture_wh: of the picture in the frame's upper left corner, without the padding to even sides, px.
        input_wh: of the network's input, px.
        left, top: where the picture begins in the input, px.
        inner_wh: the part of the input that the picture covers, px.
    """

    frame_wh: tuple[int, int]
    picture_wh: tuple[int, int]
    input_wh: tuple[int, int]
    left: int
    top: int
    inner_wh: tuple[int, int]

    @classmethod
    def letterbox(
        cls, frame_wh: tuple[int, int], input_wh: tuple[int, int], picture_wh: tuple[int, int] | None = None
    ) -> Placement:
        """Keep the aspect and centre; an odd pixel of padding goes to the right and the bottom, as ultralytics does.

        >>> Placement.letterbox((1280, 720), (640, 640)).top
        140
        """
        picture_wh = picture_wh or frame_wh
        scale = min(input_wh[0] / picture_wh[0], input_wh[1] / picture_wh[1])
        width, height = (max(1, round(side * scale)) for side in picture_wh)
        left, top = (input_wh[0] - width) // 2, (input_wh[1] - height) // 2
        return cls(frame_wh, picture_wh, input_wh, left, top, (width, height))

    @classmethod
    def stretch(cls, frame_wh: tuple[int, int], input_wh: tuple[int, int]) -> Placement:
        """Fill the input with the whole frame and let the aspect go."""
        return cls(frame_wh, frame_wh, input_wh, 0, 0, input_wh)

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Input pixels a frame pixel."""
        return self.inner_wh[0] / self.picture_wh[0], self.inner_wh[1] / self.picture_wh[1]

    def to_frame(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 4) xyxy boxes in input px as new ones in frame px, clipped to the picture."""
        offset = np.array((self.left, self.top) * 2, np.float32)
        within = (boxes - offset) / np.array(self.scale_xy * 2, np.float32)
        return np.minimum(np.maximum(within, 0), np.array(self.picture_wh * 2, np.float32))


def best_rectangle(picture_wh: tuple[int, int], *, stride: int = 32) -> tuple[int, int]:
    """The smallest input (w, h) of multiples of `stride` that holds the picture with its longer side at 640 px.

    >>> best_rectangle((1280, 720))
    (640, 384)
    """
    scale = _LONG_SIDE / max(picture_wh)
    width, height = (max(stride, -(-round(side * scale) // stride) * stride) for side in picture_wh)
    return width, height


def rgb_from_yuv_matrix(colour: Colour, height: int) -> NDArray[np.float32]:
    """The (3, 4) affine map from Y, U, V in 0..255 to R, G, B in 0..255; `height` is the frame's."""
    forward = yuv_from_rgb_matrix(colour, height).astype(np.float64)
    inverse = np.linalg.inv(forward[:, :3])
    return np.column_stack([inverse, -inverse @ forward[:, 3]]).astype(np.float32)


class ModelInput:
    """Writes frames of one size into a network's input; the buffers are made once.

    The planes are scaled first and turned into RGB at the network's scale, so no full-size RGB picture exists.

    Args:
        placement: where frames go.
        channels_last: (1, h, w, 3) instead of (1, 3, h, w).
        dtype: of the input, float32 or float16; values are in [0, 1].
        smooth: average when scaling down by two and more, instead of taking the four nearest pixels as YOLO networks
            were trained and measured with.
    """

    def __init__(
        self,
        placement: Placement,
        *,
        channels_last: bool = False,
        dtype: type[np.floating] = np.float32,
        smooth: bool = False,
    ) -> None:
        self.placement = placement
        self._smooth = smooth
        width, height = placement.inner_wh
        size = (height, width)
        columns, rows = placement.input_wh
        shape = (1, rows, columns, 3) if channels_last else (1, 3, rows, columns)
        self.blob = np.full(shape, _PAD, dtype)
        rows_in = slice(placement.top, placement.top + height)
        columns_in = slice(placement.left, placement.left + width)
        self._yuv = [np.empty(size, np.uint8) for _ in range(3)]
        self._merged = np.empty((*size, 3), np.uint8)
        self._rgb = np.empty((*size, 3), np.uint8)
        self._planes: list[tuple[Plane, NDArray[np.floating]]]
        if channels_last:
            self._split = []
            self._planes = [(self._rgb, self.blob[0, rows_in, columns_in])]
        else:
            self._split = [np.empty(size, np.uint8) for _ in range(3)]
            self._planes = [(plane, self.blob[0, i, rows_in, columns_in]) for i, plane in enumerate(self._split)]
        self._colour: Colour | None = None
        self._matrix = np.empty((3, 4), np.float32)

    def __call__(self, frame: Frame) -> NDArray[np.floating]:
        """The input blob holding `frame`; the next call overwrites it.

        Raises:
            ValueError: the frame has another size than the placement.
        """
        if (frame.width, frame.height) != self.placement.frame_wh:
            raise ValueError(f"frame is {frame.width}x{frame.height}, not {self.placement.frame_wh}")
        if self._colour != frame.colour:
            self._matrix = rgb_from_yuv_matrix(frame.colour, frame.height)
            self._colour = frame.colour
        cv2.merge(self._scaled(frame), self._merged)
        # In 8 bits, so that values beyond the range saturate on the way, and are rounded as in the network's training.
        cv2.transform(self._merged, self._matrix, self._rgb)
        if self._split:
            cv2.split(self._rgb, self._split)
        for plane, target in self._planes:  # one at a time: it stays in the cache
            if target.dtype == np.float16:  # numpy multiplies these 20 times slower than it looks them up
                cv2.LUT(plane, _HALVES, target.view(np.uint16))
            else:
                np.copyto(target, plane)
                np.multiply(target, np.float32(1 / 255), out=target)
        return self.blob

    def _scaled(self, frame: Frame) -> list[Plane]:
        (width, height), (from_width, from_height) = self.placement.inner_wh, self.placement.picture_wh
        chroma_whole = from_width % 2 == 0 and from_height % 2 == 0
        scaled: list[Plane] = []
        for index, plane in enumerate((frame.y, frame.u, frame.v)):
            step = 1 if index == 0 else 2
            if index and not chroma_whole:
                # The picture ends in the middle of a chroma sample; with explicit factors cv2 scales from its corner.
                fx, fy = step * width / from_width, step * height / from_height
                free = cv2.resize(plane, None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR)
                scaled.append(free[:height, :width])
                continue
            part = plane[: from_height // step, : from_width // step]
            if part.shape == frame.y.shape and self._begins_with_half():
                part = half_luma(frame)
            while self._smooth and part.shape[0] >= 2 * height and part.shape[1] >= 2 * width:
                part = halve(part)
            if part.shape != (height, width):
                part = cv2.resize(part, (width, height), self._yuv[index], interpolation=cv2.INTER_LINEAR)
            scaled.append(part)
        return scaled

    def _begins_with_half(self) -> bool:
        (width, height), (from_width, from_height) = self.placement.inner_wh, self.placement.picture_wh
        # Of exactly two to one, the four nearest pixels are those of the mean.
        if (from_width, from_height) == (2 * width, 2 * height):
            return True
        return self._smooth and from_width >= 2 * width and from_height >= 2 * height


def picture_size(frame: Frame) -> tuple[int, int]:
    """(w, h) of the picture in a frame, without the row and column that make odd sides even."""
    width, height = frame.origin.size_wh
    padded = (width + width % 2, height + height % 2)
    return (width, height) if padded == (frame.width, frame.height) else (frame.width, frame.height)
