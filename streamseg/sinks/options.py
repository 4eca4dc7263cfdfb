"""Options of an encoder as a user writes them, tried on the encoder before anything is written."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import av

from streamseg.libav import reason

__all__ = ["parse_options", "refusal"]

_SPEEDS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
# libx264 looks at these words by itself, and says on standard error what it makes of them.
_WORDS = {
    ("libx264", "preset"): (*_SPEEDS, *map(str, range(len(_SPEEDS)))),
    ("libx264", "tune"): (
        *("film", "animation", "grain", "stillimage", "psnr", "ssim", "fastdecode", "zerolatency", "touhou"),
    ),
    ("libx264", "profile"): ("baseline", "main", "high", "high10", "high422", "high444"),
}
# An option whose value is options again, of the encoder's own library, which only warns of what it does not know.
_INNER = frozenset({"x264-params", "x264opts", "x265-params", "svtav1-params"})
_FAILURES = (av.FFmpegError, OSError, ValueError, RuntimeError)
_UNHEARD = logging.NullHandler()


def parse_options(text: str) -> dict[str, str]:
    """``preset=slow,tune=film`` by name.

    Raises:
        ValueError: a part is not of the form name=value.
    """
    options = {}
    for pair in filter(None, text.split(",")):
        key, _, value = (part.strip() for part in pair.partition("="))
        if not key or not value:
            raise ValueError(f"encoder option {pair!r} is not of the form name=value")
        options[key] = value
    return options


def refusal(
    codec: str, pixel_format: str, size_wh: tuple[int, int], options: Mapping[str, str], asked: Mapping[str, str]
) -> str:
    """What the encoder does not take of the options that were asked for, and why; empty where it takes them all.

    Empty, too, where it does not open without them: then they are not what is wrong.

    Args:
        codec: FFmpeg's name of an encoder that this build has.
        pixel_format: what it is fed.
        size_wh: of the pictures.
        options: what it is given without being asked.
        asked: what the user wrote.
    """
    for key, value in asked.items():
        known = _WORDS.get((codec, key))
        if known and value not in known:
            near = difflib.get_close_matches(value, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(w for w in known if not w.isdigit())}"
            return f"it has no {key} {value!r}; {hint}"
    try:
        unknown, said = _open(codec, pixel_format, size_wh, {**options, **asked})
    except _FAILURES as error:
        try:
            _open(codec, pixel_format, size_wh, options)
        except _FAILURES:
            return ""
        told = ",".join(f"{key}={value}" for key, value in asked.items())
        return f"it does not take {told}: {reason(error)}; correct or leave out"
    if mistaken := [key for key in asked if key in unknown]:
        return f"it has no option {mistaken[0]!r}; leave it out"
    for key in asked.keys() & _INNER:
        for line in said:
            if "option" in line.lower() or "invalid value" in line.lower():
                return f"it does not take {key}={asked[key]}: {line}; correct or leave out"
    return ""


def _open(
    codec: str, pixel_format: str, size_wh: tuple[int, int], options: Mapping[str, str]
) -> tuple[set[str], list[str]]:
    """Open the encoder and let go of it again: the options that it does not know, and what it says."""
    # Nobody else shall hear what the library says meanwhile, of whatever else it is doing.
    logging.getLogger("libav").addHandler(_UNHEARD)
    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture(local=True) as said:
            context: Any = av.CodecContext.create(codec, "w")
            context.width, context.height = size_wh
            context.pix_fmt = pixel_format
            context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
            context.options = dict(options)
            context.open()
            return set(context.options), [line.strip().rstrip(".") for _, _, line in said]
    finally:
        av.logging.set_skip_repeated(skips)
        av.logging.set_level(level)
        logging.getLogger("libav").removeHandler(_UNHEARD)
