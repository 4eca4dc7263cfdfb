"""The picture and what travels beside it: the types that every other room shares.

A picture is planar YUV 4:2:0 from the decoder to the encoder; time is an integer with a unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Colour",
    "Frame",
    "Opener",
    "Origin",
    "Output",
    "Packet",
    "Plane",
    "Sink",
    "Source",
    "Track",
    "VideoInfo",
]

Plane = NDArray[np.uint8]

# Matrices of H.273 that do not say how YUV samples were made: RGB, unspecified, reserved.
_UNSAID = (0, 2, 3)
# The tallest picture of standard definition.
_SD_ROWS = 576
# (Kr, Kb) by H.273 matrix code point; what is not here is treated as BT.709.
_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087),
                 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Colour:
    """How sample values mean light; numbers are the code points of ITU-T H.273 (FFmpeg uses the same).

    `siting` is FFmpeg's AVChromaLocation (0 unspecified, 1 left, 2 centre, 3 top left).
    """

    full_range: bool = False
    matrix: int = 2
    primaries: int = 2
    transfer: int = 2
    siting: int = 0

    @property
    def says_matrix(self) -> bool:
        """Whether the matrix of its YUV samples is specified."""
        return self.matrix not in _UNSAID

    def meant_matrix(self, height: int) -> int:
        """The matrix's code point; an unspecified one is BT.601 up to 576 lines and BT.709 above, as players assume."""
        return self.matrix if self.says_matrix else 6 if height <= _SD_ROWS else 1

    def luma_weights(self, height: int) -> tuple[float, float]:
        """(Kr, Kb) of the matrix that is meant in a picture of this height."""
        return _LUMA_WEIGHTS.get(self.meant_matrix(height), _LUMA_WEIGHTS[1])

    def settled(self, height: int) -> Colour:
        """The same colour with the matrix spelt out that is meant in a picture of this height."""
        return self if self.says_matrix else replace(self, matrix=self.meant_matrix(height))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a frame came from: the file's name and its size (w, h) before padding, turned upright."""

    name: str
    size_wh: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture.

    Attributes:
        planes: (H * 3 / 2, W) uint8, C-contiguous I420: luma, then U, then V. H and W are even.
        pts: ticks of `time_base`.
        time_base: seconds per tick.
        index: counted at the source from 0; a gap is a drop.
        captured_at: monotonic seconds, stamped after arrival.
        colour: range, matrix, primaries, transfer and chroma siting.
        origin: file name and unpadded size.
        alpha: (H, W) uint8, straight; only where the output carries opacity.
        duration: for how many ticks it is shown, where its source tells.
        derived: what stages worked out from the planes and share; kept with this picture alone.
    """

    planes: Plane
    pts: int
    time_base: Fraction
    index: int
    captured_at: float
    colour: Colour
    origin: Origin
    alpha: Plane | None = None
    duration: int | None = None
    derived: dict[str, Plane] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        rows, width = self.planes.shape
        if self.planes.dtype != np.uint8 or not self.planes.flags.c_contiguous:
            raise ValueError("planes must be C-contiguous uint8")
        if width % 2 or rows % 3 or (rows // 3 * 2) % 2:
            raise ValueError(f"planes must be (H * 3 / 2, W) with H and W even, not {self.planes.shape}")

    @property
    def width(self) -> int:
        """Columns of the luma, even."""
        return int(self.planes.shape[1])

    @property
    def height(self) -> int:
        """Rows of the luma, even."""
        return int(self.planes.shape[0]) // 3 * 2

    @property
    def seconds(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    @property
    def y(self) -> Plane:
        """(H, W) view of the luma."""
        return self.planes[: self.height]

    @property
    def u(self) -> Plane:
        """(H / 2, W / 2) view of the blue-difference chroma."""
        return self._chroma(0)

    @property
    def v(self) -> Plane:
        """(H / 2, W / 2) view of the red-difference chroma."""
        return self._chroma(1)

    def _chroma(self, which: int) -> Plane:
        height, width = self.height, self.width
        size = height * width // 4
        start = height * width + which * size
        return self.planes.reshape(-1)[start : start + size].reshape(height // 2, width // 2)

    def with_picture(self, planes: Plane, alpha: Plane | None = None) -> Frame:
        """The same instant with another picture."""
        return replace(self, planes=planes, alpha=alpha)

    def __repr__(self) -> str:
        return f"Frame({self.width}x{self.height}, index={self.index}, pts={self.pts}*{self.time_base})"


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """An encoded stream that travels beside the picture and is copied, never decoded: audio, subtitles, data.

    `template` is the library's stream object, which a sink hands to its muxer; nobody else looks inside.
    """

    index: int
    kind: str
    codec: str
    template: Any


@dataclass(frozen=True, slots=True, eq=False)
class Packet:
    """An encoded packet of `track`. `payload` is the library's packet; a sink that changes it copies it first."""

    track: Track
    payload: Any


