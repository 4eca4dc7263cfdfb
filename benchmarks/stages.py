"""What every stage but the network costs at 720p, in CPU time of the whole process, one stage after the other.

    python benchmarks/stages.py --material FOLDER [--clip NAME]... [--runs 3] [--encoder NAME:OPTIONS] [--json out.json]

Decode (one thread), scale to the network's input, post-process, matte, smooth, guided upsample, blur, blend, encode
with libx264 ultrafast (one thread). CPU time is that of all the process's threads, so nothing hides in a helper thread.
Every run goes over the whole clip; the first one warms up. What else runs on the machine makes CPU time longer, never
shorter: so the table of a clip is that of its cheapest run, and all runs' sums stand beside it. `yardstick.py` says
before and after each run how slow the machine is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import yardstick
from end_to_end import scaled

from streamseg.app import background_edges, background_smoother
from streamseg.config import Settings
from streamseg.effects import Background, BlurredRoom
from streamseg.frame import Output
from streamseg.pixels.blend import over
from streamseg.pixels.planes import coarse_luma, halve
from streamseg.segment.inspect import inspect_onnx
from streamseg.segment.load import load_segmenter
from streamseg.segment.result import Matte
from streamseg.sinks import open_sink
from streamseg.sources import open_source
from streamseg.temporal import SceneCut

CLIPS = (
    "portrait_wokada_couple.mp4",
    "person_sam2_juggle.mp4",
    "portrait_pixabay_doctor26732.mp4",
    "portrait_pixabay_thoughtful35590.mp4",
    "webcam_intel_asl_book.mkv",
    "webcam_intel_asl_walk.mkv",
    "surv_degirum_traffic.mp4",
)
_MS = 1e3


@dataclass
class Run:
    """One pass over a clip: ms a frame by stage, and how slow the machine was before and after."""

    frames: int
    cpu: dict[str, float]
    wall: dict[str, float]
    network: tuple[float, float]
    scales: list[dict[str, float]]

    @property
    def together(self) -> float:
        """CPU ms a frame of all stages."""
        return sum(self.cpu.values())

    @property
    def slower(self) -> float:
        """The yardstick's median: how many times slower than the reference machine."""
        return sum(map(yardstick.factor, self.scales)) / len(self.scales)

    @property
    def kinds(self) -> list[float]:
        """The same for decoding, work on pixels and encoding."""
        return [sum(pair) / len(pair) for pair in zip(*map(yardstick.factors, self.scales), strict=True)]

    @property
    def by_kind(self) -> tuple[float, float, float]:
        """Decoding, work on pixels and encoding in ms of the reference machine."""
        decode, encode = self.cpu["decode"], self.cpu["encode"]
        spent = (decode, self.together - decode - encode, encode)
        first, second, third = (ms / factor for ms, factor in zip(spent, self.kinds, strict=True))
        return first, second, third


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--clip", action="append", help="in the material's media; may be repeated; people and a street")
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--runs", type=int, default=3, help="of each clip, without the one that warms up")
    parser.add_argument("--encoder", default="libx264:preset=ultrafast")
    parser.add_argument("--quality", default="medium", help="of the encoder; the default of `run` is high")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    model = args.model or args.material / "models/yolov8n-seg.onnx"
    assert inspect_onnx(model).family == "yolo-seg"
    best: dict[str, Run] = {}
    for name in args.clip or CLIPS:
        segmenter = load_segmenter(model, threads=1, classes=[0])
        with tempfile.TemporaryDirectory() as folder:
            clip = scaled(args.material / "media" / name, args.height, Path(folder))
            runs = [measure(segmenter, clip, Path(folder), args) for _ in range(args.runs + 1)][1:]
        best[name] = min(runs, key=lambda run: run.together)
        show(name, args.height, best[name], runs)
    if len(best) > 1:
        together = [run.together for run in best.values()]
        print(f"\nmean of the {len(best)} clips: {sum(together) / len(best):.1f} ms, the worst {max(together):.1f}")
    if args.json:
        document = {
            name: {"frames": run.frames, "cpu_ms": run.cpu, "wall_ms": run.wall, "together_ms": run.together}
            for name, run in best.items()
        }
        args.json.write_text(json.dumps({"height": args.height, "clips": document}, indent=2))
    return 0


