"""URLs of live sources: checked, given to FFmpeg's libraries as they read them, shown without secrets."""

from __future__ import annotations

import ipaddress
import re
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from urllib.parse import quote, unquote, urlsplit

from streamseg.errors import SourceOpenError, shown
from streamseg.frame import Colour

__all__ = ["MAX_PIXELS", "Address", "LiveOptions", "is_live_url", "network_address", "screen_address"]

# 16k by 8k and a little: larger pictures are taken for an attack or a mistake.
MAX_PIXELS = 16384 * 8640

_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "http": 80, "https": 443, "srt": None}
_LOCAL = re.compile(r"(\d{1,3}|/dev/video\d+|(camera|screen|test):.*)", re.IGNORECASE)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How a live source is opened.

    Attributes:
        size_wh, rate, pixel_format: of a camera or the screen; None lets the device choose.
        transport: of RTSP, "tcp" or "udp".
        connect_timeout_s: until the peer has answered; a whole picture may come later.
        read_timeout_s: without a picture for so long, the source counts as lost.
        max_pixels: width times height of the largest picture that is accepted.
        threads: of the decoder; 0 takes one for every core.
        colour: convert every picture to this colour.
        audio: carry encoded sound beside the pictures.
        hwaccel: what decodes, as `Hardware` takes it.
    """

    size_wh: tuple[int, int] | None = None
    rate: Fraction | None = None
    pixel_format: str | None = None
    transport: str = "tcp"
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 2.5
    max_pixels: int = MAX_PIXELS
    threads: int = 2
    colour: Colour | None = None
    audio: bool = True
    hwaccel: str = "none"


@dataclass(frozen=True, slots=True)
class Address:
    """What to open.

    Attributes:
        url: for the library, with any password; never shown.
        shown: for users.
        format: of the demultiplexer; None lets the library find out.
        options: of the demultiplexer.
        host: (name, port) to which a connection is made; None where there is none.
    """

    url: str = field(repr=False)
    shown: str
    format: str | None
    options: dict[str, str]
    host: tuple[str, int] | None

    @property
    def literal(self) -> bool:
        """Whether the host is a number, so that nothing has to be looked up."""
        try:
            ipaddress.ip_address(self.host[0] if self.host else "")
        except ValueError:
            return False
        return True


def is_live_url(url: str) -> bool:
    """Whether `url` names a camera, a screen, a test pattern or something on a network, not a file.

    >>> [is_live_url(name) for name in ("0", "rtsp://camera/1", "test:", "clip.mp4", "file:///clip.mp4", "-")]
    [True, True, True, False, False, False]
    """
    if _LOCAL.fullmatch(url):
        return True
    scheme = _SCHEME.match(url)
    return scheme is not None and scheme[1].lower() in _PORTS


def network_address(url: str, options: LiveOptions) -> Address:
    """Of a URL with a scheme.

    The last @ before the path ends the password, which may be percent-encoded or plain.

    Raises:
        SourceOpenError: scheme, host, port or transport are wrong, or a mode is asked for.
    """
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else ""
    if match is None or scheme not in _PORTS:
        raise SourceOpenError(
            f"cannot open {shown(url)}: no source of kind {scheme or 'that'}; {', '.join(_PORTS)} are known"
        )
    userinfo, place = _split(url[match.end() :])
    told = shown(url)
    if _hides_a_password(userinfo, place):
        raise SourceOpenError(f"cannot open {told}: write / ? and # in a user or password as %2F, %3F and %23")
    try:
        parts = urlsplit(f"{scheme}://{place}")
        name, port = parts.hostname, parts.port if parts.port is not None else _PORTS[scheme]
    except ValueError as error:
        # Its own words may hold what stands before the @.
        port_is_wrong = "port" in str(error).lower()
        what = "the port must be a number from 1 to 65535" if port_is_wrong else "its host cannot be read"
        raise SourceOpenError(f"cannot open {told}: {what}") from None
    if not name:
        raise SourceOpenError(f"cannot open {told}: it names no host")
    if not port:
        raise SourceOpenError(f"cannot open {told}: the port must be a number from 1 to 65535")
    if options.size_wh or options.rate or options.pixel_format:
        raise SourceOpenError(
            f"cannot open {told} with a size, rate or format: only cameras can choose; leave them out"
        )
    return Address(
        url=f"{scheme}://{_encoded(userinfo)}{place}",
        shown=told,
        format="rtsp" if scheme in ("rtsp", "rtsps") else None,
        options=_options(scheme, told, options),
        host=None if scheme == "srt" else (name, port),
    )


def _split(rest: str) -> tuple[str, str]:
    """User and password, and what follows their @."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    at = authority.rfind("@")
    return (rest[:at], rest[at + 1 :]) if at >= 0 else ("", rest)


