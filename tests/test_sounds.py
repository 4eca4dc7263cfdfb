"""Tracks and packets of sound, told to another process as plain values."""

from __future__ import annotations

import io
import pickle
from fractions import Fraction

import av
import pytest

from streamseg.frame import Packet, Track
from streamseg.libav import moved
from streamseg.sounds import pack, packet_of, sound_of, unpack


@pytest.mark.parametrize("codec", ["aac", "libopus", "pcm_alaw", "pcm_mulaw", "libmp3lame"])
def test_a_track_is_told_to_another_process(codec: str) -> None:
    rate = 8000 if codec.startswith("pcm") else 48000
    with av.open(io.BytesIO(), "w", format="nut") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        container.start_encoding()
        context = stream.codec_context
        told = pickle.dumps(pack(Track(3, "audio", context.codec.canonical_name, stream)))
        track = unpack(pickle.loads(told))
        assert (track.index, track.kind, track.codec) == (3, "audio", context.codec.canonical_name)
        again = track.template.codec_context
        assert again.codec.canonical_name == context.codec.canonical_name
        assert again.sample_rate == rate
        assert again.extradata == context.extradata


def test_a_packet_comes_out_as_it_went_in() -> None:
    packet = av.Packet(b"sound")
    packet.pts, packet.dts, packet.time_base, packet.duration = 960, 959, Fraction(1, 48000), 1024
    packet.is_keyframe = True
    again = packet_of(pickle.loads(pickle.dumps(sound_of(packet, 2))))
    assert bytes(again) == b"sound"
    assert (again.pts, again.dts, again.time_base, again.duration) == (960, 959, Fraction(1, 48000), 1024)
    assert again.is_keyframe


def test_a_packet_is_moved_and_the_original_stays() -> None:
    payload = av.Packet(b"sound")
    payload.pts, payload.dts, payload.time_base = 960, None, Fraction(1, 48000)
    here, there = Track(1, "audio", "aac", None), Track(1, "audio", "aac", None)
    later = moved(Packet(here, payload), there, 0.08)
    assert (later.track, later.payload.pts, later.payload.dts) == (there, 960 + 3840, None)
    assert payload.pts == 960
    assert moved(later, here, -0.1).payload.pts == 0
