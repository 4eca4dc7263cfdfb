"""Two streams of one camera: a large one that is shown, and a small one beside it that is looked at."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from streamseg.frame import Frame, Packet, Source, VideoInfo

__all__ = ["Beside"]

# What the small stream shows must lie where the large one shows it: half a frame of a slow small stream.
_FRESH_S = 0.2


class Beside:
    """The large stream as a `Source`, with the newest frame of the small one at hand.

    The small stream is read in a thread of its own, ``capture-sub``; its newest frame wins.

    Args:
        main: the stream that is shown.
        sub: a live stream of the same view.
    """

    def __init__(self, main: Source, sub: Source) -> None:
        self.main = main
        self._sub = sub
        self._newest: Frame | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def info(self) -> VideoInfo:
        """Of the large stream."""
        return self.main.info

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, of both."""
        return (*self.main.notices, *(f"small stream: {notice}" for notice in self._sub.notices))

    @property
    def counts(self) -> Mapping[str, int]:
        """Irregularities so far, of both."""
        small = {f"small stream: {name}": count for name, count in self._sub.counts.items()}
        return {**self.main.counts, **small}

    def look_at(self, frame: Frame) -> Frame:
        """The small stream's newest frame, if it is of about the time of `frame`; else `frame` itself."""
        newest = self._newest
        fresh = newest is not None and abs(frame.captured_at - newest.captured_at) < _FRESH_S
        return newest if newest is not None and fresh else frame

    def read(self) -> Frame | None:
        """The large stream's next frame; None at the end."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="capture-sub")
            self._thread.start()
        if self._failure is not None:
            raise self._failure
        return self.main.read()

    def take_packets(self) -> list[Packet]:
        """The large stream's packets since the last call."""
        return self.main.take_packets()

    def interrupt(self) -> None:
        """Make `read` end; from any thread."""
        self._sub.interrupt()
        self.main.interrupt()

    def close(self) -> None:
        """Let go of both streams."""
        self.interrupt()
        if self._thread is not None:
            self._thread.join()
        else:
            self._sub.close()
        self.main.close()

    def _follow(self) -> None:
        try:
            while (frame := self._sub.read()) is not None:
                self._newest = frame
                self._sub.take_packets()
        except BaseException as failure:  # raised by the next read, in the capture thread
            self._failure = failure
        finally:
            self._sub.close()
