"""From a real server into a recording: sound and picture in step or apart as asked, and settings read again."""

from __future__ import annotations

import itertools
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests import clips, networks
from tests.faults import Program, flowing
from tests.live_parts import RtspServer, camera_clip, rtsp_server
from tests.rooms import pictures, room_picture

pytestmark = [pytest.mark.realparts, pytest.mark.slow]

SIZE_WH = (320, 192)


def started(folder: Path, *args: object) -> Program:
    """A run that records into `folder`; whoever runs the tests may ignore hang-ups, and passes that on."""
    network = networks.matte(folder / "red.onnx", size=64, alone=True)
    command = ["env", "--default-signal=HUP", sys.executable, "-m", "streamseg", "run", *map(str, args), "--log-json"]
    return Program([*command, "--model", str(network), "--mode", "every", "-o", str(folder / "rec.mkv")])


def recording(folder: Path) -> Path:
    (found,) = folder.glob("rec-*.mkv")
    return found


def on_air(t: NDArray[Any]) -> NDArray[Any]:
    """Whether there is light and a tone at these times: for a tenth of every second."""
    return (t % 1 >= 0.5) & (t % 1 < 0.6)


def flashing_clip(path: Path) -> Path:
    """What a camera sees and hears while flashes and beeps come together."""
    return camera_clip(
        path,
        frames=120,
        draw=lambda index: clips.flat(235 if on_air(np.array(index / 30)) else 40, *SIZE_WH),
        wave=lambda t: 0.5 * np.sin(2 * np.pi * 1000 * t) * on_air(t),
    )


def beginnings(times_s: NDArray[Any], on: NDArray[Any]) -> NDArray[Any]:
    """When it was switched on, in seconds; before that it was off for half a second."""
    switched = times_s[on]
    return switched[1:][np.diff(switched) > 0.5]


def recorded(find: Callable[[], Path], seconds: float) -> None:
    """Returns when the file, which is being written, holds so many seconds of pictures."""
    until_s = time.monotonic() + 180
    while _length_s(find) < seconds:
        assert time.monotonic() < until_s, "it was not recorded"
        time.sleep(0.2)


def _length_s(find: Callable[[], Path]) -> float:
    try:
        with av.open(str(find())) as container:
            times_s = [float(packet.pts * packet.time_base) for packet in container.demux(video=0) if packet.size]
    except (ValueError, IndexError, av.FFmpegError):
        return 0.0  # it has not begun
    return max(times_s, default=0.0) - min(times_s, default=0.0)


