"""What the pages tell people to type and to click on is there."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
from pathlib import Path

import pytest

from streamseg.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "deploy" / "README.md",
    ROOT / "models" / "README.md",
]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", page.read_text("utf-8"), flags=re.S | re.M)


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for line in "\n".join(blocks(page)).replace("\\\n", " ").splitlines():
            for command in re.findall(
                r"(?:^|[ /])streamseg ((?:run|batch|bench|eval|models|devices|doctor|demo)\b[^|]*)", line
            ):
                found.append((str(page.relative_to(ROOT)), command))
    return found


@functools.cache
def options_of(*command: str) -> frozenset[str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        main([*command, "--help"])
    return frozenset(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", printed.getvalue()))


def anchors(page: Path) -> set[str]:
    """As the places that show Markdown make them of headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.S | re.M)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def test_every_option_in_a_command_of_the_pages_exists() -> None:
    assert len(commands()) > 30
    wrong = []
    for page, command in commands():
        words = shlex.split(command, comments=True)
        deep = words[0] in {"models", "eval"} and len(words) > 1 and words[1].isalpha()
        known = options_of(*words[: 2 if deep else 1])
        wrong += [
            f"{page}: {word} of streamseg {words[0]}"
            for word in words
            if word.startswith("-") and len(word) > 1 and word not in known
        ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target
