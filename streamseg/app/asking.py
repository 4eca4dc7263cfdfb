"""Asks the network about frames: about the whole picture, or about where the subject is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import cv2

from streamseg.app.answers import Answer
from streamseg.app.moments import Moment
from streamseg.frame import Frame
from streamseg.pixels.planes import crop
from streamseg.segment.pool import Pool
from streamseg.segment.result import Matte, Segmentation
from streamseg.temporal import SubjectBox, paste

__all__ = ["Asking", "CloseLook"]


class Asking:
    """Asks the network about frames.

    Args:
        pool: of segmenters.
        digest: makes of an answer what is needed of it; the less that is, the less has to be carried.
    """

    def __init__(self, pool: Pool, digest: Callable[[Segmentation], Segmentation] = lambda said: said) -> None:
        self._pool = pool
        self._digest = digest
        self._last: tuple[Frame, Future[Segmentation]] | None = None

    def __call__(self, moment: Moment) -> Answer:
        """Ask; the same picture is not looked at twice, as when the smaller stream is the slower one."""
        if self._last is None or self._last[0] is not moment.looked_at:
            self._last = moment.looked_at, self._pool.submit(moment.looked_at)
        return Answer(self._last[1], moment.frame, moment.looked_at, self._digest)


class CloseLook(Asking):
    """Asks about the box around the subject, and about the whole picture at intervals; gives mattes.

    Their grid has twice the network's cells along each side, so that what was seen closely stays fine.

    Args:
        pool: of segmenters.
        digest: makes a `Matte` of an answer.
    """

    def __init__(self, pool: Pool, digest: Callable[[Segmentation], Segmentation]) -> None:
        super().__init__(pool, digest)
        self._box: SubjectBox | None = None
        self._grid_hw: tuple[int, int] | None = None

    def __call__(self, moment: Moment) -> Answer:
        """Ask; see `Asking`."""
        looked_at = moment.looked_at
        picture_wh = (looked_at.width, looked_at.height)
        if self._box is None or moment.fresh:
            self._box = SubjectBox(picture_wh, aspect=looked_at.width / looked_at.height)
            self._grid_hw = None
        box = self._box
        grid_hw = self._grid_hw
        window = box.window(moment.luma, moment.dt_s) if grid_hw else None
        if window is not None:
            looked_at = looked_at.with_picture(crop(looked_at.planes, window))

        def whole(said: Segmentation) -> Segmentation:
            matte = self._digest(said)
            assert isinstance(matte, Matte)
            # The answer may come when the next shot has begun: what belongs to that one is left alone.
            if window is None or grid_hw is None:
                doubled_hw = (matte.alpha.shape[0] * 2, matte.alpha.shape[1] * 2)
                alpha = cv2.resize(matte.alpha, doubled_hw[::-1], interpolation=cv2.INTER_LINEAR)
                if box is self._box:
                    self._grid_hw = doubled_hw
            else:
                alpha = paste(matte.alpha, window, picture_wh, grid_hw)
            box.seen(alpha, moment.luma, window)
            return Matte(alpha, (moment.frame.width, moment.frame.height))

        return Answer(self._pool.submit(looked_at), looked_at, looked_at, whole)
