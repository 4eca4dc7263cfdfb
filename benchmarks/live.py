"""Live figures on a real RTSP server: latency, what happens when the network is far too slow, a soak, many streams.

    python benchmarks/live.py latency [--clip CLIP] [--model selfie] [--seconds 60]
    python benchmarks/live.py slow [--minutes 10]
    python benchmarks/live.py soak [--minutes 30]
    python benchmarks/live.py streams [--count 8] [--model FILE] [--seconds 40]

The server runs on the same machine and sends clips that are encoded already. Latency is from a frame's arrival to the
end of its sink's write, as the report gives it.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import psutil
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

from streamseg.app import build
from streamseg.app.network import Sessions
from streamseg.config import load_settings
from streamseg.segment.ladder import Wanted
from streamseg.segment.ort import Runs
from streamseg.sources.pattern import index_of
from tests import networks
from tests.live_parts import RtspServer, camera_clip, free_port


@contextmanager
def camera(*arguments: str):
    """A running server."""
    server = RtspServer(arguments)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def remuxed(clip: Path, folder: Path) -> Path:
    """The clip as H.264 in Matroska, a key frame every second, no B-frames: what a camera sends."""
    out = folder / "camera.mkv"
    command = ["ffmpeg", "-v", "error", "-i", str(clip), "-an", "-c:v", "libx264", "-preset", "veryfast", "-bf", "0"]
    subprocess.run([*command, "-g", "30", "-r", "30", "-pix_fmt", "yuv420p", str(out)], check=True)
    return out


def program(*args: object) -> subprocess.Popen[str]:
    """``streamseg run``."""
    command = [sys.executable, "-m", "streamseg", "run", *map(str, args), "--log-json"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def ask(port: int) -> str:
    """The metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        return str(reply.read().decode())


def value(metrics: str, start: str) -> float:
    """Of the first metric that begins like this; 0 when there is none yet."""
    return next((float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(start)), 0.0)


def latency(args: argparse.Namespace) -> None:
    """720p30 live: from arrival to the end of the sink's write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = remuxed(Path(args.clip), folder)
        with camera("--mount", f"cam=h264+none:{clip}") as server:
            for outputs in (["null:"], ["null:", str(folder / "rec.mkv")]):
                sinks = [word for url in outputs for word in ("-o", url)]
                report = folder / "report.json"
                process = program(server.url("cam"), *sinks, "--model", args.model, "--report", report)
                time.sleep(args.seconds)
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=30)
                told = json.loads(report.read_text())
                print(f"outputs {[Path(url).name for url in outputs]}: {told['fps']} fps in, {told['frames']}")
                for stage in told["stages"]:
                    times = told["stages"][stage]
                    words = ", ".join(f"{key[:-3]} {times[key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms"))
                    print(f"  {Path(stage).name:28} {words}")


class TooSlow(Sessions):
    """Networks that take a third of a second longer."""

    def alone(self, wanted: Wanted, say: Callable[[str], None]) -> Runs:
        return TakesLonger(super().alone(wanted, say))


class TakesLonger:
    """A session that takes a third of a second longer."""

    def __init__(self, session: Runs) -> None:
        self._session = session
        self.on = session.on

    def run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        time.sleep(10 / 30)
        return self._session.run(outputs, feeds)


def slow(args: argparse.Namespace) -> None:
    """A network ten times too slow: how old the pictures of every minute are when they come out, by the second."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        clip = camera_clip(folder / "cam.mkv", sound=None, frames=300)
        server = stack.enter_context(camera("--mount", f"cam=h264+none:{clip}"))
        red = networks.matte(folder / "red.onnx", size=64, alone=True)
        settings = load_settings(
            None,
            ["temporal.mode=every"],
            {"source.url": server.url("cam"), "output.sinks": ["null:"], "model.name": str(red)},
        )
        run = build(settings, print, sessions=TooSlow())
        ages_ms: list[tuple[float, float]] = []
        begin = time.monotonic()
        run.pipeline.start()
        count, sum_ms = 0, 0.0
        while (now := time.monotonic() - begin) < args.minutes * 60:
            run.pipeline.wait(1.0)
            told = run.measured()["stages"].get("latency null:")
            if told is not None and told["count"] > count:
                before, count = (count, sum_ms), told["count"]
                sum_ms = told["mean_ms"] * count
                ages_ms.append((now, (sum_ms - before[1]) / (count - before[0])))
        run.pipeline.stop()
        run.pipeline.wait(30)
        run.resources.close()
        for minute in range(args.minutes):
            of_minute = [age_ms for at, age_ms in ages_ms if minute <= at / 60 < minute + 1]
            print(
                f"minute {minute + 1}: median age {statistics.median(of_minute):.0f} ms, most {max(of_minute):.0f} ms"
            )
        print(f"{count} frames came out")
        print(run.pipeline.drops, dict(run.source.counts))


