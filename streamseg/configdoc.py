"""Writes `configs/full.yaml` and `docs/configuration.md` from the schema: ``python -m streamseg.configdoc``."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

from streamseg.config import Settings, keys

__all__ = ["full_yaml", "markdown"]


def full_yaml() -> str:
    """Every key at its default, with its meaning as a comment."""
    lines = ["# Every setting at its default. Generated from the schema: python -m streamseg.configdoc", ""]
    for section, entries in groupby(keys().items(), lambda entry: entry[0].split(".")[0]):
        rows = list(entries)
        nested = "." in rows[0][0]
        if nested:
            lines += [f"# {_section_doc(section)}", f"{section}:"]
        for key, (kind, default, meaning) in rows:
            indent = "  " if nested else ""
            lines += [f"{indent}# {meaning} ({kind})", f"{indent}{key.split('.')[-1]}: {json.dumps(default)}"]
        lines.append("")
    return "\n".join(lines)


def markdown() -> str:
    """The reference page."""
    lines = [
        "# Configuration",
        "",
        "Every setting can stand in a YAML file (`--config FILE.yaml`, or a preset's name: `zoom`, `dashcam`, `rtsp`),",
        "and on the command line as `--set key=value` with the dotted key. `--set` and the command line's own options",
        "override the file, the file overrides the defaults. Unknown keys, duplicate keys and wrong types are errors.",
        "[`configs/full.yaml`](../configs/full.yaml) holds every key at its default.",
        "",
        "This page is generated from the schema by `python -m streamseg.configdoc`.",
        "",
    ]
    for section, entries in groupby(keys().items(), lambda entry: entry[0].split(".")[0]):
        rows = list(entries)
        if "." in rows[0][0]:
            lines += [f"## {section}", "", _section_doc(section), ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        for key, (kind, default, meaning) in rows:
            lines.append(f"| `{key}` | {kind} | `{json.dumps(default)}` | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def _section_doc(section: str) -> str:
    annotation = Settings.model_fields[section].annotation
    return (annotation.__doc__ or "").strip()


if __name__ == "__main__":
    root = Path(__file__).parent.parent
    if not (root / "pyproject.toml").is_file():
        raise SystemExit(f"{root} is no checkout of streamseg: run this where configs/ and docs/ are")
    (root / "configs" / "full.yaml").write_text(full_yaml(), "utf-8")
    (root / "docs" / "configuration.md").write_text(markdown(), "utf-8")
