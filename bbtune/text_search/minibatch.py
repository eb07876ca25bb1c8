"""Every generation on another part of the train split."""

from __future__ import annotations

from dataclasses import replace

from bbtune.objective import Subset
from bbtune.optimizers.base import Array, Upcoming
from bbtune.search import Proposal, Scored, Search
from bbtune.seeds import generator


class Minibatches:
    """A search whose generations are each scored on a few train examples, the same for all its candidates.

    Generations go through the split in shuffled epochs, so that at any time no example was used twice more often than
    another; what a generation at the end of an epoch has had already comes last in the next.

    Args:
        search: to whom the scores go.
        train: examples of the split.
        size: examples of a generation; as many as there are, or more, is no minibatch.
        seed: the job's.
    """

    def __init__(self, search: Search, train: int, size: int, seed: int) -> None:
        self._search = search
        self._train = train
        self._size = size
        self._seed = seed
        self._epoch = 0
        self._left: list[int] = []
        self._subset = self._next()

    @property
    def incumbent(self) -> Array:
        """The present z (1, D): what the search would hand out now."""
        return self._search.incumbent

    @property
    def uses_logits(self) -> bool:
        """Whether tell reads the label logits, so that a record must keep them."""
        return self._search.uses_logits

    @property
    def upcoming(self) -> Upcoming:
        """What the next ask will be, and the examples that it is to be scored on."""
        return replace(self._search.upcoming, subset=self._subset)

    def ask(self) -> Proposal:
        """The next candidates."""
        return replace(self._search.ask(), subset=self._subset)

    def tell(self, proposal: Proposal, scores: Scored) -> None:
        """Take the scores of a proposal, and go on to the next examples."""
        self._search.tell(proposal, scores)
        self._subset = self._next()

    def stop_reasons(self) -> dict[str, object]:
        """Why the search would stop; empty while it would go on."""
        return self._search.stop_reasons()

    def _next(self) -> Subset | None:
        """The examples of the next generation, in rising order; None for all."""
        if self._size >= self._train:
            return None
        chosen, self._left = self._left[: self._size], self._left[self._size :]
        if len(chosen) < self._size:
            order = generator(self._seed, "minibatch", self._epoch).permutation(self._train).tolist()
            self._epoch += 1
            fresh = [i for i in order if i not in chosen]
            more = self._size - len(chosen)
            self._left = fresh[more:] + chosen
            chosen = chosen + fresh[:more]
        return tuple(sorted(chosen))
