"""Everything streamseg raises on purpose.

    StreamsegError
    ├── ConfigError            (also ValueError) a setting or argument is wrong
    ├── SourceError
    │   ├── SourceOpenError    the source cannot be opened or is no picture
    │   │   └── SourceAbsentError  nothing is there now; waiting may help
    │   └── SourceLostError    it was open and went away; trying again may help
    ├── ModelError
    │   ├── ModelLoadError     no such model, not a usable one, or its runtime is missing
    │   │   └── ModelAbsentError   it cannot be fetched now; trying again may help
    │   └── InferenceError     the network failed on a frame
    ├── SinkError
    │   ├── SinkOpenError      the output cannot be opened as asked
    │   │   └── SinkAbsentError    nobody is there to take it now; waiting may help
    │   └── SinkWriteError     it was open and a write failed
    ├── PipelineStuckError     a thread did not stop in time; the message holds its stack
    └── PipelineAborted        the user wanted it to end at once

Messages say what, with which value, and what to do next: lower case, no trailing dot, on one line. They never hold a
password: use `shown` on a URL, and `redact` on any text that may carry one.
"""

from __future__ import annotations

import re

__all__ = [
    "ConfigError",
    "InferenceError",
    "ModelAbsentError",
    "ModelError",
    "ModelLoadError",
    "PipelineAborted",
    "PipelineStuckError",
    "SinkAbsentError",
    "SinkError",
    "SinkOpenError",
    "SinkWriteError",
    "SourceAbsentError",
    "SourceError",
    "SourceLostError",
    "SourceOpenError",
    "StreamsegError",
    "redact",
    "shown",
]


class StreamsegError(Exception):
    """Root of every error that streamseg raises on purpose."""

    exit_code = 1


class ConfigError(StreamsegError, ValueError):
    """A setting or argument is wrong; nothing was started."""

    exit_code = 2


class SourceError(StreamsegError):
    """The picture cannot be had."""


class SourceOpenError(SourceError):
    """The source cannot be opened, or is no picture."""

    exit_code = 2


class SourceAbsentError(SourceOpenError):
    """Nothing is there now, or it is busy; waiting may help."""


class SourceLostError(SourceError):
    """The source was open and went away; opening it again may help."""


class ModelError(StreamsegError):
    """The network cannot be had or cannot run."""


class ModelLoadError(ModelError):
    """No such model, not a usable one, or its runtime is missing."""

    exit_code = 2


class ModelAbsentError(ModelLoadError):
    """It cannot be fetched now, as the network or a server is away; trying again may help."""


class InferenceError(ModelError):
    """The network failed on a frame."""


class SinkError(StreamsegError):
    """The output cannot be written."""


class SinkOpenError(SinkError):
    """The output cannot be opened as asked."""

    exit_code = 2


class SinkAbsentError(SinkOpenError):
    """Nobody is there to take the picture now, or it is busy; waiting may help."""


class SinkWriteError(SinkError):
    """The output was open and a write failed."""

    exit_code = 2


class PipelineStuckError(StreamsegError):
    """A thread did not stop in time; the message holds its stack."""


class PipelineAborted(StreamsegError):  # noqa: N818 - nothing went wrong
    """The user wanted it to end at once; nothing was finished."""

    exit_code = 130


# Greedy: a password may itself hold / or @ or quotes, and hiding too much is the lesser harm.
_USERINFO = re.compile(r"(?<=://)\S*@")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)


def redact(text: str) -> str:
    """Replace the user and password in every URL within `text` by ``***``.

    >>> redact("cannot open rtsp://me:secret@camera/1: timed out")
    'cannot open rtsp://***@camera/1: timed out'
    """
    return _USERINFO.sub("***@", text)


def shown(url: str) -> str:
    """What anybody may read of `url`: no user or password, no query, and of RTMP no stream key.

    What is no URL, such as the name of a file, stays as it is. So does what was shown already.

    >>> shown("rtmp://me:secret@host/live/key?token=1")
    'rtmp://***@host/live/***'
    """
    match = _URL.match(url)
    if match is None or match[1].lower() == "file":
        return url
    scheme, authority, tail = match[1].lower(), match[2], match[3]
    _, at, place = authority.rpartition("@")
    if "@" in tail and (at or ":" in authority + tail):
        # Most likely a password with a bare / ? or # in it, so what precedes the last @ tells nothing for sure.
        before, at, tail = tail.rpartition("@")
        if re.search("[?#]", before):
            return f"{scheme}://***"
        place = ""
    path = re.split("[?#]", tail, maxsplit=1)[0]
    if scheme.startswith("rtmp"):
        path = re.sub(r"[^/]+(/*)$", r"***\1", path)
    return f"{scheme}://{'***@' if at else ''}{place}{path}"
