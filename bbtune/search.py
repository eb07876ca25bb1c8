"""Optimizers composed over layers: one block is BBT, a block per layer is BBTv2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bbtune.optimizers.base import Array, Optimizer, Told


@dataclass(frozen=True)
class Proposal:
    """Candidates z (P, L, D) that differ in one block; block None is the starting point alone, P = 1.

    ``layers`` are the model's layers of the block, ``first`` is the lowest index of the block in z. Of ``probing``
    candidates none is taken up.
    """

    block: int | None
    z: Array
    layers: tuple[int, ...] = ()
    first: int = 0
    probing: bool = False


class Accept(Protocol):
    """Decides what a block becomes after a generation."""

    @property
    def needs_start(self) -> bool:
        """Whether the loss of the starting point must be known first."""

    def __call__(self, optimizer: Optimizer, winner: Array, loss: float, incumbent_loss: float) -> Array | None:
        """The block's new numbers, None to leave it; ``winner`` is this generation's best candidate."""


@dataclass(frozen=True)
class Improves:
    """A block changes only when its best candidate lowers the loss in the present context of the other blocks."""

    needs_start: bool = True

    def __call__(self, optimizer: Optimizer, winner: Array, loss: float, incumbent_loss: float) -> Array | None:
        return winner if loss < incumbent_loss else None


@dataclass(frozen=True)
class BestEver:
    """A block becomes the best candidate ever seen, though its loss was had under old settings of the others.

    BBTv2, algorithm 1, to the letter.
    """

    needs_start: bool = False

    def __call__(self, optimizer: Optimizer, winner: Array, loss: float, incumbent_loss: float) -> Array | None:
        return optimizer.best


class BlockSearch:
    """Round robin over blocks of layers, bottom-up; each block has its own optimizer.

    Args:
        blocks: tuned layers that change together; [[0, 1, ...]] is a joint search, [[0], [1], ...] the layerwise
            search of BBTv2. z holds the layers from the bottom up.
        dim: D, numbers per layer.
        make: (block, numbers of that block) -> its optimizer.
        accept: how an incumbent block changes.
        sweeps: visits of each block after which the search ends; None leaves that to the budget.
        generations_per_visit: of a block in a row, before the next block's turn.
    """

    def __init__(
        self,
        blocks: Sequence[Sequence[int]],
        dim: int,
        make: Callable[[int, int], Optimizer],
        accept: Accept,
        sweeps: int | None = None,
        generations_per_visit: int = 1,
    ) -> None:
        self._layers = [tuple(block) for block in blocks]
        order = sorted(layer for block in blocks for layer in block)
        self._blocks = [[order.index(layer) for layer in block] for block in blocks]
        self._optimizers = [make(i, len(block) * dim) for i, block in enumerate(self._blocks)]
        self._accept = accept
        self._sweeps = sweeps
        self._visit = generations_per_visit
        self._turn = 0
        self._incumbent = np.zeros((sum(len(block) for block in self._blocks), dim))
        self._loss = np.inf
        self._started = not accept.needs_start

    @property
    def incumbent(self) -> Array:
        """The present z (L, D): what the search would hand out now."""
        return self._incumbent.copy()

    @property
    def uses_logits(self) -> bool:
        """Whether tell reads the label logits, so that a record must keep them."""
        return any(optimizer.uses_logits for optimizer in self._optimizers)

    @property
    def next_size(self) -> int:
        """Candidates that the next ask will have."""
        return self._optimizers[self._next_block].population_size if self._started else 1

    @property
    def next_first(self) -> int:
        """Lowest index, into z, of a layer in which the candidates of the next ask will differ."""
        return min(self._blocks[self._next_block]) if self._started else 0

    @property
    def _next_block(self) -> int:
        return self._turn // self._visit % len(self._blocks)

    def ask(self) -> Proposal:
        """The next candidates."""
        if not self._started:
            return Proposal(None, self._incumbent[None].copy())
        block = self._next_block
        probing = self._optimizers[block].probing
        asked = self._optimizers[block].ask()
        z = np.repeat(self._incumbent[None], len(asked), axis=0)
        z[:, self._blocks[block]] = asked.reshape(len(asked), len(self._blocks[block]), -1)
        return Proposal(block, z, self._layers[block], self.next_first, probing)

    def tell(self, proposal: Proposal, scores: Told) -> None:
        """Take the scores of a proposal."""
        if proposal.block is None:
            self._started, self._loss = True, float(scores.loss[0])
            return
        optimizer, layers = self._optimizers[proposal.block], self._blocks[proposal.block]
        optimizer.tell(scores)
        self._turn += 1
        if proposal.probing:
            return
        winner = int(scores.loss.argmin())
        loss = float(scores.loss[winner])
        chosen = self._accept(optimizer, proposal.z[winner, layers], loss, self._loss)
        if chosen is not None:
            self._incumbent[layers] = chosen.reshape(len(layers), -1)
            self._loss = loss

    def stop_reasons(self) -> dict[str, object]:
        """Why the search would stop: all sweeps done, or every optimizer at its end."""
        if self._sweeps is not None and self._turn >= self._sweeps * len(self._blocks) * self._visit:
            return {"sweeps": self._sweeps}
        reasons = [optimizer.stop_reasons() for optimizer in self._optimizers]
        return {"converged": reasons} if all(reasons) else {}
