"""What a search of a continuous prompt will ask of a server that takes embeddings, before it is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bbtune.backbone.encoding import Encoder
from bbtune.backbone.sources import ModelCard
from bbtune.cost import Spent
from bbtune.evaluation.wire import PROBES
from bbtune.forecast import CAUTION, Item, Volume, fitting, priced, summed
from bbtune.optimizers.base import population_asked
from bbtune.search_plan import SearchPlan
from bbtune.task.task import Example


class EmbeddingsForecast:
    """Sizes of requests, from the rows that will be sent: one token is asked for each.

    Args:
        plan: of the search.
        card: of the model whose tokenizer and embeddings are here.
    """

    def __init__(self, plan: SearchPlan, card: ModelCard) -> None:
        self._plan = plan
        self._plain = plan.encoder(card, with_prompt=False)
        self._tuned = plan.encoder(card, with_prompt=True)
        self._train, self._dev = _volume(self._tuned, plan.train), _volume(self._tuned, plan.dev)
        method = plan.spec.method
        self._population = population_asked(method.optimizer, method.population)

    def items(self, test: Sequence[Example]) -> list[Item]:
        """The parts of a run, the longest that its budget allows."""
        return [self._probe(), *self._search(self.generations(test)), *self._test(test)]

    def generations(self, test: Sequence[Example]) -> float:
        """How many the budget holds, each with a new prompt for dev to judge; seconds are not foreseen."""
        first, each = self._search(0), self._search(1)
        fixed = summed([self._probe(), *first, *self._test(test)])
        texts = each[0].texts - first[0].texts
        return fitting(
            self._plan.spec.budget, self._population, fixed, summed(each) - summed(first), (texts, self._dev.texts)
        )

    def _probe(self) -> Item:
        return self._item("probe", self._train, 2 * min(PROBES, self._train.texts))

    def _search(self, generations: float) -> list[Item]:
        candidates = generations * self._population + self._plan.spec.method.first_extras
        return [
            self._item("train", self._train, int(candidates * self._train.texts)),
            self._item("dev", self._dev, int((1 + generations) * self._dev.texts)),
        ]

    def _test(self, test: Sequence[Example]) -> list[Item]:
        untouched = [*self._plan.dev, *test]  # with the instruction in words, as dev has not been asked before
        before, after = _volume(self._plain, untouched), _volume(self._tuned, test)
        return [
            self._item("test, zero-shot", before, before.texts),
            self._item("test, tuned", after, after.texts),
        ]

    def _item(self, name: str, split: Volume, texts: int) -> Item:
        read = math.ceil(texts * split.tokens)
        return Item(name, texts, priced(self._plan.spec.backbone.api, texts, read, texts))


def held_back_for_embeddings(plan: SearchPlan, test: Volume) -> Spent:
    """What the search of a continuous prompt leaves to the dev and test splits, asked with and without the prompt."""
    requests = 2 * (test.texts + len(plan.dev))
    each = test.tokens + (plan.spec.prompt.tokens or 0)
    return priced(plan.spec.backbone.api, requests, math.ceil(CAUTION * requests * each), requests)


def _volume(encoder: Encoder, examples: Sequence[Example]) -> Volume:
    lengths = [len(encoder.row(example).ids) for example in examples]
    return Volume(len(lengths), sum(lengths) / len(lengths))
