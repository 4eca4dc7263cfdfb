"""The comparisons of `streamseg bench` on the project's clips: whole and busy pictures, 720p and 1080p.

    python benchmarks/end_to_end.py --material FOLDER --peer ultralytics=PYTHON [--peer ...] --out FOLDER
                                    [--only NAME]... [-- any other options of `streamseg bench`]

Runs the command once for each clip and leaves NAME.json in the folder. Without models after `--`, the material's
yolov8n-seg at 640x640 competes, which is also what the ultralytics peer runs.

    python benchmarks/end_to_end.py --material FOLDER --truth FOLDER

writes the clips of known opacity that benchmarks/edges.py makes as a folder for `streamseg bench --quality`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from edges import known_alpha

from streamseg.cli import main as streamseg
from streamseg.evaluate.bench_clip import prepared

# Name of the comparison: the clip and its height.
CLIPS = {
    "couple-720": ("portrait_wokada_couple.mp4", 720),
    "couple-1080": ("portrait_wokada_couple.mp4", 1080),
    "juggle-720": ("person_sam2_juggle.mp4", 720),
    "traffic-1080": ("surv_degirum_traffic.mp4", 1080),
}


def scaled(clip: Path, height: int, folder: Path) -> Path:
    """The clip at another height, as H.264 of high quality; the clip itself where it has that height."""
    return prepared(clip, folder, height=height)


def write_truth(material: Path, folder: Path) -> None:
    for clip in known_alpha(material, clips=3, frames=20):
        for kind, suffix, pictures in (
            ("JPEGImages", "jpg", [picture[..., ::-1] for picture in clip.pictures]),
            ("Annotations", "png", [(alpha > 127).view(np.uint8) for alpha in clip.alphas]),
        ):
            (folder / kind / clip.name).mkdir(parents=True, exist_ok=True)
            for number, picture in enumerate(pictures):
                cv2.imwrite(str(folder / kind / clip.name / f"{number:05}.{suffix}"), picture)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("end_to_end"))
    parser.add_argument("--truth", type=Path, help="write these clips and do nothing else")
    parser.add_argument("--only", action="append", choices=CLIPS)
    parser.add_argument("rest", nargs="*", help="after --")
    args = parser.parse_args()
    if args.truth:
        write_truth(args.material, args.truth)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    rest = args.rest
    if "--model" not in rest:
        rest = [*rest, "--model", str(args.material / "models/yolov8n-seg.onnx")]
    for name in args.only or CLIPS:
        clip, height = CLIPS[name]
        words = [str(args.material / "media" / clip), "--height", str(height), "--json", str(args.out / f"{name}.json")]
        peers = [word for peer in args.peer for word in ("--peer", peer)]
        print(f"\n{name}", flush=True)
        if code := streamseg(["bench", *words, *peers, *rest]):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
