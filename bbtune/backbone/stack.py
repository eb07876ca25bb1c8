"""Restartable layers: a candidate runs only the layers from the one that is tuned upwards.

The hidden states that enter the tuned layer are kept from call to call. :class:`Stack` is what the paths through
a model share; :mod:`replay` runs any family's own layers, the other paths are written for one layout each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bbtune.backbone.encoding import Encoder, Row
from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.prompted import Prompts


@dataclass
class Kept:
    """States that enter a layer, before its prompt.

    Attributes:
        below: the prompts they rest on.
        state: what the path hands from layer to layer.
        projected: what the path computes of ``state`` once for all candidates of the layer.
    """

    layer: int
    below: tuple[Tensor | None, ...]
    state: Any
    projected: Any


@dataclass(kw_only=True)
class Texts:
    """Examples made ready for a path, with the states that are kept of them.

    Attributes:
        rows: of the examples, in order.
        tokens: T of the prompts, 0 where there are none.
        sets: whether prompts set hidden states (prefix) or are added to them (offset).
    """

    rows: Sequence[Row]
    tokens: int
    sets: bool
    kept: list[Kept] = field(default_factory=list)


class Stack(ABC):
    """One way through the layers of a model.

    Args:
        model: whose layers run.
        encoder: pads rows.
    """

    name: str

    def __init__(self, model: FrozenModel, encoder: Encoder) -> None:
        self.model = model
        self.encoder = encoder
        self.depth = len(model.layers)

    @abstractmethod
    def prepare(self, rows: Sequence[Row], tokens: int, sets: bool) -> Texts:
        """Make examples ready, in the given order, best neighbours in length.

        Args:
            tokens: T of the prompts, 0 for rows without.
            sets: whether prompts set hidden states, or are added to them.
        """

    @abstractmethod
    def begin(self, texts: Texts) -> Any:
        """The state that enters the first layer."""

    @abstractmethod
    def project(self, texts: Texts, layer: int, state: Any) -> Any:
        """What all candidates of a layer share beyond the state."""

    @abstractmethod
    def run(self, texts: Texts, layer: int, state: Any, prompts: Sequence[Prompts], projected: Any) -> Any:
        """The state behind a layer for each candidate.

        Args:
            state: of all candidates, or of one that stands for all.
            projected: of :meth:`project`, or None.
        """

    @abstractmethod
    def readout(self, texts: Texts, state: Any, count: int) -> Tensor:
        """The states (P, N, H) that are scored, of the state behind the last layer."""

    @torch.inference_mode()
    def read(self, texts: Texts, prompts: Sequence[Prompts], layer: int) -> Tensor:
        """The states (P, N, H) that are scored, of P candidates.

        Args:
            layer: the prompts below it are the same for all; the states that enter it are kept for the next call.
        """
        kept = self._entering(texts, prompts[0], layer)
        state, projected = kept.state, kept.projected
        for number in range(layer, self.depth):
            state, projected = self.run(texts, number, state, prompts, projected), None
        return self.readout(texts, state, len(prompts))

    def read_once(self, rows: Sequence[Row], tokens: int, sets: bool, prompts: Prompts) -> Tensor:
        """The states (1, N, H) that are scored, of texts that are asked about once."""
        return self.read(self.prepare(rows, tokens, sets), [prompts], 0)

    def _entering(self, texts: Texts, prompts: Prompts, layer: int) -> Kept:
        if not texts.kept:
            state = self.begin(texts)
            texts.kept = [Kept(0, (), state, self.project(texts, 0, state))]
        below = prompts.below(layer)
        best = max(
            (kept for kept in texts.kept if kept.layer <= layer and _same(kept.below, below[: kept.layer])),
            key=lambda kept: kept.layer,
        )
        if best.layer == layer:
            return best
        state = best.state
        for number in range(best.layer, layer):
            # Without what is projected: a worker that begins here must not round differently from one that came along.
            state = self.run(texts, number, state, [prompts], None)
        fresh = Kept(layer, below, state, self.project(texts, layer, state))
        texts.kept = [texts.kept[0], fresh]
        return fresh


def _same(one: tuple[Tensor | None, ...], other: tuple[Tensor | None, ...]) -> bool:
    return all(a is b for a, b in zip(one, other, strict=True))


def stacked(prompts: Sequence[Prompts], layer: int, dtype: torch.dtype) -> Tensor | None:
    """Prompts of a layer as (P, T, H), (1, T, H) where all are one object, None where the layer has none."""
    values = [of.layers.get(layer) for of in prompts]
    if values[0] is None:
        return None
    if all(value is values[0] for value in values):
        return values[0][None].to(dtype)
    return torch.stack([value for value in values if value is not None]).to(dtype)
