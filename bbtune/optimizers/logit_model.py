"""The loss as label logits that are linear in a few numbers make it: convex, and cheap to minimise."""

from __future__ import annotations

import numpy as np

from bbtune.objective import Objective
from bbtune.optimizers.base import Array

_LEAST_RIDGE, _MOST_RIDGE = 1e-5, 1e3
_BISECTIONS = 14
_NEWTON_STEPS = 20


class LogitModel:
    """``objective(logits + slopes @ a) + pull @ a + a @ bend @ a / 2`` as a function of a (m,).

    Args:
        objective: of label logits.
        logits: (N, C) at a = 0.
        slopes: (N, C, m), change of the logits with each number.
        pull: (m,).
        bend: (m, m), positive semidefinite.
    """

    def __init__(self, objective: Objective, logits: Array, slopes: Array, pull: Array, bend: Array) -> None:
        self._objective = objective
        self._logits = logits
        self._slopes = slopes
        self._pull = pull
        self._bend = bend

    def minima(self, radii: Array) -> Array:
        """Minimisers (k, m) of the model within each of the radii (k,).

        Where the model's own minimum is nearer than the greatest radius, all are shortened by the same factor, so that
        different radii give different points.
        """
        free = self._minimum(_LEAST_RIDGE, np.zeros(self._slopes.shape[2]))
        short = min(1.0, float(np.linalg.norm(free) / radii.max()))
        return np.array([self._at(short * radius, free) for radius in radii])

    def _at(self, radius: float, free: Array) -> Array:
        """The minimiser of norm ``radius``, found by its ridge: the norm falls as the ridge grows."""
        if np.linalg.norm(free) <= radius:
            return free
        low, high = np.log(_LEAST_RIDGE), np.log(_MOST_RIDGE)
        found = np.zeros_like(free)
        for _ in range(_BISECTIONS):
            ridge = (low + high) / 2
            found = self._minimum(float(np.exp(ridge)), found)
            low, high = (ridge, high) if np.linalg.norm(found) > radius else (low, ridge)
        return found * (radius / max(float(np.linalg.norm(found)), 1e-300))

    def _minimum(self, ridge: float, start: Array) -> Array:
        """Newton's method with halved steps on ``loss + ridge / 2 |a|^2``."""
        a, value = start, self._value(start, ridge)
        for _ in range(_NEWTON_STEPS):
            gradient, hessian = self._objective.expanded(self._logits + self._slopes @ a, self._slopes)
            curved = self._bend + ridge * np.eye(len(a))
            gradient = gradient + self._pull + curved @ a
            direction = -np.linalg.solve(hessian + curved, gradient)
            slope, length = float(gradient @ direction), 1.0
            while (reached := self._value(a + length * direction, ridge)) > value + 1e-4 * length * slope:
                length /= 2
                if length < 1e-6:
                    return a
            a, gain, value = a + length * direction, value - reached, reached
            if gain < 1e-9:
                break
        return a

    def _value(self, a: Array, ridge: float) -> float:
        loss = float(self._objective(self._logits + self._slopes @ a))
        return loss + float(self._pull @ a + a @ self._bend @ a / 2 + ridge / 2 * a @ a)
