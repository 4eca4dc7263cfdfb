"""Many files: each once, one failure ends nothing, and what was done is not done again."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamseg.child import own_environment
from streamseg.cli import batch, main
from tests import clips, networks
from tests.test_drive import film
from tests.test_live_run import until

# Stands in for `streamseg run`: what it does is in the name of the file.
STAND_IN = """
import json, os, signal, sys
from pathlib import Path
source, words = Path(sys.argv[1]), dict(word.partition("=")[::2] for word in sys.argv[2:])
with open(Path(__file__).with_suffix(".log"), "a") as log:
    log.write(json.dumps([source.name, sys.argv[2:]]) + "\\n")
if "slow" in source.name:
    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(130))
    os.kill(os.getppid(), signal.SIGINT)
    while True:
        signal.pause()
if "crash" in source.name:
    os.kill(os.getpid(), signal.SIGKILL)
if source.read_bytes() == b"broken":
    print("a remark", file=sys.stderr)
    sys.exit(print(f"streamseg: cannot open {source.name}: broken", file=sys.stderr) or 2)
Path(words["--output"]).write_text("done")
if "--events" in words:
    Path(words["--events"]).write_text("kind,side\\ncut-in,left\\n" if "2" in source.name else "kind,side\\n")
Path(words["--report"]).write_text(json.dumps({"frames": {"out": 7}, "fps": 3.5}))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(batch, "_COMMAND", (sys.executable, str(script)))
    monkeypatch.setattr(batch, "_LOOK_EVERY_S", 0.01)
    monkeypatch.chdir(tmp_path)
    return script.with_suffix(".log")


def touch(*names: str, text: str = "video") -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def calls(log: Path) -> dict[str, list[str]]:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert len({row[0] for row in rows}) == len(rows)
    log.unlink()
    return dict(rows)


def table() -> dict[str, dict[str, str]]:
    rows = csv.DictReader(Path("out/summary.csv").read_text("utf-8").splitlines())
    return {row["file"]: row for row in rows}


def test_a_folder_without_videos_is_one_of_pictures(stand_in: Path) -> None:
    cv2.imwrite("dot.png", np.zeros((4, 4), np.uint8))
    touch("photos/2.jpg", "photos/10.jpg", "photos/notes.txt", "mixed/cover.jpg")
    for name in ("photos/2.jpg", "photos/10.jpg", "mixed/cover.jpg"):
        Path(name).write_bytes(Path("dot.png").read_bytes())
    touch("mixed/a.mp4")
    assert main(["batch", "photos", "mixed", "dot.png", "--out", "out", "--quiet"]) == 0
    outputs = [next(word for word in words if word.startswith("--output=")) for words in calls(stand_in).values()]
    assert outputs == [f"--output=out/{name}" for name in ("2.png", "10.png", "a.mp4", "dot.png")]
    assert main(["batch", "photos", "mixed", "dot.png", "--out", "out", "--quiet"]) == 0
    assert not stand_in.exists(), "all of it was done"


