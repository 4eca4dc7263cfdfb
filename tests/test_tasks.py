"""The tasks `instances` and `lanes`, run as a user does, on drawn drives and networks whose answer is known."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from streamseg.app import Fleet
from streamseg.app.moments import Seen
from streamseg.cli import main
from streamseg.config import Settings, load_runs
from streamseg.errors import ConfigError
from streamseg.segment.result import Instances
from streamseg.sources import open_source
from tests import networks
from tests.clips import make_clip
from tests.synthetic_drive import Drive, Excursion
from tests.test_inspect import RGB, write_onnx
from tests.test_run import decode
from tests.test_yolo import DETECTIONS, PROTOTYPES

SIZE_WH, RATE = (480, 270), 15


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds; the car leaves its lane to the right after three, and comes back."""
    path = tmp_path_factory.mktemp("drive") / "20260102_080000_F.mp4"
    drawn = Drive(
        size_wh=SIZE_WH, rate_fps=RATE, length_s=7.0, wander_lanes=0.0, excursions=(Excursion(3.0, 0.42, 2.4),)
    )
    pictures = [planes for planes, _ in drawn.frames()]

    def draw(index: int) -> av.VideoFrame:
        return av.VideoFrame.from_ndarray(pictures[index], format="yuv420p")

    return make_clip(path, frames=len(pictures), size_wh=SIZE_WH, rate=Fraction(RATE), draw=draw, sound="aac")


