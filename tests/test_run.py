"""The whole program on clips made here and a network whose answer is known: what is red is the subject."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from streamseg.app import Fleet
from streamseg.cli import main
from streamseg.cli.log import Voice
from streamseg.cli.run import execute
from streamseg.config import Settings, load_runs
from streamseg.errors import ConfigError, PipelineStuckError
from streamseg.segment.pool import Pool
from streamseg.sinks.partial import Partial
from tests import networks
from tests.clips import make_clip
from tests.test_classmap import network as classmap

WIDTH, HEIGHT = 320, 180


def scene(index: int) -> av.VideoFrame:
    """A red disc that wanders over a blue room with a bright stripe."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[:] = (20, 40, 200)
    rgb[:, 20:40] = (20, 255, 255)
    cv2.circle(rgb, (110 + 4 * index, 90), 45, (230, 20, 20), -1, cv2.LINE_AA)
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return networks.matte(tmp_path / "red.onnx", size=64)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in.mp4", frames=20, size_wh=(WIDTH, HEIGHT), draw=scene, sound="aac")


def decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def run(*args: object) -> int:
    return main(["run", *map(str, args)])


def is_near(pixel: np.ndarray, rgb: tuple[int, int, int], within: int = 30) -> bool:
    return bool(np.abs(pixel.astype(int) - rgb).max() <= within)


