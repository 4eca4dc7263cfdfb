"""Peak memory at 1080p, and whether it grows.

    python benchmarks/memory.py --material FOLDER [--frames 5000] [--height 1080] [--model selfie.onnx]

Runs `streamseg run` on a clip repeated to so many frames and samples the resident set of the process (psutil).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))
from end_to_end import scaled


def repeated(clip: Path, frames: int, out: Path) -> Path:
    """The clip's packets over and over, with rising time stamps."""
    with av.open(str(out), "w") as sink:
        stream, shift, count = None, 0, 0
        while count < frames:
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                stream = stream or sink.add_stream_from_template(video)
                last = 0
                for packet in source.demux(video):
                    if packet.dts is None or count >= frames:
                        continue
                    last = max(last, packet.pts + packet.duration)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    sink.mux(packet)
                    count += 1
                shift += last
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="default: models/selfie.onnx (the fastest)")
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--height", type=int, default=1080)
    args = parser.parse_args()
    model = args.model or args.material / "models/selfie.onnx"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = scaled(args.material / "media/portrait_wokada_couple.mp4", args.height, folder)
        clip = repeated(clip, args.frames, folder / "long.mp4")
        command = [sys.executable, "-m", "streamseg", "run", str(clip), "-o", str(folder / "out.mp4"), "--quiet"]
        command += ["--model", str(model), "--background", "blur"]
        process = subprocess.Popen(command)
        watched, samples, began = psutil.Process(process.pid), [], time.monotonic()
        while process.poll() is None:
            try:
                samples.append((time.monotonic() - began, watched.memory_info().rss / 2**20))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.25)
        if process.returncode:
            return process.returncode
    seconds, sizes = np.array(samples).T
    # The first tenth fills buffers; from there on a straight line says how much it grows.
    settled = seconds > 0.1 * seconds[-1]
    slope = np.polyfit(seconds[settled], sizes[settled], 1)[0] * (seconds[-1] - seconds[settled][0])
    rate = args.frames / seconds[-1]
    print(f"{args.frames} frames at {args.height}p in {seconds[-1]:.0f} s ({rate:.1f} fps)")
    print(f"peak {sizes.max():.0f} MiB; drift over the run {slope:+.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
