"""What a virtual background at camera rate costs: the share of the processor, live, from a real RTSP server.

    python benchmarks/camera_rate.py CLIP --model NAME|FILE[,KEY=VALUE...] [--model ...] [--height 1080] [--seconds 30]

The server sends the clip as H.264 at 30 frames a second; `streamseg run` with these settings blurs it to nowhere
(`null:`). CPU time is that of the program and its children, from five seconds after the start, so that loading is left
out; decoding is in it, the server is not. Where the machine is too busy to keep the rate, frames are dropped, and the
last figure says what the shown ones would take at 30 a second. 100 % is all cores. A model takes 40 seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil
from live import ask, camera, free_port, program, remuxed, value

from streamseg.evaluate.bench_clip import prepared

_RATE = 30


def cpu_s(process: psutil.Process) -> float:
    """Of a process and its children so far."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        total += times.user + times.system
    return total


def measured(url: str, model: str, seconds: float, assignments: list[str]) -> str:
    port = free_port()
    options = [word for one in assignments for word in ("--set", one)]
    running = program(url, "-o", "null:", "--background", "blur", "--model", model, "--metrics", port, *options)
    try:
        process = psutil.Process(running.pid)
        while not frames(port)[0]:
            time.sleep(0.2)
        time.sleep(5)
        (first, lost), cpu, began = frames(port), cpu_s(process), time.monotonic()
        time.sleep(seconds)
        (shown, dropped), cpu, took = frames(port), cpu_s(process) - cpu, time.monotonic() - began
        shown, dropped = shown - first, dropped - lost
    finally:
        running.terminate()
        running.communicate(timeout=60)
    cores = psutil.cpu_count()
    each = cpu / max(shown, 1)
    name = " ".join([Path(model).stem, *assignments])
    return (
        f"{name}: {shown / took:.1f} fps shown, {dropped:.0f} of {shown + dropped:.0f} dropped, "
        f"{1e3 * each:.1f} CPU ms a frame, {100 * cpu / took / cores:.0f} % of all cores; "
        f"{100 * each * _RATE / cores:.0f} % at {_RATE} fps"
    )


def frames(port: int) -> tuple[float, float]:
    """Shown so far, and dropped."""
    try:
        metrics = ask(port)
    except OSError:
        return 0.0, 0.0
    dropped = [float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("streamseg_drops_total{")]
    return value(metrics, 'streamseg_stage_seconds_count{stream="main",stage="process"}'), sum(dropped)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--model", action="append", required=True, metavar="NAME|FILE[,KEY=VALUE...]")
    parser.add_argument("--frames", type=int, default=150, help="of the clip, which is repeated")
    parser.add_argument("--seconds", type=float, default=30)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        clip = remuxed(prepared(args.clip, Path(name), height=args.height, frames=args.frames), Path(name))
        with camera("--mount", f"cam=h264+none:{clip}") as server:
            for spec in args.model:
                model, *assignments = spec.split(",")
                print(measured(server.url("cam"), model, args.seconds, assignments), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
