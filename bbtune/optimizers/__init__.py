"""Ask/tell optimizers of real vectors, by name. All minimise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bbtune.errors import OptimizerError, did_you_mean
from bbtune.optimizers.base import Optimizer
from bbtune.optimizers.cma import CMAES, DiagonalCMAES, VkDCMAES
from bbtune.optimizers.gauss_newton import GaussNewton
from bbtune.optimizers.nevergrad import Nevergrad, asks_populations, nevergrad_names
from bbtune.optimizers.one_plus_lambda import OnePlusLambda
from bbtune.optimizers.random import RandomSearch
from bbtune.optimizers.spsa import SPSA
from bbtune.optimizers.structure import Structure

OPTIMIZERS: dict[str, Callable[[int, int, float, np.random.Generator, Structure | None], Optimizer]] = {
    "cma": CMAES,
    "cma-diagonal": DiagonalCMAES,
    "cma-vkd": VkDCMAES,
    "gauss-newton": GaussNewton,
    "one-plus-lambda": OnePlusLambda,
    "random": RandomSearch,
    "spsa": SPSA,
}


def check_optimizer_name(name: str) -> None:
    """Refuse names that no optimizer has, or one that cannot ask populations.

    Raises:
        OptimizerError: with the known names and the closest one.
    """
    if name.startswith("nevergrad:"):
        short, known = name.removeprefix("nevergrad:"), nevergrad_names()
        if short not in known:
            raise OptimizerError(
                "expected nevergrad:NAME with the name of an optimizer of Nevergrad, "
                f"got {name!r}{did_you_mean(short, known)}"
            )
        if not asks_populations(short):
            raise OptimizerError(f"{name} asks one point at a time, expected one that asks populations")
    elif name not in OPTIMIZERS:
        known = ["auto", *OPTIMIZERS, "nevergrad:NAME"]
        raise OptimizerError(f"expected one of {known}, got {name!r}{did_you_mean(name, known)}")


def make_optimizer(
    name: str,
    dim: int,
    population_size: int,
    sigma: float,
    rng: np.random.Generator,
    structure: Structure | None = None,
) -> Optimizer:
    """An optimizer of ``dim`` numbers that starts at 0.

    Args:
        name: a key of :data:`OPTIMIZERS`, or ``nevergrad:NAME``.
        dim: D.
        population_size: P; optimizers that cannot use every number say so in their docstring.
        sigma: initial step.
        rng: owned by the optimizer from here on.
        structure: of the loss, for optimizers that model it.

    Raises:
        OptimizerError: for a name that :func:`check_optimizer_name` refuses.
    """
    check_optimizer_name(name)
    if name.startswith("nevergrad:"):
        return Nevergrad(name.removeprefix("nevergrad:"), dim, population_size, sigma, rng)
    return OPTIMIZERS[name](dim, population_size, sigma, rng, structure)
