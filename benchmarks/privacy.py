"""How much of people stays uncovered: one pass against two, on DAVIS's masks; and what each costs.

    python benchmarks/privacy.py MODEL.onnx DAVIS_FOLDER [--every N] [--save FOLDER]

`--every N` lets the network see only every N-th frame: missed detections on purpose. The share is that of the labelled
pixels which are left in the picture as they were, to 10 of 255 in the luma, by frame.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from streamseg.effects.privacy import PEOPLE, VEHICLES, HiddenClasses, Privacy, SightingStore, coverage_of
from streamseg.evaluate.davis import clips, truth_of
from streamseg.frame import Frame
from streamseg.segment.load import load_segmenter
from streamseg.sources import open_source

# What DAVIS labels as one object in each clip.
LABELLED = {"dance-twirl": PEOPLE, "scooter-black": PEOPLE | VEHICLES, "car-shadow": VEHICLES}


def covered(output_covers: tuple, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: what is hidden in full."""
    found = np.zeros(shape, bool)
    for cover in output_covers:
        mask, (left, top) = coverage_of(cover, shape[0])
        x1, y1, x2, y2 = max(left, 0), max(top, 0), left + mask.shape[1], top + mask.shape[0]
        if x2 > 0 and y2 > 0:
            part = found[y1:y2, x1:x2]
            part |= mask[y1 - top :, x1 - left :][: part.shape[0], : part.shape[1]] >= 250
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("davis", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    segmenter = load_segmenter(args.model, confidence=0.1)
    print("clip             way            uncovered mean   95th   worst   frames > 5 %   cover/truth   ms/frame")
    for clip in clips(args.davis):
        classes = LABELLED[clip.name]
        source = open_source(str(clip.pictures))
        frames: list[Frame] = []
        while (frame := source.read()) is not None:
            frames.append(replace(frame, index=len(frames)))
        source.close()
        seen = [segmenter(frame) if frame.index % args.every == 0 else None for frame in frames]
        truths = [truth_of(path) for path in clip.masks]
        store, first = SightingStore(), HiddenClasses(classes)
        for frame, each in zip(frames, seen, strict=True):
            store.add(first(each, 1 / 25 if frame.index else 0.0), frame.seconds)
        ways = {
            "no memory": Privacy(HiddenClasses(classes), hold_s=0.0),
            "one pass": Privacy(HiddenClasses(classes)),
            "two passes": Privacy(store.plan()),
        }
        for name, hide in ways.items():
            shares, excess, spent_s = [], [], 0.0
            for frame, each, truth in zip(frames, seen, truths, strict=True):
                began = time.process_time()
                output = hide(frame, each, 1 / 25 if frame.index else 0.0)
                spent_s += time.process_time() - began
                mask = covered(output.segmentation.covers, (frame.height, frame.width))[
                    : truth.shape[0], : truth.shape[1]
                ]
                if truth.any():
                    shares.append(float((truth & ~mask).sum() / truth.sum()))
                    excess.append(float(mask.sum() / truth.sum()))
                if args.save:
                    args.save.mkdir(parents=True, exist_ok=True)
                    bgr = cv2.cvtColor(output.frame.planes, cv2.COLOR_YUV2BGR_I420)
                    cv2.imwrite(str(args.save / f"{clip.name}-{name.replace(' ', '-')}-{frame.index:03d}.png"), bgr)
            print(
                f"{clip.name:16s} {name:14s} {np.mean(shares):14.4f} {np.percentile(shares, 95):6.3f} "
                f"{max(shares):7.3f} "
                f"{np.mean(np.array(shares) > 0.05):14.3f} {np.mean(excess):13.2f} {1000 * spent_s / len(frames):10.1f}"
            )
        store.close()


if __name__ == "__main__":
    main()
