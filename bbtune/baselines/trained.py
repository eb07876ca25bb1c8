"""A baseline that is trained by gradients, here or on Ray Train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bbtune.backbone.frozen import check_device
from bbtune.backbone.memory import peak_memory
from bbtune.baselines.crew import Alone
from bbtune.baselines.learner import Learner
from bbtune.baselines.learners import make_learner
from bbtune.baselines.ray_train import RayTraining
from bbtune.baselines.training import logits_of, train
from bbtune.baselines.untrained import in_chunks
from bbtune.evaluation.scorer import Scorer
from bbtune.loop import Generation
from bbtune.method import Baseline, Fitted
from bbtune.plan import Plan
from bbtune.task.metrics import Metric
from bbtune.task.task import Example

_MIB = 2**20


class Trained(Baseline):
    """Gradient descent with the learner that the job names.

    Args:
        plan: of the job; ``evaluators.count`` 0 trains in this process, else on so many workers of Ray Train.
        metric: of the task.
        folder: for checkpoints.
    """

    def __init__(self, plan: Plan, metric: Metric, folder: Path) -> None:
        self._plan = plan
        self._metric = metric
        self._folder = folder
        self._learner: Learner | None = None  # one model at a time: it, or that of the scorer
        self._learned: Mapping[str, NDArray[Any]] | None = None
        self._scorer: Scorer | None = None
        self._elsewhere: RayTraining | None = None

    def fit(self) -> Iterator[Generation | Fitted]:
        """One step for the start, and one for every epoch."""
        for event in self._events():
            if isinstance(event, Fitted):
                self.restore(event.learned)
            yield event

    def _events(self) -> Iterator[Generation | Fitted]:
        check_device(self._plan.spec.backbone)  # the test split is scored here, wherever it is trained
        if self._plan.spec.evaluators.count:
            self._elsewhere = RayTraining(self._plan, self._metric, self._folder)
            return self._elsewhere.run()
        self._learner = make_learner(self._plan)
        return train(self._learner, self._plan, self._metric, Alone(self._folder))

    def restore(self, learned: Mapping[str, NDArray[Any]]) -> None:
        """Take the weights of an earlier training."""
        self._learned = learned
        if self._learner is not None:
            self._load(self._learner, learned)

    def label_logits(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) by the weights that dev selected."""
        learner = self._tuned()
        return in_chunks(lambda some: logits_of(learner, learner.prepare(some)), examples)

    def untouched(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) of the model as it was."""
        if self._scorer is None:
            self._learner = None
            self._scorer = Scorer(self._plan, with_prompt=False)
        return self._scorer.untouched(examples)

    def _tuned(self) -> Learner:
        """The learner with the weights that dev selected."""
        if self._learned is None:
            raise ValueError("expected a training that was run or restored first; call fit() or restore()")
        if self._learner is None:
            self._scorer = None
            self._learner = make_learner(self._plan)
            self._load(self._learner, self._learned)
        return self._learner

    def _load(self, learner: Learner, learned: Mapping[str, NDArray[Any]]) -> None:
        learner.load({name: torch.from_numpy(array) for name, array in learned.items()})

    def close(self) -> None:
        """Let the models go, and workers that still train."""
        if self._elsewhere is not None:
            self._elsewhere.close()
        self._learner = self._scorer = None

    def peak_memory_mib(self) -> float:
        """Of this process, or of the worker that has used most."""
        if self._elsewhere is not None:
            return self._elsewhere.peak_memory / _MIB
        return peak_memory(torch.device(self._plan.spec.backbone.device)) / _MIB
