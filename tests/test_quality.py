"""Keyframes and smoothing on real pictures with ground truth; benchmarks/temporal.py measures more of them."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamseg.evaluate.davis import VideoScore, clips, score_masks, truth_of
from streamseg.evaluate.semantic import mask_files
from streamseg.evaluate.stability import lateness, steadiness
from streamseg.frame import Colour, Frame, Origin
from streamseg.pixels.guided import guided_upsample
from streamseg.pixels.planes import rgb_to_planes
from streamseg.segment import load_segmenter
from streamseg.temporal import FlowFusion, Propagator

pytestmark = [pytest.mark.material, pytest.mark.slow]

FRAMES, DT_S = 25, 1 / 24
COLOUR = Colour(full_range=True, matrix=6)
Matte = NDArray[np.float32]


class Shot:
    """A car that drives through the picture, panned along, with the network's matte of every frame."""

    def __init__(self, material: Path) -> None:
        (clip,) = clips(material / "datasets/davis", ["car-shadow"])
        segmenter = load_segmenter(material / "models/yolov8n-seg.onnx")
        car = {segmenter.class_names.index("car")}
        self.lumas, self.mattes = [], []
        for index, path in enumerate(list(mask_files(clip.pictures).values())[:FRAMES]):
            picture = cv2.imread(str(path))[..., ::-1]
            origin = Origin(path.name, (picture.shape[1], picture.shape[0]))
            frame = Frame(rgb_to_planes(picture, COLOUR), index, Fraction(1, 24), index, 0.0, COLOUR, origin)
            self.lumas.append(frame.y)
            self.mattes.append(segmenter(frame).matte(car).copy())
        self.truths = [truth_of(path) for path in clip.masks[:FRAMES]]

    def score(self, mattes: list[Matte]) -> VideoScore:
        found = [guided_upsample(matte, luma) for matte, luma in zip(mattes, self.lumas, strict=True)]
        return score_masks(found, self.truths, only_near=True)


@pytest.fixture(scope="module")
def shot() -> Shot:
    return Shot(Path(os.environ["STREAMSEG_MATERIAL"]))


@pytest.mark.parametrize("two_sided", [False, True])
def test_every_third_frame_is_nearly_as_good_as_every_frame(shot: Shot, two_sided: bool) -> None:
    propagator = Propagator(two_sided=two_sided)
    mattes: list[Matte] = []
    looked, key = 0, 0
    for k, (luma, matte) in enumerate(zip(shot.lumas, shot.mattes, strict=True)):
        carried = propagator.carry(luma, (k - key) * DT_S) if k and k - key < 3 else None
        if carried is None or carried.wants_keyframe:
            mattes += propagator.keyframe(matte, luma, (k - key) * DT_S)
            mattes.append(matte)
            looked, key = looked + 1, k
        elif not two_sided:
            mattes.append(carried.layers)
    mattes += propagator.flush()
    assert looked < 0.55 * FRAMES
    every, third = shot.score(shot.mattes), shot.score(mattes)
    held = shot.score([shot.mattes[k - k % 3] for k in range(FRAMES)])
    assert np.mean(third.j) > np.mean(every.j) - 0.01
    assert np.mean(third.j) > np.mean(held.j) + 0.01


def test_flow_smoothing_steadies_without_a_loss(shot: Shot) -> None:
    smoother = FlowFusion()
    smooth = [smoother(matte, luma, DT_S) for matte, luma in zip(shot.mattes, shot.lumas, strict=True)]
    raw_score, smooth_score = shot.score(shot.mattes), shot.score(smooth)
    assert np.mean(smooth_score.j) > np.mean(raw_score.j) - 0.001
    assert np.mean(smooth_score.f) > np.mean(raw_score.f) - 0.001
    size_wh = (320, 180)
    before, after = (
        [np.rint(255 * cv2.resize(m, size_wh)).astype(np.uint8) for m in mattes] for mattes in (shot.mattes, smooth)
    )
    assert steadiness(after, shot.lumas).warping_error < 0.6 * steadiness(before, shot.lumas).warping_error
    late = lateness(after, before, [n * DT_S for n in range(FRAMES)])
    assert late.lag_ms < 20
    assert late.stale_worst < 0.01