def soak(args: argparse.Namespace) -> None:
    """RTSP with sound to a recording, a preview that is watched, and nowhere; the server dies twice."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = camera_clip(folder / "cam.mkv", sound="aac", frames=900, size_wh=(640, 360))
        red = networks.matte(folder / "red.onnx", size=64)
        metrics, preview = free_port(), free_port()
        with camera("--mount", f"cam=h264+aac:{clip}") as server:
            process = program(
                *(server.url("cam"), "-o", folder / "rec.mkv", "-o", f"http://127.0.0.1:{preview}/", "-o", "null:"),
                *("--model", red, "--background", "none", "--metrics", metrics, "--report", folder / "report.json"),
            )
            viewer = None
            samples: list[tuple[float, float]] = []
            begin = time.monotonic()
            deaths = [args.minutes * 60 / 3, args.minutes * 60 * 2 / 3]
            while (now := time.monotonic() - begin) < args.minutes * 60:
                if viewer is None and now > 10:
                    command = ["ffmpeg", "-v", "quiet", "-i", f"http://127.0.0.1:{preview}/stream.mjpg"]
                    viewer = subprocess.Popen([*command, "-f", "null", "-"], stdin=subprocess.DEVNULL)
                if deaths and now > deaths[0]:
                    deaths.pop(0)
                    server.kill()
                    time.sleep(3)
                    server.start()
                own = psutil.Process(process.pid)
                samples.append((now, sum(p.memory_info().rss for p in (own, *own.children())) / 1e6))
                time.sleep(10)
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=30)[1]
            if viewer is not None:
                viewer.kill()
        (recording,) = folder.glob("rec-*.mkv")
        told = json.loads((folder / "report.json").read_text())
        half = [(at, mb) for at, mb in samples if at > min(120, args.minutes * 15)]
        slope = statistics.linear_regression([at for at, _ in half], [mb for _, mb in half]).slope * 600
        print("RSS, MB, every 5 minutes:", [round(mb, 1) for at, mb in samples[::30]])
        print(f"slope after the start: {slope:+.2f} MB per 10 minutes, {samples[-1][1]:.0f} MB at the end")
        print("frames:", told["frames"], told["source"]["irregularities"])
        print("sinks:", [(sink["url"][-20:], sink["frames"], sink["counts"]) for sink in told["sinks"]])
        print("sound against picture, ms:", sync_ms(clip, recording))
        print("log:", [json.loads(line)["message"] for line in said.splitlines()][:12])


def sync_ms(clip: Path, recording: Path) -> dict[str, float]:
    """How far sound and picture of a recording are apart from what they are in the clip, at the end of it.

    Every packet of sound is found in the clip by its bytes, every picture by the number in its top rows.
    """
    with av.open(str(clip)) as container:
        length_s = float(container.duration / av.time_base)
        known = {bytes(p): float(p.pts * p.time_base) for p in container.demux(audio=0) if p.size > 16 and p.pts}
    with av.open(str(clip)) as container:
        shown = {index_of(f.to_ndarray()[: f.height]): float(f.time) for f in container.decode(video=0)}
    with av.open(str(recording)) as container:
        end_s = float(container.duration / av.time_base)
    sound, picture = [], []
    with av.open(str(recording)) as container:
        for packet in container.demux(audio=0):
            if packet.size > 16 and packet.pts is not None and bytes(packet) in known:
                at_s = float(packet.pts * packet.time_base)
                if at_s > end_s - 60:
                    sound.append((at_s - known[bytes(packet)]) % length_s)
    with av.open(str(recording)) as container:
        container.seek(int(max(0, end_s - 60) * av.time_base))
        for frame in container.decode(video=0):
            if frame.time > end_s - 60 and (index := index_of(frame.to_ndarray()[: frame.height])) in shown:
                picture.append((float(frame.time) - shown[index]) % length_s)
    apart = (statistics.median(sound) - statistics.median(picture) + length_s / 2) % length_s - length_s / 2
    return {"median": round(apart * 1e3, 1), "packets": len(sound), "pictures": len(picture)}


def streams(args: argparse.Namespace) -> None:
    """Several cameras of 640x360 at 5 fps through one network; then the same with one that dies at the beginning."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = camera_clip(folder / "cam.mkv", sound=None, frames=100, size_wh=(640, 360), rate=Fraction(5))
        before, after = _cameras(args, folder, clip, dies=False), _cameras(args, folder, clip, dies=True)
        print("stream   fps   p50  p95  p99 ms   where cam0 dies: fps  p50  p95  p99")
        for number in range(args.count):
            print(f"cam{number}    {_row(before[number])}   {_row(after[number])}")
        rates = [row[0] for row in before]
        print(f"fairness: {min(rates):.2f} to {max(rates):.2f} fps, {(max(rates) / min(rates) - 1) * 100:.1f} % apart")
        changes = [after[n][3] / before[n][3] - 1 for n in range(1, args.count)]
        low, middle, high = min(changes) * 100, statistics.median(changes) * 100, max(changes) * 100
        print(f"change of p99 of the others: {low:+.0f} to {high:+.0f} %, median {middle:+.0f} %")


