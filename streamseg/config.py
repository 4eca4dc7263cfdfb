"""Every setting: its name, type, range, default and meaning. Nothing else knows pydantic or YAML."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from streamseg.errors import ConfigError, redact
from streamseg.units import parse_duration_s, parse_size_bytes

__all__ = [
    "Settings",
    "differing",
    "keys",
    "load_runs",
    "load_settings",
    "parse_background",
    "parse_three",
    "parse_vanishing",
    "presets",
]


def _comma_list(value: object) -> object:
    """`a, b` on the command line means the list `[a, b]` of YAML."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


# Their values are never told, for they may hold a password or a key.
_UNTOLD = ("source.url", "source.sub", "output.sinks", "output.token")

_HARDWARE = "cuda|videotoolbox|d3d11va|d3d12va|dxva2|vaapi|vulkan|vdpau|qsv"

Words = Annotated[list[str], BeforeValidator(_comma_list)]


def _size_words(value: str) -> str:
    if value != "auto" and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", value):
        raise ValueError("must be auto or WxH, such as 640x384")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class SourceSettings(_Section):
    """Where the picture comes from."""

    url: str = Field(
        "",
        description="video file, image, folder or glob, - for standard input, a camera (0, /dev/video2, camera:NAME), "
        "rtsp://, rtmp://, http(s)://, screen: or test:",
    )
    max_pixels: int = Field(
        16384 * 8640, ge=16, description="largest picture accepted, width times height; larger ones are refused"
    )
    threads: int = Field(2, ge=0, le=64, description="decoder threads; 0 takes one for every core")
    hwaccel: str = Field(
        "none",
        description="what decodes files and streams: none (the processor), auto (a graphics card where one does, else "
        "the processor), or cuda, videotoolbox, d3d11va, d3d12va, dxva2, vaapi, vulkan, vdpau, qsv; a device follows "
        "a colon, as in cuda:1",
    )
    size: str = Field(
        "auto",
        description="size WxH asked of a camera or screen; also that of the output while a source has never been there",
    )
    fps: float = Field(
        0.0, ge=0, le=1000, description="frames per second asked of a camera or screen; 0 lets it choose"
    )
    format: str = Field("auto", description="what a camera sends, such as mjpeg, yuyv422, nv12 or h264")
    transport: Literal["tcp", "udp"] = Field("tcp", description="how RTSP pictures travel")
    audio: bool = Field(True, description="carry the sound of a live source into recordings and published streams")
    connect_timeout_s: float = Field(5.0, gt=0, le=120, description="time for a live source to open, seconds")
    read_timeout_s: float = Field(
        2.5, gt=0, le=120, description="a live source that gives no picture for so long is lost, seconds"
    )
    wait: Literal["auto", "yes", "no"] = Field(
        "auto", description="wait for a source that is not there at the start; auto waits for streams, not for cameras"
    )
    longest_backoff_s: float = Field(
        60.0, ge=1, le=3600, description="longest wait between two tries to reach a lost source or output, seconds"
    )
    mirror: bool = Field(False, description="turn left and right around, as in a mirror")
    rotate: Literal[0, 90, 180, 270] = Field(0, description="turn the picture clockwise, degrees")
    sub: str = Field(
        "", description="a smaller stream of the same camera: the network looks at it, the large one is drawn on"
    )

    @field_validator("size")
    @classmethod
    def _size(cls, value: str) -> str:
        return _size_words(value)

    @field_validator("hwaccel")
    @classmethod
    def _hwaccel(cls, value: str) -> str:
        if not re.fullmatch(rf"none|auto|({_HARDWARE})(:.+)?", value):
            raise ValueError(f"takes none, auto or {_HARDWARE.replace('|', ', ')}, not {value!r}")
        return value

    @field_validator("wait", mode="before")
    @classmethod
    def _wait(cls, value: object) -> object:
        # YAML takes a bare yes or no for a truth value.
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value

    @field_validator("rotate", mode="before")
    @classmethod
    def _rotate(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.isdecimal() else value


class ModelSettings(_Section):
    """The network."""

    name: str = Field("auto", description="auto, a name from `streamseg models list`, or the path of an ONNX file")
    provider: str = Field(
        "auto", description="what runs the network: auto, tensorrt, cuda, coreml, directml, openvino or cpu"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="what the network computes in; auto takes bf16 on OpenVINO and a processor that has it"
    )
    threads: int = Field(0, ge=0, le=256, description="threads of the network; 0 takes one for every core")
    sessions: int = Field(
        0,
        ge=0,
        le=64,
        description="networks side by side, each on its own frame; 0 takes one for every core (at most 4) for files on "
        "the CPU, else one",
    )
    size: str = Field(
        "auto", description="input size WxH of a network that takes any; auto fits the picture's proportions"
    )
    confidence: float = Field(0.25, ge=0, le=1, description="lowest score of an object (YOLO)")
    iou: float = Field(0.7, ge=0, le=1, description="overlap above which two boxes of a class are one object (YOLO)")
    mean: str = Field("", description="of R, G, B as a semantic network was trained, such as 0.485,0.456,0.406")
    std: str = Field("", description="of R, G, B as a semantic network was trained")
    channel_order: Literal["rgb", "bgr"] = Field("rgb", description="of a semantic network's input")
    letterbox: bool = Field(False, description="a semantic network's input keeps the picture's proportions")
    max_instances: int = Field(300, ge=1, le=3000, description="most objects in a picture (YOLO)")
    offline: bool = Field(False, description="never download anything")

    @field_validator("size")
    @classmethod
    def _size(cls, value: str) -> str:
        return _size_words(value)

    @field_validator("mean", "std")
    @classmethod
    def _three(cls, value: str) -> str:
        parse_three(value)
        return value


class KeepSettings(_Section):
    """What counts as the subject."""

    classes: Words = Field(["person"], description="the network's classes that stay in the picture")
    largest: bool = Field(False, description="only the largest one")


class BackgroundSettings(_Section):
    """What stands behind the subject."""

    spec: str = Field(
        "blur:0.5",
        description="blur, blur:STRENGTH (0 to 1), image:PATH, video:PATH, color:#rrggbb, green, transparent or none",
    )
    fit: Literal["cover", "contain", "stretch"] = Field(
        "cover", description="how an image or video fills the picture: cover cuts off, contain adds a border"
    )
    light_wrap: float = Field(0.0, ge=0, le=1, description="background light that spills over the subject's rim")

    @field_validator("spec")
    @classmethod
    def _spec(cls, value: str) -> str:
        parse_background(value)
        return value


class EdgeSettings(_Section):
    """How the matte meets the picture."""

    mode: Literal["guided", "plain"] = Field("guided", description="guided follows the picture's edges, plain does not")
    radius: float = Field(0.006, gt=0, le=0.2, description="reach of the guided filter, as a share of the height")
    epsilon: float = Field(
        5e-4, gt=0, le=1, description="regularisation of the guided filter, in squared luma of 0 to 1; more is softer"
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="opacity in the middle of the edge; lower keeps more")
    feather: float = Field(0.5, ge=0, le=1, description="softness of the edge; 0 is hard")
    decontaminate: bool = Field(
        True, description="take the old background's colours out of the soft edge; blur does without"
    )


class TemporalSettings(_Section):
    """Steadiness over time."""

    smoother: Literal["uncertainty", "flow", "half-life", "one-euro", "none"] = Field(
        "uncertainty",
        description="uncertainty holds back only unsure and unmoved pixels, flow averages along the motion (steadier, "
        "and costs more), half-life holds back everything, one-euro what changes slowly",
    )
    half_life_s: float = Field(
        0.0,
        ge=0,
        le=10,
        description="after this time the past weighs half, seconds; 0 takes the smoother's own (flow 0.1, "
        "others 0.15); one-euro has none",
    )
    scene_cut: bool = Field(True, description="forget the past at a cut to another shot")
    mode: str = Field(
        "every",
        description="which frames the network looks at: every, keyframes:N (every N-th, what it says is carried to the "
        "others along the motion) or auto (files: every; live: as many as the machine bears); live, what is carried "
        "can show a strip of the room behind who moves fast",
    )
    sync: Literal["lowest-latency", "locked"] = Field(
        "lowest-latency",
        description="live, between keyframes: lowest-latency carries the newest answer to the present, locked shows "
        "the picture later, when the network has seen it",
    )
    roi: bool = Field(
        False,
        description="task background: the network looks at the box around the subject, finer, and at the whole picture "
        "once a second; pays where the subject is small and the camera stands still",
    )
    still_s: float = Field(
        1.0, ge=0, le=60, description="while nothing moves, the network looks only so often, seconds; 0 never spares it"
    )

    @field_validator("mode")
    @classmethod
    def _mode(cls, value: str) -> str:
        if value not in ("every", "auto") and not re.fullmatch(r"keyframes:([2-9]|1\d|20)", value):
            raise ValueError(f"takes every, auto or keyframes:N with N from 2 to 20, not {value!r}")
        return value


class InstanceSettings(_Section):
    """Objects painted one by one: task instances, and the road users of task lanes."""

    classes: Words = Field([], description="the network's classes that are painted; empty for all")
    show: Annotated[list[Literal["masks", "outlines", "boxes", "labels"]], BeforeValidator(_comma_list)] = Field(
        ["masks", "outlines", "boxes", "labels"], description="what is painted of each: masks, outlines, boxes, labels"
    )
    colour_by: Literal["instance", "class"] = Field("instance", description="what has a colour of its own")
    opacity: float = Field(0.45, ge=0, le=1, description="of the masks")
    half_life_s: float = Field(
        0.08, ge=0, le=1, description="a mask's past weighs half after this time, seconds; 0 does not steady it"
    )
    track: bool = Field(True, description="give each object a number that it keeps (road users always have one)")
    sure: float = Field(
        0.4, ge=0, le=1, description="score from which an object may get a number, and be painted in a clip"
    )
    lasts_s: float = Field(1.5, ge=0, le=30, description="how long a number outlives the last sight, seconds")
    tracker: Literal["builtin", "bytetrack"] = Field(
        "builtin", description="who gives the numbers: streamseg, or ByteTrack of the package trackers (see lanes.md)"
    )
    stuff: str = Field(
        "", description="a semantic network (NAME or PATH) whose classes are painted as areas beneath the objects"
    )


class LaneSettings(_Section):
    """How lanes are found and painted: task lanes."""

    finder: Literal["auto", "classical", "network"] = Field(
        "auto", description="by paint (classical) or by a network; auto takes the network where --model names one"
    )
    lines: Words = Field([], description="the network's classes that are lane lines; empty takes the usual names")
    roads: Words = Field([], description="the network's classes that are road; empty takes the usual names")
    vanishing: str = Field(
        "auto", description="vanishing point X,Y as shares of the picture's size, such as 0.5,0.45; auto estimates it"
    )
    bonnet: float = Field(
        1.0,
        ge=0.5,
        le=1,
        description="where the car's own bonnet begins, as a share of the picture's height: nothing is looked for or "
        "painted below; 1: it is not in sight",
    )
    show: Annotated[
        list[Literal["lane", "lines", "others", "road", "centre", "users", "panel", "warning"]],
        BeforeValidator(_comma_list),
    ] = Field(
        ["lane", "lines", "others", "road", "centre", "users", "panel", "warning"],
        description="what is painted: the filled lane, its lines, other lines, drivable area, the lane's centre, road "
        "users, the status panel, departure warnings",
    )
    opacity: float = Field(0.35, ge=0, le=1, description="of the filled lane")
    camera_height_m: float = Field(
        0.0, ge=0, le=10, description="of the camera above the road; gives distances in metres; 0 is unknown"
    )
    view_deg: float = Field(70.0, ge=20, le=170, description="horizontal field of view of the camera, degrees")
    users: str = Field("", description="a network (NAME or PATH) that finds road users; empty for none")
    users_fps: float = Field(10.0, ge=2, le=120, description="how often that network looks, frames per second")
    telemetry: str = Field(
        "", description="GPX, NMEA or CSV file with positions; empty looks beside the video and inside it"
    )
    telemetry_offset_s: float = Field(
        0.0, ge=-1e6, le=1e6, description="by how much the telemetry's clock is ahead of the video's, seconds"
    )

    @field_validator("vanishing")
    @classmethod
    def _vanishing(cls, value: str) -> str:
        parse_vanishing(value)
        return value


class EventSettings(_Section):
    """What counts as an event of a drive, and where events are written."""

    files: Words = Field([], description="tables of the events, .csv or .json")
    page: str = Field("", description="one HTML page about the drive, with a picture of each event and a time line")
    clips: str = Field("", description="folder for a clip of each event, cut out of the source as it is")
    clip_before_s: float = Field(5.0, ge=0, le=600, description="seconds of a clip before its event")
    clip_after_s: float = Field(5.0, ge=0, le=600, description="seconds of a clip after its event")
    clip_exact: bool = Field(False, description="encode clips anew, so that they begin exactly; else at a keyframe")
    depart: float = Field(0.3, gt=0, le=0.6, description="offset in lane widths from which the car leaves its lane")
    back: float = Field(0.22, gt=0, le=0.6, description="offset in lane widths below which it is back")
    depart_s: float = Field(0.04, ge=0, le=10, description="how long it must be outside, seconds")
    lost_s: float = Field(0.08, ge=0, le=60, description="how long lanes must be gone to be lost, seconds")
    seen_s: float = Field(1.0, ge=0, le=60, description="how long they must have been there before, seconds")
    near: float = Field(0.1, ge=0, le=1, description="a road user is near when its feet are so far below the horizon")
    enter: float = Field(
        0.4, ge=0, le=2, description="a vehicle is in the lane within so many lane widths of its middle"
    )
    outside: float = Field(0.6, ge=0, le=3, description="and outside it from so many")
    user_s: float = Field(0.2, ge=0, le=10, description="how long a road user must be in the lane, seconds")
    cut_in_s: float = Field(2.0, ge=0, le=30, description="how long it is remembered to have been outside, seconds")
    confidence: float = Field(0.3, ge=0, le=1, description="nothing is concluded from lanes less sure than this")


class PrivacySettings(_Section):
    """Who is made unrecognisable, with any task."""

    blur_people: bool = Field(False, description="blur people")
    blur_vehicles: bool = Field(False, description="blur cars, trucks, buses, motorcycles, bicycles and trains")
    model: str = Field("yolov8n-seg", description="the YOLO segmentation network (NAME or PATH) that looks for them")
    confidence: float = Field(
        0.1, ge=0, le=1, description="lowest score of what counts where somebody is expected; 0.25 begins a track"
    )
    two_passes: bool = Field(
        True, description="look through a file first, so that the frames before a first sight are covered too"
    )
    hold_s: float = Field(
        1.0, ge=0, le=30, description="in one pass: covered for so long after the last sight, seconds"
    )


class OutputSettings(_Section):
    """Where the result goes."""

    sinks: Words = Field(
        [],
        description="video file, image or image pattern, null:, - for standard output, virtualcam:[DEVICE], "
        "rtsp://, rtmp://, or http://127.0.0.1:PORT/ for a preview",
    )
    format: str = Field("", description="container of standard output, such as matroska or mpegts")
    encoder: str = Field(
        "",
        description="video encoder; empty takes the container's usual one (libx264), auto one of a graphics card where "
        "one really encodes, else the usual one; options go behind a colon, as in libx264:preset=slow",
    )
    quality: str = Field("", description="low, medium, high, lossless or the encoder's own number; empty is high")
    threads: int = Field(0, ge=0, le=64, description="encoder threads; 0 takes one for every core")
    matte: str = Field("", description="the matte as a lossless grey video or PNG sequence")
    results: str = Field("", description="JSON lines, one per frame: boxes, classes, scores, masks")
    report: str = Field("", description="one JSON document about the run")
    segment: str = Field("", description="cut a live recording into files of this length, such as 10m")
    keep_for: str = Field("", description="remove files of the recording when they are this old, such as 7d")
    max_disk: str = Field("", description="most that the files of the recording take together, such as 50GB")
    audio_delay_ms: int = Field(
        0, ge=-10_000, le=10_000, description="play the carried sound of a live source this much later, milliseconds"
    )
    token: str = Field("", description="a preview or metrics address beyond this machine answers only who knows it")

    @field_validator("quality", mode="before")
    @classmethod
    def _quality(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("segment", "keep_for")
    @classmethod
    def _duration(cls, value: str) -> str:
        if value:
            parse_duration_s(value)
        return value

    @field_validator("max_disk")
    @classmethod
    def _bytes(cls, value: str) -> str:
        if value:
            parse_size_bytes(value)
        return value


class LiveSettings(_Section):
    """What a live run shows and tells while it goes on."""

    slate: str = Field(
        "card",
        description="shown while there is no picture: card (plain, with a line of text), background (the chosen "
        "background alone) or image:PATH",
    )
    on_demand: bool = Field(
        False, description="open the camera only while somebody reads the virtual camera (v4l2loopback 0.13 or later)"
    )
    on_demand_delay_s: float = Field(
        5.0, ge=0, le=3600, description="close the camera when nobody has read for so long, seconds"
    )
    metrics: str = Field(
        "", description="PORT or HOST:PORT that answers /metrics (Prometheus) and /healthz; empty for none"
    )

    @field_validator("slate")
    @classmethod
    def _slate(cls, value: str) -> str:
        if value not in ("card", "background") and not re.fullmatch(r"image:.+", value):
            raise ValueError(f"takes card, background or image:PATH, not {value!r}")
        return value

    @field_validator("metrics", mode="before")
    @classmethod
    def _metrics(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Settings(_Section):
    """All settings of a run."""

    task: Literal["background", "instances", "lanes"] = Field(
        "background",
        description="background exchanges what is behind the subject, instances paints every object, lanes the lane of "
        "a drive",
    )
    source: SourceSettings = SourceSettings()
    model: ModelSettings = ModelSettings()
    keep: KeepSettings = KeepSettings()
    background: BackgroundSettings = BackgroundSettings()
    edges: EdgeSettings = EdgeSettings()
    temporal: TemporalSettings = TemporalSettings()
    instances: InstanceSettings = InstanceSettings()
    lanes: LaneSettings = LaneSettings()
    events: EventSettings = EventSettings()
    privacy: PrivacySettings = PrivacySettings()
    output: OutputSettings = OutputSettings()
    live: LiveSettings = LiveSettings()

    def without_secrets(self) -> dict[str, Any]:
        """All settings for a report; passwords in URLs are the reader's of `redact`."""
        tree = self.model_dump(mode="json")
        if tree["output"]["token"]:
            tree["output"]["token"] = "***"
        return tree


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


def load_settings(
    config: str | None = None,
    assignments: Sequence[str] = (),
    arguments: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings of a single run, see `load_runs`.

    Raises:
        ConfigError: as `load_runs`, or the file names several streams.
    """
    runs = load_runs(config, assignments, arguments)
    if list(runs) != [""]:
        raise ConfigError(f"{config} names several streams; run it with `streamseg run --config {config}`")
    return runs[""]


def load_runs(
    config: str | None = None,
    assignments: Sequence[str] = (),
    arguments: Mapping[str, Any] | None = None,
) -> dict[str, Settings]:
    """Put the settings together: defaults, then the YAML file, then `key=value` assignments, then arguments.

    ``${NAME}`` in a text of the file stands for the environment variable, so that a password need not stand there.

    Args:
        config: path of a YAML file, or the name of a preset.
        assignments: ``key=value`` with dotted keys; values are read as YAML.
        arguments: dotted keys and values of the command line's own options.

    Returns:
        The settings by stream: one for each entry of the file's ``streams:``, made of the file's other settings and
        its own on top; without ``streams:``, one under the empty name.

    Raises:
        ConfigError: a file cannot be read, or a key or value is wrong; the message names it, without secrets.
    """
    try:
        return _runs(config, assignments, arguments or {})
    except ConfigError as error:
        raise ConfigError(redact(str(error))) from None


def _runs(config: str | None, assignments: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Settings]:
    tree: dict[str, Any] = {}
    origin = "the command line"
    streams: dict[str, dict[str, Any]] = {"": {}}
    if config:
        path = _find_config(config)
        origin = str(path)
        tree = _with_environment(_read_yaml(path), origin)
        if "streams" in tree:
            streams = _streams(tree.pop("streams"), origin)
        _check_keys(tree, origin)
    runs = {}
    for name, own in streams.items():
        where = f"{origin}, stream {name}" if name else origin
        _check_keys(own, where)
        merged = _merged(tree, own)
        for assignment in assignments:
            _assign(merged, assignment)
        for key, value in arguments.items():
            _put(merged, key, value, "the command line")
        if name and "source.url" in arguments:
            raise ConfigError(f"{origin} names the streams; leave out the source on the command line")
        runs[name] = _validated(merged, where)
    return runs


def _assign(tree: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    if not equals:
        told = repr(assignment) if assignment in keys() else "a text without ="
        raise ConfigError(f"--set takes key=value, not {told}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if keys().get(key.strip(), ("",))[0] == "text":
        value = text  # 0x0, no and 12:30 are words here, whatever YAML makes of them
    _put(tree, key.strip(), "" if value is None else value, "--set")


def _validated(tree: dict[str, Any], origin: str) -> Settings:
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, origin)) from None
    for key in keys():
        section, _, leaf = key.partition(".")
        value = getattr(getattr(settings, section), leaf) if leaf else getattr(settings, section)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.isprintable():
                secret = key == "output.token" or (key in _UNTOLD and "://" in text)
                told = "; take it out" if secret else f": {text!r}; rename the file"
                raise ConfigError(f"{key} holds a control character{told}")
    return settings


def _streams(found: object, origin: str) -> dict[str, dict[str, Any]]:
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{origin}: streams must be a mapping of names to settings, as in `front: {{source: ...}}`")
    for name, own in found.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", str(name)):
            raise ConfigError(f"{origin}: stream {name!r} needs a name of letters, digits, dots, dashes or underscores")
        if not isinstance(own, dict):
            raise ConfigError(f"{origin}: stream {name} must be a mapping of settings, not {type(own).__name__}")
    return {str(name): own for name, own in found.items()}


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    for key, value in own.items():
        branch = merged.get(key)
        merged[key] = {**branch, **value} if isinstance(branch, dict) and isinstance(value, dict) else value
    return merged


def _with_environment(value: Any, origin: str) -> Any:
    """The tree with ``${NAME}`` replaced in its texts."""
    if isinstance(value, dict):
        return {key: _with_environment(inner, origin) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_environment(inner, origin) for inner in value]
    if not isinstance(value, str):
        return value

    def look_up(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ConfigError(f"{origin} uses ${{{found[1]}}}, and there is no such environment variable; set it")
        return os.environ[found[1]]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", look_up, value)


def keys() -> dict[str, tuple[str, Any, str]]:
    """Every dotted key with its type in words, its default and its meaning, in order."""
    found: dict[str, tuple[str, Any, str]] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Section):
            for inner, leaf in field.annotation.model_fields.items():
                found[f"{name}.{inner}"] = (_type_words(leaf), leaf.get_default(), leaf.description or "")
        else:
            found[name] = (_type_words(field), field.get_default(), field.description or "")
    return found


def differing(one: Settings, other: Settings) -> list[str]:
    """The dotted keys that have different values, in order."""
    return [key for key in keys() if _value(one, key) != _value(other, key)]


def _value(settings: Settings, key: str) -> Any:
    found: Any = settings
    for name in key.split("."):
        found = getattr(found, name)
    return found


def presets() -> dict[str, Path]:
    """The configurations that ship with streamseg, by name."""
    here = Path(__file__).parent
    folder = here / "configs" if (here / "configs").is_dir() else here.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _type_words(field: Any) -> str:
    annotation = field.annotation
    choices = getattr(annotation, "__args__", ()) if getattr(annotation, "__origin__", None) is Literal else ()
    if choices:
        return " or ".join(str(choice) for choice in choices)
    words = {int: "whole number", float: "number", bool: "true or false", str: "text"}.get(annotation, "list of texts")
    bounds = [
        (name, getattr(rule, name))
        for rule in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(rule, name)
    ]
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return words + "".join(f", {signs[name]} {bound:g}" for name, bound in bounds)


_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "timestamp"))


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping; YAML itself would let the last one win silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        for key_node, value_node in node.value:
            # As it was written: 0123 is no number here, and yes no truth.
            if key_node.value == "token" and value_node.tag in _PLAIN_TAGS:
                value_node.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def _find_config(config: str) -> Path:
    path = Path(config)
    if path.is_file():
        return path
    known = presets()
    if config in known:
        return known[config]
    near = difflib.get_close_matches(config, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"presets are {', '.join(known)}"
    raise ConfigError(f"no configuration {config!r}: neither a file nor a preset; {hint}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"cannot read configuration {str(path)!r}: {reason}") from error
    try:
        tree = yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        if re.search("alias|tag|anchor", problem):
            problem = "a text that starts with *, & or ! needs quotes"
        if "\\t" in problem:
            problem = "a tab; YAML is indented with spaces"
        raise ConfigError(f"{path}{where}: {problem}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: the top level must be `key: value` lines, not {type(tree).__name__}")
    return tree


def _check_keys(tree: Mapping[str, Any], origin: str) -> None:
    known = set(keys())
    sections = {key.split(".")[0] for key in known}
    for key in _dotted(tree, sections):
        if key not in known and key not in sections:
            raise ConfigError(_unknown(key, origin))


def _dotted(tree: Mapping[str, Any], sections: set[str]) -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and key in sections:
            yield from (f"{key}.{inner}" for inner in value)
        else:
            yield str(key)


def _unknown(key: str, origin: str) -> str:
    known = keys()
    near = difflib.get_close_matches(key, known, 1, 0.5) or [k for k in known if k.split(".")[-1] == key.split(".")[-1]]
    hint = f"did you mean {near[0]!r}?" if near else "see docs/configuration.md"
    return f"unknown key {key!r} in {origin}; {hint}"


def _put(tree: dict[str, Any], key: str, value: Any, origin: str) -> None:
    if key not in keys():
        raise ConfigError(_unknown(key, origin))
    *sections, leaf = key.split(".")
    for section in sections:
        branch = tree.setdefault(section, {})
        if not isinstance(branch, dict):
            raise ConfigError(f"{section!r} must be a mapping, not {type(branch).__name__}")
        tree = branch
    tree[leaf] = value


def _explain(error: ValidationError, origin: str) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "value_error":
        return f"{key}: {message} (from {origin})"
    untold = any(f"{key}.".startswith(f"{secret}.") or secret.startswith(f"{key}.") for secret in _UNTOLD)
    found = f"a {type(first['input']).__name__}" if untold else repr(first["input"])
    return f"{key} must be {message}, not {found} (from {origin})"
