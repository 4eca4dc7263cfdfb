"""Encoded sound that goes from one process to another: what declares a stream, and its packets, as plain values."""

from __future__ import annotations

import io
from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from streamseg.frame import Track

__all__ = ["COMPANDED", "Parcel", "Sound", "form_of", "pack", "packet_of", "sound_of", "unpack"]

COMPANDED = frozenset({"pcm_alaw", "pcm_mulaw"})
"""G.711, which many network cameras speak: the library does not write it into Matroska, but into WAV."""
# Without content, readers take the end of a Matroska header for a broken file.
_EMPTY_CLUSTER = bytes.fromhex("1f43b675 83 e78100")


@dataclass(frozen=True, slots=True)
class Parcel:
    """A track, with the head of a file that declares it.

    Attributes:
        bare: it has no configuration of its own, each of its packets brings one.
    """

    index: int
    kind: str
    codec: str
    format: str
    head: bytes
    bare: bool


@dataclass(frozen=True, slots=True)
class Sound:
    """An encoded packet of the track with this index."""

    track: int
    data: bytes
    pts: int | None
    dts: int | None
    time_base: Fraction
    duration: int | None
    key: bool


def form_of(track: Track) -> tuple[Hashable, ...]:
    """What has to be the same for packets of two tracks to go into one stream."""
    context = track.template.codec_context
    if track.kind != "audio" or context is None:
        return (track.index, track.kind, track.codec)
    setup = bytes(context.extradata or b"")
    return (track.index, track.kind, track.codec, context.sample_rate, context.layout.nb_channels, setup)


def pack(track: Track) -> Parcel:
    """What another process needs to declare the track.

    Raises:
        av.FFmpegError, ValueError: no container that can be read back holds it.
    """
    format_name = "wav" if track.codec in COMPANDED else "matroska"
    head = io.BytesIO()
    head.close = lambda: None  # type: ignore[method-assign]  # the container closes what it is given
    with av.open(head, "w", format=format_name) as container:
        container.add_stream_from_template(track.template, opaque=True)
        container.start_encoding()
        # Before the end is written, whose index would make readers find every stream twice.
        begun = head.getvalue()
    end = _EMPTY_CLUSTER if format_name == "matroska" else b""
    bare = not track.template.codec_context.extradata
    return Parcel(track.index, track.kind, track.codec, format_name, begun + end, bare)


def unpack(parcel: Parcel) -> Track:
    """The track, with the library's own stream as its template, which keeps its container alive."""
    (stream,) = av.open(io.BytesIO(parcel.head), format=parcel.format).streams
    if parcel.bare:
        # Matroska's reader makes a configuration up.
        stream.codec_context.extradata = None
    return Track(parcel.index, parcel.kind, parcel.codec, stream)


def sound_of(payload: Any, track: int) -> Sound:
    """The values of a library packet."""
    return Sound(
        track, bytes(payload), payload.pts, payload.dts, payload.time_base, payload.duration, payload.is_keyframe
    )


def packet_of(sound: Sound) -> Any:
    """The library packet of these values."""
    packet = av.Packet(sound.data)
    packet.pts, packet.dts, packet.time_base = sound.pts, sound.dts, sound.time_base
    if sound.duration is not None:
        packet.duration = sound.duration
    packet.is_keyframe = sound.key
    return packet
