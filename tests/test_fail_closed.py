"""Whatever happens to the camera or the network, no picture that leaves the program shows the room."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamseg.app import live, network
from streamseg.cli import main
from streamseg.engine import FailClosed, pipeline
from streamseg.errors import InferenceError, SourceAbsentError, SourceLostError
from streamseg.frame import Colour, Frame, Origin, Packet, Plane, VideoInfo
from streamseg.pixels.planes import rgb_to_planes
from tests import networks
from tests.rooms import pictures, room, shows_room

SIZE_WH = (320, 192)
RATE = 30
# Silence for so long brings the slate.
LONG_S = 0.8


class Program:
    """How far the program is: however busy the machine, the camera does not go on before it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._counts = {"frames": 0, "slates": 0}
        self._changed = threading.Condition()
        self._count(monkeypatch, FailClosed, "frames")
        self._count(monkeypatch, live.Slate, "slates")

    def _count(self, monkeypatch: pytest.MonkeyPatch, kind: Any, name: str) -> None:
        call = kind.__call__

        def counted(self_: Any, given: Any) -> Any:
            try:
                return call(self_, given)
            finally:
                with self._changed:
                    self._counts[name] += 1
                    self._changed.notify_all()

        monkeypatch.setattr(kind, "__call__", counted)

    def shown(self, name: str) -> int:
        return self._counts[name]

    def until(self, name: str, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._counts[name] >= count, 60), f"no {count} {name}"


class Camera:
    """A live source that does what a list of steps says, in real time or as slowly as the program."""

    notices: Sequence[str] = ()

    def __init__(
        self, steps: Sequence[object], program: Program, *, size_wh: tuple[int, int], colour: Colour, last: bool
    ) -> None:
        width, height = size_wh
        count = 1 if last else None
        self.info = VideoInfo(
            width, height, Fraction(RATE), True, Fraction(1, 1000), colour, "cam", size_wh, frame_count=count
        )
        self.counts: Mapping[str, int] = {}
        self._steps = list(steps)
        self._program = program
        self._index = 0
        self._given = program.shown("frames")
        self._due = time.monotonic()
        self._stopped = threading.Event()

    def read(self) -> Frame | None:
        self._program.until("frames", self._given)
        if not self._steps:
            return None
        step = self._steps[0]
        if isinstance(step, Exception):
            raise step
        if isinstance(step, float):  # silence
            self._steps.pop(0)
            slates = self._program.shown("slates")
            self._stopped.wait(step)
            if step > LONG_S:
                self._program.until("slates", slates + 3)
            self._due = time.monotonic()
            return self.read()
        assert isinstance(step, int)
        self._steps[0] = step - 1
        if step == 1:
            self._steps.pop(0)
        self._due += 1 / RATE
        self._stopped.wait(max(0.0, self._due - time.monotonic()))
        width, height = self.info.width, self.info.height
        planes: Plane = rgb_to_planes(room(self._index, width, height), self.info.colour)
        self._index += 1
        self._given += 1
        return Frame(
            planes,
            round(self._index * 1000 / RATE),
            Fraction(1, 1000),
            self._index - 1,
            time.monotonic(),
            self.info.colour,
            Origin("cam", (width, height)),
        )

    def take_packets(self) -> list[Packet]:
        return []

    def interrupt(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self._stopped.set()


class Opener:
    """Gives one camera or failure after the other; what the test says of it comes last."""

    def __init__(self, plan: Sequence[Any], program: Program) -> None:
        self._plan = list(plan)
        self._program = program
        self._slates: int | None = None  # that must have been shown before it comes back

    def __call__(self) -> Camera:
        step = self._plan.pop(0)
        if isinstance(step, Exception):
            self._slates = self._program.shown("slates") + 3
            raise step
        if self._slates is not None:
            self._program.until("slates", self._slates)
            self._slates = None
        return Camera(
            step["steps"],
            self._program,
            size_wh=step.get("size_wh", SIZE_WH),
            colour=step.get("colour", Colour(matrix=6)),
            last=not self._plan,
        )

    def ready(self) -> bool | None:
        return None

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


LOST, ABSENT = SourceLostError("cam went away"), SourceAbsentError("cam refused")
END = {"steps": [15]}
FAULTS: dict[str, list[Any]] = {
    "nothing at the start": [ABSENT, END],
    "lost and back": [{"steps": [15, LOST]}, END],
    "lost and away for a while": [{"steps": [15, LOST]}, ABSENT, ABSENT, END],
    "a clean end": [{"steps": [15]}, END],
    "silence": [{"steps": [15, 0.9, 15]}],
    "another size": [{"steps": [15, LOST]}, {"steps": [15, LOST], "size_wh": (480, 480)}, END],
    "another colour": [{"steps": [15, LOST]}, {"steps": [15], "colour": Colour(True, 1)}],
    "the network fails": [{"steps": [45]}],
    "a picture now and then": [{"steps": [5, 0.3, 1, 0.6, 1, 0.4, 10]}],
}


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[np.ndarray]]:
    """Runs a plan; returns every picture of every output."""
    red = networks.matte(tmp_path / "red.onnx", size=64, alone=True)
    (tmp_path / "beach.png").write_bytes(cv2.imencode(".png", np.full((60, 80, 3), (60, 200, 220), np.uint8))[1])

    def run(plan: list[Any], *args: str, broken: range = range(0)) -> list[np.ndarray]:
        program = Program(monkeypatch)
        # No picture is left out because an output is slow: all of them are searched.
        monkeypatch.setattr(pipeline, "_LIVE_CAPACITY", 1000)
        monkeypatch.setattr(live, "live_opener", lambda url, options: Opener(plan, program))
        monkeypatch.setattr(live, "Backoff", lambda longest_s: live_backoff())
        load = network.load_segmenter

        def fragile(*given: Any, **options: Any) -> Any:
            segmenter = load(*given, **options)
            calls = iter(range(10**6))

            class Fragile:
                class_names, describe, retune = segmenter.class_names, segmenter.describe, segmenter.retune

                def __call__(self, frame: Frame) -> Any:
                    if next(calls) in broken:
                        raise InferenceError("the network failed: out of memory")
                    return segmenter(frame)

            return Fragile()

        monkeypatch.setattr(network, "load_segmenter", fragile)
        shots = tmp_path / "shots"
        shots.mkdir()
        command = ["run", "rtsp://cam/1", "-o", f"{tmp_path}/rec.mkv", "-o", f"{shots}/", "--model", str(red)]
        command += ["--report", f"{tmp_path}/report.json", "--size", "320x192", "--quiet", *args]
        assert main(command) == 0
        seen = [cv2.imread(str(path))[..., ::-1] for path in sorted(shots.iterdir())]
        (recorded,) = tmp_path.glob("rec-2*.mkv")
        return seen + list(pictures(recorded))

    return run


