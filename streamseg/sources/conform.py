"""Decoded pictures of any format become upright, even-sized, 8-bit planar 4:2:0 of one colour."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import av
import cv2
import numpy as np

from streamseg.frame import Colour, Plane
from streamseg.libav import Chain, matrix_name, plane_view, plane_views
from streamseg.pixels.planes import yuv_from_rgb_matrix

__all__ = ["PICTURE_COLOUR", "UPRIGHT", "Conformer", "Turn", "colour_of"]

# How JPEG files mean their samples (JFIF). Other pictures are brought to it, so that a folder has one colour.
PICTURE_COLOUR = Colour(full_range=True, matrix=5, primaries=1, transfer=13, siting=2)
# What video in RGB and in HDR becomes.
_BT709 = Colour(full_range=False, matrix=1, primaries=1, transfer=1, siting=1)

_PQ, _HLG = 16, 18
_LOCATION_NAMES = {1: "left", 2: "center", 3: "topleft", 4: "top", 5: "bottomleft", 6: "bottom"}
_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int"


@dataclass(frozen=True, slots=True)
class Turn:
    """How stored rows and columns become an upright picture: transposed first, then mirrored."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @staticmethod
    def of_matrix(matrix: tuple[int, ...]) -> Turn:
        """From the nine 16.16 numbers of a display matrix; slanted ones are taken for the nearest right angle.

        >>> Turn.of_matrix((0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))  # a quarter clockwise
        Turn(transpose=True, mirror_x=True, mirror_y=False)
        """
        a, b, _, c, d = matrix[:5]
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return Turn(False, a < 0, d < 0)
        return Turn(True, c < 0, b < 0)

    @staticmethod
    def of_exif(orientation: int) -> Turn:
        """From EXIF's 1 to 8; anything else is upright."""
        return {
            2: Turn(mirror_x=True),
            3: Turn(mirror_x=True, mirror_y=True),
            4: Turn(mirror_y=True),
            5: Turn(transpose=True),
            6: Turn(transpose=True, mirror_x=True),
            7: Turn(transpose=True, mirror_x=True, mirror_y=True),
            8: Turn(transpose=True, mirror_y=True),
        }.get(orientation, UPRIGHT)

    def size(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """(w, h) of the upright picture."""
        return size_wh[::-1] if self.transpose else size_wh

    def siting(self, siting: int) -> int:
        """Where chroma lies afterwards; 0 where no code point says it (chroma on the right)."""
        if self == UPRIGHT or siting in (0, 2):
            return siting
        if siting == 1 and self.transpose:
            return 6 if self.mirror_y else 4
        return siting if siting == 1 and not self.mirror_x else 0

    def __call__(self, plane: Plane) -> Plane:
        """The plane, turned."""
        if self.transpose:
            plane = cv2.transpose(plane)
        if self.mirror_x and self.mirror_y:
            return cv2.flip(plane, -1)
        if self.mirror_x or self.mirror_y:
            return cv2.flip(plane, int(self.mirror_x))
        return plane


UPRIGHT = Turn()


def colour_of(picture: av.VideoFrame, context: Any, siting: int = 0) -> Colour:
    """The colour that a decoded picture says it has; `context` is its decoder's."""
    name = picture.format.name
    # FFmpeg's own convention: grey without a tag is full range.
    full = int(picture.color_range) == 2 or name.startswith("yuvj") or (not picture.color_range and name[:4] == "gray")
    return Colour(full, int(picture.colorspace), int(context.color_primaries), int(context.color_trc), siting)


class Conformer:
    """Brings pictures to planes of one size and colour.

    Args:
        found: the colour of the pictures as they come.
        size_wh: to which pictures of another size are scaled, in stored orientation; None leaves sizes alone.
        turn: what makes them upright.
        colour: the colour they are to have; None keeps theirs, except that RGB has to become one and that PQ and
            HLG are tone-mapped to BT.709.
        still: pictures, not video: everything that is no YUV becomes `PICTURE_COLOUR`.

    Attributes:
        colour: that of the planes.
        remarks: what was done to them, for the user.
    """

    def __init__(
        self,
        first: av.VideoFrame,
        found: Colour,
        *,
        size_wh: tuple[int, int] | None = None,
        turn: Turn = UPRIGHT,
        colour: Colour | None = None,
        still: bool = False,
        threads: int = 1,
    ) -> None:
        self._found = found
        self._size_wh = size_wh
        self._turn = turn
        self._threads = threads
        self._chains: dict[tuple[int, int, str], Chain] = {}
        self.remarks: list[str] = []
        self._tone_map = ""
        rgb = _is_rgb(first)
        self.colour = colour or (_native(found, still) if not rgb else PICTURE_COLOUR if still else _BT709)
        # Chroma that is already there stays where it is; the scaler places what it makes itself.
        self._siting = found.siting or 1 if _is_420(first) else 2 if still else 1
        if found.transfer in (_PQ, _HLG) and not still:
            self._choose_tone_mapping(first, colour)
        if colour is None:
            self.colour = replace(self.colour, siting=turn.siting(self._siting))
        if first.format.name not in _DIRECT and not rgb and _bits(first) > 8:
            self.remarks.append(f"{_bits(first)}-bit picture reduced to 8 bits")
        if _shows_through(first):
            self.remarks.append("the opacity of the source is ignored")

    def _choose_tone_mapping(self, first: av.VideoFrame, wanted: Colour | None) -> None:
        name = "PQ" if self._found.transfer == _PQ else "HLG"
        kept, self.colour = self.colour, wanted or _BT709
        self._tone_map = ":out_primaries=bt709:out_transfer=bt709"
        try:
            # Older libraries have no such options, or no such conversion.
            self._convert(first)
        except (av.FFmpegError, ValueError):
            self.colour, self._tone_map = kept, ""
            self._chains.clear()
            self.remarks.append(f"HDR ({name}) is kept as it is, in 8 bits: this FFmpeg cannot tone-map it")
            return
        self.remarks.append(f"HDR ({name}) is tone-mapped to BT.709")

    def __call__(self, picture: av.VideoFrame) -> Plane:
        """(H * 3 / 2, W) uint8: upright, padded to even by repeating the last row and column."""
        resized = self._size_wh is not None and (picture.width, picture.height) != self._size_wh
        if resized or picture.format.name not in _DIRECT or self._recolours(picture):
            picture = self._convert(picture)
        return self._of_rgb(picture) if picture.format.name == "rgb24" else self._planes(picture)

    def _convert(self, picture: av.VideoFrame) -> av.VideoFrame:
        key = (picture.width, picture.height, picture.format.name)
        if key not in self._chains:
            self._chains.clear()  # sizes that came once seldom come again
            self._chains[key] = self._chain(picture)
        (converted,) = self._chains[key].push(picture)
        return converted

    def _recolours(self, picture: av.VideoFrame) -> bool:
        if self._tone_map:
            return True
        if self.colour.full_range != self._found.full_range:
            return True
        height = picture.height
        return self.colour.luma_weights(height) != self._found.luma_weights(height)

    def _chain(self, picture: av.VideoFrame) -> Chain:
        width, height = self._size_wh or (picture.width, picture.height)
        colour = self.colour
        if _is_rgb(picture) and colour.full_range:
            return Chain(picture, [f"scale={width}:{height}:{_FLAGS}", "format=rgb24"], threads=self._threads)
        scale = f"scale={width}:{height}:{_FLAGS}"
        scale += f":out_color_matrix={matrix_name(colour, height)}:out_range={'pc' if colour.full_range else 'tv'}"
        scale += f":out_chroma_loc={_LOCATION_NAMES[self._siting]}"
        if not _is_rgb(picture):
            found = self._found
            scale += f":in_chroma_loc={_LOCATION_NAMES[found.siting or 1]}"
            scale += f":in_color_matrix={matrix_name(found, height)}:in_range={'pc' if found.full_range else 'tv'}"
        return Chain(picture, [scale + self._tone_map, "format=yuv420p"], threads=self._threads)

    def _planes(self, picture: av.VideoFrame) -> Plane:
        name = picture.format.name
        y, *chroma = plane_views(picture)
        if name == "nv12":
            pairs = chroma[0]
            pairs = pairs.reshape(pairs.shape[0], -1, 2)
            return self._upright(y, cv2.extractChannel(pairs, 0), cv2.extractChannel(pairs, 1))
        if name == "gray":
            neutral = np.full(((y.shape[0] + 1) // 2, (y.shape[1] + 1) // 2), 128, np.uint8)
            return self._upright(y, neutral, neutral)
        return self._upright(y, *chroma)

    def _of_rgb(self, picture: av.VideoFrame) -> Plane:
        """From RGB to full range, rounded: the scaler cuts off, which tints by half a level."""
        rgb = plane_view(picture, 0).reshape(picture.height, picture.width, 3)
        yuv = cv2.transform(rgb, yuv_from_rgb_matrix(self.colour, picture.height))
        # Odd sides: the last row and column count twice, so that every chroma sample has four pixels.
        chroma = cv2.copyMakeBorder(yuv, 0, picture.height % 2, 0, picture.width % 2, cv2.BORDER_REPLICATE)
        half = cv2.resize(chroma, (chroma.shape[1] // 2, chroma.shape[0] // 2), interpolation=cv2.INTER_AREA)
        return self._upright(yuv[..., 0], half[..., 1].copy(), half[..., 2].copy())

    def _upright(self, y: Plane, u: Plane, v: Plane) -> Plane:
        width, height = self._turn.size((y.shape[1], y.shape[0]))
        width, height = width + width % 2, height + height % 2
        planes: Plane = np.empty((height * 3 // 2, width), np.uint8)
        size = width * height
        flat = planes.reshape(-1)
        _fill(planes[:height], self._turn(y))
        _fill(flat[size : size + size // 4].reshape(height // 2, width // 2), self._turn(u))
        _fill(flat[size + size // 4 :].reshape(height // 2, width // 2), self._turn(v))
        return planes


_DIRECT = frozenset({"yuv420p", "yuvj420p", "nv12", "gray"})


def _fill(target: Plane, plane: Plane) -> None:
    """Copy, and repeat the last row and column where the target is one larger."""
    height, width = plane.shape
    target[:height, :width] = plane
    if width < target.shape[1]:
        target[:height, width:] = plane[:, -1:]
    if height < target.shape[0]:
        target[height:] = target[height - 1]


def _native(found: Colour, still: bool) -> Colour:
    """What is left as it came: for a still picture only what JPEG has too."""
    if still:
        return PICTURE_COLOUR
    return replace(found, matrix=2) if found.matrix == 0 else found


def _is_rgb(picture: av.VideoFrame) -> bool:
    return bool(picture.format.is_rgb) or picture.format.name == "pal8"


def _is_420(picture: av.VideoFrame) -> bool:
    return bool(picture.format.chroma_width(4) == 2 and picture.format.chroma_height(4) == 2)


def _bits(picture: av.VideoFrame) -> int:
    return max((component.bits for component in picture.format.components), default=8)


def _shows_through(picture: av.VideoFrame) -> bool:
    """Whether it has opacity that says more than that all of it is opaque."""
    if picture.format.name != "pal8" and not any(component.is_alpha for component in picture.format.components):
        return False
    return bool(picture.reformat(format="rgba").to_ndarray()[..., 3].min() < 255)
