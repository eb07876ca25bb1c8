"""The evaluator of frozen models, over any pool of workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bbtune.cost import Spent
from bbtune.errors import EvaluationError
from bbtune.evaluation.base import Pool, Scores, Split, label_metric
from bbtune.objective import Objective, Subset
from bbtune.search_plan import SearchPlan
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
        together: candidates of one call of a worker; fixed in the life of a run, because rounding may depend on what
            shares a forward.
        spent: what an API was paid so far.
    """

    def __init__(
        self,
        pool: Pool,
        plan: SearchPlan,
        metric: Metric,
        scales: NDArray[np.float64],
        together: int,
        spent: Callable[[], Spent] = Spent,
    ) -> None:
        self._pool = pool
        self._spent = spent
        self._sizes = plan.sizes
        self._together = together
        self._metric = metric
        self._scales = scales[None, :, None]
        self._objectives: dict[Split, Objective] = {
            "train": Objective(label_array(plan.train), plan.spec.method.loss),
            "dev": Objective(label_array(plan.dev), plan.spec.method.loss),
        }

    def evaluate(
        self,
        z: NDArray[np.float64],
        split: Split,
        deadline: float | None = None,
        first: int = 0,
        subset: Subset | None = None,
    ) -> Scores:
        """Scores of z (P, L, D); a worker is called once per group of candidates.

        Args:
            deadline: on the clock of :func:`time.monotonic`.
            first: index of the lowest tuned layer in which the candidates may differ.
            subset: examples of the split to score on; None for all.
        """
        self._check(z, first)
        before = self._spent()
        objective, scaled = self._objectives[split].of(subset), z * self._scales
        groups = [scaled[start : start + self._together] for start in range(0, len(z), self._together)]
        calls = [(group, split, first, subset) for group in groups]
        logits = np.concatenate(self._pool.run("candidates", calls, deadline))
        loss, labels = objective(logits), objective.labels
        if not np.isfinite(loss).all():
            raise EvaluationError(
                f"expected finite losses, got {loss.tolist()} on {split}; the hidden states overflowed: "
                "lower method.alpha, or use backbone.dtype float32"
            )
        forwards = self._sizes.layer_forwards(len(labels), len(z), first)
        metric, count = label_metric(self._metric, logits, labels), len(z) * len(labels)
        return Scores(loss, metric, logits, count, forwards, spent=self._spent() - before)

    def label_logits(self, z: NDArray[np.float64] | None, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) of any examples under z (L, D); None is the untouched model."""
        scaled = None if z is None else z * self._scales[0]
        calls = [(scaled, tuple(examples[i : i + _CHUNK])) for i in range(0, len(examples), _CHUNK)]
        return np.concatenate(self._pool.run("label_logits", calls))

    def _check(self, z: NDArray[np.float64], first: int) -> None:
        """Candidates that differ below ``first`` would be scored on each other's states."""
        layers = self._scales.shape[1]
        if z.ndim != 3 or z.shape[1] != layers:
            raise EvaluationError(f"z must have shape (P, L, D) with L = {layers}, got {z.shape}")
        if not 0 <= first < layers or (z[:, :first] != z[:1, :first]).any():
            differs = np.flatnonzero((z != z[:1]).any(axis=(0, 2))).tolist()
            raise EvaluationError(
                f"first must be an index of the {layers} tuned layers, and no candidates may differ below it; "
                f"got {first}, they differ in {differs}"
            )