def measure(segmenter: Any, clip: Path, folder: Path, args: argparse.Namespace) -> Run:
    """One pass over the clip, everything that makes a frame, one stage after the other."""
    cpu: dict[str, float] = defaultdict(float)
    wall: dict[str, float] = defaultdict(float)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        cpu_began, wall_began = time.process_time(), time.perf_counter()
        yield
        cpu[stage] += time.process_time() - cpu_began
        wall[stage] += time.perf_counter() - wall_began

    network = segmenter._segmenter._session  # to take the network's own time out
    run = network.run

    def timed_run(*arguments: Any, **options: Any) -> Any:
        with timed("network"):
            return run(*arguments, **options)

    settings = Settings()
    scales = [yardstick.measure(clip, folder)]
    network.run = timed_run
    source = open_source(str(clip), threads=1)
    sink = open_sink(str(folder / "out.mkv"), source.info, encoder=args.encoder, quality=args.quality, threads=1)
    effect = Background(BlurredRoom(0.5), background_edges(settings))
    smoother, cut, backdrop = background_smoother(settings), SceneCut(), BlurredRoom(0.5)
    count = 0
    while count < args.frames:
        with timed("decode"):
            frame = source.read()
        if frame is None:
            break
        with timed("scale + post-process"):
            seen = segmenter(frame)
        with timed("matte"):
            matte = seen.matte([0])
        with timed("smooth + scene cut"):
            luma = coarse_luma(frame)
            if cut(luma, 1 / 30):
                smoother.reset()
            matte = smoother(matte, luma, 1 / 30)
        with timed("guided upsample"):
            alpha = effect.opacity(frame, Matte(matte, (frame.width, frame.height)).matte(None))
        out = np.empty_like(frame.planes)
        with timed("blur"):
            half_alpha = halve(alpha)
            background = backdrop(frame, alpha, half_alpha, out)
        with timed("blend"):
            over(frame.planes, background, alpha, out, half_alpha=half_alpha)
        with timed("encode"):
            sink.write(Output(frame.with_picture(out)))
        count += 1
    with timed("encode"):
        sink.finish()
    sink.close()
    source.close()
    network.run = run
    scales.append(yardstick.measure(clip, folder))
    inside = (cpu.pop("network"), wall.pop("network"))
    cpu["scale + post-process"] -= inside[0]
    wall["scale + post-process"] -= inside[1]
    each = _MS / count
    return Run(
        count,
        {stage: spent * each for stage, spent in cpu.items()},
        {stage: spent * each for stage, spent in wall.items()},
        (inside[0] * each, inside[1] * each),
        scales,
    )


def show(name: str, height: int, run: Run, runs: list[Run]) -> None:
    """Print one clip's table."""
    print(f"\n{name}, {height}p, {run.frames} frames; ms a frame in the cheapest of {len(runs)} runs")
    print(f"{'stage':24}{'CPU':>8}{'wall':>8}")
    for stage in run.cpu:
        print(f"{stage:24}{run.cpu[stage]:8.2f}{run.wall[stage]:8.2f}")
    print(f"{'all but the network':24}{run.together:8.2f}{sum(run.wall.values()):8.2f}")
    print(f"{'(the network, 1 thread)':24}{run.network[0]:8.2f}{run.network[1]:8.2f}")
    print("all runs: " + ", ".join(f"{other.together:.2f}" for other in runs))
    if height != 720:
        return
    print("yardstick, ms here / ms on the reference machine:")
    for call, reference in yardstick.REFERENCE_MS.items():
        print(f"  {call:32}{' '.join(f'{scale[call]:6.2f}' for scale in run.scales)} /{reference:6.2f}")
    print(f"this machine is {run.slower:.2f} times slower;")
    print(f"all but the network comes to {run.together / run.slower:.1f} ms there")
    decode, ours, encode = run.by_kind
    print(
        "by kind: decode {:.2f}, pixels {:.2f}, encode {:.2f} times slower; ".format(*run.kinds)
        + f"{decode:.1f} + {ours:.1f} + {encode:.1f} = {decode + ours + encode:.1f} ms there",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
