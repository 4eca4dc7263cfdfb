"""Sound, subtitles, data and attachments, copied as they are; telephone sound is written out in full."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import av

from streamseg.frame import Packet, Track
from streamseg.libav import copied, reason
from streamseg.sounds import COMPANDED

__all__ = ["CopiedTracks", "stream_metadata"]

# What muxers write by themselves, or what is only true of the file it came from.
_OWN_KEYS = frozenset({"duration", "encoder", "bps", "number_of_frames", "number_of_bytes", "vendor_id"})
# The library drops any other spelling there.
_QUICKTIME_LANGUAGES = {
    "deu": "ger",
    "ell": "gre",
    "isl": "ice",
    "nld": "dut",
    "sqi": "alb",
    "swe": "sve",
    "zho": "chi",
}
# Whoever writes these says what is to be played.
_WITH_EDIT_LISTS = frozenset({"mp4", "mov"})
# What can be written instead, the likeliest first.
_KEEPERS = {"matroska": ".mkv", "mp4": ".mp4", "mov": ".mov"}
_GET_GOING_S = Fraction(1, 10)
_NONSTRICT = 0x20000
_MOST_FAILURES = 100
# FFmpeg writes anything into a broadcast stream, as private data.
_BROADCAST = frozenset(
    {
        *("aac", "aac_latm", "mp1", "mp2", "mp3", "ac3", "eac3", "ac4", "dts", "truehd", "opus", "s302m"),
        *("dvb_subtitle", "dvb_teletext", "klv", "timed_id3", "scte_35"),
    }
)
# What RTP has a form for.
_PACKETISED = frozenset({"aac", "ac3", "mp2", "mp3", "opus", "pcm_alaw", "pcm_mulaw", "pcm_s16be", "speex", "vorbis"})
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


def stream_metadata(metadata: dict[str, str], format_name: str = "") -> dict[str, str]:
    """Without what is no longer true in another file; languages as the container spells them."""
    kept = {}
    for key, value in metadata.items():
        low = key.lower()
        if low in _OWN_KEYS or low.startswith("_statistics") or low.split("-")[0] in _OWN_KEYS:
            continue
        if low == "language" and format_name == "mov":
            value = _QUICKTIME_LANGUAGES.get(value, value)
        # MP4's title of a track is read under one word and written from the other.
        kept["title" if key == "name" and "title" not in metadata else key] = value
    return kept


class CopiedTracks:
    """Streams in an output container for the tracks it can hold.

    Args:
        container: whose header is not yet written.
        tracks: of the source, which must still be open.
        origin_s: the time on the packets' clock that is 0 in the container.

    Attributes:
        notices: a line for each track that is left out.
    """

    def __init__(self, container: Any, tracks: Sequence[Track], *, origin_s: Fraction = Fraction(0)) -> None:
        self._container = container
        self._origin_s = origin_s
        self._streams: dict[int, Any] = {}
        self._last_dts: dict[int, int] = {}
        self._framed: set[int] = set()  # tracks whose packets carry headers that have to go
        self._expanders: dict[int, Any] = {}
        self._hides = container.format.name in _WITH_EDIT_LISTS
        self._hidden: dict[int, list[Packet]] = {}  # what the source does not play, and this container would
        self._strict = not container.format.flags & _NONSTRICT
        self._failures = 0
        self.notices: list[str] = []
        for track in tracks:
            try:
                _trial(container.format.name, track)
                stream = _add(container, track)
            except (av.FFmpegError, ValueError, NotImplementedError, AttributeError) as error:
                self.notices.append(_left_out(track, container.format.name, error))
                continue
            if track.kind != "attachment":
                self._streams[track.index] = stream
            if _needs_config(container, track):
                self._framed.add(track.index)
            if _is_expanded(container, track):
                self._expanders[track.index] = _expander(track)

    def mux(self, packets: Sequence[Packet]) -> None:
        """Write copies of the packets; those of tracks that are left out are passed over.

        Raises:
            OSError: the container cannot be written.
            av.FFmpegError: packet after packet is refused.
        """
        for packet in self._played(packets):
            stream = self._streams.get(packet.track.index)
            if stream is None:
                continue
            payload, data = packet.payload, None
            if packet.track.index in self._framed:
                data = _without_adts(bytes(payload))
            elif packet.track.index in self._expanders:
                data = b"".join(
                    block.to_ndarray().tobytes() for block in self._expanders[packet.track.index].decode(payload)
                )
            # A packet of its own: muxers write into what they are given, and other sinks get the same one.
            copy = copied(payload, data)
            copy.stream = stream
            self._place(copy, stream)
            try:
                self._container.mux_one(copy)
            except (av.error.InvalidDataError, av.error.ArgumentError) as error:
                self._failures += 1
                if self._failures == 1:
                    self.notices.append(f"a packet of {packet.track.kind} track {packet.track.index} is left out: "
                                        f"{reason(error)}")  # fmt: skip
                if self._failures > _MOST_FAILURES:
                    raise

    def _played(self, packets: Iterable[Packet]) -> Iterator[Packet]:
        """Without what the source's edit list hides, except the last moment of it: decoders need that to get going."""
        for packet in packets:
            payload, hidden = packet.payload, self._hidden.setdefault(packet.track.index, [])
            if self._hides or payload.pts is None:
                yield packet
            elif getattr(payload, "is_discard", False):
                hidden.append(packet)
            else:
                earliest = payload.pts - _GET_GOING_S / payload.time_base
                yield from (before for before in hidden if before.payload.pts >= earliest)
                hidden.clear()
                yield packet

    def _place(self, packet: Any, stream: Any) -> None:
        """Give it times of the stream, decoding times that never go back: muxers refuse others."""
        source, target = packet.time_base, stream.time_base
        numerator = source.numerator * target.denominator
        denominator = source.denominator * target.numerator

        def ticks(value: int | None) -> int | None:
            return None if value is None else (2 * value * numerator + denominator) // (2 * denominator)

        pts, dts, duration = ticks(packet.pts), ticks(packet.dts), ticks(packet.duration)
        if self._origin_s:
            zero = round(self._origin_s / target)
            pts = None if pts is None else pts - zero
            dts = None if dts is None else dts - zero
        last = self._last_dts.get(stream.index)
        if dts is None:
            dts = pts if pts is not None else (0 if last is None else last + (duration or 1))
        if last is not None and (dts <= last if self._strict else dts < last):
            dts = last + 1 if self._strict else last
        pts = dts if pts is None else max(pts, dts)
        self._last_dts[stream.index] = dts
        packet.pts, packet.dts, packet.time_base = pts, dts, target
        if duration is not None:
            packet.duration = duration


