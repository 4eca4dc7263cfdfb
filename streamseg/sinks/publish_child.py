"""The child process of a published stream: encodes what it is handed, and sends it with the sound."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit

import av
from av.video.frame import PictureType

from streamseg.child import Host
from streamseg.errors import redact
from streamseg.frame import Colour, Packet, Plane, Track
from streamseg.libav import i420_picture, reason, set_up
from streamseg.sinks.encoders import Encoding
from streamseg.sinks.outside import Finish, Finished, Handed, Lost, Opened, Refused, Taken, slot_view
from streamseg.sinks.tracks import CopiedTracks
from streamseg.sounds import Parcel, Sound, packet_of, unpack

__all__ = ["Moment", "Request", "serve"]

_TIME_BASE = Fraction(1, 90000)
_KEYFRAME_S = 2
# Pictures closer than the millisecond that RTMP counts in would have one time.
_STEP = 90
_ERRORS = (OSError, ValueError, av.FFmpegError)
# RTMP counts milliseconds in 31 bits, and begins at 0 again after them: a viewer would be thrown back by 24 days.
_RTMP_ENDS_S = 24 * 86400
# What the system may hold back when a server stops reading: as long as there is room, nobody can notice.
_SEND_BUFFER = 128 * 1024
_NEVER = (
    av.error.HTTPUnauthorizedError,
    av.error.HTTPForbiddenError,
    av.error.HTTPNotFoundError,
    av.error.HTTPBadRequestError,
    av.error.HTTPOtherClientError,
)


@dataclass(frozen=True, slots=True)
class Request:
    """What to publish, and where.

    Attributes:
        url: with the password; `shown` is without.
        format: FFmpeg's name of the container, with its options.
        tracks: of the sound.
    """

    url: str
    shown: str
    format: str
    options: Mapping[str, str]
    encoding: Encoding
    size_wh: tuple[int, int]
    rate: Fraction | None
    colour: Colour
    sample_aspect_ratio: Fraction
    threads: int
    tracks: tuple[Parcel, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """When a picture is shown, and the sound that travelled with it."""

    pts: int
    time_base: Fraction
    sounds: tuple[Sound, ...]


def serve(host: Host) -> None:
    """Connect to what the `Request` names, send what is handed over until told to finish."""
    request: Request = host.receive(None)
    # What the library says is then part of its errors.
    av.logging.set_level(av.logging.ERROR)
    try:
        publication = _Publication(request)
    except _ERRORS as error:
        host.send(_refusal(request, error))
        return
    host.send(Opened(request.shown, tuple(publication.notices)))
    shape = (request.size_wh[1] * 3 // 2, request.size_wh[0])
    try:
        while True:
            message = host.receive(None)
            if isinstance(message, Handed):
                publication.write(slot_view(host.memory, message.slot, shape), message.extra)
                host.send(Taken(message.slot))
            elif isinstance(message, Finish):
                publication.finish(message.extra)
                host.send(Finished())
                return
    except _ERRORS as error:
        host.send(Lost(_why(request, error)))


def _why(request: Request, error: BaseException) -> str:
    """The library's reason, without the URL and the stream key that a server may have repeated."""
    text = reason(error)
    for url in (request.url, redact(request.url)):
        text = text.replace(url, request.shown)
    if request.format == "flv":
        key = urlsplit(request.url).path.rstrip("/").rpartition("/")[2]
        text = re.sub(rf"(?<!\w){re.escape(key)}(?!\w)", "***", text)
    return text


def _refusal(request: Request, error: BaseException) -> Refused:
    why = _why(request, error)
    what = f"cannot publish to {request.shown}: {why}"
    if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
        return Refused(f"{what}; check user and password in the URL")
    if isinstance(error, av.error.ProtocolNotFoundError):
        return Refused(f"{what}; this FFmpeg was built without {request.url.partition(':')[0]}")
    number = getattr(error, "errno", None)
    if isinstance(error, _NEVER) or not isinstance(error, OSError) or number in (errno.EINVAL, errno.ENOSYS):
        return Refused(what)
    return Refused(what, absent=True)


