"""What a searcher is: asked for a code of settings, told its score. All maximise.

A code has a number for each field: a share of the way from 0 to 1, or the place of a choice. Each searcher has a
generator of its own and no state but what it was asked and told, so that the same calls give the same codes.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bbtune.errors import OptimizerError
from bbtune.seeds import generator

Code = tuple[float, ...]
STARTUP = 6  # codes at random before a model of the scores is worth anything


class Searcher(ABC):
    """Proposes codes.

    Args:
        sizes: of each field its number of choices, 0 for a number.
        seed: of everything random.
        trials: that will be asked for, about.
        concurrent: of them at a time.
    """

    def __init__(self, sizes: Sequence[int], seed: int, trials: int, concurrent: int) -> None:
        self.sizes = tuple(sizes)
        self.rng = generator(seed, "hpo")
        self.trials = trials
        self.concurrent = concurrent

    @abstractmethod
    def ask(self, number: int) -> Code:
        """The next code; the number names it."""

    def tell(self, number: int, code: Code, score: float) -> None:  # noqa: B027, a searcher may learn nothing
        """The score of a code, which may be one that was not asked for."""

    def random_code(self) -> Code:
        """Each field for itself."""
        return tuple(float(self.rng.integers(size)) if size else float(self.rng.random()) for size in self.sizes)


@contextmanager
def quiet() -> Iterator[None]:
    """Calls of a library that warns of what is meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def needed(package: str) -> Iterator[None]:
    """Imports of a package that may be missing."""
    try:
        with quiet():
            yield
    except ModuleNotFoundError as error:
        raise OptimizerError(f"this searcher needs the package {package}; pip install 'bbtune[hpo]'") from error
