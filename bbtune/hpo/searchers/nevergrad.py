"""A searcher of Nevergrad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bbtune.hpo.searchers.base import Code, Searcher, needed, quiet


class NevergradSearcher(Searcher):
    """NGOpt of Nevergrad, which picks an evolution strategy for the fields and the number of trials."""

    def __init__(self, sizes: Sequence[int], seed: int, trials: int, concurrent: int) -> None:
        super().__init__(sizes, seed, trials, concurrent)
        with needed("nevergrad"):
            import nevergrad
        fields = {f"{i}": self._field(nevergrad, size) for i, size in enumerate(self.sizes)}
        self._space = nevergrad.p.Dict(**fields)
        self._space.random_state = np.random.RandomState(int(self.rng.integers(2**32)))
        make = nevergrad.optimizers.registry["NGOpt"]
        with quiet():
            self._optimizer = make(parametrization=self._space, budget=max(2, trials), num_workers=concurrent)
        self._open: dict[int, Any] = {}

    def ask(self, number: int) -> Code:
        """By the strategy."""
        with quiet():
            found = self._optimizer.ask()
        self._open[number] = found
        return tuple(float(found.value[f"{i}"]) for i in range(len(self.sizes)))

    def tell(self, number: int, code: Code, score: float) -> None:
        """Minimise the negative score."""
        found = self._open.pop(number, None)
        with quiet():
            if found is None:
                value = {
                    f"{i}": int(x) if size else x for i, (x, size) in enumerate(zip(code, self.sizes, strict=True))
                }
                found = self._space.spawn_child(new_value=value)
            self._optimizer.tell(found, -score)

    @staticmethod
    def _field(nevergrad: Any, size: int) -> Any:
        return nevergrad.p.Choice(list(range(size))) if size else nevergrad.p.Scalar(lower=0.0, upper=1.0)
