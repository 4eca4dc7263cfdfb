"""What the two sides of a live source tell each other; pictures themselves lie in the shared memory between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from streamseg.frame import Colour, VideoInfo
from streamseg.sounds import Parcel, Sound

__all__ = ["Close", "Closed", "Ended", "Found", "Free", "Opened", "Picture", "Request", "Waiting"]


@dataclass(frozen=True, slots=True)
class Request:
    """Parent to child: open this.

    Attributes:
        url: as FFmpeg's libraries read it, with any password.
        shown: what users are shown instead.
        format: of the demultiplexer; None lets the library find out.
        options: of the demultiplexer.
        host: (name, port) whose address the parent wants to know; None where there is none.
        camera: a device of this machine, whose failures are explained by its own means.
        hwaccel: as `Hardware` takes it.
    """

    url: str
    shown: str
    format: str | None
    options: dict[str, str]
    host: tuple[str, int] | None
    camera: bool
    max_pixels: int
    threads: int
    colour: Colour | None
    audio: bool
    hwaccel: str


@dataclass(frozen=True, slots=True)
class Free:
    """Parent to child: the picture in this slot has been taken."""

    slot: int


@dataclass(frozen=True, slots=True)
class Close:
    """Parent to child: let go of the stream; answered by one `Closed`."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Child to parent: ready for another `Request`; nothing of the last one follows."""


@dataclass(frozen=True, slots=True)
class Found:
    """Child to parent: the socket address behind the host's name."""

    family: int
    address: Any


@dataclass(frozen=True, slots=True)
class Waiting:
    """Child to parent: connected and hearing from the peer, but no whole picture yet."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Child to parent: the first picture was decoded.

    Attributes:
        info: without tracks, which cannot be sent.
        tracks: of the sound.
    """

    info: VideoInfo
    tracks: tuple[Parcel, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """Child to parent: a picture lies in a slot.

    Attributes:
        counts: all of them, where one changed since the last picture.
        notices: all of them, where one was added since.
    """

    slot: int
    pts: int
    index: int
    captured_at: float
    sounds: tuple[Sound, ...]
    counts: dict[str, int] | None
    notices: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Ended:
    """Child to parent: it is over.

    Attributes:
        how: "end" is a clean end, "lost" went away, "absent" may come, "refused" never will.
        why: one line for the user; empty at a clean end.
    """

    how: str
    why: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    sounds: tuple[Sound, ...] = ()
