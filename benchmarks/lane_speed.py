"""What the lane overlay costs, in CPU time: it holds on a machine that has other work to do.

    python benchmarks/lane_speed.py CLIP [--rounds 3]

Finder and painting are timed in one thread, which is how a run does them; "run" is the CPU time of every thread of
`streamseg run CLIP --task lanes -o null:` (decoding and painting, no encoding) less that of its first frames alone, so
that imports do not count. On two cores a run reaches the smaller of 1 / (finder + painting) and 2 / run.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import av
import cv2

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lane_stability import decoded

from streamseg.effects.lanes import LaneOverlay
from streamseg.lanes import LaneFinder
from streamseg.lanes.classical import ClassicalLaneFinder

FEW = 8


def head_of(clip: Path, path: Path) -> None:
    """The first frames of a clip, as they are."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for count, packet in enumerate(source.demux(stream)):
            if packet.dts is None or count >= FEW:
                break
            packet.stream = copy
            target.mux(packet)


def run_cpu_s(clip: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "streamseg", "run", str(clip), "--task", "lanes", "-o", "null:", "--quiet"]
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    frames = list(decoded(chosen.clip, 10**6))
    steps = [0.0, *(after.seconds - before.seconds for before, after in pairwise(frames))]
    alone, painted, whole = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        short = Path(folder) / f"short{chosen.clip.suffix}"
        head_of(chosen.clip, short)
        for _ in range(chosen.rounds):
            finder: LaneFinder = ClassicalLaneFinder()
            overlay = LaneOverlay(ClassicalLaneFinder())
            for times, step in ((alone, finder), (painted, overlay)):
                begin = time.thread_time()
                for frame, dt_s in zip(frames, steps, strict=True):
                    step(frame, None, dt_s)
                times.append((time.thread_time() - begin) / len(frames))
            whole.append((run_cpu_s(chosen.clip) - run_cpu_s(short)) / (len(frames) - FEW))
    for name, times in (("finder", alone), ("finder and painting", painted), ("run, every thread", whole)):
        print(f"{name}: {min(times) * 1e3:.2f} to {max(times) * 1e3:.2f} ms of CPU a frame")
    reached = min(1 / statistics.median(painted), 2 / statistics.median(whole))
    print(f"two cores: {reached:.0f} frames a second")


if __name__ == "__main__":
    main()
