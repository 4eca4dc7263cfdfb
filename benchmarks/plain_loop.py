"""The loop that people write today, as the yardstick: ultralytics predict, GaussianBlur, np.where, VideoWriter.

    PYTHON benchmarks/plain_loop.py CLIP --model M.onnx [--imgsz H W] [--cv-threads 1|2] [--seconds 20] [-o OUT.mp4]

PYTHON has ultralytics; nothing of streamseg is imported. Prints one JSON document: frames, seconds, fps (from the first
frame read to the writer's release, after three frames of warming up). OpenCV's threads are set after the import,
because ultralytics makes OpenCV single-threaded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from ultralytics_side import import_ultralytics

ultralytics = import_ultralytics(fast_nms=True)
ultralytics.utils.LOGGER.setLevel("ERROR")

import cv2  # noqa: E402


def blurred_background(model, frame, options):
    result = model.predict(frame, classes=[0], **options)[0]
    person = np.zeros(frame.shape[:2], np.float32)
    if result.masks is not None:
        union = result.masks.data.max(dim=0).values.numpy().astype(np.float32)
        # The masks are at the network's scale, with its padding.
        height, width = frame.shape[:2]
        gain = min(union.shape[0] / height, union.shape[1] / width)
        rows, columns = round(height * gain), round(width * gain)
        top, left = (union.shape[0] - rows) // 2, (union.shape[1] - columns) // 2
        person = cv2.resize(union[top : top + rows, left : left + columns], (width, height))
    blurred = cv2.GaussianBlur(frame, (55, 55), 0)
    return np.where(person[..., None] > 0.5, frame, blurred)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="ONNX file")
    parser.add_argument("--imgsz", type=int, nargs="+", default=[640, 640], help="height and width of the input")
    parser.add_argument("--cv-threads", type=int, default=1, choices=(1, 2))
    parser.add_argument("--frames", type=int, help="stop after so many")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("-o", "--out", type=Path, default=Path("plain_loop.mp4"))
    args = parser.parse_args()

    model = ultralytics.YOLO(str(args.model), task="segment")
    options = {"imgsz": args.imgsz, "device": "cpu", "verbose": False}
    capture = cv2.VideoCapture(str(args.clip))
    good, frame = capture.read()
    if not good:
        raise SystemExit(f"cannot read {args.clip}")
    cv2.setNumThreads(args.cv_threads)
    for _ in range(3):
        blurred_background(model, frame, options)

    capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
    size = (frame.shape[1], frame.shape[0])
    writer = cv2.VideoWriter(str(args.out), cv2.VideoWriter_fourcc(*"mp4v"), capture.get(cv2.CAP_PROP_FPS) or 30, size)
    times: list[float] = []
    start = time.perf_counter()
    while args.frames is None or len(times) < args.frames:
        if args.seconds is not None and time.perf_counter() - start > args.seconds:
            break
        begin = time.perf_counter()
        good, frame = capture.read()
        if not good:
            break
        writer.write(blurred_background(model, frame, options))
        times.append(time.perf_counter() - begin)
    writer.release()
    wall_s = time.perf_counter() - start
    report = {
        "frames": len(times),
        "wall_s": wall_s,
        "fps": len(times) / wall_s,
        "median_ms": statistics.median(times) * 1000,
        "size_wh": size,
        "imgsz": args.imgsz,
        "cv_threads": args.cv_threads,
        "ultralytics": ultralytics.__version__,
        "opencv": cv2.__version__,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
