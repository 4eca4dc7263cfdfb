"""Why an input could not be opened, and whether waiting may help."""

from __future__ import annotations

import re

import av

from streamseg.errors import redact
from streamseg.libav import reason
from streamseg.sources.messages import Request

__all__ = ["refusal", "why"]

_IO_ERROR = 5  # says nothing by itself; what the library printed does
_WRONG_CREDENTIALS = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)
_WRONG_SETTINGS = (av.error.ArgumentError, av.error.OptionNotFoundError)


def refusal(request: Request, error: Exception, printed: str) -> tuple[str, str]:
    """Whether waiting may help ("absent") or not ("refused"), and one line for the user.

    Args:
        request: what was to be opened.
        error: what the library raised.
        printed: the last line that it printed.
    """
    if request.camera:
        from streamseg.sources.cameras import explain

        return explain(request.url, request.options, error)
    text = why(request, error, printed)
    if isinstance(error, _WRONG_CREDENTIALS):
        return "refused", f"{request.shown} refuses us: {text}; check user and password in the URL"
    if isinstance(error, av.error.ProtocolNotFoundError):
        scheme = request.url.partition(":")[0]
        return "refused", f"cannot open {request.shown}: this FFmpeg was built without {scheme}"
    if isinstance(error, av.error.InvalidDataError) and request.url.startswith("http"):
        return "refused", f"{request.shown} sends no video: {text}"
    never = isinstance(error, av.error.HTTPBadRequestError) or (isinstance(error, _WRONG_SETTINGS) and not request.host)
    return "refused" if never else "absent", f"cannot open {request.shown}: {text}"


def why(request: Request, error: Exception, printed: str) -> str:
    """The library's reason, or what it printed where the reason says next to nothing."""
    text = reason(error)
    if isinstance(error, OSError) and error.errno == _IO_ERROR and printed:
        text = re.sub(r"^\[[^\]]*\] *", "", printed)
    if request.host:
        text = redact(text.replace(request.url, request.shown)).replace(redact(request.url), request.shown)
    return text[:1].lower() + text[1:]
