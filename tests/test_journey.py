"""Tables, page and clips of a drive, from what an overlay noted."""

from __future__ import annotations

import base64
import csv
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamseg.app.clips import Clips, legs_of
from streamseg.app.journey import EventLog
from streamseg.effects.lanes import Drive
from streamseg.errors import ConfigError, SinkOpenError
from streamseg.frame import Output, Source
from streamseg.lanes.events import Event
from streamseg.lanes.page import Journey, Shot, drive_page
from streamseg.lanes.result import Lanes
from streamseg.lanes.telemetry import Fix
from streamseg.sources import open_source
from tests import clips
from tests.test_clips import CODING, event
from tests.test_drive import film


class Page(HTMLParser):
    """What a page holds, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def fix_at(time_s: float) -> Fix | None:
    return Fix(time_s, 48.0, 11.0, 10.0 + time_s, filled=time_s > 3) if time_s < 5 else None


def logged(
    source: Source,
    url: Path,
    news: dict[int, Sequence[Event]],
    last: Sequence[Event],
    end: str = "finish",
    **more: object,
) -> EventLog:
    """Run a log over all frames of a source; `news` by the number of the frame."""
    log = EventLog(source, url, finish=lambda at_s: last, **more)  # type: ignore[arg-type]
    while (frame := source.read()) is not None:
        source.take_packets()
        found = tuple(news.get(frame.index, ()))
        log.write(Output(frame, Drive(Lanes((frame.width, frame.height)), None, (), found)))
    if end == "finish":
        log.finish()
    log.close()
    source.close()
    return log


@pytest.fixture
def card(tmp_path: Path) -> Path:
    for second in (0, 3, 10):
        film(
            tmp_path / "card",
            f"20240501_12000{second}.mp4".replace("0010", "010"),
            begin=30 * second,
            frames=90,
            **CODING,
        )
    return tmp_path / "card"


DEPARTURE = Event("departure", "left", 1.0, 1.1)
CHANGE = replace(DEPARTURE, kind="lane change", found_s=1.5, worst=0.5)
STOOD = Event("person in lane", None, 4.5, 4.6, track=7)


def test_a_drive_as_tables_page_and_clips(tmp_path: Path, card: Path) -> None:
    source = open_source(str(card))
    news = {33: [DEPARTURE], 45: [CHANGE], 60: [replace(CHANGE, end_s=2.0)], 139: [STOOD]}
    cutter = Clips(tmp_path / "out" / "clips", legs=legs_of(source, card), before_s=1, after_s=1)
    tables = [str(tmp_path / "out" / name) for name in ("e.csv", "e.json")]
    page = tmp_path / "out" / "drive.html"
    log = logged(
        source, card, news, [replace(STOOD, end_s=13.0)], tables=tables, page=str(page), clips=cutter, where=fix_at
    )
    assert log.notices == ()
    first, second = json.loads(Path(tables[1]).read_text())
    assert (first["kind"], first["begin_s"], first["end_s"], first["worst"]) == ("lane change", 1.0, 2.0, 0.5)
    assert (second["kind"], second["track"], second["end_s"]) == ("person in lane", 7, 13.0)
    assert (second["speed_m_s"], second["filled"]) == (14.5, True)
    rows = list(csv.DictReader(Path(tables[0]).read_text("utf-8").splitlines()))
    assert [row["kind"] for row in rows] == ["lane change", "person in lane"]
    found = Page(page.read_text("utf-8"))
    links = [attributes["href"] for attributes in found.all("a") if attributes["href"] and attributes["href"][0] != "#"]
    assert links == ["clips/00h00m01.0s_lane-change-left.mp4", "clips/00h00m04.5s_person-in-lane.mp4"]
    assert all((page.parent / str(link)).is_file() for link in links)
    assert clips.indices(page.parent / str(links[1]))[-1] == 389
    assert "2024-05-01 12:00:00" in found.text
    assert "nothing was recorded for 4 s from 6 s of the drive on" in found.text
    assert "52 km/h (filled)" in found.text
    assert all(name in found.text for name in ("20240501_120000.mp4", "20240501_120003.mp4", "20240501_120010.mp4"))
    assert len([each for each in found.all("rect") if each.get("class") == "file"]) == 3
    # The picture is that of the moment in which it was found, in its colours.
    (image, _) = found.all("img")
    data = base64.b64decode(str(image["src"]).partition(",")[2])
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[:2] == (90, 160)
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(int)
    wanted = (clips.luma(45, 160, 90).astype(int) - 16) * 255 / 219
    assert np.abs(grey - np.clip(wanted, 0, 255))[30:].mean() < 12


def test_nothing_is_fetched_and_names_are_escaped(tmp_path: Path) -> None:
    bad = '<script src="http://a/b.js"></script>'
    shots = [Shot(event(1, 2), b"\xff\xd8", ['a"b c.mp4']), Shot(Event("cut-in", "right", 3, 3.1, track=1))]
    journey = Journey(bad, 10.0, shots, files=[(bad, 0, 10)], remarks=[bad], speeds=[(0, 5, False), (9, 5, True)])
    found = Page(drive_page(journey))
    assert found.all("script") == []
    assert found.text.count(bad) >= 3
    fetched = [
        value for _, each in found.tags for name, value in each.items() if name in ("src", "href", "srcset", "data")
    ]
    assert all(str(value).startswith(("data:image/jpeg", "#", "a%22b%20c.mp4")) for value in fetched)
    assert "default-src 'none'" in str(found.all("meta"))


def test_a_drive_on_which_nothing_happened() -> None:
    found = Page(drive_page(Journey("quiet", 3700.0)))
    assert "1:01:40.0 long; nothing happened" in found.text
    assert found.all("table") == []
    assert found.all("polyline") == []


def test_a_run_that_fails_keeps_the_clips_and_nothing_else(tmp_path: Path, card: Path) -> None:
    url = card / "20240501_120000.mp4"
    source = open_source(str(url))
    cutter = Clips(tmp_path / "clips", legs=legs_of(source, url), before_s=0.2, after_s=0.2)
    table = tmp_path / "e.csv"
    logged(source, url, {31: [DEPARTURE], 45: [replace(DEPARTURE, end_s=1.5)]}, [], "fail", tables=[str(table)],
           clips=cutter)  # fmt: skip
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["00h00m01.0s_departure-left.mp4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card", "clips"]


def on_and_on(log: EventLog, source: Source, count: int) -> None:
    frame = source.read()
    assert frame is not None
    for number in range(count):
        begun = Event("person in lane", None, float(number), number + 0.2, track=number)
        for told in (begun, replace(begun, end_s=number + 0.5)):
            log.write(Output(frame, Drive(Lanes((frame.width, frame.height)), None, (), (told,))))


@pytest.fixture
def camera() -> Iterator[Source]:
    source = open_source("test:?size=64x36&fps=30")
    yield source
    source.close()


def test_a_live_log_is_on_the_disk_and_does_not_grow(tmp_path: Path, camera: Source) -> None:
    tables, page = [str(tmp_path / name) for name in ("e.csv", "e.json")], tmp_path / "p.html"
    lasting = Event("lanes lost", None, 2000.0, 2000.1)
    log = EventLog(camera, tmp_path, finish=lambda at_s: [replace(lasting, end_s=at_s)], tables=tables, page=str(page))
    on_and_on(log, camera, 500)
    assert len((tmp_path / "e.partial.csv").read_text().splitlines()) == 501, "each is there when it has ended"
    on_and_on(log, camera, 700)
    assert len(log.events) == 1000
    held = sum(len(value) for value in vars(log).values() if isinstance(value, list | dict))
    assert held < 2100
    log.finish()
    log.close()
    rows = list(csv.DictReader((tmp_path / "e.csv").read_text().splitlines()))
    listed = json.loads((tmp_path / "e.json").read_text())
    assert [row["track"] for row in rows] == ["" if one["track"] is None else str(one["track"]) for one in listed]
    assert [one["track"] for one in listed] == [*range(500), *range(700), None]
    assert "201 earlier events are not shown" in Page(page.read_text()).text


def test_what_a_live_log_wrote_stays_when_the_run_fails(tmp_path: Path, camera: Source) -> None:
    log = EventLog(camera, tmp_path, finish=lambda at_s: [], tables=[str(tmp_path / "e.csv"), str(tmp_path / "e.json")])
    log.close()
    assert list(tmp_path.iterdir()) == []
    log = EventLog(camera, tmp_path, finish=lambda at_s: [], tables=[str(tmp_path / "e.csv")])
    on_and_on(log, camera, 3)
    log.close()
    assert len((tmp_path / "e.partial.csv").read_text().splitlines()) == 4


def test_a_live_log_leaves_that_of_the_run_before(tmp_path: Path, camera: Source) -> None:
    named = {"tables": [str(tmp_path / "e.csv"), str(tmp_path / "e.json")], "page": str(tmp_path / "p.html")}
    for count in (2, 3):
        log = EventLog(camera, tmp_path, finish=lambda at_s: [], **named)  # type: ignore[arg-type]
        assert len(log.notices) == (0 if count == 2 else 3)
        on_and_on(log, camera, count)
        log.finish()
        log.close()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"e.csv", "e-2.csv", "e.json", "e-2.json", "p.html", "p-2.html"}
    assert [len(json.loads((tmp_path / name).read_text())) for name in ("e.json", "e-2.json")] == [2, 3]
    assert "earlier run" not in (tmp_path / "p-2.html").read_text()


def test_a_disk_that_takes_nothing_for_a_while_costs_a_live_log_nothing(
    tmp_path: Path, camera: Source, caplog: pytest.LogCaptureFixture
) -> None:
    tables = [tmp_path / "e.csv", tmp_path / "e.json"]
    log = EventLog(camera, tmp_path, finish=lambda at_s: [], tables=[str(path) for path in tables])
    on_and_on(log, camera, 3)
    partials = [tmp_path / "e.partial.csv", tmp_path / "e.partial.json"]
    for path in partials:
        with path.open("a") as file:
            file.write("half a li")
        path.rename(path.with_name(path.name + ".away"))
        path.mkdir()
    caplog.set_level(logging.INFO, "streamseg")
    on_and_on(log, camera, 4)
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot write {path}: is a directory; tried again with the next event" for path in partials
    ]
    for path in partials:
        path.rmdir()
        path.with_name(path.name + ".away").rename(path)
    caplog.clear()
    on_and_on(log, camera, 2)
    assert [record.getMessage() for record in caplog.records] == [f"{path}: written again" for path in partials]
    log.finish()
    log.close()
    expected = [*range(3), *range(4), *range(2)]
    assert [int(row["track"]) for row in csv.DictReader(tables[0].read_text().splitlines())] == expected
    assert [one["track"] for one in json.loads(tables[1].read_text())] == expected
    assert log.counts == {}


def test_a_disk_that_takes_nothing_for_long_costs_a_live_log_the_oldest_events(tmp_path: Path, camera: Source) -> None:
    log = EventLog(camera, tmp_path, finish=lambda at_s: [], tables=[str(tmp_path / "e.csv")])
    partial = tmp_path / "e.partial.csv"
    partial.unlink()
    partial.mkdir()
    on_and_on(log, camera, 1300)
    assert log.counts == {"events lost": 300}
    partial.rmdir()
    partial.touch()
    on_and_on(log, camera, 2)
    log.finish()
    log.close()
    tracks = [int(row["track"]) for row in csv.DictReader((tmp_path / "e.csv").read_text().splitlines())]
    assert tracks == [*range(300, 1300), 0, 1]
    assert log.counts == {"events lost": 300}


@pytest.mark.parametrize("live", [False, True])
def test_where_nothing_happened_the_tables_are_empty(live: bool, tmp_path: Path, camera: Source, card: Path) -> None:
    source = camera if live else open_source(str(card / "20240501_120000.mp4"))
    log = EventLog(source, tmp_path, finish=lambda at_s: [], tables=[str(tmp_path / "e.csv"), str(tmp_path / "e.json")])
    log.finish()
    assert json.loads((tmp_path / "e.json").read_text()) == []
    assert (tmp_path / "e.csv").read_text().count("\n") == 1
    source.close()


def test_outputs_that_cannot_be(tmp_path: Path, card: Path) -> None:
    source = open_source(str(card / "20240501_120000.mp4"))
    opened: Callable[..., EventLog] = lambda **more: EventLog(source, card, finish=lambda at_s: [], **more)  # noqa: E731
    with pytest.raises(ConfigError, match=r"\.csv or \.json, not 'events.txt'"):
        opened(tables=["events.txt"])
    with pytest.raises(SinkOpenError, match="does not exist"):
        opened(tables=[str(tmp_path / "e.csv")], page=str(tmp_path / "gone" / "p.html"))
    assert [path.name for path in tmp_path.iterdir()] == ["card"]
    source.close()