def _add(container: Any, track: Track) -> Any:
    template = track.template
    if track.kind == "attachment":
        name = template.name or f"attachment-{track.index}"
        return container.add_attachment(name, template.mimetype or "application/octet-stream", template.data)
    if _is_expanded(container, track):
        context = template.codec_context
        stream = container.add_stream("pcm_s16le", rate=context.sample_rate, layout=context.layout.name)
    else:
        stream = container.add_stream_from_template(template, opaque=True)
    if _needs_config(container, track):
        stream.codec_context.extradata = _aac_config(template.codec_context)
    stream.metadata.update(stream_metadata(dict(template.metadata), container.format.name))
    stream.disposition = template.disposition
    return stream


def _needs_config(container: Any, track: Track) -> bool:
    """AAC from a broadcast stream: a header before each packet, where files have one description for all.

    FFmpeg's muxers would turn it over by themselves, but not where MP4 is written in fragments.
    """
    template = track.template
    return track.codec == "aac" and not template.codec_context.extradata and container.format.name != "mpegts"


def _is_expanded(container: Any, track: Track) -> bool:
    return track.codec in COMPANDED and container.format.name == "matroska"


def _expander(track: Track) -> Any:
    context: Any = av.CodecContext.create(track.codec, "r")
    context.sample_rate = track.template.codec_context.sample_rate
    context.layout = track.template.codec_context.layout.name
    return context


def _aac_config(context: Any) -> bytes:
    """The AudioSpecificConfig of ISO/IEC 14496-3 for plain AAC.

    Raises:
        ValueError: the rate or the number of channels has no short form.
    """
    object_type = {"Main": 1, "SSR": 3, "LTP": 4}.get(context.profile, 2)
    channels = {8: 7}.get(context.layout.nb_channels, context.layout.nb_channels)
    if context.sample_rate not in _AAC_RATES or not 1 <= channels <= 7:
        raise ValueError(f"AAC with {context.sample_rate} Hz and {context.layout.nb_channels} channels")
    return (object_type << 11 | _AAC_RATES.index(context.sample_rate) << 7 | channels << 3).to_bytes(2, "big")


def _without_adts(data: bytes) -> bytes:
    """An AAC packet without its ADTS header; the rest of the header says nothing that the description lacks."""
    if len(data) < 7 or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
        return data
    return data[7 if data[1] & 1 else 9 :]


def _trial(format_name: str, track: Track) -> None:
    """Write a header with this track alone: what a container holds is known for certain only then."""
    if format_name == "rtsp":
        # Its header goes to a server, who need not be asked.
        if track.codec not in _PACKETISED:
            raise ValueError("RTP has no form for it")
        return
    if track.kind == "attachment" and format_name != "matroska":
        raise ValueError("no attachments")
    if format_name == "mpegts" and track.codec not in _BROADCAST:
        raise ValueError("no player would know it")
    scratch = io.BytesIO()
    scratch.close = lambda: None  # type: ignore[method-assign]  # the container closes what it is given
    container = av.open(scratch, "w", format=format_name)
    try:
        stream = _add(container, track)
        if track.kind != "attachment":
            container.start_encoding()
        if track.kind == "data":
            # Some of these fail only when the file is completed.
            for time in (0, 1):
                packet = av.Packet(bytes(16))
                packet.pts = packet.dts = time
                packet.time_base, packet.duration, packet.stream = Fraction(1), 1, stream
                container.mux_one(packet)
    except BaseException:
        with contextlib.suppress(av.FFmpegError, ValueError, OSError):
            container.close()
        raise
    container.close()


def _holds(format_name: str, track: Track) -> bool:
    try:
        _trial(format_name, track)
    except (av.FFmpegError, ValueError, NotImplementedError, AttributeError):
        return False
    return True


def _left_out(track: Track, format_name: str, error: BaseException) -> str:
    language = track.template.metadata.get("language", "")
    what = f"{track.kind} track {track.index} ({track.codec}{', ' + language if language not in ('', 'und') else ''})"
    others = {other: name for other, name in _KEEPERS.items() if other != format_name}
    keeper = next((name for other, name in others.items() if _holds(other, track)), None)
    better = f"write {keeper} to keep it" if keeper else f"nor can {' '.join(others.values())}"
    if track.kind == "data":
        better = reason(error) if format_name in ("mp4", "mov") else "write .mov or .mp4 to try to keep it"
    return f"{what} is left out: {format_name} cannot hold it; {better}"
