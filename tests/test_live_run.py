"""Live runs through the command line: the built-in pattern as the camera, and a network whose answer is known."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamseg.app import Fleet
from streamseg.cli import main
from streamseg.cli.log import Voice
from streamseg.cli.run import _answers, execute
from streamseg.config import Settings, load_runs
from streamseg.engine import Backoff
from streamseg.sinks import LinesSink
from streamseg.sources.pattern import index_of
from tests import networks
from tests.live_parts import free_port

PATTERN = "test:?size=320x180&fps=30&subject=1"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return networks.matte(tmp_path / "red.onnx", size=64, alone=True)


def run(*args: object) -> int:
    return main(["run", *map(str, args)])


def recording(folder: Path, stem: str = "out") -> Path:
    (found,) = folder.glob(f"{stem}-2*.mkv")
    return found


def decode(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


Start = Callable[..., "subprocess.Popen[str]"]


def _hear_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def start() -> Iterator[Start]:
    processes = []

    def start(*args: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "streamseg", "run", *map(str, args)]
        # Whoever runs the tests may have been started with nohup, and passes that on.
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_hangups))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def until(true: Callable[[], Any], what: str, timeout_s: float = 180) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError(f"never came: {what}")


def test_a_pattern_is_recorded_in_order_and_in_time(network: Path, tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    source = f"{PATTERN}&frames=60"
    code = run(source, "-o", tmp_path / "out.mkv", "--background", "none", "--model", network, "--report", report)
    assert code == 0
    frames = decode(recording(tmp_path))
    shown = [(index_of(frame.to_ndarray()[:180]), frame.time) for frame in frames]
    # The first is the slate; the last composite may be repeated while the next one is late.
    indices = [index for index, _ in shown[1:]]
    assert indices == sorted(indices)
    assert len(set(indices)) > 5
    times = [at_s for _, at_s in shown]
    assert times == sorted(set(times))
    pairs = [(index, at_s) for (index, at_s), (before, _) in zip(shown[2:], shown[1:], strict=False) if index > before]
    # A picture that is late comes behind what was repeated for it; not all of them are late.
    after_s = [at_s - index / 30 for index, at_s in pairs]
    half = len(after_s) // 2
    assert min(after_s[half:]) == pytest.approx(min(after_s[:half]), abs=0.05)
    told = json.loads(report.read_text())
    dropped = sum(told["frames"]["dropped"].values()) + told["source"]["irregularities"].get("frames dropped", 0)
    assert told["source"]["live"] is True
    assert told["frames"]["in"] <= 60
    out = (
        told["sinks"][0]["frames"] - told["frames"].get("slates shown", 0) - told["frames"].get("pictures repeated", 0)
    )
    assert told["frames"]["in"] - sum(told["frames"]["dropped"].values()) == out, (told["frames"], dropped)


def test_a_live_run_leaves_the_report_of_the_run_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], network: Path
) -> None:
    reports = [tmp_path / "r.json", tmp_path / "r-2.json"]
    for width in (320, 160):
        source = f"test:?size={width}x90&fps=30&frames=2"
        assert run(source, "-o", "null:", "--model", network, "--report", reports[0]) == 0
    assert sorted(tmp_path.glob("r*.json*")) == sorted(reports)
    assert [json.loads(path.read_text())["source"]["size_wh"] for path in reports] == [[320, 90], [160, 90]]
    assert "r.json is an earlier run's and stays" in capfd.readouterr().err


def test_results_that_cannot_be_written_for_a_while_go_on(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put, calls = LinesSink._put, count()

    def full_once(sink: LinesSink, data: bytes) -> None:
        if next(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(sink, data)

    monkeypatch.setattr(LinesSink, "_put", full_once)
    # By the pictures, not by time: the next one opens it again.
    monkeypatch.setattr(Backoff, "next_s", lambda backoff: 0.0)
    caplog.set_level(logging.INFO, "streamseg")
    results, report = tmp_path / "r.jsonl", tmp_path / "r.json"
    source = f"{PATTERN}&frames=90"
    assert run(source, "-o", "null:", "--model", network, "--results", results, "--report", report) == 0
    told = json.loads(report.read_text())["sinks"][1]
    assert told["reopens"] == told["counts"]["lost"] == 1
    assert told["counts"]["pictures dropped while closed"] == 1
    indices = [json.loads(line)["index"] for line in results.read_text().splitlines()]
    assert indices == sorted(indices)
    assert indices[5] - indices[4] > 1
    said = [record.getMessage() for record in caplog.records if str(results) in record.getMessage()]
    partial = tmp_path / "r.partial.jsonl"
    assert said == [
        f"{results}: cannot write {partial}: no space left on device; make room; trying again", f"{results}: open again"
    ]  # fmt: skip


def test_streams_of_one_address_are_told_apart_in_the_log(
    tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = "{source: {url: 'test:?size=64x36&fps=30&frames=3'}, output: {sinks: ['null:']}}"
    config = tmp_path / "two.yaml"
    config.write_text(f"model: {{name: {network}}}\nstreams: {{front: {source}, yard: {source}}}\n")
    assert main(["run", "--config", str(config)]) == 0
    live = [line for line in capfd.readouterr().err.splitlines() if "live, " in line]
    assert sorted(live) == ["front: test: live, 64x36", "yard: test: live, 64x36"]


def test_a_stream_that_is_not_there_yet_is_waited_for_behind_the_slate(
    network: Path, tmp_path: Path, start: Start
) -> None:
    port = free_port()
    process = start(
        f"rtsp://me:secret@127.0.0.1:{port}/cam?key=hidden",
        "-o",
        tmp_path / "out.mkv",
        "--model",
        network,
        "--size",
        "320x180",
    )
    until(lambda: any(path.stat().st_size > 2000 for path in tmp_path.glob("out-2*")), "a recording of the slate")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "secret" not in said
    assert "hidden" not in said
    assert "waiting for it" in said
    assert "320x180" in said
    frames = decode(recording(tmp_path))
    assert all(np.ptp(frame.to_ndarray()[:60]) < 8 for frame in frames), "the card is plain above its line of text"
    assert np.ptp(frames[-1].to_ndarray()[80:100, :320]) > 60, "and the line says why"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_soon_and_completes_every_file(
    number: int, network: Path, tmp_path: Path, start: Start
) -> None:
    results = tmp_path / "r.jsonl"
    process = start(
        PATTERN, "-o", tmp_path / "out.mkv", "-o", tmp_path / "out.mp4", "--model", network, "--results", results
    )
    until(lambda: any(path.stat().st_size > 20000 for path in tmp_path.glob("out-2*.mkv")), "a recording")
    partial = tmp_path / "r.partial.jsonl"
    until(lambda: partial.exists() and partial.read_text().count("\n") > 3, "pictures of the camera, not of the slate")
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    (mp4,) = tmp_path.glob("out-2*.mp4")
    for path in (recording(tmp_path), mp4):
        assert len(decode(path)) > 3
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(lines) > 2
    assert [line["index"] for line in lines] == sorted({line["index"] for line in lines}), "no line for a stand-in"


def test_the_service_manager_is_told_of_every_step(
    network: Path, tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What systemd goes by with `Type=notify` and a watchdog."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(180)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")

        def told(wanted: str) -> list[str]:
            """The lines of the first message that holds this one, after signs of life alone."""
            while wanted not in (lines := manager.recv(1000).decode().splitlines()):
                assert lines[0] == "WATCHDOG=1", lines
            return lines

        config = tmp_path / "live.yaml"
        config.write_text(f"source: {{url: '{PATTERN}'}}\noutput: {{sinks: ['null:']}}\nmodel: {{name: {network}}}\n")
        process = start("--config", config)
        assert told("READY=1") == ["READY=1"]
        (_, status) = told("WATCHDOG=1")
        assert status.startswith("STATUS=")
        process.send_signal(signal.SIGHUP)
        assert told("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
        assert told("READY=1") == ["READY=1"]
        process.send_signal(signal.SIGTERM)
        assert told("STOPPING=1") == ["STOPPING=1"]
        assert process.wait(120) == 128 + signal.SIGTERM


def test_sighup_changes_the_background_without_losing_a_frame(network: Path, tmp_path: Path, start: Start) -> None:
    config = tmp_path / "live.yaml"

    def write(colour: str) -> None:
        config.write_text(
            f"source: {{url: '{PATTERN.replace('fps=30', 'fps=15')}'}}\n"
            f"model: {{name: {network}}}\n"
            f"background: {{spec: 'color:{colour}'}}\n"
            f"output: {{sinks: [{tmp_path / 'out.mkv'}], report: {tmp_path / 'r.json'}}}\n"
            "temporal: {smoother: none}\n"
        )

    def corners() -> list[tuple[bool, ...]]:
        """What the recording shows so far."""
        if not any(path.stat().st_size > 4000 for path in tmp_path.glob("out-2*")):
            return []
        frames = [frame.to_ndarray(format="rgb24") for frame in decode(recording(tmp_path))]
        return [tuple((frame[150:, :10].reshape(-1, 3).mean(axis=0) > 128).tolist()) for frame in frames]

    write("#00ff00")
    process = start("--config", config, "--log-json")
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    said = b""

    def heard(words: str) -> None:
        def more() -> bool:
            nonlocal said
            assert process.stderr is not None
            said += process.stderr.buffer.read() or b""
            return words.encode() in said

        until(more, words)

    slate, green, blue = (False, False, False), (False, True, False), (False, False, True)
    until(lambda: green in corners(), "green in the recording")
    write("#0000ff")
    process.send_signal(signal.SIGHUP)
    heard("settings read again")
    config.write_text("background: {spec: nonsense}\n")
    process.send_signal(signal.SIGHUP)
    heard("settings not taken over")
    (refusal,) = (line for line in map(json.loads, said.splitlines()) if "not taken over" in line["message"])
    assert refusal["level"] == "warning"
    until(lambda: blue in corners(), "blue in the recording")
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 128 + signal.SIGINT
    # A busy machine may show the slate in between.
    shown = [kind for kind in corners() if kind != slate]
    kinds = [kind for number, kind in enumerate(shown) if number == 0 or kind != shown[number - 1]]
    assert kinds == [green, blue]
    told = json.loads((tmp_path / "r.json").read_text())["frames"]
    assert told.get("frames that could not be processed", 0) == 0
    assert sum(told["dropped"].values()) + told["out"] >= told["in"]


def test_a_reload_that_is_asked_for_during_another_is_not_lost(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"source.url": f"{PATTERN}&frames=3600", "output.sinks": ["null:"], "model.name": str(network)}
    settings = load_runs(None, [], arguments)
    asked = []
    begin = Fleet.start

    def start(fleet: Fleet) -> None:
        begin(fleet)
        signal.raise_signal(signal.SIGHUP)

    def reload() -> Mapping[str, Settings]:
        asked.append(len(asked))
        signal.raise_signal(signal.SIGHUP if len(asked) == 1 else signal.SIGTERM)
        return settings

    monkeypatch.setattr(Fleet, "start", start)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert execute(settings, Voice(quiet=True, as_json=False), reload=reload) == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGHUP, before)
    assert len(asked) == 2


def test_a_signal_ends_the_opening_of_several_streams(network: Path, tmp_path: Path, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/cam"
        config = tmp_path / "two.yaml"
        config.write_text(
            f"model: {{name: {network}}}\n"
            f"source: {{url: '{url}', connect_timeout_s: 120}}\n"
            "output: {sinks: ['null:']}\n"
            "streams: {front: {}, back: {}}\n"
        )
        process = start("--config", config)
        connections = [silent.accept()[0] for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 128 + signal.SIGTERM
        for connection in connections:
            connection.close()


def test_a_terminal_that_is_not_ours_is_told_from_one_that_was_closed() -> None:
    """What decides whether a hang-up means to read the settings again or to end."""
    other_end, terminal = os.openpty()
    assert _answers(terminal)
    os.close(other_end)
    assert not _answers(terminal)
    os.close(terminal)


def test_health_and_metrics_are_answered(network: Path, start: Start) -> None:
    port = free_port()
    start(PATTERN, "-o", "null:", "--model", network, "--metrics", port)

    def ask(path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as reply:
                return str(reply.read().decode())
        except OSError:
            return ""

    until(lambda: 'frames in"' in ask("/metrics"), "frames in the metrics")
    until(lambda: 'streamseg_stream_state{stream="main",state="live"} 1' in ask("/metrics"), "the state")
    assert "streamseg_resident_memory_bytes" in ask("/metrics")
    until(lambda: json.loads(ask("/healthz"))["status"] == "ok", "its health")


def test_several_streams_share_a_network_and_one_bad_one_does_not_stop_the_others(
    network: Path, tmp_path: Path, start: Start
) -> None:
    config = tmp_path / "cams.yaml"
    config.write_text(
        f"model: {{name: {network}}}\n"
        "streams:\n"
        f"  front: {{source: {{url: '{PATTERN}&frames=60'}}, output: {{sinks: [{tmp_path / 'front.mkv'}]}}}}\n"
        f"  yard: {{source: {{url: '{PATTERN}&frames=60'}}, output: {{sinks: [{tmp_path / 'yard.mkv'}]}}}}\n"
        "  broken: {source: {url: 'rtsp://host:99999/x'}, output: {sinks: ['null:']}}\n"
    )
    process = start("--config", config)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 1, said
    assert "broken: " in said
    assert "99999" in said
    assert len(decode(recording(tmp_path, "front"))) > 3
    assert len(decode(recording(tmp_path, "yard"))) > 3


def test_two_streams_that_write_one_file_are_refused(network: Path, tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "cams.yaml"
    config.write_text(
        f"output: {{sinks: [{tmp_path / 'same.mkv'}]}}\n"
        "streams: {a: {source: {url: 'test:'}}, b: {source: {url: 'test:'}}}\n"
    )
    assert run("--config", config, "--model", network) == 2
    assert "streams a and b both write" in capsys.readouterr().err


def test_a_stream_key_is_not_told_when_two_streams_publish_to_one_address(tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "cams.yaml"
    config.write_text(
        "output: {sinks: ['rtmp://me:secret@127.0.0.1:9/live/hidden']}\n"
        "streams: {a: {source: {url: 'test:'}}, b: {source: {url: 'test:'}}}\n"
    )
    assert run("--config", config) == 2
    said = capsys.readouterr().err
    assert "streams a and b both write rtmp://***@127.0.0.1:9/live/***;" in said


def test_a_small_stream_is_looked_at_and_the_large_one_is_drawn_on(network: Path, tmp_path: Path) -> None:
    results = tmp_path / "r.jsonl"
    code = run(
        *("test:?size=640x360&fps=30&subject=1&frames=90", "-o", tmp_path / "out.mkv", "--model", network, "--quiet"),
        *("--set", f"source.sub={PATTERN}", "--background", "color:#00ff00", "--results", results),
    )
    assert code == 0
    frames = [frame.to_ndarray(format="rgb24") for frame in decode(recording(tmp_path))]
    assert frames[0].shape == (360, 640, 3)
    # A busy machine may show the slate in between.
    drawn = [frame.astype(int) for frame in frames if (frame[-20:, :, 1] > 200).all()]
    assert drawn, "the room is gone"
    assert ((drawn[-1][..., 0] > 180) & (drawn[-1][..., 1] < 80)).sum() > 5000, "the subject is there"


def test_a_file_plays_at_its_own_speed_for_a_preview(network: Path, tmp_path: Path) -> None:
    from tests.clips import make_clip

    clip = make_clip(tmp_path / "in.mp4", frames=30, size_wh=(320, 180))
    port = free_port()
    begin = time.monotonic()
    assert run(clip, "-o", f"http://127.0.0.1:{port}/", "--model", network, "--quiet") == 0
    assert time.monotonic() - begin > 29 / 30


def test_an_output_that_fails_does_not_stop_the_others(network: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streamseg", "run", PATTERN, "-o", "-", "--format", "matroska"]
    command += ["-o", str(tmp_path / "out.mkv"), "--model", str(network)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1000)
    process.stdout.close()  # whoever read it has had enough
    try:
        size = until(lambda: [path.stat().st_size for path in tmp_path.glob("out-2*")], "a recording")[0]
        until(lambda: recording(tmp_path).stat().st_size > size + 30000, "more of it")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(120) == 128 + signal.SIGTERM, said
    finally:
        process.kill()
        process.wait()
        process.stderr.close()  # type: ignore[union-attr]
    assert "given up, the other outputs go on" in said
    assert "Traceback" not in said
    assert len(decode(recording(tmp_path))) > 5


def test_a_reader_of_the_log_who_goes_does_not_end_it(network: Path, tmp_path: Path, start: Start) -> None:
    process = start(PATTERN, "-o", tmp_path / "out.mkv", "--model", network, "--log-json")
    assert process.stderr is not None
    process.stderr.close()
    until(lambda: any(path.stat().st_size > 20000 for path in tmp_path.glob("out-2*")), "a recording")
    process.send_signal(signal.SIGHUP)  # which it would say something about
    size = recording(tmp_path).stat().st_size
    until(lambda: recording(tmp_path).stat().st_size > size + 20000, "more of it")
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 128 + signal.SIGTERM
    assert len(decode(recording(tmp_path))) > 5


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([PATTERN, "-o", "http://127.0.0.1:0/", "--background", "transparent"], "no opacity"),
        (["rtsp://host:99999/x", "-o", "null:"], "99999"),
        (["gopher://host/x", "-o", "null:"], "gopher"),
        (["/dev/video77", "-o", "null:"], "video77"),
        (["camera:Nobody", "-o", "null:"], "Nobody"),
        (["test:?size=0x0", "-o", "null:"], "size"),
        ([PATTERN, "-o", "null:", "--on-demand"], "virtual camera"),
        ([PATTERN, "-o", "null:", "--metrics", "0.0.0.0:9999"], "token"),
        ([PATTERN, "-o", "null:", "--metrics", "host"], "host"),
        ([PATTERN, "-o", "http://0.0.0.0:9998/"], "token"),
        ([PATTERN, "-o", "/nowhere/x.mkv"], "/nowhere"),
        ([PATTERN, "-o", "virtualcam:/dev/video88"], "v4l2loopback" if find_spec("pyvirtualcam") else "[virtualcam]"),
        ([PATTERN, "-o", "gopher://host/"], "gopher"),
        ([PATTERN, "-o", "x.mkv", "--max-disk", "1GB"], "--segment"),
        ([PATTERN, "-o", "null:", "--slate", "image:/nowhere.png"], "/nowhere.png"),
    ],
)
def test_bad_input_is_one_line(args: list[str], words: str, network: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*args, "--model", network) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert words in said[-1], said
    assert not [line for line in said if "Traceback" in line]
    assert not [name for name in os.listdir(tmp_path) if name != "red.onnx"]
