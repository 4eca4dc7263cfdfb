"""`streamseg bench`: turns, ratios, clips, the chart, and the whole command on a tiny network."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, NoReturn

import av
import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from streamseg.cli import main
from streamseg.errors import ConfigError
from streamseg.evaluate import bench_peer
from streamseg.evaluate.bench import BenchError, Contestant, machine, race, table
from streamseg.evaluate.bench_chart import Point, write_chart
from streamseg.evaluate.bench_clip import prepared, video_of
from streamseg.evaluate.bench_quality import truth_score, union_iou
from streamseg.evaluate.davis import Clip
from tests import networks


def says(frames: int, wall_s: float, cpu_s: float) -> list[str]:
    """A command that claims this."""
    return [sys.executable, "-c", f"print('{json.dumps({'frames': frames, 'wall_s': wall_s, 'cpu_s': cpu_s})}')"]


def test_ratios_are_to_the_first_and_the_faster_command_competes() -> None:
    slow = Contestant("slow", [says(10, 2.0, 3.0)])
    fast = Contestant("fast", [says(10, 9.0, 9.0), says(10, 0.5, 0.6)])
    told: list[str] = []
    first, second = race([slow, fast], 2, told.append)
    assert (first.fps.median, first.ratio.median, first.cpu_ms.median) == (5, 1, 300)
    assert (second.fps.median, second.ratio.median, second.cpu_ratio.median) == (20, 4, pytest.approx(5))
    assert (second.ratio.least, second.ratio.most) == (4, 4)
    assert told == [f"turn {n} of 2: {name}" for n in (1, 2) for name in ("slow 5.0 fps", "fast 20.0 fps")]


@pytest.mark.parametrize(
    ("program", "error", "what"),
    [
        ("import sys; sys.exit('no such camera')", BenchError, "^it failed: no such camera$"),
        ("print('hello')", BenchError, "it said nothing"),
        ('print(\'{"frames": 0, "wall_s": 1, "cpu_s": 1}\')', BenchError, "gave no frames"),
    ],
)
def test_a_contestant_that_fails_is_named(program: str, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        race([Contestant("it", [[sys.executable, "-c", program]])], 1, print)


def test_a_program_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"it: cannot run .*nothing: no such file"):
        race([Contestant("it", [[str(tmp_path / "nothing")]])], 1, print)


def test_table_is_aligned() -> None:
    assert table([["", "fps"], ["a", "1"], ["long", "100.0"]]) == "        fps\na         1\nlong  100.0"


def test_machine_is_ready_for_json() -> None:
    told = machine()
    assert json.loads(json.dumps(told)) == told
    assert told["cores"] >= 1
    assert told["processor"]


def clip(path: Path, frames: int = 6, size_wh: tuple[int, int] = (64, 48)) -> Path:
    """A red square on grey that moves 4 px a frame."""
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=25)
        (stream.width, stream.height), stream.pix_fmt, stream.options = size_wh, "yuv420p", {"crf": "8"}
        for n in range(frames):
            picture = np.full((size_wh[1], size_wh[0], 3), 70, np.uint8)
            picture[12:36, 8 + 4 * n : 32 + 4 * n] = (230, 20, 20)
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode(None))
    return path


def shape(path: Path) -> tuple[int, int, int]:
    with av.open(str(path)) as source:
        video = source.streams.video[0]
        return sum(1 for _ in source.decode(video)), video.width, video.height


def test_clips_are_scaled_and_shortened_once(tmp_path: Path) -> None:
    original = clip(tmp_path / "a.mp4")
    assert prepared(original, tmp_path) == original
    assert prepared(original, tmp_path, height=48, frames=6) == original
    assert shape(prepared(original, tmp_path, frames=4)) == (4, 64, 48)
    assert shape(prepared(original, tmp_path, height=96)) == (6, 128, 96)


def test_a_sequence_becomes_a_video_without_its_odd_column(tmp_path: Path) -> None:
    masks = []
    for n in range(3):
        truth = np.zeros((31, 41), np.uint8)
        truth[8:24, 4 + 4 * n : 20 + 4 * n] = 255
        for kind, picture in (("masks", truth), ("pictures", cv2.merge([truth // 2, truth, truth]))):
            (tmp_path / kind).mkdir(exist_ok=True)
            assert cv2.imwrite(str(tmp_path / kind / f"{n:05}.png"), picture)
        masks.append(tmp_path / "masks" / f"{n:05}.png")
    sequence = Clip("walk", tmp_path / "pictures", tuple(masks))
    video = video_of(sequence, tmp_path)
    assert shape(video) == (3, 40, 30)
    with av.open(str(video)) as source:
        found = [frame.to_ndarray(format="rgb24")[..., 0].copy() for frame in source.decode(video=0)]
    j, f = truth_score(found, sequence, "it")
    assert j > 0.95
    assert f > 0.95
    with pytest.raises(BenchError, match="it gave 2 frames of 3"):
        truth_score(found[:2], sequence, "it")


def test_union_iou_by_hand() -> None:
    reference, half = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    reference[:2], half[:1] = 255, 128
    assert union_iou([reference, half], [reference, reference], "it") == (0.75, 0.5)
    with pytest.raises(BenchError, match="it gave 1 frames of 2"):
        union_iou([half], [half, half], "it")


def test_the_chart_shows_every_point_in_its_place(tmp_path: Path) -> None:
    points = [Point("a & b", 10, 0.98, "x"), Point("c", 100, 0.93, "x"), Point("d", 31.6, 0.979, "y")]
    write_chart(tmp_path / "a.svg", points, title="a <title>", quality="IoU")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    inside = "{http://www.w3.org/2000/svg}"
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in root.iter(f"{inside}circle")]
    assert len(dots) == 3  # from the best downwards: a, d, c
    assert dots[0][0] < dots[1][0] < dots[2][0]
    assert dots[1][0] - dots[0][0] == pytest.approx(dots[2][0] - dots[1][0], abs=0.5), "speed is logarithmic"
    assert dots[0][1] < dots[1][1] < dots[2][1]
    names = {text.text: float(text.get("y", "nan")) for text in root.iter(f"{inside}text")}
    assert names["d"] - names["a & b"] >= 14, "names do not lie on one another"
    assert "a <title>" in names


def rvm_like(path: Path, size_wh: tuple[int, int]) -> Path:
    """Opacity is 2 * (red - green), its state the frames so far."""
    width, height = size_wh
    red = np.zeros((1, 3, 1, 1), np.float32)
    red[0, :2, 0, 0] = 2, -2
    nodes = [
        helper.make_node("Conv", ["src", "red"], ["opacity"]),
        helper.make_node("Clip", ["opacity", "zero", "one"], ["pha"]),
        helper.make_node("Identity", ["src"], ["fgr"]),
        helper.make_node("Add", ["r1i", "one"], ["r1o"]),
    ]
    picture, alpha = [1, 3, height, width], [1, 1, height, width]
    graph = helper.make_graph(
        nodes,
        "rvm",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in (("src", picture), ("r1i", [1]))],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, s)
            for name, s in (("fgr", picture), ("pha", alpha), ("r1o", [1]))
        ],
        [numpy_helper.from_array(np.float32(n), name) for name, n in (("zero", 0), ("one", 1))]
        + [numpy_helper.from_array(red, "red")],
    )
    return networks.save(graph, path)


def test_a_peers_loop_cuts_out_and_writes_a_video(tmp_path: Path) -> None:
    network = rvm_like(tmp_path / "rvm.onnx", (64, 48))
    (tmp_path / "masks").mkdir()
    command = [sys.executable, bench_peer.__file__, "rvm", clip(tmp_path / "a.mp4"), "--out", tmp_path / "out.mp4"]
    command += ["--model", network, "--masks", tmp_path / "masks"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert (told["frames"], told["encoder"]) == (6, "libx264 ultrafast")
    assert shape(tmp_path / "out.mp4") == (6, 64, 48)
    masks = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127 for path in sorted((tmp_path / "masks").glob("*.png"))]
    assert len(masks) == 6
    truth = np.zeros((48, 64), bool)
    truth[12:36, 28:52] = True
    assert np.mean(masks[5] == truth) > 0.97


def test_the_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = networks.matte(tmp_path / "red.onnx", alone=True)
    clip(tmp_path / "a.mp4")
    words = ["bench", tmp_path / "a.mp4", "--model", network, "--provider", "cpu", "--mode", "keyframes:2"]
    words += ["--turns", 1, "--json", tmp_path / "a.json", "--plot", tmp_path / "a.svg", "--set", "edges.feather=0"]
    assert main(list(map(str, words))) == 0
    told = json.loads((tmp_path / "a.json").read_text())
    (only,) = told["contestants"]
    assert only["name"] == "red cpu keyframes:2"
    assert only["details"]["networks"][0]["provider"] == "cpu"
    assert {"capture", "process", "segment", "write"} <= set(only["details"]["stages"])
    assert only["ratio"] == {"median": 1.0, "least": 1.0, "most": 1.0}
    assert 0.8 < only["IoU, worst frame"] <= only["IoU"] <= 1
    assert told["machine"]["cores"] >= 1
    printed = capsys.readouterr()
    assert "red cpu keyframes:2" in printed.out
    assert told["machine"]["processor"] in printed.err
    assert "red cpu keyframes:2" in (tmp_path / "a.svg").read_text()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_sigterm_leaves_nothing_behind(tmp_path: Path) -> None:
    network = networks.matte(tmp_path / "red.onnx", alone=True)
    clip(tmp_path / "a.mp4")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "streamseg", "bench", str(tmp_path / "a.mp4"), "--model", str(network)]
    process = subprocess.Popen(
        [*command, "--turns", "100"], env={**os.environ, "TMPDIR": str(scratch)}, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert any("turn 1 of 100" in line for line in process.stderr)
        assert list(scratch.glob("streamseg-*"))
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + signal.SIGTERM, said
    assert list(scratch.glob("streamseg-*")) == []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert str(network).encode() not in path.read_bytes(), "no contestant goes on"


def test_sigterm_while_a_contestant_starts_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []

    class Interrupted(subprocess.Popen[str]):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            started.append(self)
            signal.raise_signal(signal.SIGTERM)

    def end(number: int, frame: object) -> NoReturn:
        raise SystemExit(number)

    monkeypatch.setattr("streamseg.evaluate.bench.subprocess.Popen", Interrupted)
    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit):
            race([Contestant("one", [[sys.executable, "-c", "import time; time.sleep(60)"]])], 1, print)
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)
        started[0].kill()
    assert started[0].returncode == -signal.SIGKILL, "it was ended, and waited for"


def test_quality_on_a_davis_folder(tmp_path: Path) -> None:
    network = networks.matte(tmp_path / "red.onnx", alone=True)
    clip(tmp_path / "a.mp4")
    for n in range(3):
        truth = np.zeros((64, 96), np.uint8)
        truth[16:48, 16 + 8 * n : 48 + 8 * n] = 1
        picture = np.full((64, 96, 3), 60, np.uint8)
        picture[truth > 0] = (20, 20, 230)
        for kind, name, pixels in (("Annotations", "png", truth), ("JPEGImages", "jpg", picture)):
            (tmp_path / "truth" / kind / "walk").mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(tmp_path / "truth" / kind / "walk" / f"{n:05}.{name}"), pixels)
    words = ["bench", tmp_path / "a.mp4", "--model", network, "--provider", "cpu", "--mode", "every", "--turns", 1]
    words += ["--quality", tmp_path / "truth", "--sequence", "walk", "--json", tmp_path / "a.json"]
    assert main(list(map(str, words))) == 0
    (only,) = json.loads((tmp_path / "a.json").read_text())["contestants"]
    assert only["J"] > 0.85
    assert only["F"] > 0.9


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["nowhere.mp4"], "cannot open nowhere.mp4"),
        (["CLIP", "--turns", "0"], "--turns takes a number of 1 or more, not 0"),
        (["CLIP", "--height", "481"], "--height takes an even number"),
        (["CLIP", "--plot", "a.png"], "--plot draws SVG; a.png does not end in .svg"),
        (["CLIP", "--json", "nowhere/a.json"], "its folder does not exist"),
        (["CLIP", "--sequence", "a"], "--sequence is of --quality"),
        (["CLIP", "--mode", "sometimes"], "sometimes"),
        (["CLIP", "--peer", "bodypix=python"], "--peer takes ultralytics=PYTHON"),
        (["CLIP", "--peer", "rvm="], "--peer takes ultralytics=PYTHON"),
        (["CLIP", "--peer", "rvm=nowhere.onnx"], "there is no file nowhere.onnx"),
        (["CLIP", "--peer", "mediapipe=nowhere/python"], "there is no interpreter nowhere/python"),
        (["CLIP", "--peer", f"ultralytics={sys.executable}"], "needs a YOLO network"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    words: list[str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    network = networks.matte(tmp_path / "red.onnx")
    path = str(clip(tmp_path / "a.mp4", frames=2))
    assert main(["bench", *(path if word == "CLIP" else word for word in words), "--model", str(network)]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert what in told[-1]
    assert told[-1].startswith("streamseg: ")
    assert not [line for line in told if "Traceback" in line]