def live_backoff() -> Any:
    from streamseg.engine import Backoff

    return Backoff(0.7, 0.7, jitter=0)


@pytest.mark.parametrize("fault", FAULTS)
def test_no_picture_shows_the_room(fault: str, rig: Callable[..., list[np.ndarray]], tmp_path: Path) -> None:
    broken = range(10, 25) if fault == "the network fails" else range(0)
    seen = rig(FAULTS[fault], "--background", "color:#00ff00", broken=broken)
    assert len(seen) > 20
    assert not [number for number, rgb in enumerate(seen) if shows_room(rgb)]
    composites = [rgb for rgb in seen if ((rgb[..., 1] > 180) & (rgb[..., 0] < 90)).mean() > 0.3]
    assert len(composites) > 5, "the picture was there too"
    told = json.loads((tmp_path / "report.json").read_text())["frames"]
    if fault in ("lost and away for a while", "silence", "the network fails"):
        assert told["slates shown"] > 1


@pytest.mark.parametrize(
    ("background", "slate"),
    [("image", "background"), ("image", "image"), ("blur:1", "card"), ("blur:1", "background")],
)
def test_slates(background: str, slate: str, rig: Callable[..., list[np.ndarray]], tmp_path: Path) -> None:
    beach = f"image:{tmp_path}/beach.png"
    args = ["--background", beach if background == "image" else background]
    args += ["--slate", beach if slate == "image" else slate]
    seen = rig([ABSENT, {"steps": [10, LOST]}, ABSENT, END], *args)
    flat = [rgb for rgb in seen if np.ptp(rgb[:40].reshape(-1, 3), axis=0).max() < 12]
    assert len(flat) > 5
    expected = (220, 200, 60) if beach in (args[1], args[3]) and slate != "card" else (38, 42, 48)
    # A room that is blurred so much is flat too, and blue.
    slates = [rgb for rgb in flat if np.ptp(rgb[5, 5].astype(int)) < 100 or rgb[5, 5, 2] < 200]
    assert len(slates) > 3
    for rgb in slates:
        assert np.abs(rgb[5, 5].astype(int) - expected).max() < 12, rgb[5, 5]


def test_the_search_finds_the_room_where_it_is_shown(rig: Callable[..., list[np.ndarray]]) -> None:
    """Without a background the room is meant to be seen: a search that finds nothing here would prove nothing."""
    seen = rig([END], "--background", "none")
    assert sum(shows_room(rgb) for rgb in seen) > 10


def test_the_search_is_not_misled() -> None:
    assert shows_room(room(3, *SIZE_WH))
    half = room(3, *SIZE_WH)
    half[:, 40:] = (0, 255, 0)
    assert shows_room(half), "a strip of it is enough"
    assert not shows_room(np.full((192, 320, 3), (0, 255, 0), np.uint8))
