"""What methods without gradients of ours share: the frozen model, read as it is, and a price known before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bbtune.backbone.encoding import Encoder
from bbtune.backbone.memory import peak_memory
from bbtune.backbone.packing import chunks
from bbtune.backbone.sources import ModelCard, read_model_card
from bbtune.baselines.account import NO_PAST, Account, Past
from bbtune.evaluation.scorer import Scorer
from bbtune.method import Baseline
from bbtune.methods import MethodPart, Price, settings_of
from bbtune.plan import Plan
from bbtune.task.metrics import Metric
from bbtune.task.task import Example

Logits = NDArray[np.float32]
Learned = Mapping[str, NDArray[Any]]
Value = TypeVar("Value")

_CHUNK = 64  # examples of one call


def known(value: Value | None) -> Value:
    """What a fit has found."""
    if value is None:
        raise ValueError("expected a method that was fitted or restored first; call fit() or restore()")
    return value


def in_chunks(score: Callable[[Sequence[Example]], Logits], examples: Sequence[Example]) -> Logits:
    """Label logits (N, C) of however many examples, some at a time."""
    return np.concatenate([score(examples[some]) for some in chunks(len(examples), _CHUNK)])


class Untrained(Baseline):
    """A method that reads the frozen model as it is, which is loaded when it is first asked.

    Args:
        plan: of the job.
        metric: of the task.
        past: of the run.
    """

    def __init__(self, plan: Plan, metric: Metric, past: Past = NO_PAST) -> None:
        self._plan = plan
        self._metric = metric
        self._past = past
        self._device = torch.device("cpu")  # where the weights lie, once they are loaded

    @cached_property
    def _card(self) -> ModelCard:
        return read_model_card(self._plan.spec.backbone)

    @cached_property
    def _scorer(self) -> Scorer:
        self._device = torch.device(self._plan.spec.backbone.device)
        return Scorer(self._plan, with_prompt=False)

    def untouched(self, examples: Sequence[Example]) -> Logits:
        """Label logits (N, C) of the model as it was, with the instruction in words: zero-shot."""
        return self._read(examples)

    def peak_memory_mib(self) -> float:
        """Highest memory so far of this process, or of its GPU."""
        return peak_memory(self._device) / 2**20

    def close(self) -> None:
        """Let the model go."""
        self.__dict__.pop("_scorer", None)

    def _read(self, examples: Sequence[Example], encoder: Encoder | None = None) -> Logits:
        """Label logits (N, C) under the rows of an encoder, the job's without one."""
        return in_chunks(lambda some: self._scorer.untouched(some, encoder), examples)

    @property
    def _price(self) -> Price:
        """What a fit takes, where no limit of seconds cuts it short."""
        return settings_of(self._plan.spec, MethodPart).price(len(self._plan.train), len(self._plan.dev))

    def _prepare(self) -> None:
        """Load what a fit needs, before its clock runs: searches do not count that either."""
        _ = self._scorer

    def _open(self) -> Account:
        """The books of a fit, which are opened as it begins."""
        return Account(self._plan, self._metric, self._card.layer_count, self._past.cost.seconds)

    def _unless_cut(self, account: Account, step: int, work: Callable[[], Value]) -> Value | None:
        """What the work of a step comes to; None where the seconds end the fit before it or meanwhile."""
        found = None if self._is_cut(account, step) else work()
        return None if self._is_cut(account, step) else found

    def _is_cut(self, account: Account, step: int) -> bool:
        """Whether the seconds end the fit before a step, counted from 0; the first is done whatever it takes."""
        if step < max(1, self._past.steps) or not (self._past.ended or account.late()):
            return False
        account.spend_all_seconds()
        return True
