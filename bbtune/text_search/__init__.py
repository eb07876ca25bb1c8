"""Searches of text prompts, by name: ask/tell over choices, numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bbtune.errors import OptimizerError, did_you_mean
from bbtune.optimizers import check_optimizer_name, make_optimizer
from bbtune.search import Search
from bbtune.seeds import generator
from bbtune.text_search.choices import Choices
from bbtune.text_search.edits import Edits
from bbtune.text_search.genetic import Genetic
from bbtune.text_search.instruct_zero import InstructZero
from bbtune.text_search.nevergrad import DEFAULT, NevergradTextSearch
from bbtune.text_search.policy import PolicyGradient
from bbtune.text_search.random import RandomTextSearch
from bbtune.text_search.writer import Writer
from bbtune.text_spec import TextMethodSpec

NEEDS_WRITER = frozenset({"instruct-zero"})
WRITING = NEEDS_WRITER | {"edits", "genetic"}  # that ask a writer where there is one
_NEVERGRAD = "nevergrad"


@dataclass(frozen=True)
class _Parts:
    """What a search is made from."""

    method: TextMethodSpec
    choices: Choices
    rng: np.random.Generator
    writer: Writer | None


def _instruct_zero(parts: _Parts) -> Search:
    method = parts.method
    if parts.writer is None or method.population < 3:
        raise OptimizerError(
            f"instruct-zero: expected a writer and a population of 3 or more, got "
            f"{'a' if parts.writer else 'no'} writer and {method.population}; set method.writer and method.population"
        )
    optimizer = make_optimizer(
        "cma-diagonal", method.intrinsic_dim, method.population - 1, method.sigma, parts.rng.spawn(1)[0]
    )
    return InstructZero(parts.choices, method.population, parts.rng, parts.writer, optimizer)


def _nevergrad(parts: _Parts) -> Search:
    name = parts.method.search.partition(":")[2] or DEFAULT
    return NevergradTextSearch(name, parts.choices, parts.method.population, parts.rng)


TEXT_SEARCHES: dict[str, Callable[[_Parts], Search]] = {
    "edits": lambda parts: Edits(parts.choices, parts.method.population, parts.rng, parts.writer),
    "genetic": lambda parts: Genetic(parts.choices, parts.method.population, parts.rng, parts.writer),
    "instruct-zero": _instruct_zero,
    _NEVERGRAD: _nevergrad,
    "policy-gradient": lambda parts: PolicyGradient(
        parts.choices, parts.method.population, parts.rng, parts.method.learning_rate
    ),
    "random": lambda parts: RandomTextSearch(parts.choices, parts.method.population, parts.rng),
}


def check_search_name(name: str) -> None:
    """Refuse names that no search of text prompts has.

    Raises:
        OptimizerError: with the known names and the closest one.
    """
    if name == _NEVERGRAD:
        name = f"{_NEVERGRAD}:{DEFAULT}"
    if name.startswith(f"{_NEVERGRAD}:"):
        check_optimizer_name(name)
    elif name not in TEXT_SEARCHES:
        known = [*TEXT_SEARCHES, f"{_NEVERGRAD}:NAME"]
        raise OptimizerError(f"expected one of {known}, got {name!r}{did_you_mean(name, known)}")


def make_text_search(method: TextMethodSpec, choices: Choices, seed: int, writer: Writer | None = None) -> Search:
    """The search that a job names, at its starting point: the first instruction, and 0 in every slot.

    Args:
        method: of the job; its minibatch is the affair of :class:`bbtune.text_search.minibatch.Minibatches`.
        choices: the space; searches that write instructions enter them in its library.
        seed: of the job.
        writer: of instructions, None for none.

    Raises:
        OptimizerError: for a name that :func:`check_search_name` refuses, or a search that lacks its writer.
    """
    check_search_name(method.search)
    kind = method.search.partition(":")[0]
    return TEXT_SEARCHES[kind](_Parts(method, choices, generator(seed, "text search", method.search), writer))
