"""What is left of a URL for anybody to read."""

from __future__ import annotations

import pytest

from streamseg.errors import redact, shown


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("cannot open rtsp://me:p'w@cam: gone", "cannot open rtsp://***@cam: gone"),
        ('"rtsp://me:p\\"w@cam/1", "x"', '"rtsp://***@cam/1", "x"'),
        ("rtsp://a:p@x and http://b:q/r@y/1", "rtsp://***@x and http://***@y/1"),
        ("write to me@example.org", "write to me@example.org"),
    ],
)
def test_passwords_in_a_text(text: str, left: str) -> None:
    assert redact(text) == left


@pytest.mark.parametrize(
    ("url", "left"),
    [
        ("rtsp://cam:554/1", "rtsp://cam:554/1"),
        ("RTSP://me:p w'@cam/1?token=x#y", "rtsp://***@cam/1"),
        ("rtsp://me:se/cret@cam/1?x", "rtsp://***@cam/1"),
        ("rtsp://me:S3cret?x@cam/1", "rtsp://***"),
        ("rtsp://me:S3@cret#x@cam/1", "rtsp://***"),
        ("rtsp://m/e:S3cret@cam/1", "rtsp://***@cam/1"),
        ("rtmp://host/live/key/", "rtmp://host/live/***/"),
        ("RTMPS://me:pw@host/app/key?auth=1", "rtmps://***@host/app/***"),
        ("srt://host:9000?passphrase=x", "srt://host:9000"),
        ("http://[::1/x?token=y", "http://[::1/x"),
        ("file:///a?b@c", "file:///a?b@c"),
        ("clip?.mp4", "clip?.mp4"),
        ("virtualcam:/dev/video9", "virtualcam:/dev/video9"),
    ],
)
def test_what_is_shown_of_a_url(url: str, left: str) -> None:
    assert shown(url) == left
    assert shown(left) == left