@dataclass(frozen=True, slots=True, eq=False)
class VideoInfo:
    """What is known of a video before its first frame.

    Attributes:
        width, height: of the frames, even; for a folder of images, of the first one.
        rate: nominal frames per second; None where there is none (images, variable rate).
        live: a live source does not wait for its reader.
        time_base: of the frames' pts.
        colour: of the frames.
        duration_s, frame_count: where the container tells; an estimate.
        sample_aspect_ratio: width / height of a pixel.
        original_wh: size before padding to even, upright.
        varying_size: frames may differ in size (a folder of images).
        tracks: the streams copied beside the picture.
        metadata: of the container; `chapters` as the library gives them.
        picture_metadata: of the picture's own stream: its language, its title.
        disposition: of that stream ("default", "forced", ...), as the library's bits.
        decoder: what decodes it, such as ``h264`` or ``h264 on cuda``; empty where nothing is decoded.
    """

    width: int
    height: int
    rate: Fraction | None
    live: bool
    time_base: Fraction
    colour: Colour
    name: str
    original_wh: tuple[int, int]
    duration_s: float | None = None
    frame_count: int | None = None
    sample_aspect_ratio: Fraction = Fraction(1)
    varying_size: bool = False
    tracks: Sequence[Track] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    chapters: Sequence[Any] = ()
    picture_metadata: Mapping[str, str] = field(default_factory=dict)
    disposition: int = 0
    decoder: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What an effect made, and from what.

    Attributes:
        frame: the finished picture.
        segmentation: `segment.Segmentation` or None; results read it.
        matte: (H, W) uint8, the opacity that was painted, at the frame's size; None where nothing was.
        stands_in: it is shown for want of a true picture: the last one again, or the slate.
    """

    frame: Frame
    segmentation: Any = None
    matte: Plane | None = None
    stands_in: bool = False


class Source(Protocol):
    """Where frames come from. One thread reads; `interrupt` may be called from any."""

    @property
    def info(self) -> VideoInfo:
        """What is known before the first frame."""
        ...

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, gathered so far ("641x481 padded to 642x482")."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """Counted irregularities so far, by name ("broken packets skipped")."""
        ...

    def read(self) -> Frame | None:
        """The next frame; None at the end.

        Raises:
            SourceLostError: the source went away.
        """
        ...

    def take_packets(self) -> list[Packet]:
        """The encoded packets of `info.tracks` that came since the last call, in order."""
        ...

    def interrupt(self) -> None:
        """Unblock `read`, which then returns None or raises."""
        ...

    def close(self) -> None:
        """Let go of everything. Called once, from the reading thread."""
        ...


class Opener(Protocol):
    """Opens one source again and again. One thread opens and closes; `interrupt` may be called from any."""

    def __call__(self) -> Source:
        """Open it; close the last one before.

        Raises:
            SourceAbsentError: nothing is there now; waiting may help.
            SourceOpenError: as asked, it can never work.
        """
        ...

    def ready(self) -> bool | None:
        """A cheap look at whether opening may succeed now; None where nobody can tell."""
        ...

    def interrupt(self) -> None:
        """Unblock an opening and a read under way, for good."""
        ...

    def close(self) -> None:
        """Let go of what is kept between two openings; after the source was closed."""
        ...


class Sink(Protocol):
    """Where finished pictures go. Used from one thread; `close` is called exactly once, also after a failure."""

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, gathered so far ("subtitles not copied: ...")."""
        ...

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        """Write one picture and the packets that travelled with it.

        Raises:
            SinkWriteError: it cannot be written; what came before stays.
        """
        ...

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        """No more pictures: flush, write the trailing packets and put the result under its final name.

        Also called when the run was interrupted by the user; not called when it failed.

        Raises:
            SinkWriteError: it cannot be completed.
        """
        ...

    def close(self) -> None:
        """Let go of everything; without `finish`, nothing appears under the final name."""
        ...
