"""Every setting: its name, type, range, default and meaning. Nothing else knows pydantic or YAML."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from streamseg.errors import ConfigError

__all__ = ["Settings", "keys", "load_settings", "parse_background", "presets"]


def _comma_list(value: object) -> object:
    """`a, b` on the command line means the list `[a, b]` of YAML."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Words = Annotated[list[str], BeforeValidator(_comma_list)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class SourceSettings(_Section):
    """Where the picture comes from."""

    url: str = Field("", description="video file, image, folder or glob of images, or - for standard input")
    max_pixels: int = Field(
        16384 * 8640, ge=16, description="largest picture accepted, width times height; larger ones are refused"
    )
    threads: int = Field(2, ge=0, le=64, description="decoder threads; 0 takes one for every core")


class ModelSettings(_Section):
    """The network."""

    name: str = Field("auto", description="auto, a name from `streamseg models list`, or the path of an ONNX file")
    provider: str = Field(
        "auto", description="what runs the network: auto, cpu, cuda, tensorrt, coreml, directml or openvino"
    )
    threads: int = Field(0, ge=0, le=256, description="threads of the network; 0 takes one for every core")
    size: str = Field(
        "auto", description="input size WxH of a network that takes any; auto fits the picture's proportions"
    )
    confidence: float = Field(0.25, ge=0, le=1, description="lowest score of an object (YOLO)")
    iou: float = Field(0.7, ge=0, le=1, description="overlap above which two boxes of a class are one object (YOLO)")
    max_instances: int = Field(300, ge=1, le=3000, description="most objects in a picture (YOLO)")
    offline: bool = Field(False, description="never download anything")

    @field_validator("size")
    @classmethod
    def _size(cls, value: str) -> str:
        if value != "auto" and not re.fullmatch(r"\d+x\d+", value):
            raise ValueError("must be auto or WxH, such as 640x384")
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

    smoother: Literal["uncertainty", "half-life", "none"] = Field(
        "uncertainty", description="uncertainty holds back only unsure and unmoved pixels, half-life everything"
    )
    half_life_s: float = Field(0.15, gt=0, le=10, description="after this time the past weighs half, seconds")
    scene_cut: bool = Field(True, description="forget the past at a cut to another shot")


class OutputSettings(_Section):
    """Where the result goes."""

    sinks: Words = Field([], description="video file, image or image pattern, null: or - for standard output")
    format: str = Field("", description="container of standard output, such as matroska or mpegts")
    encoder: str = Field("", description="video encoder; empty chooses one for the container")
    quality: str = Field("", description="low, medium, high, lossless or the encoder's own number; empty is high")
    threads: int = Field(0, ge=0, le=64, description="encoder threads; 0 takes one for every core")
    matte: str = Field("", description="the matte as a lossless grey video or PNG sequence")
    results: str = Field("", description="JSON lines, one per frame: boxes, classes, scores, masks")
    report: str = Field("", description="one JSON document about the run")

    @field_validator("quality", mode="before")
    @classmethod
    def _quality(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Settings(_Section):
    """All settings of a run."""

    task: Literal["background"] = Field("background", description="what is painted")
    source: SourceSettings = SourceSettings()
    model: ModelSettings = ModelSettings()
    keep: KeepSettings = KeepSettings()
    background: BackgroundSettings = BackgroundSettings()
    edges: EdgeSettings = EdgeSettings()
    temporal: TemporalSettings = TemporalSettings()
    output: OutputSettings = OutputSettings()


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


def load_settings(
    config: str | None = None,
    assignments: Sequence[str] = (),
    arguments: Mapping[str, Any] | None = None,
) -> Settings:
    """Put the settings together: defaults, then the YAML file, then `key=value` assignments, then arguments.

    Args:
        config: path of a YAML file, or the name of a preset.
        assignments: ``key=value`` with dotted keys; values are read as YAML.
        arguments: dotted keys and values of the command line's own options.

    Raises:
        ConfigError: a file cannot be read, or a key or value is wrong; the message names it.
    """
    tree: dict[str, Any] = {}
    origin = "the command line"
    if config:
        path = _find_config(config)
        origin = str(path)
        tree = _read_yaml(path)
        _check_keys(tree, origin)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set takes key=value, not {assignment!r}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if keys().get(key.strip(), ("",))[0] == "text":
            value = text  # 0x0, no and 12:30 are words here, whatever YAML makes of them
        _put(tree, key.strip(), "" if value is None else value, f"--set {assignment}")
    for key, value in (arguments or {}).items():
        _put(tree, key, value, "the command line")
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, origin)) from None
    for key in keys():
        section, _, leaf = key.partition(".")
        value = getattr(getattr(settings, section), leaf) if leaf else getattr(settings, section)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.isprintable():
                raise ConfigError(f"{key} holds a control character: {text!r}; rename the file")
    return settings


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
            raise ConfigError(f"{section!r} must be a mapping, not {branch!r}")
        tree = branch
    tree[leaf] = value


def _explain(error: ValidationError, origin: str) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "value_error":
        return f"{key}: {message} (from {origin})"
    return f"{key} must be {message}, not {first['input']!r} (from {origin})"
