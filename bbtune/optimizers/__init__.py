"""Ask/tell optimizers of real vectors, by name. All minimise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bbtune.errors import OptimizerError, did_you_mean
from bbtune.optimizers.base import Optimizer
from bbtune.optimizers.cma import CMAES, DiagonalCMAES
from bbtune.optimizers.nevergrad import Nevergrad, nevergrad_names
from bbtune.optimizers.random import RandomSearch
from bbtune.optimizers.spsa import SPSA

OPTIMIZERS: dict[str, Callable[[int, int, float, np.random.Generator], Optimizer]] = {
    "cma": CMAES,
    "cma-diagonal": DiagonalCMAES,
    "random": RandomSearch,
    "spsa": SPSA,
}


def check_optimizer_name(name: str) -> None:
    """Refuse names that no optimizer has.

    Raises:
        OptimizerError: with the known names and the closest one.
    """
    if name.startswith("nevergrad:"):
        known = nevergrad_names()
        if name.removeprefix("nevergrad:") not in known:
            hint = did_you_mean(name.removeprefix("nevergrad:"), known)
            raise OptimizerError(
                f"expected nevergrad:NAME with the name of an optimizer of Nevergrad, got {name!r}{hint}"
            )
    elif name not in OPTIMIZERS:
        known = [*OPTIMIZERS, "nevergrad:NAME"]
        raise OptimizerError(f"expected one of {known}, got {name!r}{did_you_mean(name, known)}")


def make_optimizer(name: str, dim: int, population_size: int, sigma: float, rng: np.random.Generator) -> Optimizer:
    """An optimizer of ``dim`` numbers that starts at 0.

    Args:
        name: a key of :data:`OPTIMIZERS`, or ``nevergrad:NAME``.
        dim: D.
        population_size: P, candidates per generation.
        sigma: initial step.
        rng: owned by the optimizer from here on.

    Raises:
        OptimizerError: for an unknown name.
    """
    check_optimizer_name(name)
    if name.startswith("nevergrad:"):
        return Nevergrad(name.removeprefix("nevergrad:"), dim, population_size, sigma, rng)
    return OPTIMIZERS[name](dim, population_size, sigma, rng)
