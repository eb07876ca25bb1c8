"""What a search of a prompt in words will ask of its model, and what that will cost, before it is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bbtune.cost import Spent
from bbtune.endpoint_spec import PriceSpec
from bbtune.prompts.text import CHARACTERS, TextSpace, cut_fields
from bbtune.search_plan import SearchPlan
from bbtune.task.task import Example
from bbtune.task.template import Template
from bbtune.text_plan import TextPlan

Count = Callable[[str], int]

PROBE = 16  # requests that find out what an endpoint does, about
_PROBE_TOKENS = 20  # of one of them
_AROUND = 12  # tokens that a chat template puts around a message
_CAUTION = 1.3  # what is held back for the test split, in parts of what it should cost


def count_roughly(text: str) -> int:
    """Tokens of a text, where no tokenizer is at hand."""
    return math.ceil(len(text) / CHARACTERS)


@dataclass(frozen=True)
class Asking:
    """What one text takes: requests, and tokens of all their answers together."""

    requests: int = 1
    answer_tokens: int = 1


@dataclass(frozen=True)
class Volume:
    """A split as far as its cost goes: texts, and tokens of a text under the template in the mean."""

    texts: int
    tokens: float


@dataclass(frozen=True)
class Item:
    """One part of a run: its name, the texts that it scores, and what they take if none is in the cache."""

    name: str
    texts: int
    spent: Spent


class Forecast:
    """Sizes of requests, from the texts themselves.

    Args:
        plan: of the search.
        space: of its prompts.
        count: tokens of a text.
        asking: what one text takes.
    """

    def __init__(self, plan: TextPlan, space: TextSpace, count: Count, asking: Asking) -> None:
        self._plan, self._space, self._count, self._asking = plan, space, count, asking
        start = space.prompt(np.zeros(space.choices.dim))
        self._template = start.template
        self._train, self._dev = self.volume(plan.train), self.volume(plan.dev)
        self._before = count(start.preamble)
        instructions = [count(space.choices.library[i]) for i in range(space.choices.given)]
        prompt = plan.spec.prompt
        solved = prompt.demonstrations / 2 * self._train.tokens  # about half of the slots are taken
        self._tuned = float(np.mean(instructions)) + prompt.keywords + solved

    def volume(self, examples: Sequence[Example]) -> Volume:
        """What a split comes to."""
        return volume(examples, self._template, self._space.characters, self._count)

    def items(self, test: Volume) -> list[Item]:
        """The parts of a run, the longest that its budget allows."""
        return [*self._probe(), *self._search(self.generations(test)), *self._test(test)]

    def held_back(self, test: Volume) -> Spent:
        """What the search leaves to the test split, with some caution."""
        total = sum((item.spent for item in self._test(test)), Spent())
        read, written = (math.ceil(value * _CAUTION) for value in (total.input_tokens, total.output_tokens))
        return Spent(total.requests, 0, read, written, total.dollars * _CAUTION)

    def generations(self, test: Volume) -> int:
        """How many the budget holds, each with a new prompt for dev to judge; seconds are not foreseen."""
        budget, population = self._plan.spec.budget, self._plan.spec.method.population
        fixed = sum((item.spent for item in [*self._probe(), *self._search(0), *self._test(test)]), Spent())
        first, each = self._search(0), self._search(1)
        step = sum((item.spent for item in each), Spent()) - sum((item.spent for item in first), Spent())
        texts = each[0].texts + self._dev.texts
        fits = [budget.evaluations // population] if budget.evaluations else []
        fits += [(budget.examples - self._dev.texts) // texts] if budget.examples else []
        for cap, used, more in (
            (budget.requests, fixed.requests, step.requests),
            (budget.tokens, fixed.input_tokens + fixed.output_tokens, step.input_tokens + step.output_tokens),
            (budget.dollars, fixed.dollars, step.dollars),
        ):
            fits += [int((cap - used) / more)] if cap is not None and more else []
        return max(1, min(fits, default=1))

    def _probe(self) -> list[Item]:
        if self._plan.spec.backbone.api is None:
            return []
        return [Item("probe", 0, self._priced(PROBE, PROBE * _PROBE_TOKENS, PROBE))]

    def _search(self, generations: int) -> list[Item]:
        method = self._plan.spec.method
        texts = min(method.minibatch or self._train.texts, self._train.texts) * method.population
        return [
            self._item("train", self._train, self._tuned, generations * texts),
            self._item("dev", self._dev, self._tuned, (1 + generations) * self._dev.texts),
        ]

    def _test(self, test: Volume) -> list[Item]:
        before = self._item("test, zero-shot", test, self._before, test.texts)
        return [before, self._item("test, tuned", test, self._tuned, test.texts)]

    def _item(self, name: str, split: Volume, before: float, texts: int) -> Item:
        sent = texts * self._asking.requests
        read = math.ceil(sent * (before + split.tokens + _AROUND))
        return Item(name, texts, self._priced(sent, read, texts * self._asking.answer_tokens))

    def _priced(self, requests: int, read: int, written: int) -> Spent:
        api = self._plan.spec.backbone.api
        return Spent(requests, 0, read, written, dollars(api.price if api else None, read, written))


def volume(examples: Sequence[Example], template: Template, characters: int, count: Count = count_roughly) -> Volume:
    """What examples come to under a template.

    Args:
        characters: that each of their texts is cut to.
        count: tokens of a text.
    """
    texts = [template.render(cut_fields(example, characters), None) for example in examples]
    return Volume(len(texts), float(np.mean([count(text) for text in texts])))


def held_back_for_embeddings(plan: SearchPlan, test: Volume) -> Spent:
    """What the search of a continuous prompt leaves to the dev and test splits, asked with and without the prompt."""
    requests = 2 * (test.texts + len(plan.dev))
    around = plan.spec.prompt.tokens or 0
    tokens, api = math.ceil(_CAUTION * requests * (test.tokens + around + _AROUND)), plan.spec.backbone.api
    return Spent(requests, 0, tokens, requests, dollars(api.price if api else None, tokens, requests))


def dollars(price: PriceSpec | None, read: int, written: int) -> float:
    """Of tokens read and written, at a price."""
    return 0.0 if price is None else (read * price.input + written * price.output) / 1e6
