"""What gradient descent trains: parameters, and a way from examples to label logits that has a gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from bbtune.backbone.encoding import Row
from bbtune.backbone.frozen import FrozenModel
from bbtune.errors import BackboneError
from bbtune.evaluation.scorer import label_head, load_model
from bbtune.methods import LowRankSpec, WidthSpec, settings_of
from bbtune.plan import Plan
from bbtune.seeds import generator
from bbtune.task.task import Example


class Learner(nn.Module, ABC):
    """A module whose parameters that ask for a gradient are what a method trains.

    Attributes:
        cached: whether :meth:`prepare` runs the texts through the frozen model, once and for all; else every
            :meth:`forward` does.
    """

    cached = False

    @property
    @abstractmethod
    def depth(self) -> int:
        """Layers of the model that a text runs through."""

    @abstractmethod
    def prepare(self, examples: Sequence[Example]) -> list[Any]:
        """One item per example, in order, made ready once."""

    @abstractmethod
    def length(self, item: Any) -> int:
        """Tokens of an item: items of like length share a batch where the order is free."""

    @abstractmethod
    def forward(self, items: Sequence[Any]) -> Tensor:
        """Label logits (B, C) of some items."""

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> Self:
        """Stay as in use: with dropout, a curve would depend on which worker draws what."""
        return super().train(False)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that are trained, by name."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    @torch.no_grad()
    def load(self, learned: Mapping[str, Tensor]) -> None:
        """Take the values of all trained parameters."""
        for name, weight in self.trainable().items():
            weight.copy_(learned[name])


class TextLearner(Learner):
    """Texts through the model, read by the head of the plan's label words, as a search has it.

    Args:
        plan: of the job.
        with_prompt: whether rows have room for the job's prompt.
        model: the job's, where it is loaded already.
    """

    def __init__(self, plan: Plan, with_prompt: bool, model: FrozenModel | None = None) -> None:
        super().__init__()
        self.frozen = model or load_model(plan)
        self.body: nn.Module = self.frozen.model  # registered, so that its parameters are found
        self.encoder = plan.encoder(self.frozen.card, with_prompt)
        self.head = label_head(plan, self.frozen)

    @property
    def depth(self) -> int:
        """All layers."""
        return len(self.frozen.layers)

    def prepare(self, examples: Sequence[Example]) -> list[Row]:
        """Token ids."""
        return [self.encoder.row(example) for example in examples]

    def length(self, item: Row) -> int:
        """Tokens of a row."""
        return len(item.ids)

    def forward(self, items: Sequence[Row]) -> Tensor:
        """Label logits (B, C) of rows."""
        batch = self.encoder.batch(items)
        states = self.frozen.states(batch)
        return self.head(self.frozen.readout(batch, states, 0))


def import_peft() -> Any:
    """The library, read where it is needed: it is an extra, and takes seconds."""
    try:
        import peft
    except ImportError as error:
        expected = "expected the library peft for lora, ia3 and prefix-tuning, it is not installed"
        raise BackboneError(f"method: {expected}; pip install bbtune[baselines]") from error
    return peft


@contextmanager
def torch_seeded(seed: int, *names: str) -> Iterator[None]:
    """Inside, torch's own generators give what the seed and the names decide; outside they are left as they were."""
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(range(torch.cuda.device_count()) if used else []):
        torch.manual_seed(int(generator(seed, *names).integers(2**63)))
        yield


def rank_of(plan: Plan) -> int:
    """r, of a method that trains products of thin matrices."""
    return settings_of(plan.spec, LowRankSpec).rank


def width_of(plan: Plan) -> int:
    """Hidden units, of a method that has its own."""
    return settings_of(plan.spec, WidthSpec).width
