"""A source whose pictures are turned or mirrored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from streamseg.frame import Frame, Origin, Packet, Source, VideoInfo
from streamseg.pixels.orient import orient

__all__ = ["Oriented"]


class Oriented:
    """Another source, turned by `rotate` degrees clockwise (0, 90, 180, 270), then mirrored; a `Source`."""

    def __init__(self, source: Source, rotate: int, *, mirror: bool) -> None:
        self.inner = source
        self._rotate = rotate
        self._mirror = mirror

    @property
    def info(self) -> VideoInfo:
        """What is known before the first frame, of the turned picture."""
        info = self.inner.info
        if self._rotate not in (90, 270):
            return info
        return replace(
            info,
            width=info.height,
            height=info.width,
            original_wh=info.original_wh[::-1],
            sample_aspect_ratio=1 / info.sample_aspect_ratio,
        )

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        return self.inner.notices

    @property
    def counts(self) -> Mapping[str, int]:
        """Irregularities so far, by name."""
        return self.inner.counts

    def read(self) -> Frame | None:
        """The next frame; None at the end."""
        frame = self.inner.read()
        if frame is None:
            return None
        name, size_wh = frame.origin.name, frame.origin.size_wh
        origin = Origin(name, size_wh[::-1] if self._rotate in (90, 270) else size_wh)
        return replace(frame, planes=orient(frame.planes, self._rotate, mirror=self._mirror), origin=origin)

    def take_packets(self) -> list[Packet]:
        """The packets of the copied tracks since the last call."""
        return self.inner.take_packets()

    def interrupt(self) -> None:
        """Make `read` end; from any thread."""
        self.inner.interrupt()

    def close(self) -> None:
        """Let go of the source."""
        self.inner.close()
