"""End to end against the loop that people write themselves, in turns, in one run.

    python benchmarks/end_to_end.py --material FOLDER --ultralytics-python PYTHON [--sizes 720 1080] [--json out.json]

Both sides: the same clip, weights and input shape, a blurred background, every frame segmented, a video file written.
Theirs is benchmarks/plain_loop.py in an interpreter that has ultralytics, with OpenCV at whichever of one and two
threads is faster; ours is `streamseg run` with libx264 ultrafast. Each side is a process of its own, measured from its
first frame to its last (loading and warming up excluded on both sides).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import av

HERE = Path(__file__).parent


def scaled(clip: Path, height: int, folder: Path) -> Path:
    """The clip at another height, as H.264 of high quality; the clip itself where it has that height."""
    with av.open(str(clip)) as source:
        if source.streams.video[0].height == height:
            return clip
    out = folder / f"{clip.stem}_{height}.mp4"
    with av.open(str(clip)) as source, av.open(str(out), "w") as sink:
        video = source.streams.video[0]
        width = round(video.width * height / video.height / 2) * 2
        stream = sink.add_stream("libx264", rate=video.average_rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "18"}
        for frame in source.decode(video):
            sink.mux(stream.encode(frame.reformat(width, height, "yuv420p", interpolation="BICUBIC")))
        sink.mux(stream.encode(None))
    return out


def ours(clip: Path, model: Path, folder: Path) -> dict:
    report = folder / "report.json"
    subprocess.run(
        [sys.executable, "-m", "streamseg", "run", str(clip), "-o", str(folder / "ours.mp4"), "--background", "blur",
         "--model", str(model), "--encoder", "libx264:preset=ultrafast", "--report", str(report), "--quiet"],
        check=True,
    )  # fmt: skip
    document = json.loads(report.read_text())
    return {"fps": document["frames"]["out"] / document["wall_s"], "stages": document["stages"]}


def theirs(python: str, clip: Path, model: Path, threads: int, folder: Path) -> float:
    shape = model_shape(model)
    command = [python, str(HERE / "plain_loop.py"), str(clip), "--model", str(model), "--imgsz", *map(str, shape)]
    command += ["--cv-threads", str(threads), "--out", str(folder / "theirs.mp4")]
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.strip().splitlines()[-1])["fps"]


def model_shape(model: Path) -> tuple[int, int]:
    from streamseg.segment.inspect import inspect_onnx

    height, width = inspect_onnx(model).input_hw
    if not height or not width:
        raise SystemExit(f"{model} has a free input size; both sides need a fixed one")
    return height, width


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--ultralytics-python", required=True)
    parser.add_argument("--clip", type=Path, help="default: media/portrait_wokada_couple.mp4")
    parser.add_argument("--models", type=Path, nargs="+", help="default: models/yolov8n-seg.onnx, 640x640")
    parser.add_argument("--sizes", type=int, nargs="+", default=[720, 1080])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    clip = args.clip or args.material / "media/portrait_wokada_couple.mp4"
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for height in args.sizes:
            video = scaled(clip, height, folder)
            for model in args.models or [args.material / "models/yolov8n-seg.onnx"]:
                trial = {n: theirs(args.ultralytics_python, video, model, n, folder) for n in (1, 2)}
                threads = max(trial, key=lambda n: trial[n])
                ours(video, model, folder)
                mine, other = [], []
                for _ in range(args.turns):
                    mine.append(ours(video, model, folder)["fps"])
                    other.append(theirs(args.ultralytics_python, video, model, threads, folder))
                shape = model_shape(model)
                row = {
                    "height": height,
                    "input": f"{shape[1]}x{shape[0]}",
                    "streamseg_fps": mine,
                    "plain_loop_fps": other,
                    "plain_loop_cv2_threads": threads,
                    "ratio": statistics.median(m / o for m, o in zip(mine, other, strict=True)),
                }
                results.append(row)
                print(
                    f"{height}p, {row['input']}: streamseg {statistics.median(mine):.1f} fps, "
                    f"plain loop {statistics.median(other):.1f} fps, ratio {row['ratio']:.2f} "
                    f"({min(m / o for m, o in zip(mine, other, strict=True)):.2f} to "
                    f"{max(m / o for m, o in zip(mine, other, strict=True)):.2f})",
                    flush=True,
                )
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
