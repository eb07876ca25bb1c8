"""Independent distributions over the choices, moved by the policy gradient (BDPL)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bbtune.optimizers.base import Array
from bbtune.text_search.base import Candidate, TextSearch
from bbtune.text_search.choices import Choices


class PolicyGradient(TextSearch):
    """One categorical distribution for the given instructions and one for each slot, learned by REINFORCE.

    Diao et al. 2022, Black-box prompt learning for pre-trained language models, arXiv 2201.08531: the gradient is that
    of the sampled candidates, their mean loss taken off (eq. 8). Here losses are also divided by their spread, so that
    one learning rate serves all losses, and the distributions are softmax of logits, where the paper projects
    probabilities. A draw that was scored before counts with its level, and costs nothing. Until it is scored, the mode
    of the policy is a candidate of its own.

    Args:
        choices: the space.
        population: P.
        rng: private generator.
        learning_rate: of the logits.
    """

    def __init__(self, choices: Choices, population: int, rng: np.random.Generator, learning_rate: float) -> None:
        super().__init__(choices, population, rng)
        self._learning_rate = learning_rate
        self._logits = [np.zeros(size) for size in self._sizes]
        self._draws: list[Candidate] = []

    def _propose(self, wanted: int) -> Iterator[Candidate]:
        self._draws = []
        yield tuple(int(logits.argmax()) for logits in self._logits)
        policy = [_softmax(logits) for logits in self._logits]
        while True:
            draw = tuple(int(self._rng.choice(len(chances), p=chances)) for chances in policy)
            self._draws.append(draw)
            yield draw

    def _learn(self, asked: Sequence[Candidate]) -> None:
        base = self._levels[asked[0]]
        losses = np.array([self._levels[draw] for draw in self._draws])
        spread = float(np.append(losses, base).std())  # with the incumbent: a single draw has none of its own
        if spread == 0.0 or not self._draws:
            return
        gains = (float(np.append(losses, base).mean()) - losses) / spread
        for position, logits in enumerate(self._logits):
            chosen = np.array([draw[position] for draw in self._draws])
            # gradient of log softmax: the choice less the chances
            slope = (np.eye(len(logits))[chosen] - _softmax(logits)) * gains[:, None]
            logits += self._learning_rate * slope.mean(axis=0)


def _softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())
