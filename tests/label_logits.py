"""Label logits that are a function of z, for optimizers that model them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbtune.objective import Objective, Subset
from bbtune.optimizers.base import Array


@dataclass(frozen=True)
class Scored:
    """Scores as a search and its optimizers read them."""

    loss: Array
    logits: NDArray[np.float32] | None = None
    layer_forwards: int = 1


@dataclass(frozen=True)
class Problem:
    """Examples whose label logits (P, N, C) are a function of z (P, D), and their loss."""

    objective: Objective
    logits: Callable[[Array], Array]

    def scores(self, z: Array, subset: Subset | None = None) -> Scored:
        """Of z (P, D) on all examples or some; the logits are rounded as those of a model are."""
        logits = self.logits(z).astype(np.float32)
        if subset is not None:
            logits = logits[:, list(subset)]
        return Scored(self.objective.of(subset)(logits), logits)

    def loss(self, z: Array) -> float:
        """Of one z (D,)."""
        return float(self.scores(z[None]).loss[0])


def make_problem(
    dim: int, classes: int = 3, kind: str = "cross-entropy", bend: float = 0.0, examples: int = 24, ease: float = 3.0
) -> Problem:
    """Random logits, linear in z, and waves of height ``bend`` on them.

    Args:
        ease: how fast all examples become right in one direction; 0 leaves them in conflict, with a minimum.
    """
    rng = np.random.default_rng(dim)
    labels = np.arange(examples) % classes
    start = rng.standard_normal((examples, classes))
    slopes, waves = rng.standard_normal((2, examples, classes, dim)) / np.sqrt(dim)
    slopes[np.arange(examples), labels] += ease * np.linspace(-1.0, 1.0, dim) / np.sqrt(dim)

    def logits(z: Array) -> Array:
        return start + np.einsum("ncd,pd->pnc", slopes, z) + bend * np.sin(np.einsum("ncd,pd->pnc", waves, z))

    return Problem(Objective(labels, kind), logits)
