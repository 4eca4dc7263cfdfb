"""The networks that are known by name, read from `registry.yaml` beside this file."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import yaml

__all__ = ["Entry", "UrlSource", "WheelSource", "parse_registry", "registry"]

_FORMATS = ("onnx", "tflite", "pt")
_TASKS = ("segment", "matte", "lanes")
_PREPROCESS = {"mean", "std", "letterbox"}
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A file on a web server."""

    url: str

    def __str__(self) -> str:
        return urlsplit(self.url).hostname or self.url


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A file inside a wheel on the package index."""

    wheel: str
    member: str

    def __str__(self) -> str:
        return f"{self.wheel} from the package index"


@dataclass(frozen=True, slots=True)
class Entry:
    """A network that is known by name.

    Attributes:
        name: its file in a local folder is `NAME.onnx`.
        task: "segment", "matte" or "lanes".
        family: what the finished ONNX is; the graph itself decides.
        input_hw: height and width of the picture it takes, in px.
        classes: names in the network's order.
        licence: SPDX identifier of the weights.
        notice: a line for whoever fetches it.
        format: of the file at the sources: "onnx", "tflite" or "pt".
        sha256: of that file; None where it is not known.
        sources: tried in order.
        preprocess: what a semantic network was trained to see, as the metadata that `Preprocess` reads.
    """

    name: str
    task: str
    family: str
    input_hw: tuple[int, int]
    classes: tuple[str, ...]
    licence: str
    notice: str
    format: str
    sha256: str | None
    sources: tuple[UrlSource | WheelSource, ...]
    preprocess: Mapping[str, str] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Of the file at the sources, as the cache keeps it."""
        return f"{self.name}.{self.format}"


@functools.cache
def registry() -> Mapping[str, Entry]:
    """Every known network by name, in the order in which they are listed."""
    return parse_registry(files(__package__).joinpath("registry.yaml").read_text(encoding="utf-8"))


def parse_registry(text: str) -> dict[str, Entry]:
    """Entries by name.

    Raises:
        ValueError: an entry is not as the head of `registry.yaml` says; the message names it.
    """
    document = yaml.safe_load(text)
    lists = document.get("class_lists", {})
    return {name: _entry(name, fields, lists) for name, fields in document["models"].items()}


def _entry(name: str, fields: Mapping[str, Any], lists: Mapping[str, list[str]]) -> Entry:
    wanted = {"task", "family", "input", "classes", "licence", "notice", "format", "sha256", "sources"}
    if wrong := (set(fields) - {"preprocess"}) ^ wanted:
        raise ValueError(f"model {name!r}: keys missing or unknown: {', '.join(sorted(wrong))}")
    size = re.fullmatch(r"(\d+)x(\d+)", str(fields["input"]))
    checks = {
        "name": _NAME.fullmatch(name),
        "task": fields["task"] in _TASKS,
        "format": fields["format"] in _FORMATS,
        "input": size,
        "sha256": fields["sha256"] is None or _SHA256.fullmatch(str(fields["sha256"])),
        "sources": fields["sources"],
        "preprocess": set(fields.get("preprocess", {})) <= _PREPROCESS,
    }
    for key, right in checks.items():
        if not right:
            raise ValueError(f"model {name!r}: bad {key}: {fields.get(key, name)!r}")
    assert size is not None
    classes = fields["classes"]
    return Entry(
        name=name,
        task=fields["task"],
        family=fields["family"],
        input_hw=(int(size[1]), int(size[2])),
        classes=tuple(lists[classes] if isinstance(classes, str) else classes),
        licence=fields["licence"],
        notice=fields["notice"],
        format=fields["format"],
        sha256=fields["sha256"],
        sources=tuple(
            WheelSource(**source) if "wheel" in source else UrlSource(**source) for source in fields["sources"]
        ),
        preprocess={key: json.dumps(value) for key, value in fields.get("preprocess", {}).items()},
    )
