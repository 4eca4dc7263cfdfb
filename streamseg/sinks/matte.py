"""The matte by itself: lossless grey video, or pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from streamseg.errors import SinkOpenError
from streamseg.frame import Colour, Output, Packet, Plane, VideoInfo
from streamseg.libav import fill_plane, i420_picture, tag
from streamseg.sinks.container import VideoFile
from streamseg.sinks.encoders import Encoding, choose_container
from streamseg.sinks.images import PictureNames, cut_back, is_picture_name, write_picture

__all__ = ["MatteSink"]

_ENCODINGS = {
    "matroska": Encoding("ffv1", "gray", {}, predicts=False),
    "mov": Encoding("png", "gray", {}, predicts=False),
    "mp4": Encoding("libx264", "gray", {"qp": "0", "preset": "veryfast"}),
    "webm": Encoding("libvpx-vp9", "yuv420p", {"lossless": "1", "deadline": "realtime", "cpu-used": "6"}),
}
_GREY = Colour(full_range=True, matrix=2, primaries=2, transfer=2)
_PNG = frozenset({".png", ".tif", ".tiff", ".bmp"})


class MatteSink:
    """`Output.matte`, 0 to 255, at the frames' size; a `Sink`. Frames without one are black: nothing is kept.

    Args:
        url: ``.mkv`` (FFV1), ``.mov`` (PNG), ``.mp4`` (lossless H.264), ``.webm`` (lossless VP9), or pictures as
            `PictureNames` takes them.
        info: of the source; its sound is not copied.

    Raises:
        SinkOpenError: it cannot be written as asked.
    """

    def __init__(self, url: str, info: VideoInfo) -> None:
        self._file: VideoFile | None = None
        self._names: PictureNames | None = None
        if is_picture_name(url):
            self._names = PictureNames(url, info, suffixes=_PNG)
            return
        if info.varying_size:
            raise SinkOpenError(f"cannot write {url}: the pictures differ in size; name a folder, {Path(url).stem}/")
        container = choose_container(Path(url).suffix[1:], url)
        if container not in _ENCODINGS:
            raise SinkOpenError(f"cannot write the matte to {url}: use .mkv, .mov, .mp4, .webm or pictures")
        self._encoding = _ENCODINGS[container]
        self._file = VideoFile(
            url,
            container,
            self._encoding,
            replace(info, metadata={}, chapters=(), tracks=()),
            colour=_GREY,
            size_wh=(info.width, info.height),
            copy=False,
        )

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        return self._file.notices if self._file else ()

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        """Write one matte; packets have no place here."""
        frame, matte = output.frame, output.matte
        if matte is None:
            matte = np.zeros((frame.height, frame.width), np.uint8)
        if self._names is not None:
            write_picture(self._names.next(frame), cut_back(matte, frame))
        elif self._file is not None:
            self._file.write(self._picture(matte), frame.pts, frame.time_base, (), duration=frame.duration)

    def _picture(self, matte: Plane) -> Any:
        if self._encoding.pixel_format == "yuv420p":
            chroma = np.full(matte.size // 2, 128, np.uint8)
            planes = np.concatenate([matte.reshape(-1), chroma]).reshape(-1, matte.shape[1])
            return i420_picture(planes, _GREY)
        picture = av.VideoFrame(matte.shape[1], matte.shape[0], "gray")
        fill_plane(picture.planes[0], matte)
        tag(picture, _GREY)
        return picture

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        """Complete the file and give it its name."""
        if self._file is not None:
            self._file.finish(())

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
        if self._names is not None:
            self._names.close()
