"""A frame on its way from the source to what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streamseg.app.answers import Answer
from streamseg.frame import Frame, Plane
from streamseg.pixels.flow import flow_wh, small_luma
from streamseg.pixels.planes import coarse_luma
from streamseg.segment.result import Segmentation
from streamseg.temporal import SceneCut

__all__ = ["Moment", "Moments", "Seen"]

# A pause this long says nothing about the next picture.
_FORGET_AFTER_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A frame and what is known of it.

    Attributes:
        frame: as it was captured.
        segmentation: what the network says of it, or of its keyframe, carried here; None where there is no network.
        dt_s: seconds since the frame before; 0 where that has nothing to do with it: after a cut or a long pause.
        shot_s: seconds since the frame before of the same shot, however many; 0 for its first.
        beside: what a second network says of it, where there is one.
    """

    frame: Frame
    segmentation: Segmentation | None
    dt_s: float
    shot_s: float
    beside: Segmentation | None = None


@dataclass(slots=True, eq=False)
class Moment:
    """A frame on its way through.

    Attributes:
        frame: as it was captured.
        looked_at: what the network looks at, which may be a smaller frame of the same moment.
        dt_s: seconds since the frame before.
        fresh: what was before it tells nothing of it.
        shot_s: see `Seen`.
        luma: (h, w) uint8, small.
        answer: of the network, where it was asked.
    """

    frame: Frame
    looked_at: Frame
    dt_s: float
    fresh: bool
    shot_s: float
    luma: Plane
    answer: Answer | None = None

    def seen(self, segmentation: Segmentation | None) -> Seen:
        """The frame with what is known of it."""
        return Seen(self.frame, segmentation, 0.0 if self.fresh else self.dt_s, self.shot_s)


class Moments:
    """Tells how long ago the frame before was, and whether it has anything to do with this one.

    Args:
        at_cuts: a cut to another shot ends what was; may be changed at any time.
        look_at: gives the frame that the network looks at, which may be a smaller one of the same moment.
    """

    def __init__(self, *, at_cuts: bool = True, look_at: Callable[[Frame], Frame] = lambda frame: frame) -> None:
        self.at_cuts = at_cuts
        self._look_at = look_at
        self._cut = SceneCut()
        self._before: tuple[float, tuple[int, ...]] | None = None

    def __call__(self, frame: Frame, *, small: bool = False) -> Moment:
        """The moment of a frame; `small` keeps its luma at the scale of optical flow."""
        looked_at = self._look_at(frame)
        luma = coarse_luma(looked_at)
        if small:
            luma = small_luma(luma, flow_wh((looked_at.width, looked_at.height)))
        before, self._before = self._before, (frame.seconds, looked_at.planes.shape)
        dt_s = 0.0 if before is None else frame.seconds - before[0]
        cut = self._cut(luma, dt_s) and self.at_cuts
        other_shot = before is None or cut or dt_s <= 0 or before[1] != looked_at.planes.shape
        fresh = other_shot or dt_s >= _FORGET_AFTER_S
        return Moment(frame, looked_at, dt_s, fresh, 0.0 if other_shot else dt_s, luma)
