"""Optimizers that users write, in the place of ours; a job calls them ``own:NAME``."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np

from bbtune.errors import OptimizerError
from bbtune.optimizers.base import Optimizer, Upcoming

MakeOptimizer = Callable[[int, int, float, np.random.Generator], Optimizer]  # dim, population, sigma, generator
_OWN = "own:"
_MEMBERS = [name for name in vars(Optimizer) if not name.startswith("_")]


def is_own(name: str) -> bool:
    """Whether a job names an optimizer that its user has written."""
    return name.startswith(_OWN)


def own_name(make: MakeOptimizer) -> str:
    """What a job calls an optimizer: ``own:`` and the name of its class or function.

    Raises:
        OptimizerError: for what has no such name.
    """
    name = getattr(make, "__name__", "")
    if not callable(make) or not name.isidentifier():
        hint = "; one of ours is named in the job: method.optimizer" if isinstance(make, str) else ""
        wanted = "a class, or a function with a name, of (dim, population, sigma, rng)"
        raise OptimizerError(f"optimizer: expected {wanted}, got {make!r}{hint}")
    return _OWN + name


def make_own(make: MakeOptimizer, dim: int, population: int, sigma: float, rng: np.random.Generator) -> Optimizer:
    """An optimizer of a user's.

    Args:
        make: its class.
        dim: D.
        population: P that the job asks for.
        sigma: initial step.
        rng: owned by the optimizer from here on.

    Raises:
        OptimizerError: if it cannot be made so, or lacks what an optimizer must have.
    """
    try:
        inspect.signature(make).bind(dim, population, sigma, rng)
    except (TypeError, ValueError) as error:  # the latter of a class without a signature
        wanted = "a class, or a function, that takes (dim, population, sigma, rng)"
        raise OptimizerError(f"{own_name(make)}: expected {wanted}: {error}") from error
    made = make(dim, population, sigma, rng)
    if lacking := [name for name in _MEMBERS if not hasattr(made, name)]:
        mend = "derive it from bbtune.AskTell, which has all but _ask and _tell"
        raise OptimizerError(f"{own_name(make)}: expected {', '.join(_MEMBERS)}, got none of {lacking}; {mend}")
    if not isinstance(made.upcoming, Upcoming) or made.upcoming.size < 1:
        wanted = "expected upcoming to be an Upcoming(P) of bbtune.optimizers.base with at least one candidate"
        raise OptimizerError(f"{own_name(make)}: {wanted}, got {made.upcoming!r:.80}")
    if np.shape(made.best) != (dim,):
        raise OptimizerError(f"{own_name(make)}: expected best (D,) = ({dim},), got {made.best!r:.80}")
    return made
