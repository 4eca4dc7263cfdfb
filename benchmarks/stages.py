"""What every stage but the network costs at 720p, in CPU time of the whole process, one stage after the other.

    python benchmarks/stages.py --material FOLDER [--height 720] [--encoder NAME:OPTIONS] [--json out.json]

Decode (one thread), scale to the network's input, post-process, matte, smooth, guided upsample, blur, blend, encode
with libx264 ultrafast (one thread). CPU time is that of all the process's threads, so nothing hides in a helper thread.
Every stage runs over the whole clip; the first pass warms up. `yardstick.py` says before
and after how slow the machine is.
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
from pathlib import Path

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--clip", default="portrait_wokada_couple.mp4", help="in the material's media")
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--encoder", default="libx264:preset=ultrafast")
    parser.add_argument("--quality", default="medium", help="of the encoder; the default of `run` is high")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    cpu: dict[str, float] = defaultdict(float)
    wall: dict[str, float] = defaultdict(float)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        cpu_began, wall_began = time.process_time(), time.perf_counter()
        yield
        cpu[stage] += time.process_time() - cpu_began
        wall[stage] += time.perf_counter() - wall_began

    model = args.model or args.material / "models/yolov8n-seg.onnx"
    assert inspect_onnx(model).family == "yolo-seg"
    segmenter = load_segmenter(model, threads=1, classes=[0])
    network = segmenter._segmenter._session  # to take the network's own time out
    run, inside = network.run, [0.0, 0.0]

    def timed_run(*arguments, **options):
        cpu_began, wall_began = time.process_time(), time.perf_counter()
        answer = run(*arguments, **options)
        inside[0] += time.process_time() - cpu_began
        inside[1] += time.perf_counter() - wall_began
        return answer

    network.run = timed_run
    settings = Settings()
    scales = []
    with tempfile.TemporaryDirectory() as name:
        clip = scaled(args.material / "media" / args.clip, args.height, Path(name))
        for turn in range(2):
            scales.append(yardstick.measure(clip, Path(name)))
            cpu.clear()
            wall.clear()
            inside[:] = [0.0, 0.0]
            source = open_source(str(clip), threads=1)
            sink = open_sink(
                str(Path(name) / f"out{turn}.mkv"),
                source.info,
                encoder=args.encoder,
                quality=args.quality,
                threads=1,
            )
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
        scales.append(yardstick.measure(clip, Path(name)))
    cpu["scale + post-process"] -= inside[0]
    wall["scale + post-process"] -= inside[1]
    print(f"{args.clip}, {args.height}p, {count} frames; ms a frame")
    print(f"{'stage':24}{'CPU':>8}{'wall':>8}")
    for stage in cpu:
        print(f"{stage:24}{1e3 * cpu[stage] / count:8.2f}{1e3 * wall[stage] / count:8.2f}")
    print(f"{'all but the network':24}{1e3 * sum(cpu.values()) / count:8.2f}{1e3 * sum(wall.values()) / count:8.2f}")
    print(f"{'(the network, 1 thread)':24}{1e3 * inside[0] / count:8.2f}{1e3 * inside[1] / count:8.2f}")
    # Before and after the stages, in the same run: the machine's speed changes from minute to minute.
    factors = [yardstick.factor(scale) for scale in scales[1:]]
    slower = sum(factors) / len(factors)
    if args.height == 720:
        print("yardstick, ms here / ms on the reference machine:")
        for name, reference in yardstick.REFERENCE_MS.items():
            print(f"  {name:32}{' '.join(f'{scale[name]:6.2f}' for scale in scales[1:])} /{reference:6.2f}")
        print(f"this machine is {slower:.2f} times slower (before {factors[0]:.2f}, after {factors[1]:.2f});")
        print(f"all but the network comes to {1e3 * sum(cpu.values()) / count / slower:.1f} ms there")
        kinds = [sum(pair) / len(pair) for pair in zip(*map(yardstick.factors, scales[1:]), strict=True)]
        decode, encode = cpu["decode"] / kinds[0], cpu["encode"] / kinds[2]
        ours = (sum(cpu.values()) - cpu["decode"] - cpu["encode"]) / kinds[1]
        print(
            f"by kind: decode {kinds[0]:.2f}, pixels {kinds[1]:.2f}, encode {kinds[2]:.2f} times slower; "
            f"{1e3 * decode / count:.1f} + {1e3 * ours / count:.1f} + {1e3 * encode / count:.1f} = "
            f"{1e3 * (decode + ours + encode) / count:.1f} ms there"
        )
    if args.json:
        table = {stage: {"cpu_ms": 1e3 * cpu[stage] / count, "wall_ms": 1e3 * wall[stage] / count} for stage in cpu}
        args.json.write_text(json.dumps({"height": args.height, "frames": count, "stages": table}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