def _cameras(args: argparse.Namespace, folder: Path, clip: Path, *, dies: bool) -> list[Sequence[float]]:
    """A run of its own, as its percentiles are of the whole run."""
    with ExitStack() as stack:
        servers = [RtspServer(["--mount", f"cam=h264+none:{clip}"]) for _ in range(args.count)]
        for server in servers:
            server.start()
            stack.callback(server.kill)
        metrics = free_port()
        config = folder / "streams.yaml"
        lines = [f"model: {{name: {args.model}, size: {args.size}}}", f"live: {{metrics: '{metrics}'}}", "streams:"]
        lines += [
            f"  cam{number}: {{source: {{url: '{server.url('cam')}'}}, output: {{sinks: ['null:']}}}}"
            for number, server in enumerate(servers)
        ]
        config.write_text("\n".join(lines))
        process = program("--config", config, *([] if not args.keep else ["--keep", args.keep]))
        stack.callback(process.kill)
        started = time.monotonic()
        while time.monotonic() - started < 120:
            try:
                if all(
                    value(ask(metrics), f'streamseg_sink_frames_total{{stream="cam{n}"') > 2 for n in range(args.count)
                ):
                    break
            except OSError:
                pass
            time.sleep(0.5)
        if dies:
            servers[0].kill()
        rows = _measure(metrics, args.count, args.seconds)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        return rows


def _measure(port: int, count: int, seconds: float) -> list[Sequence[float]]:
    """fps and latency of every stream over some seconds."""
    first = ask(port)
    time.sleep(seconds)
    text = ask(port)
    rows = []
    for number in range(count):
        lead = f'streamseg_sink_frames_total{{stream="cam{number}"'
        shown = f'streamseg_stage_seconds_count{{stream="cam{number}",stage="process"'
        fps = (value(text, shown) - value(first, shown)) / seconds
        assert value(text, lead) >= 0
        stage = f'streamseg_stage_seconds{{stream="cam{number}",stage="latency null:",quantile='
        rows.append([fps, *(value(text, f'{stage}"{q}"') * 1e3 for q in ("0.5", "0.95", "0.99"))])
    return rows


def _row(row: Sequence[float]) -> str:
    return f"{row[0]:5.2f} {row[1]:5.0f} {row[2]:4.0f} {row[3]:4.0f}"


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("latency")
    one.add_argument("--clip", required=True)
    one.add_argument("--model", default="selfie")
    one.add_argument("--seconds", type=float, default=60)
    one.set_defaults(function=latency)
    one = what.add_parser("slow")
    one.add_argument("--minutes", type=int, default=10)
    one.set_defaults(function=slow)
    one = what.add_parser("soak")
    one.add_argument("--minutes", type=float, default=30)
    one.set_defaults(function=soak)
    one = what.add_parser("streams")
    one.add_argument("--count", type=int, default=8)
    one.add_argument("--model", default="yolov8n-seg")
    one.add_argument("--size", default="384x224")
    one.add_argument("--keep")
    one.add_argument("--seconds", type=float, default=40)
    one.set_defaults(function=streams)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