def sound_after_picture_s(path: Path) -> float:
    """How long after a flash its beep is heard, by decoding both.

    Pictures that a busy machine left out make a flash late, never a beep: the flash that is least so counts.
    """
    with av.open(str(path)) as container:
        shown = [(frame.time, frame.to_ndarray(format="gray").mean() > 128) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        heard = [
            (frame.time + np.arange(frame.samples) / 48000, frame.to_ndarray()) for frame in container.decode(audio=0)
        ]
    flashes = beginnings(*map(np.array, zip(*shown, strict=True)))
    times_s = np.concatenate([block_s for block_s, _ in heard])
    loud = np.abs(np.concatenate([block.reshape(-1, len(at))[0] for at, block in heard])) > 0.1
    beeps = beginnings(times_s, loud)
    offsets = [beep - flash for flash in flashes for beep in beeps if abs(beep - flash) < 0.5]
    assert len(offsets) >= 2, (flashes, beeps)
    return float(max(offsets))


def test_sound_comes_with_the_picture_or_as_much_later_as_asked(tmp_path: Path) -> None:
    clip = flashing_clip(tmp_path / "cam.mkv")
    delays_ms = (0, 200)
    with ExitStack() as stack:
        server = stack.enter_context(rtsp_server("--mount", f"cam=h264+aac:{clip}"))
        programs = []
        for delay_ms in delays_ms:
            folder = tmp_path / str(delay_ms)
            folder.mkdir()
            args = (server.url("cam"), "--background", "none", "--audio-delay", delay_ms)
            programs.append(started(folder, *args))
            stack.callback(programs[-1].close)
        for delay_ms in delays_ms:
            recorded(partial(recording, tmp_path / str(delay_ms)), 5)
        for program in programs:
            program.end()
    after_ms = [1000 * sound_after_picture_s(recording(tmp_path / str(delay_ms))) for delay_ms in delays_ms]
    # A picture lasts 33 ms. The server plays what primes the decoder, 21 ms, as sound: the file says not to.
    assert after_ms == pytest.approx(delays_ms, abs=40)


def test_a_camera_that_comes_late_is_recorded_at_its_own_pace(tmp_path: Path) -> None:
    """Slates go before it; the file that begins with it has its sound, in step."""
    clip = flashing_clip(tmp_path / "cam.mkv")
    server = RtspServer(("--mount", f"cam=h264+aac:{clip}"))
    with ExitStack() as stack:
        program = started(tmp_path, server.url("cam"), "--background", "none", "--size", "320x192")
        stack.callback(program.close)
        began_s = program.heard("the network runs on", 0)
        time.sleep(5)  # longer than the camera is watched: its own clock must not be able to catch up
        stack.callback(server.kill)
        server.start()
        program.heard(": live", began_s)
        recorded(lambda: sorted(tmp_path.glob("rec-*.mkv"))[1], 4)
        program.end()
    slates, camera = sorted(tmp_path.glob("rec-*.mkv"))
    with av.open(str(slates)) as container:
        assert not container.streams.audio
    with av.open(str(camera)) as container:
        times_s = sorted(float(packet.pts * packet.time_base) for packet in container.demux(video=0) if packet.size)
    assert times_s[-1] - times_s[0] > 2
    assert 1000 * sound_after_picture_s(camera) == pytest.approx(0, abs=40)


def test_settings_read_again_cost_no_picture(tmp_path: Path) -> None:
    """The room's subject tells by its place which picture it is, whatever the background."""
    clip = camera_clip(
        tmp_path / "cam.mkv", sound=None, frames=50, rate=Fraction(4), draw=lambda index: room_picture(index, *SIZE_WH)
    )
    config, report = tmp_path / "look.yaml", tmp_path / "report.json"

    def write(colour: str) -> None:
        config.write_text(f"background: {{spec: 'color:{colour}'}}\ntemporal: {{smoother: none}}\n")

    write("#00ff00")
    with rtsp_server("--mount", f"cam=h264+none:{clip}") as server:
        results = tmp_path / "results.jsonl"
        args = ("--config", config, "--report", report, "--results", results)
        program = started(tmp_path, server.url("cam"), *args)
        try:
            flowing(program)
            seen(results, 3)
            for colour in ("#ffff00", "#00ff00") * 3:
                write(colour)
                at_s = time.monotonic()
                program.process.send_signal(signal.SIGHUP)
                program.heard("settings read again", at_s)
                seen(results, 4)
            program.end()
        finally:
            program.close()
    shown = [(_number(rgb), _corner(rgb)) for rgb in pictures(recording(tmp_path))]
    green, yellow = (False, True, False), (True, True, False)
    # At the start, pictures wait for the network to be ready, and the newest of them is taken.
    steady = shown[[corner for _, corner in shown].index(yellow) - 2 :]
    assert [corner for corner, _ in itertools.groupby(corner for _, corner in steady)] == [green, yellow] * 3 + [green]
    steps = [(after - before) % 50 for (before, _), (after, _) in itertools.pairwise(steady)]
    # A busy machine is late with some pictures, and counts them; not with those around most of the changes.
    told = json.loads(report.read_text())
    repeated = told["frames"].get("pictures repeated", 0)
    dropped = sum(told["frames"]["dropped"].values()) + sum(told["source"]["irregularities"].values())
    assert steps.count(0) <= repeated
    assert sum(step - 1 for step in steps if step > 1) <= dropped
    changes = [place for place, (one, two) in enumerate(itertools.pairwise(steady)) if one[1] != two[1]]
    clean = [place for place in changes if steps[place - 1] == steps[place] == 1]
    assert len(clean) >= len(changes) / 2, shown


def seen(results: Path, count: int) -> None:
    """Returns after so many more pictures of the camera."""
    lines = results.with_suffix(".partial.jsonl")
    until_s = time.monotonic() + 180
    before = lines.read_text().count("\n") if lines.exists() else 0
    while not lines.exists() or lines.read_text().count("\n") < before + count:
        assert time.monotonic() < until_s, "no more pictures came"
        time.sleep(0.05)


def _corner(rgb: NDArray[np.uint8]) -> tuple[bool, ...]:
    return tuple((rgb[-8:, :8].reshape(-1, 3).mean(axis=0) > 128).tolist())


def _number(rgb: NDArray[np.uint8]) -> int:
    """Of the room's picture, modulo 50; -50 without a subject."""
    red = (rgb[..., 0] > 150) & (rgb[..., 1] < 100)
    columns = np.flatnonzero(red[SIZE_WH[1] // 4 : SIZE_WH[1] * 3 // 4].mean(axis=0) > 0.5)
    return round(columns[0] * 50 / (SIZE_WH[0] * 3 / 4)) if len(columns) else -50
