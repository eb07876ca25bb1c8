"""Optimizers composed over layers: one block is BBT, a block per layer is BBTv2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bbtune.errors import OptimizerError
from bbtune.objective import Subset
from bbtune.optimizers.base import Array, Optimizer, Told, Upcoming, candidates, read_only
from bbtune.schedule import RoundRobin, Schedule


class Scored(Told, Protocol):
    """Scores of a proposal, and what they cost."""

    @property
    def layer_forwards(self) -> int: ...


@dataclass(frozen=True)
class Proposal:
    """Candidates z (P, L, D) that differ in one block; block None is the starting point alone, P = 1.

    ``layers`` are the model's layers of the block, ``first`` is the lowest index of the block in z. Of ``probing``
    candidates none is taken up. ``subset`` are the train examples to score on, None for all.
    """

    block: int | None
    z: Array
    layers: tuple[int, ...] = ()
    first: int = 0
    probing: bool = False
    subset: Subset | None = None


class Search(Protocol):
    """Proposes candidates and learns from their scores; the same scores give the same proposals."""

    @property
    def incumbent(self) -> Array:
        """The present z (L, D): what the search would hand out now."""

    @property
    def uses_logits(self) -> bool:
        """Whether tell reads the label logits, so that a record must keep them."""

    @property
    def upcoming(self) -> Upcoming:
        """What the next ask will be."""

    def ask(self) -> Proposal:
        """The next candidates."""

    def tell(self, proposal: Proposal, scores: Scored) -> None:
        """Take the scores of a proposal."""

    def stop_reasons(self) -> dict[str, object]:
        """Why the search would stop; empty while it would go on."""


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


@dataclass(frozen=True)
class Pull:
    """A pull towards the starting point: ``l2 / 2`` times the mean square of z, in steps of sigma."""

    l2: float
    sigma: float

    def __call__(self, z: Array) -> Array:
        """What it adds to the losses (P,) of z (P, L, D)."""
        return np.asarray(self.l2 / 2 * ((z / self.sigma) ** 2).mean(axis=(1, 2)))


@dataclass(frozen=True)
class _Pulled:
    """Scores with a pull in their losses."""

    loss: Array
    logits: NDArray[np.float32] | None
    layer_forwards: int


class BlockSearch:
    """A search over blocks of layers, one block at a time; each has its own optimizer.

    Args:
        blocks: tuned layers that change together; [[0, 1, ...]] is a joint search, [[0], [1], ...] the layerwise
            search of BBTv2. z holds the layers from the bottom up.
        dim: D, numbers per layer.
        make: (block, numbers of that block) -> its optimizer.
        accept: how an incumbent block changes.
        schedule: whose turn it is; without one, round robin.
        pull: added to the losses.
    """

    def __init__(
        self,
        blocks: Sequence[Sequence[int]],
        dim: int,
        make: Callable[[int, int], Optimizer],
        accept: Accept,
        schedule: Schedule | None = None,
        pull: Pull | None = None,
    ) -> None:
        self._layers = [tuple(block) for block in blocks]
        order = sorted(layer for block in blocks for layer in block)
        self._blocks = [[order.index(layer) for layer in block] for block in blocks]
        self._optimizers = [make(i, len(block) * dim) for i, block in enumerate(self._blocks)]
        self._accept = accept
        self._schedule = schedule or RoundRobin(len(blocks))
        self._dim = dim
        self._incumbent = np.zeros((sum(len(block) for block in self._blocks), dim))
        self._loss = np.inf
        self._pull = pull
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
    def upcoming(self) -> Upcoming:
        """What the next ask will be."""
        if not self._started:
            return Upcoming(1)
        block = self._schedule.block
        of_block = self._optimizers[block].upcoming
        return replace(of_block, first=min(self._blocks[block][of_block.first :]))

    def ask(self) -> Proposal:
        """The next candidates."""
        if not self._started:
            return Proposal(None, self._incumbent[None].copy())
        block, upcoming = self._schedule.block, self.upcoming
        asked = self._asked(self._optimizers[block], upcoming.size, len(self._blocks[block]) * self._dim)
        z = np.repeat(self._incumbent[None], len(asked), axis=0)
        z[:, self._blocks[block]] = asked.reshape(len(asked), len(self._blocks[block]), -1)
        return Proposal(block, z, self._layers[block], upcoming.first, upcoming.probing, upcoming.subset)

    @staticmethod
    def _asked(optimizer: Optimizer, size: int, dim: int) -> Array:
        """Candidates (P, D) of an optimizer, which may be a user's."""
        name = type(optimizer).__name__
        asked = candidates(name, optimizer.ask())
        if asked.shape != (size, dim) or not np.isfinite(asked).all():
            got = f"shape {asked.shape}" if asked.shape != (size, dim) else "some that are infinite or not a number"
            raise OptimizerError(
                f"{name}: expected ask() to give finite candidates (P, D) = ({size}, {dim}), got {got}"
            )
        return asked

    def tell(self, proposal: Proposal, scores: Scored) -> None:
        """Take the scores of a proposal."""
        if self._pull is not None:
            scores = _Pulled(scores.loss + self._pull(proposal.z), scores.logits, scores.layer_forwards)
        if proposal.block is None:
            self._started, self._loss = True, float(scores.loss[0])
            return
        before = self._loss
        read_only(scores.loss)  # a user's optimizer may be told
        self._optimizers[proposal.block].tell(scores)
        if not proposal.probing:
            self._take_up(proposal.block, proposal.z, scores)
        self._schedule.record(_gain(before, self._loss), scores.layer_forwards)

    def _take_up(self, block: int, z: Array, scores: Told) -> None:
        """Change the block, if the rule of acceptance says so."""
        optimizer, layers = self._optimizers[block], self._blocks[block]
        winner = int(scores.loss.argmin())
        loss = float(scores.loss[winner])
        chosen = self._accept(optimizer, z[winner, layers], loss, self._loss)
        if chosen is not None:
            self._incumbent[layers] = chosen.reshape(len(layers), -1)
            self._loss = loss

    def stop_reasons(self) -> dict[str, object]:
        """Why the search would stop: the end of its schedule, or every optimizer at its end."""
        if reasons := self._schedule.stop_reasons():
            return reasons
        ends = [optimizer.stop_reasons() for optimizer in self._optimizers]
        return {"converged": ends} if all(ends) else {}


def _gain(before: float, after: float) -> float:
    """The part of a loss that was taken away; none where the loss before is not known."""
    return max(0.0, 1.0 - after / before) if 0.0 < before < np.inf else 0.0
