"""The settings by their dotted keys."""

from __future__ import annotations

from typing import Any, Literal

from streamseg.config.settings import Section, Settings

__all__ = ["differing", "keys"]


def keys() -> dict[str, tuple[str, Any, str]]:
    """Every dotted key with its type in words, its default and its meaning, in order."""
    found: dict[str, tuple[str, Any, str]] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
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
