"""What runs a network, how fast and how well: ONNX Runtime and OpenVINO in float32, bfloat16 and int8.

    python benchmarks/runtimes.py --material FOLDER --model DYNAMIC.onnx [--int8 FILE] [--fixed FILE --fixed-int8 FILE]
        [--json OUT]

DYNAMIC.onnx is yolov8n-seg with a free input (`streamseg models import yolov8n-seg --dynamic`). Its int8 copy is made
here from the clips of the material where none is given. Three tables:

- quality: mask and box AP on datasets/coco_val at 640x640 with the fixed network (models/yolov8n-seg.onnx), which was
  calibrated on the clips and not on these photographs;
- speed: of a network alone, on one prepared picture, 1 and 2 threads, in turns. On a machine that others use too the
  least time of many is the nearest to the truth; CPU time is the median;
- side by side: frames a second of two sessions of one thread each, through `Pool`, against one session of two threads.

`--isa` repeats OpenVINO's speeds in processes that are told to do without newer instructions (ONEDNN_MAX_CPU_ISA);
bfloat16, where it is taken away, is imitated, slowly; without AVX-512 it crashes and is left out. ONNX Runtime has no
such switch: benchmarks/without_avx512.py makes a copy of it for that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from streamseg.cli.evaluate import frames_of
from streamseg.evaluate.agreement import coco_scores
from streamseg.evaluate.instances import Truth
from streamseg.frame import Frame
from streamseg.segment import openvino
from streamseg.segment.ladder import Wanted, describe_running, open_session
from streamseg.segment.load import load_segmenter
from streamseg.segment.ort import Runs
from streamseg.segment.pool import Pool
from streamseg.segment.quantize import quantized, spread

SIZES = ((640, 384), (384, 224))
NAMES = ["output0", "output1"]
ISAS = ("AVX2", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16", "DEFAULT")


def configurations(float32: Path, int8: Path, only: str | None) -> list[tuple[str, str, Path, str]]:
    """Label, provider, file, precision."""
    every = [
        ("ONNX Runtime float32", "cpu", float32, "auto"),
        ("ONNX Runtime int8", "cpu", int8, "auto"),
        ("OpenVINO float32", "openvino", float32, "fp32"),
        ("OpenVINO bfloat16", "openvino", float32, "bf16"),
        ("OpenVINO int8, float32", "openvino", int8, "fp32"),
        ("OpenVINO int8, bfloat16", "openvino", int8, "bf16"),
    ]
    # Not what `probe` says: with instructions taken away, OpenVINO's own choice of bfloat16 fails, and float32 runs.
    here = {"cpu", *(["openvino"] if openvino.installed() else [])}
    if os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2":
        every = [entry for entry in every if entry[3] != "bf16"]
    return [entry for entry in every if entry[1] in here and only in (None, entry[1])]


def clips(material: Path, each: int) -> Iterator[Frame]:
    for clip in sorted((material / "media").glob("*.m??")):
        places = spread(sum(1 for _ in frames_of(str(clip))), each)[:each]
        yield from (frame for place, frame in enumerate(frames_of(str(clip))) if place in places)


def opened(path: Path, provider: str, precision: str, threads: int) -> Runs | None:
    try:
        return open_session(Wanted(path, provider, threads, precision))
    except Exception as error:  # a precision that this processor, or the switch, does not allow
        print(f"left out: {error}", file=sys.stderr)
        return None


def speeds(entries: Sequence[tuple[str, str, Path, str]], rounds: int) -> list[dict[str, Any]]:
    rows = []
    for width, height in SIZES:
        feed = {"images": np.random.default_rng(0).random((1, 3, height, width), np.float32)}
        sessions = [
            (label, threads, session)
            for label, provider, path, precision in entries
            for threads in (1, 2)
            if (session := opened(path, provider, precision, threads)) is not None
        ]
        times: list[list[tuple[float, float]]] = [[] for _ in sessions]
        for turn in range(rounds):
            for (_, _, session), own in zip(sessions, times, strict=True):
                for repeat in range(4):
                    wall, cpu = time.perf_counter(), time.process_time()
                    session.run(NAMES, feed)
                    taken = (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3
                    if turn and repeat:  # the first of each turn finds cold caches
                        own.append(taken)
        for (label, threads, session), own in zip(sessions, times, strict=True):
            rows.append({
                "size": f"{width}x{height}",
                "runtime": label,
                "runs": describe_running(session.on),
                "threads": threads,
                "least_ms": round(min(wall for wall, _ in own), 1),
                "median_ms": round(median(wall for wall, _ in own), 1),
                "cpu_ms": round(median(cpu for _, cpu in own), 1),
            })  # fmt: skip
    return rows


def side_by_side(
    entries: Sequence[tuple[str, str, Path, str]], picture: Frame, rounds: int, frames: int
) -> list[dict[str, Any]]:
    """Whole segmenters, with scaling and post-processing, as a run has them."""
    rows = []
    for size_wh in SIZES:
        for label, provider, path, precision in entries:
            one, *two = (
                load_segmenter(path, provider=provider, threads=threads, precision=precision, size_wh=size_wh)
                for threads in (2, 1, 1)
            )
            pool = Pool(two)
            alone, together = [], []
            for _ in range(rounds):
                start = time.perf_counter()
                for _ in range(frames):
                    one(picture)
                alone.append(frames / (time.perf_counter() - start))
                start = time.perf_counter()
                for future in [pool.submit(picture) for _ in range(frames)]:
                    future.result()
                together.append(frames / (time.perf_counter() - start))
            pool.close()
            ratios = sorted(two / one for one, two in zip(alone, together, strict=True))
            rows.append({
                "size": "{}x{}".format(*size_wh),
                "runtime": label,
                "one_fps": round(max(alone), 1),
                "two_fps": round(max(together), 1),
                "ratio": round(median(ratios), 2),
                "ratios": [round(ratios[0], 2), round(ratios[-1], 2)],
            })  # fmt: skip
    return rows


def quality(entries: Sequence[tuple[str, str, Path, str]], folder: Path) -> list[dict[str, Any]]:
    truth = Truth(folder / "instances.json")
    rows = []
    for label, provider, path, precision in entries:
        segmenter = load_segmenter(path, provider=provider, precision=precision)
        scores = coco_scores(segmenter, truth, frames_of(str(folder / "images")))
        rows.append({"runtime": label, **{name: round(value, 4) for name, value in scores.items()}})
    return rows


def by_instructions(arguments: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for isa in ISAS:
        where = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa}
        done = subprocess.run(
            [sys.executable, __file__, *arguments, "--only", "openvino", "--tables", "speed", "--json", "/dev/stdout"],
            env=where, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if done.returncode:
            print(f"{isa}: OpenVINO ends with code {done.returncode}", file=sys.stderr)
            continue
        report = json.loads(done.stdout[done.stdout.index("{") :])
        rows += [{"isa": isa, **row} for row in report["speed"]]
    return rows


def show(name: str, rows: Sequence[dict[str, Any]]) -> None:
    print(f"\n{name}")
    if rows:
        print("| " + " | ".join(rows[0]) + " |")
        print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True, help="folder with media, datasets and models")
    parser.add_argument("--model", type=Path, required=True, help="yolov8n-seg with a free input")
    parser.add_argument("--int8", type=Path, help="its int8 copy")
    parser.add_argument("--fixed-int8", type=Path, help="the int8 copy of models/yolov8n-seg.onnx")
    parser.add_argument("--tables", default="speed,side,quality", help="which, by commas")
    parser.add_argument("--only", help="a provider")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--isa", action="store_true", help="OpenVINO by instruction set too")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    fixed = args.material / "models/yolov8n-seg.onnx"
    tables = args.tables.split(",")
    report: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as scratch:
        copies = []
        for path, given, used in ((args.model, args.int8, "speed"), (fixed, args.fixed_int8, "quality")):
            copy = given or Path(scratch) / f"{used}-int8.onnx"
            if not given and (used in tables or (used == "speed" and "side" in tables)):
                copy.write_bytes(quantized(path, clips(args.material, 4)))
            copies.append(copy)
        entries = configurations(args.model, copies[0], args.only)
        if "speed" in tables:
            report["speed"] = speeds(entries, args.rounds)
        if "side" in tables:
            clip = str(args.material / "media/portrait_wokada_couple.mp4")
            report["side by side"] = side_by_side(entries, next(iter(frames_of(clip))), args.rounds, 12)
        if "quality" in tables:
            report["quality"] = quality(
                configurations(fixed, copies[1], args.only), args.material / "datasets/coco_val"
            )
        if args.isa:
            words = ["--material", str(args.material), "--model", str(args.model), "--int8", str(copies[0])]
            report["by instruction set"] = by_instructions([*words, "--rounds", str(args.rounds)])
    for name, rows in report.items():
        if isinstance(rows, list) and args.json != Path("/dev/stdout"):
            show(name, rows)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