def _hides_a_password(userinfo: str, place: str) -> bool:
    """Whether a bare / ? or # cuts a password off from its @: what looks like the port is none, or no path follows."""
    found = re.match(r"[^/?#\[]*:([^/?#]*)([/?#]).*@", place, re.DOTALL)
    return not userinfo and found is not None and (not found[1].isdecimal() or found[2] != "/")


def _encoded(userinfo: str) -> str:
    if not userinfo:
        return ""
    user, colon, password = userinfo.partition(":")
    return f"{quote(unquote(user), safe='')}{colon}{quote(unquote(password), safe='')}@"


def _options(scheme: str, told: str, options: LiveOptions) -> dict[str, str]:
    if options.transport not in ("tcp", "udp"):
        raise SourceOpenError(f"cannot open {told}: no transport {options.transport!r}; tcp and udp are known")
    common = {"max_pixels": str(options.max_pixels)}
    if scheme in ("rtsp", "rtsps"):
        if scheme == "rtsps" and options.transport == "udp":
            raise SourceOpenError(f"cannot open {told} over udp: rtsps goes over tcp only; leave the transport out")
        return common | {
            "rtsp_transport": options.transport,
            "allowed_media_types": "video+audio" if options.audio else "video",
            # What a stream holds stands in its description. "nobuffer" would throw the first key frame away.
            "probesize": "32768",
            "analyzeduration": "0",
            "fpsprobesize": "0",
            # How long pictures wait for packets that were overtaken.
            "max_delay": "100000",
            "protocol_whitelist": "rtsp,rtsps,rtp,srtp,tcp,udp,tls,crypto,http,https",
        }
    if scheme in ("rtmp", "rtmps"):
        return common | {"rtmp_live": "live", "analyzeduration": "500000", "fpsprobesize": "0"}
    if scheme == "srt":
        return common | {"analyzeduration": "500000", "fpsprobesize": "0"}
    # A playlist from elsewhere must not name files of this machine.
    return common | {"protocol_whitelist": "http,https,tcp,tls,crypto,httpproxy,data,hls", "analyzeduration": "2000000"}


def screen_address(url: str, options: LiveOptions, display: str | None) -> Address:
    """Of ``screen:`` or ``screen:NAME``, a display such as ``:0`` or a monitor's number.

    Raises:
        SourceOpenError: this machine has no screen that can be read.
    """
    name = url.partition(":")[2]
    chosen = {"framerate": str(options.rate or 30)}
    if sys.platform == "win32":
        return Address("desktop", "the screen", "gdigrab", chosen, None)
    if sys.platform == "darwin":
        return Address(f"Capture screen {name or 0}:none", "the screen", "avfoundation", chosen, None)
    if not (name or display):
        raise SourceOpenError(
            "cannot open screen: no X11 display here ($DISPLAY is not set); Wayland alone is not enough"
        )
    if options.size_wh:
        chosen["video_size"] = "{}x{}".format(*options.size_wh)
    return Address(name or str(display), f"screen {name or display}", "x11grab", chosen, None)
