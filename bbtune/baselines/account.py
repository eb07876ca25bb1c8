"""The books of a baseline: its cost, in the units of a search, and what dev says of each step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbtune.evaluation.base import label_metric
from bbtune.journal import now_ms
from bbtune.loop import Cost, Generation
from bbtune.objective import Objective
from bbtune.plan import Plan
from bbtune.selection import NOTHING_YET, Judged, is_better
from bbtune.task.metrics import Metric
from bbtune.task.task import label_array

Logits = NDArray[np.floating]


@dataclass(frozen=True)
class Past:
    """What earlier sessions of a run have on record, of a method that does all of it again.

    Attributes:
        steps: how many; they stand.
        cost: until the last of them.
        ended: whether the end is on record, too.
    """

    steps: int = 0
    cost: Cost = field(default_factory=Cost)
    ended: bool = False


NO_PAST = Past()


class Account:
    """Counts, and judges steps on dev by the rule of the job's selection.

    Args:
        plan: of the job.
        metric: of the task.
        depth: layers of the model, 0 where none runs.
        spent_s: seconds of earlier sessions.
    """

    def __init__(self, plan: Plan, metric: Metric, depth: int, spent_s: float = 0.0) -> None:
        self._began = time.monotonic() - spent_s
        self._depth = depth
        self._metric = metric
        self._by = plan.spec.selection.by or "metric"
        self._seconds = plan.spec.budget.seconds
        self._train, self._dev = label_array(plan.train), label_array(plan.dev)
        self._last: Generation | None = None
        self._since_best = 0
        self.cost = Cost()
        self.best = NOTHING_YET

    def spend(self, *, evaluations: int = 0, examples: int = 0, backward: int = 0) -> None:
        """Add to the cost.

        Args:
            evaluations: candidates scored on the train split, or passes over it.
            examples: texts run through the model.
            backward: of them, texts that a gradient was taken of.
        """
        cost = self.cost
        self.cost = replace(
            cost,
            evaluations=cost.evaluations + evaluations,
            examples=cost.examples + examples,
            layer_forwards=cost.layer_forwards + examples * self._depth,
            backward_examples=cost.backward_examples + backward,
        )

    def late(self) -> bool:
        """Whether the budget of seconds is over by now."""
        return self._seconds is not None and time.monotonic() - self._began > self._seconds

    def spend_all_seconds(self) -> None:
        """Count a step that the end of the seconds cut off: it used them up, though nothing came of it."""
        self.cost = replace(self.cost, seconds=max(self._seconds or 0.0, self.cost.seconds))

    def judge(
        self, dev: Logits, train: Logits | None = None, loss: float | None = None, metric: float | None = None
    ) -> Generation:
        """One step: what it scored on train, and whether dev finds it the best so far.

        Args:
            dev: label logits (N, C) of the dev split.
            train: of the train split, where the method ran it.
            loss, metric: on the train split, where they are known without its logits.
        """
        if train is not None:
            loss = float(Objective(self._train, "cross-entropy")(train))
            metric = float(label_metric(self._metric, np.asarray(train, np.float32), self._train))
        dev_loss = float(Objective(self._dev, "cross-entropy")(dev))
        dev_metric = float(label_metric(self._metric, np.asarray(dev, np.float32), self._dev))
        self.cost = replace(self.cost, seconds=round(time.monotonic() - self._began, 3))
        judged = Judged(dev_loss, dev_metric, is_better(self._by, dev_loss, dev_metric, self.best))
        before = self._last.best_loss if self._last else None
        known = [value for value in (before, loss) if value is not None]
        number = self._last.number + 1 if self._last else 0
        return self.take(
            Generation(
                number=number,
                layers=(),
                cost=self.cost,
                unix_ms=now_ms(),
                loss=loss,
                best_loss=min(known, default=None),
                train_metric=metric,
                dev=judged,
                dev_metric=judged.metric if judged.selected else self.best.metric,
            )
        )

    def take(self, step: Generation) -> Generation:
        """Enter a step, this session's or an earlier one's, and go on from it."""
        assert step.dev is not None  # for mypy: every step of a baseline is judged
        self._last, self._since_best = step, self._since_best + 1
        if step.dev.selected:
            self.best, self._since_best = step.dev, 0
        if step.cost.seconds > self.cost.seconds:
            self._began = time.monotonic() - step.cost.seconds
        self.cost = step.cost
        return step

    @property
    def since_best(self) -> int:
        """Steps since dev found a better one."""
        return self._since_best


def read_step(raw: Mapping[str, Any]) -> Generation:
    """A step from its plain data, as a record holds it."""
    plain = {"cost": Cost(**raw["cost"]), "dev": Judged(**raw["dev"]), "layers": tuple(raw["layers"])}
    return Generation(**{**raw, **plain})
