"""Settings that are one text and mean several things."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["parse_background", "parse_size", "parse_three", "parse_vanishing"]

_COLOURS = {"green": "#00b140", "blue": "#0047bb", "black": "#000000", "white": "#ffffff", "grey": "#808080"}


def parse_background(spec: str) -> tuple[str, Any]:
    """What a background specification means.

    Returns:
        ``("blur", strength)``, ``("image", path)``, ``("video", path)``, ``("color", (r, g, b))``,
        ``("transparent", None)`` or ``("none", None)``.

    Raises:
        ValueError: it means nothing; the message lists what does.
    """
    kind, colon, value = spec.partition(":")
    if kind == "blur":
        try:
            strength = float(value) if colon else 0.5
        except ValueError:
            strength = -1.0
        if not 0 <= strength <= 1:
            raise ValueError(f"blur takes a strength from 0 to 1, not {value!r}")
        return kind, strength
    if kind in ("image", "video"):
        if not value:
            raise ValueError(f"{kind}: needs a path, as in {kind}:beach.{'jpg' if kind == 'image' else 'mp4'}")
        return kind, value
    if kind == "color" or spec in _COLOURS:
        digits = _COLOURS.get(value or spec, value)
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", digits):
            raise ValueError(f"color takes #rrggbb or one of {', '.join(_COLOURS)}, not {value!r}")
        return "color", tuple(bytes.fromhex(digits[1:]))
    if spec in ("transparent", "none"):
        return spec, None
    raise ValueError(
        f"{spec!r} is no background; "
        "use blur, blur:0.6, image:PATH, video:PATH, color:#rrggbb, green, transparent or none"
    )


def parse_three(text: str) -> tuple[float, float, float] | None:
    """Three numbers, for R, G and B; None for an empty text.

    Raises:
        ValueError: it is neither.
    """
    if not text:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"takes three numbers, such as 0.485,0.456,0.406, not {text!r}") from None
    return red, green, blue


def parse_vanishing(text: str) -> tuple[float, float] | None:
    """(x, y) of a vanishing point as shares of the picture's size; None for ``auto``.

    Raises:
        ValueError: it is neither.
    """
    if text == "auto":
        return None
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = -1.0
    if not (0 < x < 1 and 0 < y < 1):
        raise ValueError(f"takes auto or X,Y as shares of the picture, such as 0.5,0.45, not {text!r}")
    return x, y


def parse_size(text: str) -> tuple[int, int] | None:
    """(w, h) of ``640x384``; None for ``auto``.

    Raises:
        ValueError: it is neither.
    """
    if text == "auto":
        return None
    size = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if size is None:
        raise ValueError("must be auto or WxH, such as 640x384")
    return int(size[1]), int(size[2])
