"""From a YAML file, assignments and arguments to settings, or to one line about what is wrong with them."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from streamseg.config.keys import keys
from streamseg.config.settings import Settings
from streamseg.errors import ConfigError, redact

__all__ = ["load_runs", "load_settings", "presets"]

# Their values are never told, for they may hold a password or a key.
_UNTOLD = ("source.url", "source.sub", "output.sinks", "output.token")
_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "timestamp"))


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
        tree = _checked(tree, origin)
    runs = {}
    for name, own in streams.items():
        where = f"{origin}, stream {name}" if name else origin
        merged = _merged(tree, _checked(own, where))
        for assignment in assignments:
            _assign(merged, assignment)
        for key, value in arguments.items():
            _put(merged, key, value, "the command line")
        if name and "source.url" in arguments:
            raise ConfigError(f"{origin} names the streams; leave out the source on the command line")
        given = {*arguments, *(assignment.partition("=")[0].strip() for assignment in assignments)}
        runs[name] = _validated(merged, where, given)
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


def _validated(tree: dict[str, Any], origin: str, given: Set[str]) -> Settings:
    """The settings; `given` are the keys that the command line named, whatever the file says."""
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, origin, given)) from None
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


def presets() -> dict[str, Path]:
    """The configurations that ship with streamseg, by name."""
    here = Path(__file__).parent.parent
    folder = here / "configs" if (here / "configs").is_dir() else here.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


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


def _checked(tree: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The tree without sections that hold nothing, such as those in which every line is a comment."""
    known = keys()
    checked = {}
    for key, value in tree.items():
        section = _first_of(str(key))
        if section and value is None:
            continue
        if section and not isinstance(value, Mapping):
            raise ConfigError(
                f"{key} in {origin} is a section, not a {type(value).__name__}; "
                f"write `{key}:` and beneath it, indented, lines such as `{section}: ...`"
            )
        if key in known and "." in key:
            outer, _, inner = key.partition(".")
            raise ConfigError(f"{key} in {origin}: write `{outer}:` and beneath it, indented, `{inner}: ...`")
        for name in (f"{key}.{inner}" for inner in value) if section else (str(key),):
            if name not in known:
                raise ConfigError(_unknown(name, origin))
        checked[key] = value
    return checked


def _first_of(section: str) -> str:
    """The first key of a section; empty where it is none."""
    return next((key for key in keys() if key.startswith(f"{section}.")), "").partition(".")[2]


def _unknown(key: str, origin: str) -> str:
    known = keys()
    if first := _first_of(key):
        return f"{key!r} in {origin} is a section; name a key in it, such as {key}.{first}"
    near = difflib.get_close_matches(key, known, 1, 0.5) or [k for k in known if k.split(".")[-1] == key.split(".")[-1]]
    hint = f"did you mean {near[0]!r}?" if near else "see docs/configuration.md"
    return f"unknown key {key!r} in {origin}; {hint}"


def _put(tree: dict[str, Any], key: str, value: Any, origin: str) -> None:
    if key not in keys():
        raise ConfigError(_unknown(key, origin))
    *sections, leaf = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[leaf] = value


def _explain(error: ValidationError, origin: str, given: Set[str]) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if any(f"{key}.".startswith(f"{name}.") for name in given):
        origin = "the command line"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "value_error":
        return f"{key}: {message} (from {origin})"
    untold = any(f"{key}.".startswith(f"{secret}.") or secret.startswith(f"{key}.") for secret in _UNTOLD)
    found = f"a {type(first['input']).__name__}" if untold else repr(first["input"])
    return f"{key} must be {message}, not {found} (from {origin})"
