"""What every method is to a run: a fit that yields what happens, then predictions for any examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbtune.cost import Spent
from bbtune.loop import Cost, Generation
from bbtune.plan import Reading
from bbtune.task.metrics import Labels
from bbtune.task.task import Example


@dataclass(frozen=True)
class Fitted:
    """The end of a fit.

    Attributes:
        reason: why it stopped.
        learned: arrays by name, all that the method needs to score texts again.
        parameters: how many numbers were searched or trained.
        reading: how texts are put to the model from now on; None as the plan says.
    """

    reason: str
    cost: Cost
    learned: Mapping[str, NDArray[Any]]
    parameters: int
    reading: Reading | None = None


class Method(ABC):
    """A search or a baseline, on the train and dev splits alone."""

    @abstractmethod
    def fit(self) -> Iterator[Generation | Fitted]:
        """Yield a :class:`Generation` for every step that dev judged, and :class:`Fitted` at the end."""

    @abstractmethod
    def predicted(self, examples: Sequence[Example]) -> Labels:
        """Labels, or scores of answers in words, (N,) of any examples, by what was learned."""

    @abstractmethod
    def untouched_predicted(self, examples: Sequence[Example]) -> Labels:
        """As :meth:`predicted`, of the model as it was, with the instruction in words: zero-shot."""

    @abstractmethod
    def peak_memory_mib(self) -> float:
        """Highest memory so far of a process that holds the model, or of its GPU."""

    def paid(self) -> Spent:
        """What an API was paid so far: nothing, unless a method says otherwise."""
        return Spent()

    @abstractmethod
    def close(self) -> None:
        """Free what the method holds."""


class LabelMethod(Method):
    """A method that predicts the label with the highest logit."""

    @abstractmethod
    def label_logits(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) of any examples, by what was learned."""

    @abstractmethod
    def untouched(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) of the model as it was, with the instruction in words: zero-shot."""

    def predicted(self, examples: Sequence[Example]) -> Labels:
        """Labels (N,) of any examples, by what was learned."""
        return np.asarray(self.label_logits(examples).argmax(axis=-1))

    def untouched_predicted(self, examples: Sequence[Example]) -> Labels:
        """Labels (N,) by the model as it was: zero-shot."""
        return np.asarray(self.untouched(examples).argmax(axis=-1))


class Baseline(LabelMethod):
    """A method that is no search: what it has learned can be taken up again without its journal."""

    @abstractmethod
    def restore(self, learned: Mapping[str, NDArray[Any]]) -> None:
        """Take what an earlier fit has learned, so that texts can be scored without another."""
