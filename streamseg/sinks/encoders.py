"""Which encoder writes a picture into which container, and how well."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import av

from streamseg.errors import SinkOpenError
from streamseg.sinks.hardware import HARDWARE, trouble
from streamseg.sinks.options import parse_options, refusal

__all__ = ["CONTAINERS", "Encoding", "choose_container", "choose_encoding", "probe_encoders"]

# By extension, and by FFmpeg's own name for --format.
CONTAINERS = {
    "mp4": "mp4",
    "m4v": "mp4",
    "mov": "mov",
    "mkv": "matroska",
    "matroska": "matroska",
    "webm": "webm",
    "ts": "mpegts",
    "mpegts": "mpegts",
}
_DEFAULTS = {
    "mp4": ("libx264", "libopenh264", "h264_videotoolbox", "h264_mf", "mpeg4"),
    "webm": ("libvpx-vp9", "libvpx", "libsvtav1"),
}
_ALPHA_FORMATS = {
    ("webm", "libvpx-vp9"): "yuva420p",
    ("webm", "libvpx"): "yuva420p",
    ("matroska", "ffv1"): "yuva420p",
    ("matroska", "libvpx-vp9"): "yuva420p",
    ("mov", "prores_ks"): "yuva444p10le",
    ("mov", "qtrle"): "argb",
    ("mov", "png"): "rgba",
}
_ALPHA_DEFAULTS = {"webm": "libvpx-vp9", "matroska": "ffv1", "mov": "prores_ks"}
_ALPHA_ADVICE = "opacity goes into .webm (VP9), .mov (ProRes 4444), .mkv (FFV1) or .png"
_SHORT_NAMES = {
    "h264": "libx264",
    "x264": "libx264",
    "avc": "libx264",
    "h265": "libx265",
    "x265": "libx265",
    "hevc": "libx265",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "prores": "prores_ks",
}
_LOSSLESS = frozenset({"ffv1", "png", "qtrle", "utvideo", "huffyuv", "ffvhuff", "rawvideo"})
_INTRA = _LOSSLESS | {"prores_ks", "dnxhd", "mjpeg"}


@dataclass(frozen=True, slots=True)
class _Scale:
    """How an encoder is told to be good: the option's name, the words' numbers, the options that lose nothing.

    `worst` is the highest number that means something, where the encoder does not refuse others, or prints why.
    """

    option: str
    low: int
    medium: int
    high: int
    lossless: Mapping[str, str] | None = None
    fixed: Mapping[str, str] | None = None
    worst: float = math.inf


_VPX = {"deadline": "realtime", "b": "0", "row-mt": "1"}
_SCALES = {
    "libx264": _Scale("crf", 28, 23, 19, {"qp": "0"}, {"preset": "veryfast"}, 51),
    "libx265": _Scale(
        "crf",
        30,
        26,
        21,
        {"x265-params": "log-level=error:lossless=1"},
        {"preset": "superfast", "x265-params": "log-level=error"},
        51,
    ),
    "libvpx-vp9": _Scale("crf", 42, 34, 26, {"lossless": "1"}, {**_VPX, "cpu-used": "6"}),
    "libvpx": _Scale("crf", 30, 18, 10, None, {"deadline": "realtime", "b": "8M", "cpu-used": "6"}),
    "libsvtav1": _Scale("crf", 45, 38, 30, None, {"preset": "9"}),
    "mpeg4": _Scale("qmin qmax", 8, 5, 3),
    "h264_nvenc": _Scale("cq", 32, 26, 21, {"tune": "lossless"}, {"rc": "vbr", "preset": "p4"}),
    "hevc_nvenc": _Scale("cq", 34, 28, 23, {"tune": "lossless"}, {"rc": "vbr", "preset": "p4"}),
    "av1_nvenc": _Scale("cq", 42, 36, 30, None, {"rc": "vbr", "preset": "p4"}),
    "h264_qsv": _Scale("global_quality", 30, 25, 20),
    "hevc_qsv": _Scale("global_quality", 30, 25, 20),
    "h264_amf": _Scale("qvbr_quality_level", 30, 25, 20, None, {"rc": "qvbr"}),
    "hevc_amf": _Scale("qvbr_quality_level", 30, 25, 20, None, {"rc": "qvbr"}),
    "av1_qsv": _Scale("global_quality", 34, 29, 24),
    "av1_amf": _Scale("qvbr_quality_level", 34, 29, 24, None, {"rc": "qvbr"}),
    "h264_videotoolbox": _Scale("qscale", 40, 55, 70),
    "hevc_videotoolbox": _Scale("qscale", 40, 55, 70),
    "mjpeg": _Scale("qmin qmax", 8, 4, 2),
}
# Nothing waits in the encoder for a later picture, and a keyframe that is asked for can be cut at. Of libx264's
# presets, superfast takes 16 ms for a 720p frame at 3.6 Mbit/s where veryfast takes 25 at 3.0, ultrafast 8 at 8.7.
_LIVE = {
    "libx264": {"preset": "superfast", "tune": "zerolatency", "forced-idr": "1"},
    "libx265": {"preset": "ultrafast", "tune": "zerolatency", "forced-idr": "1"},
    "h264_nvenc": {"tune": "ll", "zerolatency": "1", "forced-idr": "1"},
    "hevc_nvenc": {"tune": "ll", "zerolatency": "1", "forced-idr": "1"},
    "av1_nvenc": {"tune": "ll", "zerolatency": "1", "forced-idr": "1"},
    "h264_qsv": {"async_depth": "1", "bf": "0", "forced_idr": "1"},
    "hevc_qsv": {"async_depth": "1", "bf": "0", "forced_idr": "1"},
    "av1_qsv": {"async_depth": "1", "bf": "0", "forced_idr": "1"},
    "h264_amf": {"bf": "0", "forced_idr": "1"},
    "hevc_amf": {"forced_idr": "1"},
    "h264_videotoolbox": {"realtime": "1", "bf": "0"},
    "hevc_videotoolbox": {"realtime": "1", "bf": "0"},
    "libvpx-vp9": {"cpu-used": "8", "lag-in-frames": "0"},
    "libvpx": {"cpu-used": "8", "lag-in-frames": "0"},
}
_PROBED_WH = (640, 384)
_WORDS = ("low", "medium", "high", "lossless")


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoder, the pixel format it is fed, its options, and whether its pictures need others to be decoded.

    `remark` tells the user what was chosen for them, and why; empty where they chose, or nothing was to choose.
    """

    codec: str
    pixel_format: str
    options: Mapping[str, str]
    qscale: int | None = None
    predicts: bool = True
    remark: str = ""