def test_outcomes_are_told_and_counted(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch("drives/a.mp4", "drives/1/b.mp4", "drives/1/b.mov", "drives/notes.txt", "drives/crash.mp4")
    touch("drives/2/bad.mp4", text="broken")
    command = ["batch", "drives/**/*.*", "drives/a.mp4", "--out", "out", "--jobs", "2", "--results", "{}.jsonl"]
    command += ["--set", "keep.classes=person", "--set=edges.feather=0.1", "--keep-largest"]
    assert main(command) == 1
    found = calls(stand_in)
    assert sorted(found) == ["a.mp4", "b.mov", "b.mp4", "bad.mp4", "crash.mp4"]
    assert found["b.mov"][-6:] == [
        *("--keep-largest", "--set=keep.classes=person", "--set=edges.feather=0.1"),
        *("--results=out/1/b.jsonl", "--output=out/1/b.mp4", "--report=out/1/b.report.json"),
    ]
    assert found["b.mp4"][-2:] == ["--output=out/1/b.mp4.mp4", "--report=out/1/b.mp4.report.json"]
    assert any(word.startswith("--set=model.threads=") for word in found["a.mp4"])
    rows = table()
    assert [rows[name]["outcome"] for name in ("drives/a.mp4", "drives/1/b.mp4", "drives/1/b.mov")] == ["done"] * 3
    assert (rows["drives/a.mp4"]["frames"], rows["drives/a.mp4"]["output"]) == ("7", "out/a.mp4")
    assert rows["drives/2/bad.mp4"]["message"] == "cannot open bad.mp4: broken"
    assert rows["drives/crash.mp4"]["message"] == "the process ended by signal 9"
    said = capsys.readouterr().err.splitlines()
    assert "drives/2/bad.mp4: cannot open bad.mp4: broken" in {line.split(" ", 1)[1] for line in said}
    assert said[-1] == "3 done, 2 failed; see out/summary.csv"

    # What failed is tried again, what is done is not; unless it has changed, or what it wrote is gone.
    touch("drives/2/bad.mp4", "drives/1/b.mov", text="another")
    Path("out/a.mp4").unlink()
    assert main(command) == 1
    assert sorted(calls(stand_in)) == ["a.mp4", "b.mov", "bad.mp4", "crash.mp4"]
    Path("drives/crash.mp4").unlink()
    assert main(command) == 0
    assert not stand_in.exists()
    assert capsys.readouterr().err.splitlines()[-2:] == ["4 of 4 are done already", "4 done; see out/summary.csv"]
    # Other options are another batch.
    assert main([*command, "--mirror"]) == 0
    assert len(calls(stand_in)) == 4


def test_an_interrupt_ends_what_runs_and_the_rest_waits(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch("drives/1.mp4", "drives/2-slow.mp4", "drives/3.mp4")
    before = signal.getsignal(signal.SIGINT)
    assert main(["batch", "drives", "--out", "out"]) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert sorted(calls(stand_in)) == ["1.mp4", "2-slow.mp4"]
    assert [row["outcome"] for row in table().values()] == ["done", "interrupted", "waiting"]
    assert [row["output"] for row in table().values()] == ["out/1.mp4", "", ""]
    assert capsys.readouterr().err.splitlines()[-1] == (
        "1 done, 1 interrupted, 1 waiting; see out/summary.csv; the same command goes on from here"
    )
    Path("drives/2-slow.mp4").rename("drives/2.mp4")
    assert main(["batch", "drives", "--out", "out"]) == 0
    assert sorted(calls(stand_in)) == ["2.mp4", "3.mp4"]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_runs_ends_with_a_batch_that_is_killed(tmp_path: Path) -> None:
    film(tmp_path, "long.mp4", frames=3000, size_wh=(320, 180))
    (tmp_path / "long.mp4").rename(tmp_path / "{}.mp4")
    words = [str(tmp_path / "{}.mp4"), "--out", str(tmp_path / "out"), "--task", "lanes"]
    crew = subprocess.Popen([sys.executable, "-m", "streamseg", "batch", *words], env=own_environment())
    partial = tmp_path / "out" / "{}.partial.mp4"
    children = Path(f"/proc/{crew.pid}/task/{crew.pid}/children")
    until(partial.exists, "the beginning of a run")
    (run,) = map(int, children.read_text().split())
    os.kill(run, signal.SIGSTOP)  # so that it cannot end by itself before
    crew.kill()
    crew.wait()
    os.kill(run, signal.SIGCONT)
    until(lambda: not is_running(run), "the end of the run")
    assert partial.exists()
    assert not (tmp_path / "out" / "{}.mp4").exists()


def test_braces_in_a_name_are_no_place(stand_in: Path) -> None:
    touch("drives/a{}.mp4")
    assert main(["batch", "drives", "--out", "out"]) == 0
    assert table()["drives/a{}.mp4"]["output"] == "out/a{}.mp4"


def test_events_of_all_videos_come_into_one_table(stand_in: Path) -> None:
    touch("drives/1.mp4", "drives/2,b.mp4", "drives/3.mp4", "drives/broken/x.mp4")
    touch("drives/broken/x.mp4", text="broken")
    assert main(["batch", "drives/**/*.mp4", "--out", "out", "--events", "{}.csv"]) == 1
    rows = list(csv.reader(Path("out/events.csv").read_text("utf-8").splitlines()))
    assert rows == [["video", "kind", "side"], ["drives/2,b.mp4", "cut-in", "left"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing/*.mp4", "--out", "out"], "no videos: 'nothing/*.mp4' name none; quote patterns"),
        (["a.mp4", "--out", "out", "--jobs", "0"], "--jobs takes a number from 1 on, not 0"),
        (["a.mp4", "--out", "a.mp4/out"], "cannot write into a.mp4/out: not a directory"),
        (["a.mp4", "--out", "spoilt"], "spoilt/batch.json is no state of a batch; remove it"),
        (["a.mp4", "--out", "out", "--task", "cooking"], "invalid choice: 'cooking'"),
        (
            ["a.mp4", "b.mp4", "--out", "out", "--events", "e.csv"],
            "--events e.csv would be written by every video; put {} into the name, as in --events '{}.csv'",
        ),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str], message: str, stand_in: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch("a.mp4", "b.mp4", "spoilt/batch.json")
    try:
        code = main(["batch", *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not stand_in.exists()


def test_files_of_a_drive_are_joined(stand_in: Path, tmp_path: Path) -> None:
    for name in ("20240501_120000_F", "20240501_120001_F", "20240501_120000_R", "20240501_180000_F"):
        film(tmp_path / "card", f"{name}.mp4", frames=30, size_wh=(64, 64))
    touch("card/20240501_120002_F.mp4", text="")
    assert main(["batch", "card", "--out", "out", "--join"]) == 1
    assert sorted(calls(stand_in)) == ["20240501_120000_F.m3u", "20240501_180000_F.mp4"]
    listed = [Path(line).name for line in Path("out/20240501_120000_F.m3u").read_text("utf-8").splitlines()]
    assert listed == ["20240501_120000_F.mp4", "20240501_120001_F.mp4", "20240501_120000_R.mp4"]
    rows = table()
    assert rows["card/20240501_120002_F.mp4"]["message"] == "20240501_120002_F.mp4 is empty; left out"
    assert rows["out/20240501_120000_F.m3u"]["output"] == "out/20240501_120000_F.mp4"
    Path("card/20240501_120002_F.mp4").unlink()
    assert main(["batch", "card", "--out", "out", "--join"]) == 0
    assert not stand_in.exists()


def test_real_runs_with_a_broken_and_an_empty_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    good = film(tmp_path / "in", "good.mp4", frames=8, size_wh=(64, 64))
    (tmp_path / "in" / "broken.mp4").write_bytes(good.read_bytes()[:700])
    (tmp_path / "in" / "empty.mp4").touch()
    network = networks.matte(tmp_path / "red.onnx", size=64)
    command = ["batch", "in/*.mp4", "--out", "out", "--jobs", "2", "--background", "none", "--model", str(network)]
    assert main([*command, "--quiet"]) == 1
    rows = table()
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "in/broken.mp4": "failed", "in/empty.mp4": "failed", "in/good.mp4": "done"
    }  # fmt: skip
    assert rows["in/good.mp4"]["frames"] == "8"
    assert "cut off before its index was written" in rows["in/broken.mp4"]["message"]
    assert "the file is empty" in rows["in/empty.mp4"]["message"]
    assert clips.indices(tmp_path / "out" / "good.mp4") == list(range(8))
    assert len(capsys.readouterr().err.splitlines()) == 3
