"""What both trackers promise; ByteTrack of the package trackers with a stand-in, and itself where it is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streamseg.cli import main
from streamseg.config import InstanceSettings
from streamseg.errors import ConfigError
from streamseg.temporal.library_tracks import LibraryTracker
from streamseg.temporal.tracks import BuiltinTracker
from tests import networks
from tests.clips import make_clip
from tests.test_tracks import at, number
from tests.test_yolo import DETECTIONS, PROTOTYPES

INSTALLED = importlib.util.find_spec("trackers") is not None and importlib.util.find_spec("supervision") is not None
tracking = [
    pytest.mark.tracking,
    pytest.mark.skipif(not INSTALLED, reason="the package trackers is not installed"),
]


class StandIn:
    """Gives every box a number of its own at its second sight, the last box first, and writes down what it was told."""

    made: list[Any] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, **options: Any) -> None:
        self.options, self.told, self.seen = options, [], 0
        StandIn.made.append(self)

    def update(self, detections: Any, timestamp: float) -> Any:
        order = np.arange(len(detections.xyxy))[::-1]
        self.told.append((timestamp, self.maximum_time_without_update))
        ids = order if self.seen else np.full(len(order), -1)
        self.seen += 1
        return SimpleNamespace(tracker_id=ids, data={"index": detections.data["index"][order]})

    def reset(self) -> None:
        self.seen = 0


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4", frames=12, size_wh=(480, 270))


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Sees a person and a car, always at the same places."""
    return networks.yolo_seg(tmp_path / "coco.onnx", DETECTIONS, PROTOTYPES)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    trackers, supervision = ModuleType("trackers"), ModuleType("supervision")
    monkeypatch.setattr(trackers, "ByteTrackTracker", StandIn, raising=False)
    monkeypatch.setattr(supervision, "Detections", SimpleNamespace, raising=False)
    monkeypatch.setitem(sys.modules, "trackers", trackers)
    monkeypatch.setitem(sys.modules, "supervision", supervision)
    StandIn.made.clear()
    return StandIn


def test_numbers_follow_the_instances_begin_at_one_and_are_never_given_twice(stand_in: type[StandIn]) -> None:
    tracker = LibraryTracker()
    two = [at(0), at(100)]
    assert number(tracker, two, 0.0) == [0, 0]
    assert number(tracker, two, 0.1) == [1, 2]
    assert number(tracker, [], 0.1) == []
    assert number(tracker, two, 0.0) == [0, 0], "another picture"
    assert number(tracker, two, 0.1) == [3, 4]
    assert number(tracker, [at(0)], 0.0) == [0]
    assert number(tracker, [at(0)], 0.1) == [5]


def test_the_library_is_told_time_and_settings(stand_in: type[StandIn]) -> None:
    tracker = LibraryTracker(sure=0.5, lasts_s=2.0)
    (library,) = stand_in.made
    assert library.options["track_activation_threshold"] == library.options["high_conf_det_threshold"] == 0.5
    library.told.clear()
    for dt_s in (0.0, 0.1, 0.4):
        number(tracker, [at(0)], dt_s)
    assert library.told == [(0.0, 2.0), (0.1, pytest.approx(2.1)), (0.5, pytest.approx(2.4))]


def test_a_library_that_knows_no_time_is_one_line(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "update", lambda self, detections: detections)
    with pytest.raises(ConfigError, match=r"unexpected keyword argument 'timestamp'.*pip install"):
        LibraryTracker()


