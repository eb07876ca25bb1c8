"""Which block of layers is searched next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

_MEMORY = 0.7  # share of a block's earlier rate that a visit leaves
_AT_RANDOM = 0.1  # share of visits that go to a random block


class Schedule(Protocol):
    """Says whose turn it is, and hears what a generation gained; the same gains give the same turns."""

    @property
    def block(self) -> int:
        """Index of the block of the next generation."""

    def record(self, gain: float, layer_forwards: int) -> None:
        """Take what a generation of that block did.

        Args:
            gain: part of the incumbent's loss that it took away, 0 where the loss did not fall.
            layer_forwards: what it cost.
        """

    def stop_reasons(self) -> dict[str, object]:
        """Why the search would stop; empty while it would go on."""


@dataclass
class RoundRobin:
    """Blocks in turn from the bottom, ``visit`` generations of each."""

    blocks: int
    visit: int = 1
    turn: int = 0

    @property
    def block(self) -> int:
        """Index of the block of the next generation."""
        return self.turn // self.visit % self.blocks

    def record(self, gain: float, layer_forwards: int) -> None:
        """Count the generation."""
        self.turn += 1

    def stop_reasons(self) -> dict[str, object]:
        """None."""
        return {}


@dataclass
class WholeSweeps(RoundRobin):
    """Round robin that ends after so many visits of each block."""

    sweeps: int = 0

    def stop_reasons(self) -> dict[str, object]:
        """The sweeps, once all are done."""
        return {"sweeps": self.sweeps} if self.turn >= self.sweeps * self.blocks * self.visit else {}


class RecentGain:
    """Visits the block that has lately lowered the loss most per layer-forward.

    A bandit whose arms change (Sutton and Barto 2018, section 2.5): each block is visited once, from the bottom; then
    the one with the highest rate, a decaying average over its visits, and of equals the one visited longest ago. One
    visit in ten goes to a random block, because the rate of a block that nobody visits stays what it was.

    Args:
        blocks: number of them.
        visit: generations of a block in a row.
        rng: private generator.
    """

    def __init__(self, blocks: int, visit: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._visit = visit
        self._rates = np.full(blocks, np.inf)  # gain per layer-forward
        self._visited = np.arange(-blocks, 0)  # number of each block's last visit
        self._visits = 0
        self._generations = 0  # of this visit
        self._gain, self._forwards = 0.0, 0
        self._block = 0

    @property
    def block(self) -> int:
        """Index of the block of the next generation."""
        return self._block

    def record(self, gain: float, layer_forwards: int) -> None:
        """Add to the visit; at its end, choose the next block."""
        self._generations += 1
        self._gain += gain
        self._forwards += layer_forwards
        if self._generations == self._visit:
            self._end_visit()
            self._block = self._choice()

    def stop_reasons(self) -> dict[str, object]:
        """None."""
        return {}

    def _end_visit(self) -> None:
        here, rate = self._block, self._gain / self._forwards
        before = self._rates[here]
        self._rates[here] = _MEMORY * before + (1 - _MEMORY) * rate if np.isfinite(before) else rate
        self._visited[here] = self._visits
        self._visits += 1
        self._generations, self._gain, self._forwards = 0, 0.0, 0

    def _choice(self) -> int:
        if np.isfinite(self._rates).all() and self._rng.random() < _AT_RANDOM:
            return int(self._rng.integers(len(self._rates)))
        best = np.flatnonzero(self._rates == self._rates.max())
        return int(best[self._visited[best].argmin()])
