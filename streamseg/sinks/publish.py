"""Publishing to a server: RTSP (RECORD) and RTMP, encoded and sent by a child process.

A server that stops reading blocks the library for good: then the child is ended, and the next one starts afresh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

import av

from streamseg.errors import SinkOpenError, SinkWriteError, shown
from streamseg.frame import Output, Packet, Track, VideoInfo
from streamseg.libav import reason
from streamseg.sinks.encoders import choose_encoding
from streamseg.sinks.outside import Outside
from streamseg.sinks.publish_child import Moment, Request
from streamseg.sounds import Parcel, Sound, pack, sound_of

__all__ = ["SCHEMES", "Publisher", "open_publisher"]

# By scheme: FFmpeg's name of the container.
SCHEMES = {"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv"}
_TRANSPORTS = ("tcp", "udp")
_BUSY = "pictures dropped while busy"
# One is encoded while the next waits.
_SLOTS = 2


def open_publisher(
    url: str,
    info: VideoInfo,
    *,
    encoder: str | None = None,
    quality: str | int | None = None,
    threads: int = 0,
    transport: str = "tcp",
    open_s: float = 5.0,
    stall_s: float = 3.0,
    given_up: Callable[[], bool] = lambda: False,
) -> Publisher:
    """Publish frames like those of `info`, with the sound that comes with them.

    Args:
        url: ``rtsp://``, ``rtsps://``, ``rtmp://`` or ``rtmps://``, with user and password where the server asks.
        info: of the source, which must still be open: its sound is copied.
        encoder: as a video file takes it; by default one for H.264 that keeps no picture back.
        quality: low, medium, high (the default), or the encoder's own number.
        threads: of the encoder; 0 lets it choose.
        transport: tcp or udp, of RTSP.
        open_s: how long connecting may take.
        stall_s: how long the server may take nothing.
        given_up: asked while it connects; true ends that.

    Raises:
        SinkAbsentError: nobody answers there; waiting may help.
        SinkOpenError: it cannot work as asked.
    """
    return Publisher(
        url,
        info,
        encoder=encoder,
        quality=quality,
        threads=threads,
        transport=transport,
        open_s=open_s,
        stall_s=stall_s,
        given_up=given_up,
    )


class Publisher:
    """A stream to a server; a `Sink`. See `open_publisher`."""

    def __init__(
        self,
        url: str,
        info: VideoInfo,
        *,
        encoder: str | None,
        quality: str | int | None,
        threads: int,
        transport: str,
        open_s: float,
        stall_s: float,
        given_up: Callable[[], bool],
    ) -> None:
        told = shown(url)
        format_name = _format(url, told)
        if transport not in _TRANSPORTS:
            raise SinkOpenError(f"cannot publish to {told}: transport {transport!r} is none of tcp, udp")
        encoding = choose_encoding(
            format_name,
            told,
            encoder=encoder,
            quality=quality,
            alpha=False,
            size_wh=(info.width, info.height),
            live=True,
        )
        self._remarks = [encoding.remark] if encoding.remark else []
        self._shape = (info.height * 3 // 2, info.width)
        self._pending: list[Sound] = []
        self._late = False
        tracks = [track for track in info.tracks if track.kind == "audio"]
        self._tracks = frozenset(tracks)
        self._outside = Outside(
            "streamseg.sinks.publish_child:serve",
            told,
            Request(
                url=_library_url(url),
                shown=told,
                format=format_name,
                options={"rtsp_transport": transport} if format_name == "rtsp" else {},
                encoding=encoding,
                size_wh=(info.width, info.height),
                rate=info.rate,
                colour=info.colour,
                sample_aspect_ratio=info.sample_aspect_ratio,
                threads=threads,
                tracks=tuple(_packed(track, told) for track in tracks),
            ),
            shape=self._shape,
            slots=_SLOTS,
            open_s=open_s,
            stall_s=stall_s,
            given_up=given_up,
        )

    @property
    def pid(self) -> int:
        """Of the process that encodes and sends."""
        return self._outside.pid

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        late = ["the server did not take the end of the stream in time"] if self._late else []
        return [*self._remarks, *self._outside.notices, *late]

    @property
    def counts(self) -> Mapping[str, int]:
        """Pictures that were dropped because the one before was not yet sent."""
        return {_BUSY: self._outside.dropped} if self._outside.dropped else {}

    def write(self, output: Output, packets: Sequence[Packet] = ()) -> None:
        """Send a picture and the sound that travelled with it. Returns at once.

        Raises:
            SinkWriteError: the server is gone, or takes nothing any more.
        """
        frame = output.frame
        if frame.planes.shape != self._shape:
            raise SinkWriteError(
                f"cannot publish a picture of {frame.width}x{frame.height} in a stream of another size"
            )
        self._pending += self._sounds(packets)
        # The sound of a picture that is dropped goes with the next.
        if self._outside.offer(frame.planes, Moment(frame.pts, frame.time_base, tuple(self._pending))):
            self._pending = []

    def finish(self, packets: Sequence[Packet] = ()) -> None:
        """Send what is left and say goodbye, for a second and a half at most."""
        self._late = not self._outside.finish(tuple(self._pending + self._sounds(packets)))

    def close(self) -> None:
        """Break off."""
        self._outside.close()

    def _sounds(self, packets: Sequence[Packet]) -> list[Sound]:
        return [sound_of(packet.payload, packet.track.index) for packet in packets if packet.track in self._tracks]


def _format(url: str, told: str) -> str:
    """FFmpeg's name of the container, after everything was looked at that can be wrong with a URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SinkOpenError(f"cannot publish to {told}: its host cannot be read") from None
    if "@" in url and "@" not in parts.netloc and ":" in parts.netloc.rpartition("]")[2]:
        raise SinkOpenError(f"cannot publish to {told}: write / ? and # in a user or password as %2F, %3F and %23")
    format_name = SCHEMES.get(parts.scheme.lower())
    if format_name is None:
        raise SinkOpenError(f"cannot publish to {told}: known are rtsp:// rtsps:// rtmp:// rtmps://")
    if not parts.hostname:
        raise SinkOpenError(f"cannot publish to {told}: it names no host")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise SinkOpenError(f"cannot publish to {told}: the port must be a number from 1 to 65535")
    if format_name == "flv" and parts.path.strip("/").count("/") < 1:
        raise SinkOpenError(f"cannot publish to {told}: RTMP wants an application and a name, as in /live/camera")
    return format_name


def _library_url(url: str) -> str:
    """The library knows schemes in lower case only."""
    scheme, colon, rest = url.partition(":")
    return scheme.lower() + colon + rest


def _packed(track: Track, told: str) -> Parcel:
    try:
        return pack(track)
    except (av.FFmpegError, ValueError) as error:
        raise SinkOpenError(f"cannot publish the sound to {told}: {reason(error)}") from error
