"""Gradient descent on the train split, judged on dev after every epoch: one loop, for any number of workers.

A worker trains on its share of every batch; the batches, and so the curve, do not depend on how many workers there are,
but for the rounding of sums. State and record travel together in checkpoints, without pickle.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from bbtune.baselines.account import Account, read_step
from bbtune.baselines.crew import Crew
from bbtune.baselines.learner import Learner
from bbtune.build import limits
from bbtune.cost import Sizes
from bbtune.errors import DeadlineReached, EvaluationError
from bbtune.evaluation.scorer import TRAINING_MEMORY, memory_in_words
from bbtune.loop import Generation, Ledger
from bbtune.method import Fitted
from bbtune.methods import TrainedSpec, settings_of
from bbtune.optimizers.base import Upcoming
from bbtune.plan import Plan
from bbtune.seeds import generator
from bbtune.task.metrics import Metric
from bbtune.task.task import label_array

_PATIENCE = 10  # epochs without a better one on dev, where the job does not say
_CHECKPOINT_EVERY_S = 10.0
_ROWS = 32  # of a batch without gradients
_WEIGHTS, _RECORD = "weights.safetensors", "steps.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")


def train(learner: Learner, plan: Plan, metric: Metric, crew: Crew) -> Iterator[Generation | Fitted]:
    """Train until dev has not improved for a while, the epochs are over, or a limit is reached.

    Yields:
        A step for the start and for every epoch, earlier sessions' first; then what dev selected.

    Raises:
        EvaluationError: if the loss is no number any more, or memory runs out.
    """
    with memory_in_words(*TRAINING_MEMORY):
        training = Training(learner, plan, metric, crew)
        yield from training.resumed()
        if not training.steps:
            yield training.judged()
        try:
            while (reason := training.stop_reason()) is None:
                yield training.epoch()
        except DeadlineReached:  # the epoch that it cut off used up the seconds, though nothing came of it
            reason = "budget.seconds"
        yield training.end(reason)


class Training:
    """One training, as one worker sees it."""

    def __init__(self, learner: Learner, plan: Plan, metric: Metric, crew: Crew) -> None:
        self._settings = settings_of(plan.spec, TrainedSpec)
        self._seed = plan.spec.seed
        self._learner = learner
        self._crew = crew
        self._metric = metric
        self._labels = torch.from_numpy(label_array(plan.train))
        depth = learner.depth
        self.account = Account(plan, metric, depth)
        self._train, self._dev = learner.prepare(plan.train), learner.prepare(plan.dev)
        if learner.cached:
            self.account.spend(examples=len(self._train) + len(self._dev))
        sizes = Sizes(0, 0, (0,), 0) if learner.cached else Sizes(len(self._train), len(self._dev), (0,), depth)
        self._ledger = Ledger(limits(plan.spec), sizes)
        self._patience = plan.spec.selection.patience or _PATIENCE
        self._weights = learner.trainable()
        self._best = self._copied()
        self._module = crew.wrap(learner)
        settings = self._settings
        self._optimizer = torch.optim.AdamW(
            self._weights.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._kept_at = time.monotonic()
        self._ended: str | None = None  # why, of a training that is taken up behind its end
        self.steps: list[Generation] = []

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(weight.numel() for weight in self._weights.values())

    def learned(self) -> dict[str, NDArray[Any]]:
        """The weights that dev selected."""
        return {name: weight.float().cpu().numpy() for name, weight in self._best.items()}

    def stop_reason(self) -> str | None:
        """Why there is no further epoch, None while there is one."""
        if self._ended is not None:
            return self._ended
        if len(self.steps) > self._settings.epochs:
            return "method.epochs"
        if self.account.since_best >= self._patience:
            return "selection.patience"
        self._ledger.cost = self.account.cost
        # The clocks of workers differ: all take the word of the first.
        return str(reason) if (reason := self._crew.gathered(self._ledger.refusal(Upcoming(1)))[0]) else None

    def epoch(self) -> Generation:
        """One pass over the train split, then dev.

        Raises:
            DeadlineReached: if the budget of seconds ends before the epoch does.
        """
        number = len(self.steps)
        order = generator(self._seed, "batches", number).permutation(len(self._train))
        loss, right = 0.0, []
        for start in range(0, len(order), self._settings.batch_size):
            one_loss, one_right = self._batch(order[start : start + self._settings.batch_size].tolist())
            loss += one_loss
            right += one_right
        truth, predicted = (np.array(column, dtype=np.int64) for column in zip(*right, strict=True))
        return self.judged(loss / len(order), float(self._metric(truth, predicted)))

    def judged(self, loss: float | None = None, metric: float | None = None) -> Generation:
        """Dev scores of the weights as they are now.

        Args:
            loss, metric: of the epoch on train, before each batch's own step; None at the start.
        """
        logits = self._dev_logits()
        if not (np.isfinite(logits).all() and np.isfinite(loss or 0.0)):
            got = f"expected finite losses, got others in epoch {len(self.steps)} of the training"
            raise EvaluationError(f"{got}; lower method.learning_rate, or use backbone.dtype float32")
        if loss is not None:
            _in_time(self._crew.gathered(self.account.late())[0])
        self._spend(trained=loss is not None)
        step = self.account.judge(logits, loss=loss, metric=metric)
        self.steps.append(step)
        if step.dev is not None and step.dev.selected:
            self._best = self._copied()
        self.report()
        return step

    def _spend(self, trained: bool) -> None:
        """Enter what the texts of an epoch cost, or of the start."""
        train, dev = (0, 0) if self._learner.cached else (len(self._train) * trained, len(self._dev))
        self.account.spend(evaluations=int(trained), examples=train + dev, backward=train)

    def report(self) -> None:
        """Tell the crew, with a checkpoint now and then."""
        due = self._crew.gathered(time.monotonic() - self._kept_at > _CHECKPOINT_EVERY_S)[0]
        self._crew.report(self.steps[-1], self._save if due else None)
        if due:
            self._kept_at = time.monotonic()

    def end(self, reason: str) -> Fitted:
        """The end, of which a checkpoint is kept, too: whoever takes it up stops there."""
        self._ended = reason
        if reason == "budget.seconds":
            self.account.spend_all_seconds()
        self._crew.report(self.steps[-1], self._save)
        return Fitted(reason, self.account.cost, self.learned(), self.parameters)

    def resumed(self) -> Iterator[Generation]:
        """Take up the last checkpoint; yields the steps up to it."""
        with self._crew.checkpoint() as folder:
            if folder is None:
                return
            record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
            tensors = load_file(folder / _WEIGHTS)
        self._learner.load({name: tensors[f"now.{name}"] for name in self._weights})
        self._best = {name: tensors[f"best.{name}"].to(weight.device) for name, weight in self._weights.items()}
        for name, weight in self._weights.items():
            if f"exp_avg.{name}" in tensors:
                moments = {moment: tensors[f"{moment}.{name}"].to(weight.device) for moment in _MOMENTS}
                self._optimizer.state[weight] = {"step": torch.tensor(float(record["updates"])), **moments}
        self._ended = record["ended"]
        for raw in record["steps"]:
            self.steps.append(self.account.take(read_step(raw)))
            yield self.steps[-1]

    def _save(self, folder: Path) -> None:
        tensors: dict[str, Tensor] = {}
        updates = 0
        for name, weight in self._weights.items():
            tensors |= {f"now.{name}": weight.detach(), f"best.{name}": self._best[name]}
            if state := self._optimizer.state.get(weight):
                tensors |= {f"{moment}.{name}": state[moment] for moment in _MOMENTS}
                updates = int(state["step"])
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / _WEIGHTS)
        record = {"updates": updates, "ended": self._ended, "steps": [asdict(step) for step in self.steps]}
        (folder / _RECORD).write_text(json.dumps(record), encoding="utf-8")

    def _copied(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self._weights.items()}

    def _batch(self, places: list[int]) -> tuple[float, list[tuple[int, int]]]:
        """Summed loss of one batch, and pairs of right and predicted label, of the whole crew; takes a step."""
        mine = places[self._crew.rank :: self._crew.size]
        some = mine or places[:1]  # every worker must take part in the average, if only with nothing
        logits = self._module([self._train[i] for i in some])
        labels = self._labels[some].to(logits.device)
        loss = cross_entropy(logits.float(), labels, reduction="sum") * (1.0 if mine else 0.0)
        self._optimizer.zero_grad()
        (loss * self._crew.size / len(places)).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        pairs = list(zip(labels.tolist(), logits.argmax(dim=-1).tolist(), strict=True)) if mine else []
        told = self._crew.gathered((loss.item(), pairs, self.account.late()))
        _in_time(told[0][2])
        return sum(one for one, _, _ in told), [pair for _, some_pairs, _ in told for pair in some_pairs]

    def _dev_logits(self) -> NDArray[np.float32]:
        """Label logits (N, C) of dev, each worker's share of it gathered."""
        mine = range(self._crew.rank, len(self._dev), self._crew.size)
        found = logits_of(self._learner, [self._dev[i] for i in mine])
        parts = self._crew.gathered(found)
        whole = np.empty((len(self._dev), *found.shape[1:]), dtype=np.float32)
        for rank, part in enumerate(parts):
            whole[rank :: self._crew.size] = part
        return whole


def _in_time(late: bool) -> None:
    if late:
        raise DeadlineReached("the budget of seconds ended inside an epoch")


@torch.no_grad()
def logits_of(learner: Learner, items: Sequence[Any]) -> NDArray[np.float32]:
    """Label logits (N, C) of prepared items; those of like length share a forward."""
    order = sorted(range(len(items)), key=lambda i: (learner.length(items[i]), i))
    groups = [order[start : start + _ROWS] for start in range(0, len(order), _ROWS)]
    sorted_logits = np.concatenate([learner([items[i] for i in group]).float().cpu().numpy() for group in groups])
    found = np.empty_like(sorted_logits)
    found[order] = sorted_logits
    return found


def learned_in(folder: Path) -> dict[str, NDArray[Any]]:
    """The weights that dev selected, of a checkpoint."""
    tensors = load_file(folder / _WEIGHTS)
    best = {name.removeprefix("best."): tensor for name, tensor in tensors.items() if name.startswith("best.")}
    return {name: tensor.float().numpy() for name, tensor in best.items()}
