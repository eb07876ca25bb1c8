"""Vectors that a language model puts into words (InstructZero)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bbtune.errors import OptimizerError
from bbtune.optimizers.base import Array, Optimizer
from bbtune.text_search.base import Candidate
from bbtune.text_search.choices import Choices
from bbtune.text_search.drafts import WritingSearch
from bbtune.text_search.writer import Ask, Writer


@dataclass(frozen=True)
class _Losses:
    """What an optimizer of losses is told."""

    loss: Array
    logits: None = None


class InstructZero(WritingSearch):
    """CMA-ES over vectors, each of which the writer turns into an instruction; the text is what is scored.

    Chen et al. 2023, InstructZero: Efficient instruction optimization for black-box large language models,
    arXiv 2306.03082; the paper searches by Bayesian optimization. Slots are those of the incumbent, one of them now and
    then another. A vector without words is told the worst level of its generation, one whose words were scored before
    their level.

    Args:
        choices: the space; what is written is entered in its library.
        population: P; P - 1 vectors are asked in a generation.
        rng: private generator.
        writer: takes asks of kind ``vector``.
        optimizer: of vectors (P - 1, d).

    Raises:
        OptimizerError: if the optimizer asks another number of vectors.
    """

    def __init__(
        self, choices: Choices, population: int, rng: np.random.Generator, writer: Writer, optimizer: Optimizer
    ) -> None:
        super().__init__(choices, population, rng, writer)
        if optimizer.upcoming.size != population - 1:
            raise OptimizerError(
                f"expected an optimizer of {population - 1} vectors for a population of {population}, "
                f"got one of {optimizer.upcoming.size}; instruct-zero needs a population of 3 or more"
            )
        self._optimizer = optimizer
        self._of_vectors: list[Candidate | None] = []

    def _propose(self, wanted: int) -> Iterator[Candidate]:
        texts = self._texts([Ask("vector", vector=tuple(vector.tolist())) for vector in self._optimizer.ask()])
        self._of_vectors = []
        for text in texts:
            self._of_vectors.append(self._candidate(text) if text.strip() else None)
        yield from (candidate for candidate in self._of_vectors if candidate is not None)

    def _candidate(self, text: str) -> Candidate:
        """The text with the incumbent's slots; with another one where that is known, and now and then anyway."""
        candidate: Candidate = (self._choices.library.add(text), *self._incumbent[1:])
        known = candidate in self._levels or candidate in self._of_vectors
        return self._with_other_slot(candidate) if known or self._rng.random() < 0.25 else candidate

    def _learn(self, asked: Sequence[Candidate]) -> None:
        worst = max(self._levels[candidate] for candidate in asked)
        levels = [worst if candidate is None else self._levels[candidate] for candidate in self._of_vectors]
        self._optimizer.tell(_Losses(np.array(levels)))
