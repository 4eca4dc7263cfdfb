"""A live input as its child process sees it: opened, demultiplexed, decoded, put into shared memory.

Calls here may block for ever in the libraries; the parent, `streamseg.sources.live`, keeps the time and kills.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import numpy as np

from streamseg.child import Host
from streamseg.errors import SourceLostError, SourceOpenError
from streamseg.frame import Track, VideoInfo
from streamseg.libav import TS_DISCONT, Chain, reason
from streamseg.sounds import Parcel, Sound, pack, sound_of
from streamseg.sources.conform import Conformer, colour_of
from streamseg.sources.hardware import Hardware
from streamseg.sources.liveclock import LiveClock
from streamseg.sources.messages import (
    Close,
    Closed,
    Ended,
    Found,
    Free,
    Opened,
    Picture,
    Request,
    Waiting,
)
from streamseg.sources.probe import nominal_rate, turn_of
from streamseg.sources.refusals import refusal, why
from streamseg.sources.siting import chroma_siting

__all__ = ["serve_streams"]

# One that the parent copies, one that is written, and two for pictures that come in one burst.
_SLOTS = 4
_MOST_SOUNDS = 2000
_MOST_FAILED_READS = 100
_WAITING_EVERY_S = 0.5
# Containers without a clock: their pictures are timed when they arrive.
_NO_CLOCK = {"mpjpeg", "mjpeg"}
# What a server may answer with and the library would show as a "video".
_NOT_VIDEO = {"tty", "bin", "xbin", "adf", "idf", "concat", "sdp", "image2"}
_ARRIVAL_BASE = Fraction(1, 90000)
# A paced stream this late starts its pace anew, so that it keeps an even beat.
_LATE_S = 0.5
_MISSED = re.compile(r"RTP: missed (\d+) packets")


class _Stop(Exception):  # noqa: N818 - nothing went wrong
    """The parent wants the stream closed."""


class _Refused(Exception):  # noqa: N818 - a state
    """What was asked for will never work."""


def serve_streams(host: Host) -> None:
    """Open one stream after the other, as the parent asks; the entry of the child process."""
    _let_it_print()
    host.send(Closed())
    while True:
        message = host.receive(None)
        if isinstance(message, Request):
            reading = _Reading(host, message)
            try:
                host.send(reading.run())
                continue
            except _Stop:
                pass
            finally:
                reading.close()
            host.send(Closed())
        elif isinstance(message, Close):
            host.send(Closed())


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Keep the library from printing: what it prints is taken for the peer's reason to fail."""
    av.logging.set_level(None)
    try:
        yield
    finally:
        _let_it_print()


def _let_it_print() -> None:
    """The library by itself, not through Python's logging, which can deadlock with decoder threads."""
    av.logging.set_level(av.logging.WARNING)
    av.logging.restore_default_callback()


