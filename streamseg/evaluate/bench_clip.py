"""Clips for benchmarks: scaled or shortened once, so that every contestant reads the same file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av

from streamseg.evaluate.davis import Clip
from streamseg.evaluate.semantic import mask_files, read_picture

__all__ = ["prepared", "video_of"]

_DAVIS_RATE = 24


def prepared(clip: Path, folder: Path, *, height: int | None = None, frames: int | None = None) -> Path:
    """The clip at another height, or its beginning, as H.264 of high quality; the clip itself where it is as asked.

    Args:
        clip: a video file that can be opened.
        folder: receives the new file.
        height: px, even; the width follows.
        frames: at most so many.
    """
    with av.open(str(clip)) as source:
        video = source.streams.video[0]
        same = height in (None, video.height)
        if same and (frames is None or 0 < video.frames <= frames):
            return clip
        wide = video.width if height is None else round(video.width * height / video.height / 2) * 2
        size_wh = (wide, height or video.height)
        out = folder / f"{clip.stem}-{size_wh[1]}p-{frames or 'all'}.mp4"
        scaled = (
            frame.reformat(*size_wh, "yuv420p", interpolation="BICUBIC")
            for frame in islice(source.decode(video), frames)
        )
        return _encode(out, scaled, size_wh, video.average_rate or Fraction(30), crf=18)


def video_of(clip: Clip, folder: Path) -> Path:
    """A sequence of pictures as H.264 that is nearly lossless; a last row or column of odd sides is left out."""

    def pictures() -> Iterator[av.VideoFrame]:
        for path in mask_files(clip.pictures).values():
            picture = read_picture(path)
            yield av.VideoFrame.from_ndarray(picture[: size_wh[1], : size_wh[0]].copy(), format="bgr24")

    height, width = read_picture(next(iter(mask_files(clip.pictures).values()))).shape[:2]
    size_wh = (width // 2 * 2, height // 2 * 2)
    return _encode(folder / f"{clip.name}.mp4", pictures(), size_wh, Fraction(_DAVIS_RATE), crf=8)


def _encode(out: Path, frames: Iterable[av.VideoFrame], size_wh: tuple[int, int], rate: Fraction, *, crf: int) -> Path:
    with av.open(str(out), "w") as sink:
        stream = sink.add_stream("libx264", rate=rate)
        stream.width, stream.height = size_wh
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "veryfast", "crf": str(crf)}
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, 1 / rate
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    return out
