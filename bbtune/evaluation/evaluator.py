"""The evaluator of frozen models, over any pool of workers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bbtune.errors import EvaluationError
from bbtune.evaluation.base import Pool, Scores, Split, label_metric, losses
from bbtune.plan import Plan
from bbtune.task.metrics import Metric
from bbtune.task.task import Example, label_array

_CHUNK = 64  # examples of one call outside the search; fixed, so that batches do not depend on the pool


class PromptEvaluator:
    """Scores candidates on a pool.

    Args:
        pool: of workers that hold the plan.
        plan: of the job.
        metric: of the task.
        scales: (L,) calibrated factors of z.
    """

    def __init__(self, pool: Pool, plan: Plan, metric: Metric, scales: NDArray[np.float64]) -> None:
        self._pool = pool
        self._loss = plan.spec.method.loss
        self._metric = metric
        self._scales = scales[None, :, None]
        self._labels = {"train": label_array(plan.train), "dev": label_array(plan.dev)}

    def evaluate(self, z: NDArray[np.float64], split: Split, deadline: float | None = None) -> Scores:
        """Scores of z (P, L, D); one call of a worker per candidate."""
        if z.ndim != 3 or z.shape[1] != self._scales.shape[1]:
            raise EvaluationError(f"z must have shape (P, L, D) with L = {self._scales.shape[1]}, got {z.shape}")
        labels = self._labels[split]
        logits = np.stack(self._pool.run("candidate", [(one, split) for one in z * self._scales], deadline))
        loss = losses(logits, labels, self._loss)
        if not np.isfinite(loss).all():
            raise EvaluationError(
                f"expected finite losses, got {loss.tolist()} on {split}; the hidden states overflowed: "
                "lower method.alpha, or use backbone.dtype float32"
            )
        return Scores(loss, label_metric(self._metric, logits, labels), logits, len(z) * len(labels))

    def label_logits(self, z: NDArray[np.float64] | None, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) of any examples under z (L, D); None is the untouched model."""
        scaled = None if z is None else z * self._scales[0]
        calls = [(scaled, tuple(examples[i : i + _CHUNK])) for i in range(0, len(examples), _CHUNK)]
        return np.concatenate(self._pool.run("label_logits", calls))
