"""A lane in time: a Kalman filter on its shape, fed with places of paint and elapsed seconds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamseg.lanes.markings import Points
from streamseg.lanes.model import HEADING, MIDDLE, PITCH, WIDTH, Fit, fit

__all__ = ["START", "START_INFORMATION", "LaneTrack", "confidences"]

# What is known of a lane before anything was seen, and how well.
START = np.array([0.0, 2.7, 0.0, 0.0, 0.0])
START_INFORMATION = np.diag(1 / np.array([0.8, 0.8, 0.05, 0.006, 0.03]) ** 2)

# The shape, then the rates of middle and heading.
_RATE_MIDDLE, _RATE_HEADING = 5, 6
# Spectral densities: what each may drift by in a second, squared. The last two drive the rates.
_DRIFT = np.array([0.003, 0.01, 0.001, 0.0009, 0.0008, 0.35, 0.08]) ** 2
_RATE_LASTS_S = 1.0
# Confidence is averaged over this: long enough for dashes, short enough to tell of lost lanes in time.
_CONFIDENCE_S = 0.13
# Of the state after the first fit.
_FIRST = np.array([0.03, 0.03, 0.003, 0.0005, 0.003, 0.15, 0.01]) ** 2


class LaneTrack:
    """The lane that the car is in, from its first sight on.

    Attributes:
        state: (7,) shape, then rates of the middle and of the heading a second.
        sides: (left, right) confidence in [0, 1]; how much paint backs each line, over a moment.
        changed: -1 or 1 in the step in which the camera crossed into the lane to the left or right, else 0.
    """

    def __init__(self, first: Fit) -> None:
        self.state = np.concatenate([first.shape, [0.0, 0.0]])
        self._covariance = np.diag(_FIRST)
        self.sides = confidences(first)
        self.changed = 0

    @property
    def shape(self) -> NDArray[np.float64]:
        """(5,), see `lanes.model`."""
        return self.state[:5]

    def step(self, points: Points, dt_s: float) -> Fit:
        """Predict by `dt_s`, then correct by what is seen."""
        self._predict(dt_s)
        prior = np.linalg.inv(self._covariance[:5, :5])
        found = fit(points, self.shape, self.shape.copy(), prior)
        information = np.linalg.inv(self._covariance)
        information[:5, :5] += found.information
        self._covariance = np.linalg.inv(information)
        gain = self._covariance[:, :5]
        # `found.shape` is the prior and the measurement together; this takes the prior out again.
        self.state = self.state + gain @ ((found.information + prior) @ (found.shape - self.shape))
        share = 1 - np.exp(-dt_s / _CONFIDENCE_S) if dt_s > 0 else 1.0
        fresh = confidences(found)
        self.sides = (
            self.sides[0] + share * (fresh[0] - self.sides[0]),
            self.sides[1] + share * (fresh[1] - self.sides[1]),
        )
        self._cross()
        return found

    def move(self, right: float, down: float) -> None:
        """The vanishing point that the shape refers to has moved, in picture heights."""
        self.state[HEADING] -= right
        self.state[PITCH] += down

    def _predict(self, dt_s: float) -> None:
        step = np.eye(7)
        lasting = np.exp(-dt_s / _RATE_LASTS_S)
        step[MIDDLE, _RATE_MIDDLE] = step[HEADING, _RATE_HEADING] = _RATE_LASTS_S * (1 - lasting)
        step[_RATE_MIDDLE, _RATE_MIDDLE] = step[_RATE_HEADING, _RATE_HEADING] = lasting
        self.state = step @ self.state
        self._covariance = step @ self._covariance @ step.T + np.diag(_DRIFT) * dt_s

    def _cross(self) -> None:
        self.changed = 0
        if abs(self.state[MIDDLE]) > self.state[WIDTH] * 0.52:
            # The lane whose middle is now nearest lies on the other side of the line that was crossed.
            self.changed = 1 if self.state[MIDDLE] < 0 else -1
            self.state[MIDDLE] += self.changed * self.state[WIDTH]
            left, right = self.sides
            self.sides = (right, 0.6 * right) if self.changed > 0 else (0.6 * left, left)


def confidences(found: Fit) -> tuple[float, float]:
    """(left, right) in [0, 1], from rows with paint beyond chance."""
    left, right = (float(np.clip((support - 1) / 9, 0, 1)) for support in found.support)
    return left, right