class _Publication:
    """An open stream; what is earlier than its first picture is left out, and that is its time 0."""

    def __init__(self, request: Request) -> None:
        options = dict(request.options) | {"flush_packets": "1"}
        if request.format == "flv":
            options |= {"flvflags": "no_duration_filesize", "tcp_nodelay": "1"}
        # Sound that is late must not hold the picture back: players put the two together.
        options["max_interleave_delta"] = "100000" if request.format == "flv" else "1"
        self._container: Any = av.open(request.url, "w", format=request.format, container_options=options)
        self._colour = request.colour
        self._encoding = request.encoding
        stream: Any = self._container.add_stream(request.encoding.codec, rate=request.rate or Fraction(30))
        self._stream = stream
        set_up(
            stream,
            size_wh=request.size_wh,
            pixel_format=request.encoding.pixel_format,
            time_base=_TIME_BASE,
            colour=request.colour,
            sample_aspect_ratio=request.sample_aspect_ratio,
            threads=request.threads,
        )
        context = stream.codec_context
        context.options = dict(request.encoding.options)
        self._ends_s = _RTMP_ENDS_S if request.format == "flv" else None
        self._origin_s: Fraction | None = None
        self._last_pts = -_STEP
        self._keyframe_pts = -math.inf
        self._tracks: dict[int, Track] = {}
        for track in request.tracks:
            self._tracks[track.index] = unpack(track)
        self._copies = CopiedTracks(self._container, list(self._tracks.values()))
        self._container.start_encoding()
        unknown = sorted(set(context.options) & set(request.encoding.options))
        if unknown:
            raise ValueError(f"{request.encoding.codec} has no option {unknown[0]!r}")
        _hasten()
        self.notices = self._copies.notices

    def write(self, planes: Plane, moment: Moment) -> None:
        """Encode a picture and send it, after the sound that came before it."""
        seconds = moment.pts * moment.time_base
        if self._origin_s is None:
            self._origin_s = seconds
        self._send(moment.sounds)
        place = max(round((seconds - self._origin_s) / _TIME_BASE), self._last_pts + _STEP)
        if self._ends_s is not None and place * _TIME_BASE >= self._ends_s:
            raise ValueError("the clock of an RTMP stream ends after 24 days; it begins anew")
        self._last_pts = place
        picture = i420_picture(planes, self._colour, shared=True)
        if picture.format.name != self._encoding.pixel_format:
            picture = picture.reformat(format=self._encoding.pixel_format)
        picture.pts, picture.time_base = place, _TIME_BASE
        if (place - self._keyframe_pts) * _TIME_BASE >= _KEYFRAME_S:
            # A viewer who joins sees nothing before one.
            picture.pict_type = PictureType.I
            self._keyframe_pts = place
        self._mux(self._stream.encode(picture))

    def finish(self, sounds: tuple[Sound, ...]) -> None:
        """Send what the encoder holds, the last sound, and the end."""
        if self._origin_s is not None:
            self._mux(self._stream.encode(None))
            self._send(sounds)
        self._container.close()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self._container.mux_one(packet)

    def _send(self, sounds: tuple[Sound, ...]) -> None:
        ready = []
        for sound in sounds:
            origin = round((self._origin_s or 0) / sound.time_base)
            times = [None if time is None else time - origin for time in (sound.pts, sound.dts)]
            if any(time is not None and time < 0 for time in times):
                continue
            payload = packet_of(replace(sound, pts=times[0], dts=times[1]))
            ready.append(Packet(self._tracks[sound.track], payload))
        self._copies.mux(ready)


def _hasten() -> None:
    """Let this process's connections send at once and hold little back; the library knows no option for it."""
    if sys.platform == "win32":
        return
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:
            if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
