"""What is handed to administrators holds what it promises."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from streamseg.config import load_runs
from streamseg.web.prometheus import FAMILIES, render
from streamseg.web.status import StatusServer
from tests.test_web import SAMPLE

DEPLOY = Path(__file__).parent.parent / "deploy"
NAMES = set(re.findall(r"^(streamseg_\w+)", render(SAMPLE), re.MULTILINE))


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    told: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text("utf-8"))
    return told


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_dashboard_asks_for_what_there_is_and_for_all_of_it(dashboard: dict[str, Any]) -> None:
    asked = {name for expression in expressions(dashboard) for name in re.findall(r"streamseg_\w+", expression)}
    assert asked <= NAMES
    families = {re.sub("_(sum|count)$", "", name) if name not in FAMILIES else name for name in asked}
    assert families == set(FAMILIES)
    for variable in dashboard["templating"]["list"]:
        for name in re.findall(r"streamseg_\w+", json.dumps(variable.get("query", ""))):
            assert name in NAMES


def test_dashboard_selects_by_labels_that_there_are(dashboard: dict[str, Any]) -> None:
    lines = render(SAMPLE).splitlines()
    for expression in expressions(dashboard):
        for name, selector in re.findall(r"(streamseg_\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+)=~?\"", selector))
            line = next(line for line in lines if line.startswith(name + "{"))
            assert labels <= set(re.findall(r"(\w+)=\"", line)), expression
        assert expression.count("(") == expression.count(")")


def test_dashboard_panels_lie_side_by_side(dashboard: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)


def test_commands_use_options_that_there_are() -> None:
    done = subprocess.run([sys.executable, "-m", "streamseg", "run", "--help"], capture_output=True, text=True)
    known = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", done.stdout))
    unit, desktop, container = (
        (DEPLOY / name).read_text("utf-8") for name in ("streamseg.service", "streamseg-desktop.desktop", "Dockerfile")
    )
    commands = [
        re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE),
        re.search(r"^Exec=(.*)$", desktop, re.MULTILINE),
        re.search(r"^CMD (.*)$", container, re.MULTILINE),
    ]
    for command in commands:
        assert command
        used = set(re.findall(r"(?<=[\s\"])--?[a-z][a-z-]*", command[1]))
        assert used
        assert used <= known


needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here."""
    text = (DEPLOY / "streamseg.service").read_text("utf-8")
    path = tmp_path / "streamseg.service"
    path.write_text(text.replace("/opt/streamseg/bin/streamseg", "/bin/true"), "utf-8")
    return path


@pytest.mark.realparts
@needs_systemd
def test_systemd_takes_the_unit_without_a_word(unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    told = [line for line in (done.stdout + done.stderr).splitlines() if "streamseg" in line]
    assert told == []
    assert done.returncode == 0 or not told


@pytest.mark.realparts
@needs_systemd
def test_unit_is_well_confined(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a unit that is not installed")
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def test_unit_is_watched_and_not_restarted_for_a_wrong_setting() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((DEPLOY / "streamseg.service").read_text("utf-8"))
    service = unit["Service"]
    assert (service["Type"], service["RestartPreventExitStatus"], service["KillMode"]) == ("notify", "2", "mixed")
    assert int(service["WatchdogSec"]) >= 10
    assert service["ExecReload"].split()[1] == "-HUP"
    (own,) = load_runs(assignments=re.findall(r"--set (\S+)", service["ExecStart"])).values()
    assert own.source.wait == "yes", "at boot, a camera may be there later than the service"


@pytest.mark.realparts
@pytest.mark.skipif(shutil.which("desktop-file-validate") is None, reason="desktop-file-validate is not installed")
def test_desktop_entry_is_valid() -> None:
    done = subprocess.run(
        ["desktop-file-validate", str(DEPLOY / "streamseg-desktop.desktop")], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_container_runs_without_root_and_copies_what_exists() -> None:
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["streamseg"]
    last_root = max(index for index, line in enumerate(lines) if line.startswith("RUN "))
    assert lines.index("USER streamseg") > last_root
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for name in line.split()[1:-1]:
                assert (DEPLOY.parent / name).exists(), name
    ports = set(re.findall(r"\b9\d{3}\b", "\n".join(lines)))
    assert ports == {"9464"}
    checked = next(line for line in lines if line.startswith("HEALTHCHECK "))
    # What every builder knows: --start-interval ends the build with Podman's tools and with Docker before 25.
    assert set(re.findall(r"--([a-z-]+)=", checked)) <= {"interval", "timeout", "start-period", "retries"}


@pytest.mark.parametrize("token", [None, "s3cret"])
def test_container_is_asked_for_its_health(token: str | None) -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", "")
    command = re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.MULTILINE)
    assert command
    name, *words = json.loads(command[1])
    assert name == "python"
    environment = {**os.environ, "STREAMSEG_TOKEN": token} if token else dict(os.environ)
    with contextlib.closing(StatusServer("127.0.0.1", 0, sample=dict, token=token)) as server:
        words = [word.replace(":9464", f":{server.address[1]}") for word in words]
        done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    gone = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert gone.returncode != 0