def test_the_subject_stays_and_the_room_goes(clip: Path, network: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    assert run(clip, "-o", out, "--background", "color:#00ff00", "--model", network, "--quiet") == 0
    frames = decode(out)
    assert len(frames) == 20
    for index, frame in enumerate(frames):
        assert frame.shape == (HEIGHT, WIDTH, 3)
        assert is_near(frame[90, 110 + 4 * index], (230, 20, 20)), "the middle of the disc"
        for place in [(10, 30), (170, 30), (20, 300), (160, 160)]:
            assert is_near(frame[place], (0, 255, 0)), f"the room shows at {place} in frame {index}"


def test_time_and_sound_are_kept(clip: Path, network: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    run(clip, "-o", out, "--model", network, "--quiet")
    with av.open(str(clip)) as before, av.open(str(out)) as after:
        times = [[f.pts * f.time_base for f in c.decode(video=0)] for c in (before, after)]
        assert times[0] == times[1]
    with av.open(str(clip)) as before, av.open(str(out)) as after:
        sound = [[bytes(p) for p in c.demux(audio=0) if p.size] for c in (before, after)]
        assert sound[0] == sound[1]


@pytest.mark.parametrize(
    ("background", "expected"),
    [("green", (0, 177, 64)), ("color:white", (255, 255, 255)), ("none", (20, 40, 200)), ("blur:1", None)],
)
def test_backgrounds(background: str, expected: tuple[int, int, int] | None, clip, network, tmp_path) -> None:
    out = tmp_path / "out.mkv"
    assert run(clip, "-o", out, "--background", background, "--model", network, "--quiet") == 0
    frame = decode(out)[5]
    if expected is not None:
        assert is_near(frame[20, 300], expected)
    else:
        stripes = decode(clip)[5][:, 20:60].astype(int)
        assert np.abs(np.diff(stripes, axis=1)).max() > 150
        assert np.abs(np.diff(frame[:, 20:60].astype(int), axis=1)).max() < 40, "the stripes are still sharp"
        assert is_near(frame[90, 130], (230, 20, 20))


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
def test_an_image_behind(fit: str, clip: Path, network: Path, tmp_path: Path) -> None:
    square = np.zeros((200, 200, 3), np.uint8)
    square[:] = (60, 180, 240)
    square[:, :30] = (0, 0, 0)
    cv2.imwrite(str(tmp_path / "room.png"), square[..., ::-1])
    out = tmp_path / "out.mkv"
    code = run(
        clip, "-o", out, "--background", f"image:{tmp_path / 'room.png'}", "--fit", fit, "--model", network, "--quiet"
    )
    assert code == 0
    frame = decode(out)[3]
    assert is_near(frame[20, 240], (60, 180, 240))
    # The black strip is 30 of 200 wide; contained, the square stands in the middle between two borders.
    edge = {"cover": 48, "contain": 70 + 27, "stretch": 48}[fit]
    assert is_near(frame[170, edge - 8], (0, 0, 0))
    assert is_near(frame[170, edge + 8], (60, 180, 240))


def test_a_video_behind_keeps_its_own_rate_and_repeats(clip: Path, network: Path, tmp_path: Path) -> None:
    def shade(index: int) -> av.VideoFrame:
        rgb = np.full((HEIGHT, WIDTH, 3), 40 + 60 * index, np.uint8)
        return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")

    room = make_clip(tmp_path / "room.mp4", frames=3, size_wh=(WIDTH, HEIGHT), rate=Fraction(10), draw=shade)
    out = tmp_path / "out.mkv"
    assert run(clip, "-o", out, "--background", f"video:{room}", "--model", network, "--quiet") == 0
    shades = [round((int(frame[20, 300].mean()) - 40) / 60) for frame in decode(out)]
    # 30 frames a second over 10: three of each, and again from the first.
    assert shades == [n // 3 % 3 for n in range(20)]


def test_a_video_as_an_image_behind_stands_still_and_that_is_said(
    clip: Path, network: Path, tmp_path: Path, capsys
) -> None:
    for behind, said in ((clip, True), (tmp_path / "one.png", False), (tmp_path / "one.ppm", False)):
        if behind != clip:
            cv2.imwrite(str(behind), np.zeros((20, 20, 3), np.uint8))
        assert run(clip, "-o", tmp_path / "o.mkv", "--background", f"image:{behind}", "--model", network) == 0
        assert (f"video:{behind} plays it" in capsys.readouterr().err) == said


def test_transparent_png_and_video(clip: Path, network: Path, tmp_path: Path) -> None:
    assert run(clip, "-o", tmp_path / "f_%03d.png", "--background", "transparent", "--model", network, "--quiet") == 0
    pictures = sorted(tmp_path.glob("f_*.png"))
    assert len(pictures) == 20
    picture = cv2.imread(str(pictures[5]), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (HEIGHT, WIDTH, 4)
    assert picture[90, 130, 3] == 255
    assert picture[20, 300, 3] == 0
    assert run(clip, "-o", tmp_path / "a.mkv", "--background", "transparent", "--encoder", "ffv1", "--model", network,
               "--quiet") == 0  # fmt: skip
    with av.open(str(tmp_path / "a.mkv")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgba")
    assert frame[90, 110, 3] == 255
    assert frame[20, 300, 3] == 0


def test_matte_results_and_report(clip: Path, network: Path, tmp_path: Path) -> None:
    matte, results, report = tmp_path / "matte.mkv", tmp_path / "r.jsonl", tmp_path / "report.json"
    code = run(
        clip, "-o", "null:", "--matte", matte, "--results", results, "--report", report, "--model", network, "--quiet"
    )
    assert code == 0
    with av.open(str(matte)) as container:
        mattes = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert len(mattes) == 20
    assert mattes[5][90, 130] == 255
    assert mattes[5][20, 300] == 0
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(20))
    assert lines[0]["source"] == "in.mp4"
    assert lines[0]["size_wh"] == [WIDTH, HEIGHT]
    assert lines[0]["coverage"] == pytest.approx(np.pi * 45**2 / (WIDTH * HEIGHT), rel=0.15)
    document = json.loads(report.read_text())
    assert document["outcome"] == "finished"
    assert document["frames"] == {"in": 20, "out": 20, "dropped": {}}
    assert document["model"]["provider"] == "cpu"
    assert len(document["model"]["sha256"]) == 64
    for stage in ("capture", "segment", "upsample", "write null:"):
        numbers = document["stages"][stage]
        assert 0 <= numbers["p50_ms"] <= numbers["p95_ms"] <= numbers["p99_ms"]
    assert document["source"]["size_wh"] == [WIDTH, HEIGHT]
    sizes = {Path(sink["url"]).name: sink["size_wh"] for sink in document["sinks"]}
    assert sizes == {"null:": None, "matte.mkv": [WIDTH, HEIGHT], "r.jsonl": None}
    assert document["threads"] == {"cores": os.cpu_count(), "opencv": 1, "decoder": 2, "encoder": "auto"}
    assert {"onnxruntime", "av"} <= set(document["versions"])


def test_an_image_in_an_image_out(network: Path, tmp_path: Path) -> None:
    rgb = scene(3).to_ndarray(format="rgb24")[:179, :319]  # odd sides
    cv2.imwrite(str(tmp_path / "in.png"), rgb[..., ::-1])
    out, report = tmp_path / "out.png", tmp_path / "report.json"
    command = (tmp_path / "in.png", "-o", out, "--background", "green", "--model", network, "--report", report)
    assert run(*command, "--quiet") == 0
    assert json.loads(report.read_text())["sinks"][0]["size_wh"] == [319, 179]
    picture = cv2.imread(str(out))[..., ::-1]
    assert picture.shape == (179, 319, 3), "the padding must not stay"
    assert is_near(picture[90, 122], (230, 20, 20))
    assert is_near(picture[20, 300], (0, 177, 64))


def test_a_folder_of_images_of_several_sizes(network: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, size_wh in enumerate([(320, 180), (200, 300), (321, 181)]):
        rgb = cv2.resize(scene(0).to_ndarray(format="rgb24"), size_wh)
        cv2.imwrite(str(tmp_path / "in" / f"p{number}.png"), rgb[..., ::-1])
    results, report = tmp_path / "r.jsonl", tmp_path / "report.json"
    command = (tmp_path / "in", "-o", f"{tmp_path / 'out'}/", "--results", results, "--report", report)
    assert run(*command, "--model", network, "--quiet") == 0
    assert [sink["size_wh"] for sink in json.loads(report.read_text())["sinks"]] == [None, None]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p0.png", "p1.png", "p2.png"]
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["size_wh"] for line in lines] == [[320, 180], [200, 300], [321, 181]]


def yolo(path: Path, names: tuple[str, ...] = ("person", "bicycle", "car")) -> Path:
    """Finds a person on the left half and a car on the right, whatever the picture."""
    detections = np.zeros((4 + 3 + 2, 2), np.float32)
    detections[:4, 0], detections[:4, 1] = (16, 32, 32, 36), (48, 32, 32, 36)
    detections[4, 0], detections[6, 1] = 0.9, 0.8
    detections[7:, 0], detections[7:, 1] = (20, 0), (0, 20)
    prototypes = -np.ones((2, 16, 16), np.float32)
    prototypes[0, :, :8], prototypes[1, :, 8:] = 1, 1
    return networks.yolo_seg(path, detections, prototypes, names=names)


@pytest.mark.parametrize("mode", ["every", "keyframes:2"])
def test_a_close_look_gives_the_same_with_any_number_of_sessions(mode: str, network: Path, tmp_path: Path) -> None:
    def scene(index: int) -> av.VideoFrame:
        rgb = np.random.default_rng(5).integers(0, 90, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.circle(rgb, (60 + 3 * index, 70 + index), 20 + index % 7, (230, 20, 20), -1, cv2.LINE_AA)
        return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")

    clip = make_clip(tmp_path / "disc.mp4", frames=40, size_wh=(WIDTH, HEIGHT), draw=scene)
    mattes = []
    for sessions in (1, 4):
        matte = tmp_path / f"{sessions}.mkv"
        assert run(clip, "--matte", matte, "--model", network, "--mode", mode, "--set", "temporal.roi=true",
                   "--set", f"model.sessions={sessions}", "--quiet") == 0  # fmt: skip
        mattes.append(decode(matte))
    assert len(mattes[0]) == 40
    for index, (one, four) in enumerate(zip(*mattes, strict=True)):
        assert np.array_equal(one, four), index


def test_results_leave_the_close_look_out_and_say_so(
    clip: Path, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model", network, "--set", "temporal.roi=true"]
    assert run(clip, "--matte", tmp_path / "m.mkv", *args) == 0
    assert "temporal.roi" not in capsys.readouterr().err
    assert run(clip, "--results", tmp_path / "r.jsonl", *args) == 0
    assert "temporal.roi is left out: the results tell of whole pictures" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keep", "person", "car"),
    [
        (["--keep", "person"], 255, 0),
        (["--keep", "car"], 0, 255),
        (["--keep", "person,car"], 255, 255),
        (["--keep", "person", "--keep=car"], 255, 255),
    ],
    ids=["person", "car", "both", "both, in two options"],
)
def test_only_the_kept_classes_stay(keep: list[str], person: int, car: int, clip: Path, tmp_path: Path) -> None:
    matte = tmp_path / "m.mkv"
    assert run(clip, "--matte", matte, *keep, "--model", yolo(tmp_path / "y.onnx"), "--quiet") == 0
    with av.open(str(matte)) as container:
        first = next(container.decode(video=0)).to_ndarray(format="gray")
    assert (first[90, 80], first[90, 240]) == (person, car)


def semantic(path: Path) -> Path:
    """The blue room, the red disc and the bright stripe are three classes."""
    planes = np.array([[-20, 0, 20, 0], [20, -10, -10, 0], [-20, 40, 0, -10]], np.float32)
    return classmap(path, {"logits": planes}, metadata={"names": "{0: 'room', 1: 'person', 2: 'lamp'}"})


@pytest.mark.parametrize(
    ("keep", "person", "lamp"), [([], 255, 0), (["--keep", "lamp"], 0, 255), (["--keep", "person,lamp"], 255, 255)]
)
def test_of_a_semantic_network_too_only_the_kept_classes_stay(
    keep: list[str], person: int, lamp: int, clip: Path, tmp_path: Path
) -> None:
    matte = tmp_path / "m.mkv"
    assert run(clip, "--matte", matte, *keep, "--model", semantic(tmp_path / "s.onnx"), "--quiet") == 0
    with av.open(str(matte)) as container:
        first = next(container.decode(video=0)).to_ndarray(format="gray")
    assert (first[90, 110], first[90, 30], first[90, 280]) == (person, lamp, 0)


def test_a_class_that_a_semantic_network_lacks(clip: Path, tmp_path: Path, capsys) -> None:
    code = run(clip, "-o", "null:", "--keep", "persons", "--model", semantic(tmp_path / "s.onnx"), "--quiet")
    assert_one_line(code, capsys, "s.onnx has no class 'persons'; near matches: person$")


@pytest.mark.parametrize(
    ("names", "keep", "kept"),
    [
        ((), "class 2", (0, 255)),
        (("Tür, groß", "x", "7"), "7", (0, 255)),
        (("Tür, groß", "x", "7"), ["Tür, groß"], (255, 0)),
        (("person", "x", "person"), "person", (255, 255)),
    ],
    ids=["none", "digits", "a comma", "twice"],
)
def test_classes_of_unusual_names(
    names: tuple[str, ...], keep: str | list[str], kept: tuple[int, int], clip: Path, tmp_path: Path
) -> None:
    model, matte, config = yolo(tmp_path / "y.onnx", names), tmp_path / "m.mkv", tmp_path / "c.yaml"
    config.write_text(json.dumps({"keep": {"classes": keep}}, ensure_ascii=False), "utf-8")
    assert run(clip, "--matte", matte, "--config", config, "--model", model, "--quiet") == 0
    first = decode(matte)[0]
    assert (first[90, 80, 0], first[90, 240, 0]) == kept


def test_results_list_every_class_and_the_matte_only_the_kept(clip: Path, tmp_path: Path) -> None:
    results = tmp_path / "r.jsonl"
    run(clip, "-o", "null:", "--results", results, "--model", yolo(tmp_path / "y.onnx"), "--quiet")
    instances = json.loads(results.read_text().splitlines()[0])["instances"]
    assert [(i["class"], round(i["score"], 2)) for i in instances] == [("person", 0.9), ("car", 0.8)]


def test_a_class_that_the_network_lacks_lists_near_matches(clip: Path, tmp_path: Path, capsys) -> None:
    code = run(clip, "-o", tmp_path / "o.mp4", "--keep", "persn", "--model", yolo(tmp_path / "y.onnx"))
    assert_one_line(code, capsys, r"no class 'persn'; near matches: person")
    code = run(clip, "-o", tmp_path / "o.mp4", "--model", yolo(tmp_path / "n.onnx", ()))
    assert_one_line(code, capsys, "no class 'person'; some of its classes: class 0, class 1, class 2")


def test_a_cut_leaves_no_ghost(network: Path, tmp_path: Path) -> None:
    """The smoother holds unsure pixels back; at a cut to another shot the past must not show."""

    def two_shots(index: int) -> av.VideoFrame:
        rgb = np.full((HEIGHT, WIDTH, 3), 20 if index < 10 else 235, np.uint8)
        rgb[..., 0] = 128  # just unsure: logit 10 * (0.5 - 0.5)
        cv2.rectangle(
            rgb, (40, 40) if index < 10 else (200, 40), (120, 140) if index < 10 else (280, 140), (255, 0, 0), -1
        )
        return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")

    clip = make_clip(tmp_path / "cut.mp4", frames=20, size_wh=(WIDTH, HEIGHT), draw=two_shots)
    mattes = {}
    for smoother in ("uncertainty", "none"):
        out = tmp_path / f"{smoother}.mkv"
        run(clip, "--matte", out, "--model", network, "--set", f"temporal.smoother={smoother}", "--quiet",
            "--set", "temporal.half_life_s=5")  # fmt: skip
        with av.open(str(out)) as container:
            mattes[smoother] = [frame.to_ndarray(format="gray").astype(int) for frame in container.decode(video=0)]
    assert np.abs(mattes["uncertainty"][10] - mattes["none"][10]).max() == 0


def test_standard_input_and_output(clip: Path, network: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "streamseg",
        "run",
        "-",
        "-o",
        "-",
        "--format",
        "matroska",
        "--model",
        str(network),
    ]
    command += ["--background", "green", "--quiet"]
    done = subprocess.run(command, input=clip.read_bytes(), capture_output=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    (tmp_path / "piped.mkv").write_bytes(done.stdout)
    frames = decode(tmp_path / "piped.mkv")
    assert len(frames) == 20
    assert is_near(frames[0][20, 300], (0, 177, 64))


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([signal.SIGINT], id="SIGINT"),
        pytest.param([signal.SIGTERM], id="SIGTERM"),
        pytest.param([signal.SIGINT, signal.SIGTERM], id="twice at once, as timeout(1) does"),
    ],
)
def test_a_signal_finalises_the_file(numbers: list[signal.Signals], network: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "long.mp4", frames=1500, size_wh=(WIDTH, HEIGHT))
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    command = [sys.executable, "-m", "streamseg", "run", str(clip), "-o", str(out), "--model", str(network), "--report",
               str(report)]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not any(path.stat().st_size > 4_000 for path in tmp_path.glob("out.partial*")):
        assert time.monotonic() < deadline, "nothing was written"
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.02)
    for number in numbers:
        process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 128 + numbers[0]
    assert "Traceback" not in said
    frames = decode(out)
    assert 0 < len(frames) < 1500
    assert json.loads(report.read_text())["outcome"] == "interrupted"
    assert json.loads(report.read_text())["frames"]["out"] == len(frames)
    assert not list(tmp_path.glob("*.partial*"))


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler of its own for a signal."""
    found = re.search(r"^SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)


def _hear_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def interrupt(
    command: list[str], *, times: int, ready: Callable[[], bool] = lambda: True, **streams: object
) -> tuple[int, str]:
    """Start the program, interrupt it once or again and again when it runs and is `ready`, and say how it ended.

    Two signals that come before Python has looked at the first count as one, so that on a busy machine a second one
    may have to be repeated.
    """
    # Of all commands, `run` alone listens to hang-ups; whoever was started with nohup passes on that nobody does.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_hangups, **streams)
    try:
        deadline = time.monotonic() + 120
        while not (catches(process.pid, signal.SIGHUP) and ready()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        while times > 1 and time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
                break
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.parametrize("entry", ["main", "execute"])
def test_an_interrupt_of_which_a_library_makes_another_error_counts(
    entry: str, clip: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def imported(*args: object, **kwargs: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as interrupt:
            raise ImportError("a library failed to import") from interrupt

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if entry == "main":
            monkeypatch.setattr("streamseg.cli._parse", imported)
            assert main(["run", str(clip), "-o", "null:"]) == 130
            return
        monkeypatch.setattr("streamseg.cli.run.Fleet", imported)
        arguments = {"source.url": str(clip), "output.sinks": ["null:"], "model.name": str(network)}
        assert execute(load_runs(None, [], arguments), Voice(quiet=True, as_json=False)) == 130
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_a_library_swallows_while_it_is_imported_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def parse(argv: object) -> argparse.Namespace:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return argparse.Namespace(function=ran.append)

    monkeypatch.setattr("streamseg.cli._parse", parse)
    before = signal.getsignal(signal.SIGINT)
    assert main([]) == 130
    assert ran == []
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_ends_a_run_whose_input_is_silent(network: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "streamseg", "run", "-", "-o", str(tmp_path / "o.mkv"), "--model", str(network)]
    code, said = interrupt(command, times=1, stdin=reading)
    os.close(reading)
    os.close(writing)
    assert (code, "Traceback" in said) == (130, False), said


def test_two_interrupts_end_a_run_whose_output_nobody_reads(network: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "long.mp4", frames=600, size_wh=(WIDTH, HEIGHT), options={"qp": "4"})
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "streamseg", "run", str(clip), "-o", "-", "--format", "matroska"]
    command += ["--quality", "lossless", "--model", str(network)]

    def full() -> bool:
        waiting = fcntl.ioctl(reading, termios.FIONREAD, bytes(4))
        return int.from_bytes(waiting, sys.byteorder) > 30_000

    code, said = interrupt(command, times=2, ready=full, stdout=writing)
    os.close(reading)
    os.close(writing)
    assert code in (1, 130), said


@pytest.mark.parametrize("size_wh", [(2, 200), (16, 1200), (400, 2)])
@pytest.mark.parametrize("background", ["blur", "green", "transparent"])
def test_narrow_pictures(size_wh: tuple[int, int], background: str, network: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), np.random.default_rng(1).integers(0, 255, (*size_wh[::-1], 3), np.uint8))
    out = tmp_path / "out.png"
    assert run(tmp_path / "in.png", "-o", out, "--background", background, "--model", network, "--quiet") == 0
    assert cv2.imread(str(out)).shape[:2] == size_wh[::-1]


def assert_one_line(code: int, capsys: pytest.CaptureFixture[str], pattern: str) -> None:
    import re

    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    line = captured.err.strip().splitlines()
    assert len(line) == 1, captured.err
    assert line[0].startswith("streamseg")
    assert re.search(pattern, line[0]), line[0]


@pytest.mark.parametrize(
    ("args", "pattern"),
    [
        (["missing.mp4", "-o", "o.mp4"], "missing.mp4"),
        (["empty.mp4", "-o", "o.mp4"], "empty.mp4"),
        (["text.mp4", "-o", "o.mp4"], "text.mp4"),
        (["cut.mp4", "-o", "o.mp4"], "cut.mp4"),
        (["sound.m4a", "-o", "o.mp4"], "sound.m4a.*(no video|picture)"),
        (["nothing", "-o", "o.mp4"], "nothing"),
        (["in.mp4", "-o", "o.xyz"], "xyz"),
        (["in.mp4", "-o", "o.mp4", "--encoder", "libx246"], "libx246.*libx264"),
        (["in.mp4", "-o", "no/such/folder/o.mp4"], "no/such/folder"),
        (["in.mp4", "-o", "in.mp4"], "in.mp4.*source itself"),
        (["in.mp4", "-o", "link.mp4"], "link.mp4.*source itself"),
        (["in.mp4", "-o", "o.mp4", "--matte", "o.mp4"], "two outputs write o.mp4"),
        (["in.mp4", "-o", "-"], "--format"),
        (["in.mp4", "-o", "o.mp4", "--format", "matroska"], "--format is for -o - and.*a file's extension"),
        (["in.mp4", "-o", "o.mp4", "--size", "64x64"], "--size is for cameras and streams, not for in.mp4"),
        (["in.mp4", "-o", "o.mp4", "--fps", "10"], "--fps is for cameras and streams, not for in.mp4"),
        (["in.mp4", "-o", "o.mp4", "--segment", "10m"], "--segment is for cameras and streams, not for in.mp4"),
        (["in.mp4", "-o", "o.mp4", "--audio-delay", "9"], "--audio-delay is for cameras and streams, not for in.mp4"),
        (["-", "-o", "o.mp4", "--slate", "card"], "--slate is for cameras and streams, not for -; leave it out"),
        (["in.mp4", "-o", "o.mp4", "--transport", "udp"], "--transport is for RTSP, and in.mp4 is a file"),
        (["in.mp4", "-o", "o.mp4", "--clips-exact"], "--clips-exact tells how --clips are cut.*add --clips DIR"),
        (["in.mp4", "-o", "o.mp4", "--background", "transparent"], "o.mp4.*(webm|png|mkv|mov)"),
        (["in.mp4", "-o", "o.mkv", "--background", "image:none.png"], "none.png"),
        (["in.mp4", "-o", "o.mkv", "--background", "image:text.png"], "text.png"),
        (["in.mp4", "-o", "o.mkv", "--background", "video:text.mp4"], "text.mp4"),
        (["in.mp4", "-o", "o.mkv", "--background", "beach"], "beach.*use blur"),
        (["in.mp4", "-o", "o.mkv", "--model", "net.pt"], "net.pt.*import"),
        (["in.mp4", "-o", "o.mkv", "--model", "text.onnx"], "text.onnx"),
        (["in.mp4", "-o", "o.mkv", "--model", "half.onnx"], "half.onnx"),
        (["in.mp4", "-o", "o.mkv", "--model", "classifier.onnx"], r"classifier.onnx.*\[1,10\]"),
        (["in.mp4", "-o", "o.mkv", "--model", "four.onnx"], "four.onnx"),
        (["in.mp4", "-o", "o.mkv", "--model", "yolov8n-sge"], "yolov8n-seg"),
        (["in.mp4", "-o", "o.mkv", "--provider", "cuda"], "cuda"),
        (["in.mp4", "-o", "o.mkv", "--provider", "magic"], "magic"),
        (["in.mp4", "-o", "o.mkv", "--keep", "dog"], "no classes apart"),
        (["in.mp4", "-o", "o.mkv", "--set", "edges.fether=1"], "edges.feather"),
        (["in.mp4", "-o", "o.mkv", "--config", "tabs.yaml"], "tabs.yaml line 2"),
        (["in.mp4", "-o", "o.mkv", "--set", "source.max_pixels=100"], "320x180.*100"),
        (["in.mp4", "-o", "o.mkv", "--report", "no/such/r.json"], "no/such/r.json"),
        (["in.mp4", "-o", "o.mkv", "--results", "no/such/r.jsonl"], "no/such/r.jsonl"),
        (["in.mp4", "-o", "o.mkv", "--report", "/dev/null"], "/dev/null is no regular file"),
        (["in.mp4", "-o", "o.mkv", "--report", "red.onnx"], "red.onnx is an input of this run"),
        (["in.mp4", "-o", "o.mkv", "--config", "fine.yaml", "--results", "fine.yaml"], "fine.yaml is an input"),
        (["in.mp4", "-o", "o.mkv", "--results", "-"], "- is for the picture"),
        (["in.mp4", "-o", "o.mkv", "--report", "null:"], "null: is for the picture"),
        (["in.mp4", "-o", "-", "-o", "-", "--format", "mp4"], "two outputs write standard output"),
        (["-o", "o.mkv", "--config", "fine.yaml"], "no source: name a video file.* a camera, a stream or -"),
        (["in.mp4", "--config", "zoom", "--config", "fine.yaml"], "argument --config: one file alone; what shall"),
        (["in.mp4", "--confg", "zoom"], "unrecognized arguments: --confg zoom; see streamseg run --help"),
        (["in.mp4", "-o", "o_%d.jpg", "--quality", "inf"], "quality 'inf' is neither low, medium"),
        (["in.mp4", "-o", "o.webm", "--quality", "1e99"], r"does not take crf=1e\+99: numerical result out of range"),
        (["in.mp4", "-o", "o.mkv", "--quality", "80"], "quality 80 is beyond libx264's worst, 51; less is better"),
        (["in.mp4", "-o", "o.mkv", "--quality", "52", "--encoder", "h265"], "quality 52 is beyond libx265's worst, 51"),
        (["in.mp4", "-o", "o.mkv", "-o", "same/o.mkv"], "two outputs write same/o.mkv"),
        (["file://{here}/in.mp4", "-o", "in.mp4"], "in.mp4 is the source itself"),
        (["rtsp://me:se/cret@host/1", "-o", "o.mkv"], r"rtsp://\*\*\*@host/1"),
        (["in.mp4", "rtsp://me:secret@host/1"], r"rtsp://\*\*\*@host/1"),
        (["x" * 300, "-o", "o.mkv"], "too long|no such"),
        (["a\tb.mp4", "-o", "o.mkv"], "control character"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(
    args: list[str], pattern: str, clip: Path, network: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    _make_bad_files(tmp_path, clip)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    model = [] if "--model" in args else ["--model", "red.onnx"]
    try:
        code = run(*(arg.replace("{here}", str(tmp_path)) for arg in args), *model)
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert_one_line(code, capsys, pattern)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before, "something was written, changed or removed"


def test_an_output_that_another_run_is_writing(clip: Path, network: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.mkv"
    out.write_text("of an earlier run")
    first = Partial(out)
    code = run(clip, "-o", tmp_path / "free.mp4", "-o", out, "--model", network, "--quiet")
    assert_one_line(code, capsys, r"out\.mkv: another run is writing it now; wait for that or name another file$")
    first.path.write_text("ours")
    first.keep()
    assert out.read_text() == "ours"
    assert not list(tmp_path.glob("*.partial*"))
    assert not (tmp_path / "free.mp4").exists()


def _make_bad_files(folder: Path, clip: Path) -> None:
    (folder / "empty.mp4").touch()
    for name in ("text.mp4", "text.png", "text.onnx"):
        (folder / name).write_text("this is a shopping list\n" * 50)
    (folder / "net.pt").write_bytes(b"PK\x03\x04")
    (folder / "cut.mp4").write_bytes(clip.read_bytes()[:400])
    (folder / "half.onnx").write_bytes((folder / "red.onnx").read_bytes()[:-150])
    networks.matte(folder / "four.onnx", channels=4)
    (folder / "tabs.yaml").write_text("edges:\n\tfeather: 1\n")
    (folder / "fine.yaml").write_text("edges:\n  feather: 1\n")
    (folder / "nothing").mkdir()
    (folder / "same").symlink_to(folder, target_is_directory=True)
    os.link(folder / "in.mp4", folder / "link.mp4")
    with av.open(str(folder / "sound.m4a"), "w", format="mp4") as container:
        voice = container.add_stream("aac", rate=48000, layout="stereo")
        block = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        block.sample_rate = 48000
        container.mux(voice.encode(block))
        container.mux(voice.encode(None))
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["logits"])],
        "c",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 10, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "classifier.onnx"
    )


def test_without_an_output_one_is_named(clip: Path, network: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("in.mp4", "--model", "red.onnx") == 0
    assert "writing in-streamseg.mp4" in capsys.readouterr().err
    assert len(decode(tmp_path / "in-streamseg.mp4")) == 20


@pytest.mark.parametrize(
    ("shape", "background"), [((1, 1, 3), "one pixel"), ((40, 60, 4), "with alpha"), ((9, 5000, 3), "a sliver")]
)
def test_odd_backgrounds_work(shape, background: str, clip: Path, network: Path, tmp_path: Path) -> None:
    picture = np.full(shape, 200, np.uint8)
    cv2.imwrite(str(tmp_path / "room.png"), picture)
    out = tmp_path / "out.mkv"
    assert run(clip, "-o", out, "--background", f"image:{tmp_path / 'room.png'}", "--model", network, "--quiet") == 0
    assert is_near(decode(out)[0][20, 300], (200, 200, 200)), background


def test_a_network_that_fails_on_the_way_is_one_line_and_leaves_no_result(
    clip: Path, network: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    from streamseg.app import network as app
    from streamseg.errors import InferenceError

    load = app.load_segmenter

    def load_fragile(*args: object, **options: object):
        segmenter = load(*args, **options)
        calls = []

        class Fragile:
            class_names = segmenter.class_names
            retune = segmenter.retune
            describe = segmenter.describe

            def __call__(self, frame):
                calls.append(frame.index)
                if len(calls) > 5:
                    raise InferenceError("the network failed: out of memory")
                return segmenter(frame)

        return Fragile()

    monkeypatch.setattr(app, "load_segmenter", load_fragile)
    out, report = tmp_path / "out.mp4", tmp_path / "r.json"
    code = run(clip, "-o", out, "--model", network, "--report", report)
    said = capsys.readouterr().err
    assert code == 1
    assert "out of memory" in said
    assert "Traceback" not in said
    assert not out.exists()
    assert "out of memory" in json.loads(report.read_text())["outcome"]


def test_help_and_version(capsys) -> None:
    for args in (["--version"], ["--help"], ["run", "--help"], ["models", "--help"], ["demo", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(args)
        assert ended.value.code == 0
    with pytest.raises(SystemExit) as ended:
        main(["rnu"])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_doctor_names_a_damaged_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "selfie.onnx").write_bytes(b"cut off")
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "FAIL  models at hand: selfie.onnx is no ONNX file, or is damaged\n      -> pull or import it again" in said


def test_doctor_and_devices_answer(capsys) -> None:
    assert main(["devices"]) == 0
    code = main(["doctor"])
    said = capsys.readouterr().out
    assert code in (0, 1)
    assert "execution provider cpu: builds a session" in said
    assert "PyAV" in said


@pytest.mark.parametrize("smoother", ["uncertainty", "flow", "half-life", "one-euro", "none"])
def test_every_smoother_runs_and_keeps_the_subject(smoother: str, clip: Path, network: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    args = ["--background", "color:#00ff00", "--model", network, "--set", f"temporal.smoother={smoother}", "--quiet"]
    assert run(clip, "-o", out, *args) == 0
    for index, frame in enumerate(decode(out)):
        assert is_near(frame[90, 110 + 4 * index], (230, 20, 20)), (smoother, index)
        assert is_near(frame[10, 300], (0, 255, 0)), (smoother, index)


def test_a_report_is_written_although_a_network_does_not_come_back(
    clip: Path, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Pool.close

    def stuck(pool: Pool) -> None:
        close(pool)
        raise PipelineStuckError("1 of 1 networks did not come back")

    monkeypatch.setattr(Pool, "close", stuck)
    report = tmp_path / "report.json"
    arguments = {"source.url": str(clip), "output.sinks": ["null:"], "output.report": str(report)}
    settings = load_runs(None, [], {**arguments, "model.name": str(network)})
    with pytest.raises(PipelineStuckError):
        execute(settings, Voice(quiet=True, as_json=False))
    assert json.loads(report.read_text())["frames"]["out"] == 20


def test_a_report_that_cannot_be_written_hides_no_failure(
    clip: Path, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()

    close = Pool.close

    def stuck(pool: Pool) -> None:
        close(pool)
        folder.rmdir()
        raise PipelineStuckError("1 of 1 networks did not come back")

    monkeypatch.setattr(Pool, "close", stuck)
    arguments = {"source.url": str(clip), "output.sinks": ["null:"], "output.report": str(folder / "report.json")}
    settings = load_runs(None, [], {**arguments, "model.name": str(network)})
    with pytest.raises(PipelineStuckError):
        execute(settings, Voice(quiet=True, as_json=False))
    assert "report.json: the folder" in capsys.readouterr().err


def test_what_cannot_change_while_it_runs_is_named(clip: Path, network: Path) -> None:
    arguments = {"source.url": str(clip), "output.sinks": ["null:"], "model.name": str(network)}

    def load(*given: str) -> Mapping[str, Settings]:
        return load_runs(None, given, arguments)

    said: list[str] = []
    fleet = Fleet(load(), said.append)
    try:
        said.clear()
        fleet.change(load("background.spec=green", "model.confidence=0.5"))
        assert said == []
        fleet.change(load("keep.classes=dog", "temporal.mode=keyframes:3", "edges.feather=0.2"))
        assert said == ["this waits for the next start: keep.classes, temporal.mode"]
        with pytest.raises(ConfigError, match="who is blurred"):
            fleet.change(load("privacy.blur_people=true"))
    finally:
        fleet.discard()


def test_streams_that_come_and_go_are_named(clip: Path, network: Path, tmp_path: Path) -> None:
    config = tmp_path / "streams.yaml"

    def load(*names: str) -> Mapping[str, Settings]:
        lines = [f"  {name}: {{source: {{url: {clip}}}, output: {{sinks: ['null:']}}}}" for name in names]
        config.write_text("\n".join([f"model: {{name: {network}}}", "streams:", *lines]))
        return load_runs(str(config), (), {})

    said: list[str] = []
    fleet = Fleet(load("door", "yard"), said.append)
    try:
        said.clear()
        fleet.change(load("yard", "roof", "cellar"))
        assert said == [
            "streams come and go with the next start: new: cellar, roof",
            "streams come and go with the next start: no longer named: door",
        ]
        said.clear()
        fleet.change(load("door", "yard"))
        assert said == []
    finally:
        fleet.discard()


@pytest.mark.parametrize(("source", "code"), [("clip", 2), ("test:?size=64x36&fps=30", 1)])
def test_a_network_that_cannot_be_fetched_is_final_for_a_file_and_not_for_a_camera(
    source: str,
    code: int,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STREAMSEG_MODELS", raising=False)
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    nowhere = "http://127.0.0.1:9"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, nowhere)
    for name, value in (("INDEX_URL", nowhere), ("RETRIES", "0"), ("NO_INDEX", ""), ("EXTRA_INDEX_URL", "")):
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert run(clip if source == "clip" else source, "-o", "out.mkv", "--model", "selfie", "--quiet") == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("streamseg: cannot pull selfie: ")
    assert list(tmp_path.glob("out*")) == []
