"""What all searches of text prompts share: order, shapes, no repeats, and the rule of the incumbent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from math import prod

import numpy as np

from bbtune.errors import OptimizerError
from bbtune.optimizers.base import Array, Upcoming, read_only
from bbtune.search import Proposal, Scored
from bbtune.text_search.choices import Choices

Candidate = tuple[int, ...]  # the number of an instruction, then one number for each slot

_LISTED = 20_000  # spaces of so many candidates are listed whole to find those not seen


class TextSearch(ABC):
    """A search whose generations hold the incumbent as candidate 0, and candidates that were never scored.

    The incumbent becomes the best of a generation that is strictly better than candidate 0 in the same generation, so
    that every generation may be scored on other examples. For the same reason candidates are remembered by *levels*:
    what a loss was above or below the incumbent's, added up from one incumbent to the next. On all examples a level is
    the loss less that of the starting point.

    Args:
        choices: the space.
        population: P; a generation has fewer candidates where nothing new is left.
        rng: private generator.

    Raises:
        OptimizerError: for a population below 2.
    """

    uses_logits = False
    opens = False  # whether instructions are written that were not given, so that the space has no known end
    tries = 16  # proposals that are looked at for each that is wanted, before the rest is drawn
    patience = 1  # generations with nothing new after which the space counts as exhausted

    def __init__(self, choices: Choices, population: int, rng: np.random.Generator) -> None:
        if population < 2:
            raise OptimizerError(f"expected a population of 2 or more, got {population}")
        self._choices = choices
        self._population = population
        self._rng = rng
        self._incumbent: Candidate = (0,) * choices.dim
        self._levels: dict[Candidate, float] = {self._incumbent: 0.0}
        self._asked: list[Candidate] | None = None
        self._barren = 0

    @property
    def incumbent(self) -> Array:
        """The present z (1, D): what the search would hand out now."""
        return np.array([self._incumbent], dtype=np.float64)

    @property
    def upcoming(self) -> Upcoming:
        """What the next ask will be; where instructions are written, it may turn out smaller."""
        return Upcoming(self._population if self.opens else min(self._population, 1 + self._room()))

    def ask(self) -> Proposal:
        """The incumbent and up to P - 1 new candidates, z (P, 1, D), read-only.

        Raises:
            OptimizerError: if the last ones have not been told.
        """
        if self._asked is not None:
            raise OptimizerError("expected tell() after ask(), got a second ask(); tell the scores of the last one")
        asked = [self._incumbent, *self._new()]
        self._asked = asked
        return Proposal(0, read_only(np.array(asked, dtype=np.float64)[:, None, :]))

    def tell(self, proposal: Proposal, scores: Scored) -> None:
        """Take the scores of the last proposal.

        Raises:
            OptimizerError: without an ask, or for losses that are not P finite numbers.
        """
        if self._asked is None:
            raise OptimizerError("expected ask() before tell(), got tell() first")
        loss = np.asarray(scores.loss, dtype=np.float64)
        if loss.shape != (len(self._asked),):
            expected = f"({len(self._asked)},), one per candidate of the last ask()"
            raise OptimizerError(f"losses must have shape (P,) = {expected}, got {loss.shape}")
        if not np.isfinite(loss).all():
            raise OptimizerError(f"expected finite losses, got {loss.tolist()}")
        asked, self._asked = self._asked, None
        levels = self._levels[self._incumbent] + (loss - loss[0])
        self._levels.update(zip(asked, levels.tolist(), strict=True))
        self._barren = 0 if len(asked) > 1 else self._barren + 1
        self._incumbent = asked[int(loss.argmin())]  # of equals the first, candidate 0 before all
        self._learn(asked)

    def stop_reasons(self) -> dict[str, object]:
        """``space exhausted`` and the number of candidates scored, when nothing new can be proposed."""
        ended = self._barren >= self.patience or (not self.opens and self._room() == 0)
        return {"space exhausted": len(self._levels)} if ended else {}

    @abstractmethod
    def _propose(self, wanted: int) -> Iterator[Candidate]:
        """Candidates, best guesses first; those that are known or come twice are passed over."""

    def _learn(self, asked: Sequence[Candidate]) -> None:  # noqa: B027 for most the levels are all
        """Called when the levels and the incumbent are those after a generation."""

    @property
    def _sizes(self) -> tuple[int, ...]:
        """How many numbers each position has, instructions written so far included where the search writes."""
        instructions = len(self._choices.library) if self.opens else self._choices.given
        return instructions, *self._choices.sizes

    def _room(self) -> int:
        """Candidates of the known space that were never scored."""
        return prod(self._sizes) - len(self._levels)

    def _new(self) -> list[Candidate]:
        """Up to P - 1 candidates that were never scored, no two alike."""
        wanted = self._population - 1
        new: dict[Candidate, None] = {}
        for candidate in islice(self._propose(wanted), self.tries * wanted):
            if candidate not in self._levels:
                new[candidate] = None
            if len(new) == wanted:
                return list(new)
        return [*new, *self._strangers(wanted - len(new), new)]

    def _strangers(self, wanted: int, but: dict[Candidate, None]) -> list[Candidate]:
        """Up to so many candidates drawn from those of the known space that were never scored."""
        known = self._levels.keys() | but.keys()
        if prod(self._sizes) > _LISTED:
            draws = [self._uniform() for _ in range(self.tries * wanted)]
            return [draw for draw in dict.fromkeys(draws) if draw not in known][:wanted]
        left = [candidate for candidate in np.ndindex(*self._sizes) if candidate not in known]
        order = self._rng.permutation(len(left))[:wanted]
        return [left[i] for i in order]

    def _uniform(self) -> Candidate:
        """A candidate of the known space, all alike probable."""
        return tuple(int(self._rng.integers(size)) for size in self._sizes)

    def _other(self, position: int, number: int) -> int:
        """Another number of a position, all alike probable; the same where there is no other."""
        size = self._sizes[position]
        return number if size < 2 else (number + int(self._rng.integers(1, size))) % size

    def _with_other_slot(self, candidate: Candidate) -> Candidate:
        """The candidate with another number in one of its slots; the same where it has none."""
        movable = [i for i in range(1, len(candidate)) if self._sizes[i] > 1]
        if not movable:
            return candidate
        i = movable[int(self._rng.integers(len(movable)))]
        return (*candidate[:i], self._other(i, candidate[i]), *candidate[i + 1 :])
