"""Identities by a library: the ByteTrack of the package `trackers` (Roboflow, Apache-2.0), which is optional."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamseg.errors import ConfigError

__all__ = ["REMEDY", "LibraryTracker"]

REMEDY = (
    'pip install "streamseg[tracking]" on a desktop, or, without opencv-python: '
    'pip install "supervision>=0.31" && pip install --no-deps "trackers>=2.6,<3"'
)

# The library's filter measures time in frames of this rate, whatever the picture's. With its usual 30, more numbers
# were lost behind what hides things, also at 30 frames a second (docs/benchmarks.md).
_FRAME_RATE_FPS = 12.0


class LibraryTracker:
    """ByteTrack (Zhang et al., ECCV 2022) by `trackers`; a `Tracker`.

    It is told the time of every picture, so that dropped frames and a varying rate move its filter by what passed. It
    knows no classes: what lies in the same place is the same object. It gives a number at the second sight, so nothing
    in a still picture has one.

    Args:
        sure: score from which an instance may begin a track, in [0, 1].
        lasts_s: how long a track outlives its last sight.

    Raises:
        ConfigError: the package is not there, or is not one that we know.
    """

    def __init__(self, *, sure: float = 0.4, lasts_s: float = 1.5) -> None:
        self._lasts_s = lasts_s
        self._now_s = 0.0
        self._given, self._given_before = 0, 0
        try:
            import supervision
            import trackers

            self._detections: Any = supervision.Detections
            self._tracker: Any = trackers.ByteTrackTracker(
                frame_rate=_FRAME_RATE_FPS,
                track_activation_threshold=sure,
                high_conf_det_threshold=sure,
                minimum_consecutive_frames=2,
            )
            # An older one knows no time stamps, and says so only when it is used.
            self(np.zeros((1, 4)), np.zeros(1), np.zeros(1, np.int64), 0.0)
        except (ImportError, AttributeError, TypeError) as error:
            why = str(error).partition("\n")[0]
            raise ConfigError(
                f"instances.tracker bytetrack cannot use the package trackers ({why}); take builtin, or run: {REMEDY}"
            ) from error

    def __call__(
        self, boxes: NDArray[np.floating], scores: NDArray[np.floating], class_ids: NDArray[np.integer], dt_s: float
    ) -> NDArray[np.int64]:
        """See `Tracker`."""
        if dt_s == 0:
            # It counts from 0 again.
            self._tracker.reset()
            self._given_before = self._given
        self._now_s += dt_s
        # It ends tracks before it matches: without this step's time, a gap longer than `lasts_s` would end them all.
        self._tracker.maximum_time_without_update = self._lasts_s + dt_s
        found = self._tracker.update(
            self._detections(
                xyxy=boxes.astype(np.float64).reshape(-1, 4),
                confidence=scores.astype(np.float64),
                data={"index": np.arange(len(boxes))},
            ),
            timestamp=self._now_s,
        )
        numbers = np.zeros(len(boxes), np.int64)
        # It sorts what it was given by score and match, and gives -1 to what has no track yet.
        known = found.tracker_id >= 0
        if known.any():
            numbers[found.data["index"][known]] = found.tracker_id[known] + 1 + self._given_before
        self._given = max(self._given, int(numbers.max(initial=0)))
        return numbers