@pytest.fixture
def still(tmp_path: Path) -> Path:
    """Four seconds of the same picture: whatever was seen in it can be carried."""
    texture = np.random.default_rng(3).integers(40, 200, (SIZE_WH[1] // 9 * 3 // 2, SIZE_WH[0] // 10), np.uint8)
    picture = np.full((SIZE_WH[1] * 3 // 2, SIZE_WH[0]), 128, np.uint8)
    luma = cv2.resize(texture[: SIZE_WH[1] // 9], SIZE_WH, interpolation=cv2.INTER_NEAREST)
    picture[: SIZE_WH[1]] = luma

    def draw(index: int) -> av.VideoFrame:
        return av.VideoFrame.from_ndarray(picture, format="yuv420p")

    return make_clip(tmp_path / "still.mp4", frames=60, size_wh=SIZE_WH, rate=Fraction(RATE), draw=draw)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Sees a person and a car, always at the same places."""
    return networks.yolo_seg(tmp_path / "coco.onnx", DETECTIONS, PROTOTYPES)


def run(*args: object) -> int:
    return main(["run", *map(str, args), "--quiet"])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_drive_becomes_lanes_events_a_page_and_clips(drive: Path, tmp_path: Path) -> None:
    out, results = tmp_path / "out.mp4", tmp_path / "lanes.jsonl"
    events, page, clips = tmp_path / "events.csv", tmp_path / "drive.html", tmp_path / "clips"
    code = run(drive, "--task", "lanes", "-o", out, "--results", results, "--events", events, "--page", page,
               "--clips", clips, "--set", "events.clip_before_s=0.5", "--set", "events.clip_after_s=0.5",
               "--report", tmp_path / "r.json")  # fmt: skip
    assert code == 0
    told = lines(results)
    assert len(told) == 7 * RATE
    known = [one for one in told if one["offset"] is not None]
    assert len(known) > 0.8 * len(told)
    assert {line["side"] for one in known for line in one["lanes"]} >= {"left", "right"}
    found = list(csv.DictReader(events.read_text().splitlines()))
    assert [(one["kind"], one["side"]) for one in found] == [("departure", "right")]
    assert float(found[0]["begin_s"]) == pytest.approx(4.5, abs=0.5)
    assert "departure right" in page.read_text()
    (clip,) = clips.iterdir()
    assert "departure-right" in clip.name
    painted, plain = decode(out), decode(drive)
    assert len(painted) == len(plain)
    change = np.abs(painted[30].astype(int) - plain[30].astype(int)).max(axis=2)
    assert (change[SIZE_WH[1] * 3 // 4 :, SIZE_WH[0] // 3 : SIZE_WH[0] * 2 // 3] > 20).mean() > 0.8, (
        "the lane is filled"
    )
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["model"] is None
    assert {"lanes", "draw"} <= set(report["stages"])


def test_nothing_is_painted_where_no_lane_is_known(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", frames=20)
    assert run(clip, "--task", "lanes", "--set", "lanes.show=lane,lines", "-o", tmp_path / "out.mkv",
               "--quality", "lossless", "--results", tmp_path / "r.jsonl") == 0  # fmt: skip
    assert all(one["offset"] is None for one in lines(tmp_path / "r.jsonl"))
    for painted, plain in zip(decode(tmp_path / "out.mkv"), decode(clip), strict=True):
        assert np.array_equal(painted, plain)


def test_a_photograph_becomes_one_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    cv2.imwrite("photos/road.png", np.full((180, 320, 3), 90, np.uint8))
    assert run("photos/road.png", "-o", "lanes.png", "--task", "lanes") == 0
    assert cv2.imread("lanes.png").shape == (180, 320, 3)


@pytest.mark.parametrize("mode", ["every", "keyframes:3"])
def test_road_users_stand_beside_the_lanes(mode: str, still: Path, coco: Path, tmp_path: Path) -> None:
    results = tmp_path / "lanes.jsonl"
    code = run(still, "--task", "lanes", "-o", "null:", "--users", coco, "--mode", mode, "--results", results,
               "--report", tmp_path / "r.json", "--set", "lanes.users_fps=5",
               "--set", "temporal.still_s=0")  # fmt: skip
    assert code == 0
    told = lines(results)
    assert [one["index"] for one in told] == list(range(60))
    users = [{(user["class"], user["track"]) for user in one.get("road_users", [])} for one in told]
    assert users[-1] == {("person", 1), ("car", 2)} or users[-1] == {("person", 2), ("car", 1)}
    looks = json.loads((tmp_path / "r.json").read_text())["stages"]["segment"]["count"]
    assert looks == 60 / RATE * 5, "five times a second"


def test_instances_are_numbered_painted_and_told(still: Path, coco: Path, tmp_path: Path) -> None:
    out, results = tmp_path / "out.mp4", tmp_path / "i.jsonl"
    code = run(still, "--task", "instances", "--model", coco, "-o", out, "--results", results, "--classes", "car",
               "--mode", "keyframes:3", "--set", "temporal.still_s=0")  # fmt: skip
    assert code == 0
    told = lines(results)
    assert [one.get("carried", False) for one in told[:6]] == [False, True, True, False, True, True]
    seen = [one["instances"] for one in told]
    assert all([item["class"] for item in each] == ["car"] for each in seen)
    assert {item.get("track") for each in seen[3:] for item in each} == {1}
    x1, y1, x2, y2 = (int(side) for side in seen[10][0]["box_xyxy"])
    painted, plain = decode(out)[10].astype(int), decode(still)[10].astype(int)
    change = np.abs(painted - plain).max(axis=2) > 20
    assert change[y1:y2, x1:x2].mean() > 0.5
    change[max(0, y1 - 24) : y2 + 4, max(0, x1 - 4) : x2 + 80] = False
    assert change.mean() < 0.01


def test_road_users_are_those_that_were_asked_for(still: Path, tmp_path: Path) -> None:
    names = ("person", "bicycle", "horse")
    network = networks.yolo_seg(tmp_path / "farm.onnx", DETECTIONS, PROTOTYPES, names=names)
    results = tmp_path / "lanes.jsonl"
    assert run(still, "--task", "lanes", "--users", network, "--classes", "horse", "--results", results) == 0
    assert {user["class"] for one in lines(results) for user in one.get("road_users", [])} == {"horse"}


@pytest.mark.parametrize("task", ["instances", "lanes"])
def test_a_reload_widens_the_classes_and_changes_how_they_are_painted(task: str, still: Path, coco: Path) -> None:
    arguments = {"source.url": str(still), "output.sinks": ["null:"], "task": task}
    arguments["model.name" if task == "instances" else "lanes.users"] = str(coco)

    def load(*given: str) -> Mapping[str, Settings]:
        return load_runs(None, given, arguments)

    said: list[str] = []
    fleet = Fleet(load("instances.classes=person"), said.append)
    try:
        said.clear()
        (one,) = fleet.runs.values()
        frame = open_source(str(still)).read()
        assert frame is not None

        def look() -> tuple[set[str], np.ndarray]:
            found = one.networks[-1].pool.submit(frame).result()
            assert isinstance(found, Instances)
            beside = None if task == "instances" else found
            seen = Seen(frame, None if beside else found, 0.0, 0.0, beside)
            return {found.class_names[number] for number in found.class_ids}, one.task(seen).frame.planes

        names, before = look()
        assert names == {"person"}
        fleet.change(load("instances.classes=person,car", "instances.show=boxes"))
        names, after = look()
        assert names == {"person", "car"}
        changed = np.flatnonzero((before != after)[: frame.height].any(axis=0))
        assert changed.min() < frame.width / 3 < frame.width * 2 / 3 < changed.max(), "left the person, right the car"
        fleet.change(load())
        assert look()[0] == {"person", "car"}
        with pytest.raises(ConfigError, match="has no class 'cra'"):
            fleet.change(load("instances.classes=cra", "instances.show=masks"))
        assert said == []
    finally:
        fleet.discard()


@pytest.mark.parametrize("first", ["person", "car"])
@pytest.mark.parametrize("task", ["instances", "lanes"])
def test_a_reload_keeps_the_numbers(task: str, first: str, still: Path, coco: Path) -> None:
    arguments = {"source.url": str(still), "output.sinks": ["null:"], "task": task, "temporal.mode": "every"}
    arguments["model.name" if task == "instances" else "lanes.users"] = str(coco)

    def load(*given: str) -> Mapping[str, Settings]:
        return load_runs(None, given, arguments)

    fleet = Fleet(load(f"instances.classes={first}"), lambda line: None)
    try:
        (one,) = fleet.runs.values()
        frame = open_source(str(still)).read()
        assert frame is not None

        def numbers() -> dict[str, int]:
            found = one.networks[-1].pool.submit(frame).result()
            beside = None if task == "instances" else found
            for _ in range(10):
                output = one.task(Seen(frame, None if beside else found, 0.1, 0.1, beside))
            told = one.task.record(output)["instances" if task == "instances" else "road_users"]
            return {each["class"]: each["track"] for each in told}

        assert numbers() == {first: 1}
        fleet.change(load("instances.classes=person,car", "instances.show=boxes"))
        second = "car" if first == "person" else "person"
        assert numbers() == {first: 1, second: 2}
    finally:
        fleet.discard()


def test_settings_of_instances_reach_the_road_users(still: Path, coco: Path, tmp_path: Path) -> None:
    def users(*args: object) -> set[str]:
        assert run(still, "--task", "lanes", "--users", coco, "--results", tmp_path / "r.jsonl", *args) == 0
        return {user["class"] for one in lines(tmp_path / "r.jsonl") for user in one.get("road_users", [])}

    assert users() == {"person", "car"}
    scores = sorted({user["score"] for one in lines(tmp_path / "r.jsonl") for user in one.get("road_users", [])})
    assert len(users("--set", f"instances.sure={sum(scores) / 2}")) == 1, "a score between the two of them"

    def changed(show: str) -> int:
        assert run(still, "--task", "lanes", "--users", coco, "--set", "lanes.show=users", "--set",
                   f"instances.show={show}", "-o", tmp_path / "o.mkv", "--quality", "lossless") == 0  # fmt: skip
        difference = decode(tmp_path / "o.mkv")[30].astype(int) - decode(still)[30].astype(int)
        return int(np.count_nonzero(np.abs(difference).max(axis=2) > 20))

    assert 0 < changed("boxes") < changed("masks,boxes")


def test_a_turned_drive_has_telemetry_and_clips(drive: Path, tmp_path: Path) -> None:
    table = tmp_path / "gps.csv"
    table.write_text("\n".join(f"2026-01-02T08:00:{second:02d}Z,51.5,7,20" for second in range(12)))
    table.write_text("time,lat,lon,speed_m_s\n" + table.read_text())
    events, clips = tmp_path / "events.json", tmp_path / "clips"
    args = ["--task", "lanes", "--mirror", "--telemetry", table, "--results", tmp_path / "events"]
    assert run(drive, *args, "--events", events, "--clips", clips) == 0
    (event,) = json.loads(events.read_text())
    assert (event["side"], event["speed_m_s"]) == ("left", pytest.approx(20))
    assert len(list(clips.iterdir())) == 1
    assert len(lines(tmp_path / "events")) == 7 * RATE, "a file may be called as the log of events is"


def test_speed_and_place_stand_in_the_events(drive: Path, tmp_path: Path) -> None:
    rows = [f"2026-01-02T08:00:{second:02d}Z,51.5,{7 + second / 1000},20" for second in range(12)]
    table = tmp_path / "gps.csv"
    table.write_text("\n".join(["time,lat,lon,speed_m_s", *rows, "broken"]))
    events = tmp_path / "events.json"
    args = ["--task", "lanes", "--telemetry", table, "--telemetry-offset", "0", "--events", events, "-o", "null:"]
    assert run(drive, *args) == 0
    (event,) = json.loads(events.read_text())
    assert event["speed_m_s"] == pytest.approx(20)
    assert event["longitude"] == pytest.approx(7 + event["begin_s"] / 1000, abs=2e-4)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--task", "instances", "--model", "{matte}"], "tells objects or classes apart"),
        (["--task", "instances", "--model", "{coco}", "--classes", "cra"], "near matches: car"),
        (["--task", "instances", "--model", "{coco}", "--set", "instances.stuff={coco}"], "needs a semantic network"),
        (["--task", "instances", "--set", "instances.show=mask"], "instances.show"),
        (["--task", "instances", "--model", "{coco}", "--set", "instances.tracker=sort"], "instances.tracker"),
        (["--task", "lanes", "--set", "lanes.finder=network"], "name one with --model"),
        (["--task", "lanes", "--model", "{coco}"], "name them in lanes.lines"),
        (["--task", "lanes", "--model", "{coco}", "--set", "lanes.lines=kerb"], "'kerb', which is no class"),
        (["--task", "lanes", "--model", "{boxes}"], "outputs: output0 float32 [1,84,8400]"),
        (["--task", "lanes", "--users", "{matte}"], "needs a YOLO segmentation network"),
        (["--task", "lanes", "--telemetry", "{coco}"], "has no column for the time"),
        (["--task", "lanes", "--telemetry", "gone.gpx"], "cannot read telemetry gone.gpx"),
        (["--task", "lanes", "--events", "e.txt"], ".csv or .json"),
        (["--task", "lanes", "--set", "lanes.vanishing=2,3"], "shares of the picture"),
        (["--task", "lanes", "--events", "{drive}"], "is the source itself"),
        (["--task", "instances", "--model", "{coco}", "--set", "model.mean=1,2"], "three numbers"),
        (["--task", "instances", "--model", "{coco}", "--background", "green"], "--background is for task background"),
        (["--task", "instances", "--model", "{coco}", "--matte", "m.mkv"], "--matte is for task background"),
        (["--events", "e.csv"], "add --task lanes"),
        (["--users", "{coco}"], "--users is for task lanes"),
        (["--task", "lanes", "--users", "{coco}", "--events", "{coco}"], "is an input of this run"),
    ],
)
def test_what_cannot_be_is_one_line(
    args: list[str], said: str, drive: Path, coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    matte = networks.matte(tmp_path / "matte.onnx", size=64)
    boxes = write_onnx(tmp_path / "boxes.onnx", RGB, [("output0", [1, 84, 8400])])
    given = [word.format(matte=matte, coco=coco, drive=drive, boxes=boxes) for word in args]
    assert run(drive, "-o", tmp_path / "out.mp4", *given) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out.mp4").exists()