def choose_container(name: str, url: str) -> str:
    """FFmpeg's name of the container for an extension (without its dot) or a container's name.

    Raises:
        SinkOpenError: it is not one of those that are written.
    """
    known = CONTAINERS.get(name.lower())
    if known is None:
        near = difflib.get_close_matches(name.lower(), CONTAINERS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        what = f"unknown container {name!r}" if name else "its name has no extension"
        raise SinkOpenError(
            f"cannot write {url}: {what}; {hint}known are mp4 m4v mov mkv webm ts, pictures: png jpg webp bmp tif"
        )
    return known


def choose_encoding(
    container: str,
    url: str,
    *,
    encoder: str | None,
    quality: str | int | None,
    alpha: bool,
    size_wh: tuple[int, int],
    live: bool = False,
) -> Encoding:
    """The encoder and its options.

    Args:
        container: FFmpeg's name.
        url: for messages.
        encoder: its FFmpeg name or a short one such as ``h265``, options behind a colon:
            ``libx264:preset=ultrafast,tune=film``; None takes the container's usual one, which every machine has, and
            "auto" one of a graphics card where that really encodes a picture, else the usual one. ``qp=22`` among the
            options takes the place of the quality.
        quality: ``low``, ``medium``, ``high`` (the default), ``lossless`` or the encoder's own number.
        alpha: the pictures have opacity.
        size_wh: of the pictures.
        live: every picture at once, and cheaply.

    Raises:
        SinkOpenError: there is no such encoder or quality, or no opacity in this container.
    """
    if encoder == "auto":
        return _automatic(container, url, quality=quality, alpha=alpha, size_wh=size_wh, live=live)
    name, _, given = (encoder or "").partition(":")
    codec_name = _SHORT_NAMES.get(name.lower(), name) or _default(container, url, alpha)
    codec = _find(codec_name, url)
    if alpha:
        pixel_format = _ALPHA_FORMATS.get((container, codec.name))
        if pixel_format is None:
            raise SinkOpenError(f"cannot write opacity to {url} with {codec.name}: {_ALPHA_ADVICE}")
    else:
        pixel_format = _plain_format(codec, url)
    options, qscale = _quality_options(codec.name, quality, url)
    if codec.name == "libvpx-vp9" and alpha:
        options["auto-alt-ref"] = "0"  # the library cannot make both
    if codec.name == "prores_ks":
        options["profile"] = "4444" if alpha else "hq"
    scale = _SCALES.get(codec.name)
    if live:
        options |= _LIVE.get(codec.name, {})
    asked = {}
    if scale and str(quality or "high").strip().lower() not in _WORDS:
        asked = {key: options.pop(key) for key in scale.option.split() if key in options}
    try:
        asked |= parse_options(given)
    except ValueError as error:
        raise SinkOpenError(f"cannot write {url}: {error}") from error
    if codec.name == "libx265" and "x265-params" in asked:  # or the library would say on standard error what it does
        asked["x265-params"] = f"{options['x265-params']}:{asked['x265-params']}"
    if "qp" in asked:
        for either in (options, asked):
            either.pop("crf", None)  # beside it libx264 and libx265 would not look at the quantiser
    if codec.name == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # it writes to standard error by itself, and listens to nothing else
    # Now, as a recording tries again whatever goes wrong later.
    if asked and (why := refusal(codec.name, pixel_format, size_wh, options, asked)):
        raise SinkOpenError(f"cannot write {url} with {codec.name}: {why}")
    options |= asked
    return Encoding(codec.name, pixel_format, options, qscale, codec.name not in _INTRA)


def probe_encoders() -> list[tuple[str, str]]:
    """Each encoder of a graphics card that this FFmpeg has, and why it does not encode a picture; empty where it does.

    It is given the options of a run.
    """
    found = []
    for name in (name for names in HARDWARE.values() for name in names):
        if name in av.codecs_available:
            form = _plain_format(av.codec.Codec(name, "w"), name)
            options, quality = _quality_options(name, None, name)
            found.append((name, trouble(name, form, _PROBED_WH, options, quality)))
    return found


def _automatic(
    container: str,
    url: str,
    *,
    quality: str | int | None,
    alpha: bool,
    size_wh: tuple[int, int],
    live: bool,
) -> Encoding:
    def chosen(encoder: str | None) -> Encoding:
        return choose_encoding(
            container, url, encoder=encoder, quality=quality, alpha=alpha, size_wh=size_wh, live=live
        )

    usual = chosen(None)  # raises what is wrong whatever encodes
    if alpha:
        return replace(usual, remark=f"no graphics card encodes opacity; encoded by {usual.codec}")
    built = [codec for codec in HARDWARE["av1" if container == "webm" else "h264"] if codec in av.codecs_available]
    for codec in built:
        try:
            found = chosen(codec)
        except SinkOpenError:  # a quality that it does not have
            continue
        if not trouble(found.codec, found.pixel_format, size_wh, found.options, found.qscale):
            return replace(found, remark=f"encoded by {codec}")
    tried = ", ".join(built) or "this FFmpeg has none"
    return replace(usual, remark=f"no encoder of a graphics card works here ({tried}); encoded by {usual.codec}")


def _default(container: str, url: str, alpha: bool) -> str:
    if alpha:
        if container not in _ALPHA_DEFAULTS:
            raise SinkOpenError(f"cannot write opacity to {url}: {_ALPHA_ADVICE}")
        return _ALPHA_DEFAULTS[container]
    wanted = _DEFAULTS.get(container, _DEFAULTS["mp4"])
    for name in wanted:
        if name in av.codecs_available:
            return name
    raise SinkOpenError(f"cannot write {url}: this FFmpeg has none of {', '.join(wanted)}")


def _find(name: str, url: str) -> av.codec.Codec:
    try:
        codec = av.codec.Codec(name, "w")
    except (av.FFmpegError, ValueError) as error:
        known = [*_SCALES, *_SHORT_NAMES, *sorted(_LOSSLESS), "prores_ks"]
        near = difflib.get_close_matches(name, known, 3) or [k for k in _SCALES if k in av.codecs_available][:6]
        raise SinkOpenError(f"cannot write {url}: no encoder {name!r} here; there are {', '.join(near)}") from error
    if codec.type != "video":
        raise SinkOpenError(f"cannot write {url}: {name!r} encodes {codec.type}, not pictures")
    return codec


def _plain_format(codec: av.codec.Codec, url: str) -> str:
    if codec.name == "mjpeg":
        return "yuvj420p"  # full range: it takes nothing else
    # Formats without components stand for pictures that lie on a card.
    formats = [found.name for found in codec.video_formats or [] if found.components]
    if codec.video_formats and not formats:
        raise SinkOpenError(
            f"cannot write {url}: encoder {codec.name} takes only pictures that lie on a card, and ours do not; "
            "choose auto, or libx264"
        )
    for wanted in ("yuv420p", "nv12", "yuvj420p", "yuv422p10le", "yuv422p", "yuv444p", "rgb24", "bgr24", "bgra"):
        if wanted in formats:
            return wanted
    return formats[0] if formats else "yuv420p"


def _quality_options(codec: str, quality: str | int | None, url: str) -> tuple[dict[str, str], int | None]:
    """Options of the encoder, and a fixed quantiser for those that only know that."""
    word = str(quality or "high").strip().lower()
    scale = _SCALES.get(codec)
    options = dict(scale.fixed or {}) if scale else {}
    number: float | None = None
    if word not in _WORDS:
        try:
            number = float(word)
            if not math.isfinite(number):
                raise ValueError
        except ValueError:
            raise SinkOpenError(
                f"cannot write {url}: quality {word!r} is neither {', '.join(_WORDS)} nor a number"
            ) from None
    if codec in _LOSSLESS or scale is None:
        if word == "lossless" and codec not in _LOSSLESS:
            raise SinkOpenError(f"cannot write {url}: {codec} is never lossless; libx264, ffv1 and png can be")
        return options, None
    if word == "lossless":
        if scale.lossless is None:
            raise SinkOpenError(f"cannot write {url}: {codec} is never lossless; libx264, ffv1 and png can be")
        return options | dict(scale.lossless), None
    if number is None:
        number = getattr(scale, word)
    if number > scale.worst:
        raise SinkOpenError(
            f"cannot write {url}: quality {word} is beyond {codec}'s worst, {scale.worst:g}; less is better, "
            f"and high is {scale.high}"
        )
    if scale.option == "qscale":
        return options, round(number)
    return options | dict.fromkeys(scale.option.split(), f"{number:g}"), None