class _Reading:
    """One stream, from opening to its end."""

    def __init__(self, host: Host, request: Request) -> None:
        self._host = host
        self._request = request
        self._container: Any = None
        self._free = deque(range(_SLOTS))
        self._counts: Counter[str] = Counter()
        self._sent_counts: dict[str, int] = {}
        self._notices: list[str] = []
        self._sent_notices = 0
        self._sounds: deque[Sound] = deque()
        self._early: deque[Any] = deque(maxlen=_MOST_SOUNDS)  # packets that came before the clock was known
        self._last_text = ""
        self._gap = False  # packets were lost since the last whole key frame
        self._new_gap = False  # and since the last packet of the picture
        self._opened = False
        self._index = 0
        self._deinterlacer: Chain | None = None
        self._between: deque[int | None] = deque()  # times of the pictures inside the deinterlacer

    def run(self) -> Ended:
        """Read until the end; how it ended."""
        try:
            self._find_host()
            self._open()
            self._read()
        except (_Refused, SourceOpenError) as error:
            return Ended("refused", str(error))
        except SourceLostError as error:
            return Ended("lost", f"{self._request.shown}: {error}", dict(self._counts), tuple(self._sounds))
        except (av.FFmpegError, OSError, ValueError) as error:
            return self._failed(error)
        if not self._opened:
            return Ended("absent", f"{self._request.shown} ended before its first picture")
        return Ended("end", "", dict(self._counts), tuple(self._sounds))

    def close(self) -> None:
        """Let go of the stream; tells a server that we leave."""
        if self._container is not None:
            with contextlib.suppress(av.FFmpegError, OSError):
                self._container.close()

    def _find_host(self) -> None:
        if self._request.host is None:
            return
        name, port = self._request.host
        # The library looks it up by itself and says what is wrong; the parent wants to know where to knock.
        with contextlib.suppress(OSError, UnicodeError):
            family, _, _, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
            self._host.send(Found(int(family), address))

    def _open(self) -> None:
        request = self._request
        # Before the peer is asked: what is missing here is told although nothing is there.
        with _unheard():
            self._hardware = Hardware(request.hwaccel, self._notices.append)
        self._container = av.open(
            request.url,
            format=request.format,
            options=dict(request.options),
            metadata_errors="replace",
            hwaccel=self._hardware.accel,
        )
        shown = request.shown
        if self._container.format.name.split(",")[0] in _NOT_VIDEO:
            raise _Refused(f"{shown} sends no video ({self._container.format.long_name or 'text'})")
        videos = [stream for stream in self._container.streams.video if stream.codec_context is not None]
        if not videos:
            kinds = sorted({stream.type for stream in self._container.streams if stream.type != "video"})
            raise _Refused(
                f"{shown} has no video that can be decoded{', only ' + ' and '.join(kinds) if kinds else ''}"
            )
        self._stream = videos[0]
        self._live = not self._container.duration
        self._paced = self._live and self._container.format.name == "hls"
        self._pace_from_s: float | None = None
        context = self._stream.codec_context
        self._hardware.meet(context)
        context.options = {"max_pixels": str(request.max_pixels)}
        # Threads by frame would hold back one picture each.
        context.thread_type = "SLICE" if self._live else "AUTO"
        context.thread_count = request.threads
        self._clocked = self._container.format.name not in _NO_CLOCK
        self._time_base = Fraction(self._stream.time_base) if self._clocked else _ARRIVAL_BASE
        asked = request.options.get("framerate")
        self._rate = (nominal_rate(self._stream) if self._clocked else None) or (Fraction(asked) if asked else None)
        step = max(1, round(1 / self._rate / self._time_base)) if self._rate else None
        self._clock = LiveClock(self._time_base, step, self._counts, shift=None if self._live else self._start())
        self._choose_tracks()

    def _start(self) -> int:
        """Ticks that bring a broadcast container, whose clock starts anywhere, to 0; others say when they begin."""
        container = self._container
        if not container.format.flags & TS_DISCONT or not container.start_time:
            return 0
        return -round(Fraction(container.start_time, av.time_base) / self._time_base)

    def _choose_tracks(self) -> None:
        self._tracks: dict[int, Parcel] = {}
        sounds = [stream for stream in self._container.streams.audio if stream.codec_context is not None]
        if not self._request.audio or not sounds:
            return
        for stream in sounds:
            track = Track(stream.index, "audio", stream.codec_context.codec.canonical_name, stream)
            try:
                self._tracks[stream.index] = pack(track)
            except (av.FFmpegError, ValueError, RuntimeError) as error:
                self._notices.append(f"{track.codec} sound is left out: {reason(error)}")

    def _read(self) -> None:
        """Until the end of the stream; what fails goes up."""
        waited_since_s = time.monotonic()
        started = self._stream.codec_context.name in ("rawvideo", "mjpeg")
        self._host.send(Waiting())
        for packet in self._packets():
            arrived_s = time.monotonic()
            self._hear(0)
            if packet.stream.index in self._tracks:
                if packet.size:
                    self._early.append(packet)
                while self._early and self._clock.known:
                    self._keep_sound(self._early.popleft())
                continue
            if packet.stream.index != self._stream.index:
                continue
            if not self._opened and arrived_s - waited_since_s > _WAITING_EVERY_S:
                waited_since_s = arrived_s
                self._host.send(Waiting())
            # What comes before a whole picture can only be decoded to smears.
            started = started or packet.is_keyframe or not packet.size
            # A gap just before a key frame may as well be within it.
            self._gap = self._new_gap or (self._gap and not packet.is_keyframe)
            self._new_gap = False
            if started:
                for pts, picture in self._decode(packet):
                    self._deliver(pts, picture, arrived_s)

    def _packets(self) -> Iterator[Any]:
        """Packets; a broken one is counted, and only a stream that fails again and again is lost."""
        chosen = [self._stream, *(self._container.streams[index] for index in self._tracks)]
        failed = 0
        while True:
            try:
                for packet in self._container.demux(chosen):
                    failed = 0
                    yield packet
                return
            except av.error.EOFError:
                return
            except av.error.InvalidDataError:
                # Over a network it means as often that the peer died in the middle of a packet: then nothing follows.
                failed += 1
                self._counts["broken packets skipped"] += 1
                if failed > (1 if self._live else _MOST_FAILED_READS):
                    raise

    def _decode(self, packet: Any) -> Iterator[tuple[int | None, Any]]:
        try:
            pictures = self._stream.codec_context.decode(packet if packet.size else None)
        except av.error.EOFError:
            return
        except (av.FFmpegError, ValueError):
            self._counts["broken packets skipped"] += 1
            self._hardware.failed()
            return
        for picture in pictures:
            self._hardware.take(picture)
            # The decoder hides gaps as well as it can, and says nothing.
            if picture.is_corrupt or self._gap:
                self._counts["damaged pictures"] += 1
            pts = picture.pts if picture.pts is not None else picture.dts
            yield from self._deinterlaced(pts if self._clocked else None, picture)
        if not packet.size and self._deinterlacer is not None:
            for picture in self._deinterlacer.push(None):
                yield self._between.popleft(), picture

    def _deinterlaced(self, pts: int | None, picture: Any) -> Iterator[tuple[int | None, Any]]:
        if self._deinterlacer is None:
            if not picture.interlaced_frame:
                yield pts, picture
                return
            self._notices.append("interlaced: deinterlaced with bwdif, one frame out for each frame in")
            self._deinterlacer = Chain(picture, ["bwdif=mode=send_frame:parity=auto:deint=interlaced"])
        self._between.append(pts)
        for whole in self._deinterlacer.push(picture):
            yield self._between.popleft(), whole

    def _deliver(self, pts: int | None, picture: Any, arrived_s: float) -> None:
        if not self._opened:
            self._announce(picture)
        place = self._clock.picture(pts, arrived_s)
        if self._paced:
            arrived_s = self._wait_for(float(place * self._time_base))
        index, self._index = self._index, self._index + 1
        if not self._free and self._live:
            self._hear(0)
            if not self._free:
                self._counts["frames dropped, newer ones were waiting"] += 1
                return
        while not self._free:
            self._hear(None)
        if (picture.width, picture.height) != self._size_wh:
            if not self._counts["pictures scaled to the first size"]:
                self._notices.append(
                    f"the picture changes to {picture.width}x{picture.height} at frame {index}; "
                    f"scaled to {self._size_wh[0]}x{self._size_wh[1]}"
                )
            self._counts["pictures scaled to the first size"] += 1
        planes = self._conformer(picture)
        slot = self._free.popleft()
        np.copyto(self._host.memory.view(slot * planes.size, planes.shape), planes)
        self._send(slot, place, index, arrived_s)

    def _send(self, slot: int, place: int, index: int, captured_at: float) -> None:
        counts = dict(self._counts)
        changed = counts != self._sent_counts
        self._sent_counts = counts
        more = len(self._notices) > self._sent_notices
        self._sent_notices = len(self._notices)
        sounds = tuple(self._sounds)
        self._sounds.clear()
        notices = tuple(self._notices) if more else None
        self._host.send(Picture(slot, place, index, captured_at, sounds, counts if changed else None, notices))

    def _announce(self, first: Any) -> None:
        """Tell the parent what is coming."""
        request, stream = self._request, self._stream
        if first.width * first.height > request.max_pixels:
            raise _Refused(
                f"{request.shown} is {first.width}x{first.height}, more than {request.max_pixels} pixels; "
                "choose a smaller stream or raise max_pixels"
            )
        turn = turn_of(first, stream.codec_context.name)
        self._size_wh = (first.width, first.height)
        found = colour_of(first, stream.codec_context, chroma_siting(stream))
        self._conformer = Conformer(
            first, found, size_wh=self._size_wh, turn=turn, colour=request.colour, threads=request.threads
        )
        self._notices += self._conformer.remarks
        original_wh = turn.size(self._hardware.size_wh(first))
        width, height = (side + side % 2 for side in original_wh)
        if (width, height) != original_wh:
            self._notices.append(f"{original_wh[0]}x{original_wh[1]} padded to {width}x{height}")
        ratio = Fraction(stream.sample_aspect_ratio or 1)
        duration_s = self._container.duration / av.time_base if self._container.duration else None
        info = VideoInfo(
            width=width,
            height=height,
            rate=self._rate,
            live=self._live,
            time_base=self._time_base,
            colour=self._conformer.colour,
            name=request.shown,
            original_wh=original_wh,
            duration_s=duration_s,
            frame_count=round(duration_s * self._rate) if duration_s and self._rate else None,
            sample_aspect_ratio=1 / ratio if turn.transpose else ratio,
            metadata={} if self._live else dict(self._container.metadata),
            decoder=self._hardware.decoder,
        )
        self._host.memory.resize(_SLOTS * width * height * 3 // 2)
        self._sent_notices = len(self._notices)
        self._host.send(Opened(info, tuple(self._tracks.values()), tuple(self._notices)))
        self._opened = True

    def _keep_sound(self, packet: Any) -> None:
        time_base = Fraction(packet.time_base)
        shift = self._clock.sound_shift(packet.pts if packet.pts is not None else packet.dts, time_base)
        if shift is None:
            return
        pts, dts = (None if at is None else at + shift for at in (packet.pts, packet.dts))
        if len(self._sounds) == _MOST_SOUNDS:
            self._sounds.popleft()
            self._counts["sound left out, the reader was slow"] += 1
        sound = sound_of(packet, packet.stream.index)
        self._sounds.append(replace(sound, pts=pts, dts=dts, time_base=time_base))

    def _wait_for(self, at_s: float) -> float:
        """Hold a picture of a stream that comes in bursts until its time has come; that time."""
        now_s = time.monotonic()
        if self._pace_from_s is None or now_s > self._pace_from_s + at_s + _LATE_S:
            self._pace_from_s = now_s - at_s
        due_s = self._pace_from_s + at_s
        while (left_s := due_s - time.monotonic()) > 0:
            self._hear(left_s)
        return time.monotonic()

    def _hear(self, timeout_s: float | None) -> None:
        """Take in what the parent and the native libraries have said; waits for at most one message."""
        try:
            while True:
                message = self._host.receive(timeout_s)
                if isinstance(message, Close):
                    raise _Stop
                if isinstance(message, Free):
                    self._free.append(message.slot)
                timeout_s = 0
        except TimeoutError:
            pass
        self._hear_text()

    def _hear_text(self) -> None:
        for line in self._host.native_text():
            missed = _MISSED.search(line)
            if missed:
                self._counts["packets lost on the way"] += int(missed[1])
                self._gap = self._new_gap = True
            self._last_text = line

    def _failed(self, error: Exception) -> Ended:
        time.sleep(0.01)  # its thread gets a moment to take in what was printed last
        self._hear_text()
        if not self._opened:
            return Ended(*refusal(self._request, error, self._last_text))
        text = f"{self._request.shown} was lost: {why(self._request, error, self._last_text)}"
        return Ended("lost", text, dict(self._counts), tuple(self._sounds))
