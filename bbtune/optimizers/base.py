"""The ask/tell contract, and the class that enforces it for all optimizers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from bbtune.errors import OptimizerError
from bbtune.objective import Subset
from bbtune.optimizers.structure import Structure

Array = NDArray[np.float64]


class Told(Protocol):
    """What ``tell`` reads: losses (P,), and the label logits (P, N, C) for those that can use them."""

    @property
    def loss(self) -> Array: ...
    @property
    def logits(self) -> NDArray[np.float32] | None: ...


@dataclass(frozen=True)
class Upcoming:
    """What the next generation will be, known before it is asked.

    Attributes:
        size: candidates P.
        first: index of the lowest layer of z in which they differ.
        probing: whether it only explores, so that none of its candidates is meant to be taken up.
        subset: train examples that it is to be scored on; None for all.
    """

    size: int
    first: int = 0
    probing: bool = False
    subset: Subset | None = None


class Optimizer(Protocol):
    """Minimises a function of D numbers by ask and tell."""

    @property
    def uses_logits(self) -> bool:
        """Whether tell reads the label logits."""

    @property
    def upcoming(self) -> Upcoming:
        """What the next generation will be."""

    @property
    def best(self) -> Array:
        """The point (D,) with the lowest loss on all examples told so far; 0 before the first tell."""

    def ask(self) -> Array:
        """Candidates (P, D), read-only."""

    def tell(self, scores: Told) -> None:
        """Take the scores of the last ask."""

    def stop_reasons(self) -> dict[str, object]:
        """Why the optimizer would stop; empty while it would go on."""


class AskTell(ABC):
    """Order, shapes and finiteness are checked here, so that each optimizer is its formula and nothing else.

    A subclass gives ``_ask()``, candidates (P, D), and ``_tell(asked, scores, loss)``, which takes the losses (P,) of
    the last candidates (P, D). It draws from ``self._rng`` alone, so that a run can be replayed, and begins around 0.

    Args:
        dim: D.
        population_size: P; optimizers that cannot use every number round it down and say so in their docstring.
        sigma: initial step.
        rng: private generator.
        structure: of the loss, for optimizers that model it; the others leave it.
    """

    uses_logits = False

    def __init__(
        self,
        dim: int,
        population_size: int,
        sigma: float,
        rng: np.random.Generator,
        structure: Structure | None = None,
    ) -> None:
        if dim < 1 or population_size < 2 or not sigma > 0:
            raise OptimizerError(
                f"expected dim >= 1, population_size >= 2 and sigma > 0, got {dim}, {population_size} and {sigma}"
            )
        self.dim = dim
        self.sigma = sigma
        self.population_size = population_size
        self._rng = rng
        self._asked: Array | None = None
        self._best: Array = read_only(np.zeros(dim))
        self._best_loss = np.inf

    @property
    def upcoming(self) -> Upcoming:
        """What the next generation will be: as large as the others, and scored on all examples."""
        return Upcoming(self.population_size)

    @property
    def best(self) -> Array:
        """The point (D,) with the lowest loss on all examples told so far; 0 before the first tell."""
        return self._best

    def ask(self) -> Array:
        """Candidates (P, D), read-only.

        Raises:
            OptimizerError: if the last ones have not been told.
        """
        if self._asked is not None:
            raise OptimizerError("expected tell() after ask(), got a second ask(); tell the scores of the last one")
        with _one_thread():
            self._asked = read_only(candidates(type(self).__name__, self._ask()))
        return self._asked

    def tell(self, scores: Told) -> None:
        """Take the scores of the last ask.

        Raises:
            OptimizerError: without an ask, or for losses that are not P finite numbers.
        """
        if self._asked is None:
            raise OptimizerError("expected ask() before tell(), got tell() first")
        loss, upcoming = np.asarray(scores.loss, dtype=np.float64), self.upcoming
        if loss.shape != (upcoming.size,):
            expected = f"({upcoming.size},), one per candidate of the last ask()"
            raise OptimizerError(f"losses must have shape (P,) = {expected}, got {loss.shape}")
        if not np.isfinite(loss).all():
            raise OptimizerError(f"expected finite losses, got {loss.tolist()}")
        asked, self._asked = self._asked, None
        winner = int(loss.argmin())
        if upcoming.subset is None and loss[winner] < self._best_loss:
            self._best, self._best_loss = read_only(asked[winner].copy()), float(loss[winner])
        with _one_thread():
            self._tell(asked, scores, loss)

    def stop_reasons(self) -> dict[str, object]:
        """Why the optimizer would stop; empty while it would go on."""
        return {}

    @abstractmethod
    def _ask(self) -> Array: ...

    @abstractmethod
    def _tell(self, asked: Array, scores: Told, loss: Array) -> None: ...


def _one_thread() -> AbstractContextManager[object]:
    """Linear algebra in one thread: its last bits depend on their number, and replay compares every bit."""
    limited: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limited


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def candidates(optimizer: str, given: object) -> Array:
    """What an optimizer, which may be a user's, gives as candidates: a copy in real numbers.

    Raises:
        OptimizerError: for what is no array of numbers.
    """
    try:
        return np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise OptimizerError(f"{optimizer}: expected ask() to give candidates (P, D), got {given!r:.80}") from error


def read_only(array: Array) -> Array:
    """The same array, which can no longer be written to."""
    array.setflags(write=False)
    return array


def population_asked(optimizer: str, population: int) -> int:
    """Candidates a generation of an optimizer where the job says ``population``."""
    if optimizer == "spsa":  # the centre, and pairs around it
        return max(3, population - (population + 1) % 2)
    return max(4 if optimizer == "cma-vkd" else 2, population)
