"""Random search."""

from __future__ import annotations

from bbtune.hpo.searchers.base import Code, Searcher


class RandomSearcher(Searcher):
    """Every code is as probable as any other; what the other searchers must beat."""

    def ask(self, number: int) -> Code:
        """One at random."""
        return self.random_code()