def test_where_it_is_missing_one_line_says_how_to_get_it(
    clip: Path,
    coco: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    args = ["--model", str(coco), "--set", "instances.tracker=bytetrack", "--quiet"]
    assert main(["run", str(clip), "-o", str(tmp_path / "o.mp4"), "--task", "instances", *args]) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert 'pip install "streamseg[tracking]"' in said
    assert 'pip install --no-deps "trackers' in said
    assert not (tmp_path / "o.mp4").exists()


def test_doctor_tells_of_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    main(["doctor"])
    said = capsys.readouterr().out
    assert "--    tracking by a library" in said
    assert 'pip install --no-deps "trackers' in said


def test_the_default_needs_nothing() -> None:
    assert InstanceSettings().tracker == "builtin"


@pytest.fixture(params=["builtin", pytest.param("bytetrack", marks=tracking)])
def kind(request: pytest.FixtureRequest) -> type[BuiltinTracker] | type[LibraryTracker]:
    return LibraryTracker if request.param == "bytetrack" else BuiltinTracker


@pytest.mark.parametrize("rate", [5, 30])
def test_two_that_pass_each_other_keep_their_numbers(kind: Any, rate: int) -> None:
    tracker = kind()
    for index in range(5 * rate):
        t = index / rate
        numbers = number(tracker, [at(60 * t), at(300 - 60 * t, 80)], 1 / rate if index else 0.0)
        assert numbers == [1, 2] or index == 0


def test_what_moves_is_found_again_after_dropped_frames(kind: Any) -> None:
    """200 px a second, 40 px wide: after 0.3 s without a picture it overlaps only with where it should be."""
    tracker, t = kind(), 0.0
    number(tracker, [at(0)], 0.0)
    for dt_s in (0.04, 0.04, 0.04, 0.08, 0.04, 0.3, 0.04, 0.3):
        t += dt_s
        assert number(tracker, [at(200 * t)], dt_s) == [1]


def test_a_number_outlives_a_gap_and_a_longer_one_ends_it(kind: Any) -> None:
    tracker = kind(lasts_s=1.0)
    for index in range(10):
        number(tracker, [at(100)], 0.1 if index else 0.0)
    for _ in range(9):
        assert number(tracker, [], 0.1) == []
    assert number(tracker, [at(100)], 0.1) == [1]
    for _ in range(12):
        number(tracker, [], 0.1)
    assert number(tracker, [at(100)], 0.1) == [0]
    assert number(tracker, [at(100)], 0.1) == [2]


def test_pictures_further_apart_than_a_number_lasts_keep_it(kind: Any) -> None:
    tracker = kind(lasts_s=0.5)
    number(tracker, [at(100)], 0.0)
    assert [number(tracker, [at(100)], 2.0) for _ in range(4)] == [[1]] * 4


def test_an_unsure_sight_keeps_a_track_but_begins_none(kind: Any) -> None:
    tracker = kind()
    number(tracker, [at(100)], 0.0)
    number(tracker, [at(100)], 0.1)
    assert number(tracker, [at(300), at(101)], 0.1, [0.26, 0.27]) == [0, 1]
    assert number(tracker, [at(300), at(102)], 0.1, [0.26, 0.27]) == [0, 1]


def test_a_change_of_class_and_another_picture(kind: Any) -> None:
    tracker = kind()
    number(tracker, [at(100)], 0.0, ids=2)
    assert number(tracker, [at(101)], 0.1, ids=7) == [1]
    number(tracker, [at(101)], 0.0, ids=7)
    assert number(tracker, [at(101)], 0.1, ids=7) == [2]


@pytest.mark.parametrize(
    ("task", "network", "told"), [("instances", "--model", "instances"), ("lanes", "--users", "road_users")]
)
@pytest.mark.parametrize("kind", [pytest.param("bytetrack", marks=tracking)])
def test_a_clip_is_numbered_by_the_library(
    kind: str,
    task: str,
    network: str,
    told: str,
    clip: Path,
    coco: Path,
    tmp_path: Path,
) -> None:
    results = tmp_path / "i.jsonl"
    args = [network, str(coco), "--set", f"instances.tracker={kind}", "--results", str(results), "--quiet"]
    assert main(["run", str(clip), "-o", "null:", "--task", task, *args]) == 0
    seen = [json.loads(line).get(told, []) for line in results.read_text().splitlines()]
    assert not any(item.get("track", 0) for item in seen[0])
    assert all({(item["class"], item["track"]) for item in each} == {("person", 1), ("car", 2)} for each in seen[1:])
