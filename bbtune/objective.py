"""The loss of label logits, with the slope and curvature that an optimizer of logits needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Subset = tuple[int, ...]  # indices of examples of a split, in rising order

_MARGIN = 2.0  # of the hinge loss (BBTv2's code)
_SOFTNESS = 0.25  # hinge corners are rounded over about so much, for slope and curvature alone


@dataclass(frozen=True)
class Objective:
    """Mean loss over examples.

    Attributes:
        labels: (N,), the right label of each example.
        kind: ``cross-entropy``; or ``hinge``, margin 2, summed over the wrong labels (BBTv2's code).
    """

    labels: NDArray[np.int64]
    kind: str

    def of(self, subset: Subset | None) -> Objective:
        """The mean loss over some of the examples; None for all."""
        return self if subset is None else Objective(self.labels[list(subset)], self.kind)

    def __call__(self, logits: NDArray[np.floating]) -> Values:
        """Losses (...,) of label logits (..., N, C)."""
        return np.asarray(self.each(logits).mean(axis=-1))

    def each(self, logits: NDArray[np.floating]) -> Values:
        """Losses (..., N), one for each example, of label logits (..., N, C)."""
        x = logits.astype(np.float64)
        right = np.take_along_axis(x, np.broadcast_to(self.labels[:, None], (*x.shape[:-1], 1)), axis=-1)
        if self.kind == "cross-entropy":
            top = x.max(axis=-1, keepdims=True)
            log_sum = top + np.log(np.exp(x - top).sum(axis=-1, keepdims=True))
            return np.asarray((log_sum - right)[..., 0])
        # The right label's own term is the margin.
        return np.asarray(np.maximum(x - right + _MARGIN, 0.0).sum(axis=-1) - _MARGIN)

    def expanded(self, logits: Values, slopes: Values) -> tuple[Values, Values]:
        """Gradient (m,) and Hessian (m, m), at a = 0, of the loss of ``logits + slopes @ a``.

        Args:
            logits: (N, C).
            slopes: (N, C, m).
        """
        right = np.eye(logits.shape[1])[self.labels]
        if self.kind == "cross-entropy":
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            pull = weights - right
            reference = np.einsum("nc,ncm->nm", weights, slopes)
        else:
            over = logits - logits[right == 1][:, None] + _MARGIN
            pull = (1 - right) / (1 + np.exp(-np.clip(over / _SOFTNESS, -50, 50)))
            weights = pull * (1 - pull) / _SOFTNESS
            reference = slopes[np.arange(len(slopes)), self.labels]
        against = (slopes - reference[:, None]).reshape(-1, slopes.shape[2])
        curvature = (against * weights.reshape(-1, 1)).T @ against
        return pull.ravel() @ against / len(logits), curvature / len(logits)
