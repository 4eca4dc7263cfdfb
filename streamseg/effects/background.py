"""Virtual background: the subject stays, what is behind it is exchanged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamseg.frame import Frame, Output, Plane
from streamseg.pixels.blend import blank, light_wrap, over
from streamseg.pixels.blur import blur_background
from streamseg.pixels.decontaminate import decontaminate
from streamseg.pixels.fit import Fit, fit_planes
from streamseg.pixels.guided import edge_curve, guided_upsample, plain_upsample
from streamseg.pixels.planes import half_luma, halve, split, yuv_colour
from streamseg.segment.result import Segmentation

__all__ = ["Backdrop", "Background", "BlurredRoom", "Edges", "Pictures", "PlainColour"]


class Backdrop(Protocol):
    """What stands behind the subject."""

    def __call__(self, frame: Frame, alpha: Plane, half_alpha: Plane, out: Plane) -> Plane:
        """The background for `frame`.

        Args:
            frame: the picture whose background it is: size, colour and time are taken from it.
            alpha: (H, W) uint8, where the subject is.
            half_alpha: (H / 2, W / 2) uint8, the same at half size.
            out: (H * 3 / 2, W) uint8, scratch space of the picture's size.

        Returns:
            (H * 3 / 2, W) uint8: `out`, or an array of the backdrop's own that the caller must not change.
        """
        ...


class BlurredRoom:
    """The real background, out of focus. `strength` in [0, 1]."""

    def __init__(self, strength: float) -> None:
        self._strength = strength

    def __call__(self, frame: Frame, alpha: Plane, half_alpha: Plane, out: Plane) -> Plane:
        """Blur what is not the subject, see `Backdrop`."""
        half = half_luma(frame)
        return blur_background(frame.planes, alpha, self._strength, out, half=half, half_alpha=half_alpha)


class PlainColour:
    """One colour, R, G, B in 0..255."""

    def __init__(self, rgb: tuple[int, int, int]) -> None:
        self._rgb = rgb

    def __call__(self, frame: Frame, alpha: Plane, half_alpha: Plane, out: Plane) -> Plane:
        """Fill with the colour, see `Backdrop`."""
        for plane, value in zip(split(out), yuv_colour(self._rgb, frame.colour, frame.height), strict=True):
            plane[:] = value
        return out


class Pictures:
    """A still or moving picture of any size.

    Args:
        at: the picture to show at so many seconds of the main picture's time; the same object while it does not change.
            Its colour is taken to be that of the main picture.
        fit: how it fills the main picture.
    """

    def __init__(self, at: Callable[[float], Frame], fit: Fit = "cover") -> None:
        self._at = at
        self._fit = fit
        self._shown: tuple[Frame, tuple[int, int], Plane] | None = None

    def __call__(self, frame: Frame, alpha: Plane, half_alpha: Plane, out: Plane) -> Plane:
        """The picture of this moment, fitted, see `Backdrop`."""
        picture, size_wh = self._at(frame.seconds), (frame.width, frame.height)
        if self._shown is None or self._shown[0] is not picture or self._shown[1] != size_wh:
            border = yuv_colour((0, 0, 0), frame.colour, frame.height)
            self._shown = (picture, size_wh, fit_planes(picture.planes, size_wh, self._fit, border))
        return self._shown[2]


@dataclass(frozen=True, slots=True)
class Edges:
    """How the matte is brought to the picture's scale.

    Attributes:
        guided: along the picture's edges; else bilinear.
        radius: of the guided filter, as a share of the picture's height.
        epsilon: of the guided filter, in squared luma of [0, 1].
        threshold: opacity in the middle of the edge, in (0, 1); lower keeps more.
        feather: softness of the edge, in [0, 1].
        decontaminate: take the old background's light out of the soft edge; over the same room out of focus it is no
            fringe, and the work can be saved.
    """

    guided: bool = True
    radius: float = 0.006
    epsilon: float = 5e-4
    threshold: float = 0.5
    feather: float = 0.5
    decontaminate: bool = True


class Background:
    """The effect: upsample the matte, make the background, composite.

    Without a matte it fails closed: the background alone is shown, never the room.

    Args:
        backdrop: what stands behind; None leaves the background transparent (the frame's `alpha`).
        edges: how the matte meets the picture.
        wrap: strength of the light wrap, in [0, 1]; 0 is none.
        timed: wraps each stage, ``timed("upsample")`` and so on, for the report.
    """

    def __init__(
        self,
        backdrop: Backdrop | None,
        edges: Edges | None = None,
        *,
        wrap: float = 0.0,
        timed: Callable[[str], AbstractContextManager[None]] | None = None,
    ) -> None:
        self._backdrop = backdrop
        self._edges = edges or Edges()
        self._curve = edge_curve(self._edges.threshold, self._edges.feather)
        self._wrap = wrap
        self._timed = timed or (lambda stage: nullcontext())

    def __call__(self, frame: Frame, segmentation: Segmentation | None, dt_s: float) -> Output:
        """Composite one picture over the background by the segmentation's matte; None: nothing is known."""
        matte = None if segmentation is None else segmentation.matte(None)
        with self._timed("upsample"):
            alpha = self.opacity(frame, matte)
        if self._backdrop is None:
            foreground = decontaminate(frame.planes, alpha) if self._edges.decontaminate else frame.planes
            # Who ignores the opacity, or takes it away, must not find the room behind it.
            black = yuv_colour((0, 0, 0), frame.colour, frame.height)
            return Output(frame.with_picture(blank(foreground, alpha, black), alpha), segmentation, alpha)
        # The sinks still read the last picture while this one is made: each gets an array of its own.
        out = np.empty_like(frame.planes)
        with self._timed("backdrop"):
            half_alpha = halve(alpha)
            background = self._backdrop(frame, alpha, half_alpha, out)
        with self._timed("blend"):
            foreground = frame.planes
            if self._edges.decontaminate:
                foreground = decontaminate(foreground, alpha)
            if self._wrap > 0:
                if foreground is frame.planes:
                    foreground = foreground.copy()
                light_wrap(foreground, background, alpha, self._wrap)
            over(foreground, background, alpha, out, half_alpha=half_alpha)
        return Output(frame.with_picture(out), segmentation, alpha)

    def opacity(self, frame: Frame, matte: NDArray[np.float32] | None) -> Plane:
        """The subject's opacity at the picture's scale, (H, W) uint8."""
        if matte is None:
            return np.zeros((frame.height, frame.width), np.uint8)
        edges = self._edges
        if not edges.guided:
            return plain_upsample(matte, (frame.width, frame.height), curve=self._curve)
        return guided_upsample(
            matte, frame.y, radius=edges.radius, epsilon=edges.epsilon, curve=self._curve, half=half_luma(frame)
        )
