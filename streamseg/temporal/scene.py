"""Tell a cut to another shot from motion within one."""

from __future__ import annotations

import cv2

from streamseg.frame import Plane

__all__ = ["SceneCut"]

_THUMBNAIL_WH = (32, 18)
_HALF_LIFE_S = 0.5
# Mean absolute change of the thumbnail, in luma levels (0..255), that a cut at least makes, and by how much it exceeds
# the recent average change.
_LEAST_LEVELS, _LEAST_RATIO = 22.0, 2.5


class SceneCut:
    """Compares thumbnails of the luma; a cut changes most of them at once, by more than the shot's own motion does."""

    def __init__(self) -> None:
        self._thumbnail: Plane | None = None
        self._usual = 0.0

    def __call__(self, luma: Plane, dt_s: float) -> bool:
        """Whether `luma`, (H, W) uint8 at any scale, begins a new shot. The first picture does."""
        # Nine samples a cell are enough for a mean over the whole; an area resize would read every pixel.
        fine = cv2.resize(luma, (_THUMBNAIL_WH[0] * 3, _THUMBNAIL_WH[1] * 3), interpolation=cv2.INTER_LINEAR)
        thumbnail = cv2.resize(fine, _THUMBNAIL_WH, interpolation=cv2.INTER_AREA)
        previous, self._thumbnail = self._thumbnail, thumbnail
        if previous is None:
            return True
        change = cv2.norm(thumbnail, previous, cv2.NORM_L1) / thumbnail.size
        if change > _LEAST_LEVELS and change > _LEAST_RATIO * self._usual:
            self._usual = 0.0
            return True
        past = 0.5 ** (max(dt_s, 0.0) / _HALF_LIFE_S)
        self._usual = past * self._usual + (1 - past) * change
        return False
