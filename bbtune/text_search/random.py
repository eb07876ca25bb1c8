"""Random search of text prompts."""

from __future__ import annotations

from collections.abc import Iterator

from bbtune.text_search.base import Candidate, TextSearch


class RandomTextSearch(TextSearch):
    """Given instructions and slots, all combinations alike probable, none scored twice.

    Bergstra and Bengio 2012, Random search for hyper-parameter optimization.
    """

    def _propose(self, wanted: int) -> Iterator[Candidate]:
        while True:
            yield self._uniform()
