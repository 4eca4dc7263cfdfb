"""Every setting: its name, type, range, default and meaning."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from streamseg.config.values import parse_background, parse_size, parse_three, parse_vanishing
from streamseg.units import parse_duration_s, parse_size_bytes

__all__ = ["EventSettings", "InstanceSettings", "LaneSettings", "ModelSettings", "Section", "Settings"]


def _comma_list(value: object) -> object:
    """`a, b` on the command line means the list `[a, b]` of YAML."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


_HARDWARE = "cuda|videotoolbox|d3d11va|d3d12va|dxva2|vaapi|vulkan|vdpau|qsv"

Words = Annotated[list[str], BeforeValidator(_comma_list)]


class Section(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: object, info: ValidationInfo) -> object:
        # Python takes a truth value for the number 0 or 1; who writes `threads: yes` meant something else.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise ValueError(f"must be a number, not {str(value).lower()}")
        return value


class SourceSettings(Section):
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
        parse_size(value)
        return value

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


class ModelSettings(Section):
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
    mean: str = Field(
        "", description="of R, G, B as a semantic or matte network was trained, such as 0.485,0.456,0.406"
    )
    std: str = Field("", description="of R, G, B as a semantic or matte network was trained")
    channel_order: Literal["rgb", "bgr"] = Field("rgb", description="of a semantic or matte network's input")
    letterbox: bool = Field(False, description="a semantic or matte network's input keeps the picture's proportions")
    max_instances: int = Field(300, ge=1, le=3000, description="most objects in a picture (YOLO)")
    offline: bool = Field(False, description="never download anything")

    @field_validator("size")
    @classmethod
    def _size(cls, value: str) -> str:
        parse_size(value)
        return value

    @field_validator("mean", "std")
    @classmethod
    def _three(cls, value: str) -> str:
        parse_three(value)
        return value


class KeepSettings(Section):
    """What counts as the subject."""

    classes: Words = Field(["person"], description="the network's classes that stay in the picture")
    largest: bool = Field(False, description="only the largest one")


class BackgroundSettings(Section):
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


class EdgeSettings(Section):
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


class TemporalSettings(Section):
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


class InstanceSettings(Section):
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


class LaneSettings(Section):
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


class EventSettings(Section):
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


class PrivacySettings(Section):
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


class OutputSettings(Section):
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
    threads: int = Field(0, ge=0, le=64, description="encoder threads; 0 leaves their number to the encoder")
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


class LiveSettings(Section):
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


class Settings(Section):
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
        """All settings for a report, the token hidden; passwords in URLs are left to `redact`."""
        tree = self.model_dump(mode="json")
        if tree["output"]["token"]:
            tree["output"]["token"] = "***"
        return tree
