"""What a search of a prompt in words will ask of its model, and what that will cost, before it is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bbtune.cost import Spent
from bbtune.endpoint.request import Request, Style
from bbtune.endpoint.usage import Bound
from bbtune.endpoint_spec import ApiSpec
from bbtune.prompts.text import CHARACTERS, TextSpace, cut_fields
from bbtune.run_spec import BudgetSpec
from bbtune.task.task import Example
from bbtune.task.template import Template
from bbtune.text_plan import TextPlan
from bbtune.text_search import WRITING
from bbtune.text_search.wording import chat_prompt, completion_prompt
from bbtune.text_search.writer import Ask

Count = Callable[[str], int]

PROBE = Spent(22, 0, 900, 300)  # to find out what an endpoint does: hardly more, where it refuses much
_AROUND = {"chat": 32, "completion": 2}  # tokens that a template puts around a text: often a message of the system, too
CAUTION = 1.3  # tokens that are held back for the test split, in parts of what it should cost
_RETRIES = 1.1  # requests


def count_roughly(text: str) -> int:
    """Tokens of a text, where no tokenizer is at hand."""
    return math.ceil(len(text) / CHARACTERS)


@dataclass(frozen=True)
class Asking:
    """What one text takes: requests in a style, and tokens of all their answers together."""

    requests: int = 1
    answer_tokens: int = 1
    style: Style = "chat"


@dataclass(frozen=True)
class Volume:
    """A split as far as its cost goes: texts, tokens of a text under the template in the mean, bytes of the longest."""

    texts: int
    tokens: float
    longest: int = 0


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

    def held_back(self, test: Volume, seen: float = 0.0) -> Spent:
        """What the search leaves to the test split, with some caution.

        Args:
            seen: tokens in that a request of the search was charged for in the mean, where that is known.
        """
        total = summed(self._test(test))
        # A request is sent only where the most that it can cost is left, which is more than it will.
        most = Bound().of(Request(" " * self._longest(test), self._asking.style, self._asking.answer_tokens))
        read = math.ceil(CAUTION * max(total.input_tokens, seen * total.requests)) + most.input
        written = math.ceil(CAUTION * total.output_tokens) + most.output
        return self._priced(math.ceil(_RETRIES * total.requests), read, written)

    def generations(self, test: Volume) -> float:
        """How many the budget holds, each with a new prompt for dev to judge; seconds are not foreseen.

        A cap on money ends the last one where it is, so that a part of one may be paid.
        """
        budget, population = self._plan.spec.budget, self._plan.spec.method.population
        fixed = summed([*self._probe(), *self._search(0), *self._test(test)])
        first, each = self._search(0), self._search(1)
        step = summed(each) - summed(first)
        return fitting(budget, population, fixed, step, (each[0].texts, self._dev.texts))

    def _probe(self) -> list[Item]:
        if self._plan.spec.backbone.api is None:
            return []
        return [Item("probe", 0, self._priced(PROBE.requests, PROBE.input_tokens, PROBE.output_tokens))]

    def _search(self, generations: float) -> list[Item]:
        method = self._plan.spec.method
        texts = min(method.minibatch or self._train.texts, self._train.texts) * method.population
        return [
            self._item("train", self._train, self._tuned, int(generations * texts)),
            self._item("dev", self._dev, self._tuned, int((1 + generations) * self._dev.texts)),
            *self._writing(int(generations * (method.population - 1))),
        ]

    def _writing(self, wishes: int) -> list[Item]:
        """What a writer behind an API is asked: at the most one instruction for each new candidate."""
        method, library = self._plan.spec.method, self._space.choices.library
        if method.writer is None or method.writer.api is None or method.search not in WRITING:
            return []
        api, most = method.writer.api, method.writer.max_tokens
        chat = api.style != "completion"
        frame = (chat_prompt if chat else completion_prompt)(Ask("combine", ("", "")))
        longest = max(most, *(self._count(library[i]) for i in range(self._space.choices.given)))
        read = wishes * (self._count(frame) + 2 * longest + _AROUND["chat" if chat else "completion"])
        return [Item("writer", 0, priced(api, wishes, read, wishes * most))]

    def _test(self, test: Volume) -> list[Item]:
        before = self._item("test, zero-shot", test, self._before, test.texts)
        items = [before, self._item("test, tuned", test, self._tuned, test.texts)]
        api = self._plan.spec.backbone.api
        if api is not None and not api.cache:  # no answer of the search is known any more
            items.append(self._item("dev, both", self._dev, self._tuned, 2 * self._dev.texts))
        return items

    def _longest(self, test: Volume) -> int:
        """Bytes of a prompt, about."""
        return test.longest + CHARACTERS * math.ceil(max(self._before, self._tuned))

    def _item(self, name: str, split: Volume, before: float, texts: int) -> Item:
        sent = texts * self._asking.requests
        read = math.ceil(sent * (before + split.tokens + _AROUND[self._asking.style]))
        return Item(name, texts, self._priced(sent, read, texts * self._asking.answer_tokens))

    def _priced(self, requests: int, read: int, written: int) -> Spent:
        return priced(self._plan.spec.backbone.api, requests, read, written)


def summed(items: Sequence[Item]) -> Spent:
    """What parts take together."""
    return sum((item.spent for item in items), Spent())


def fitting(budget: BudgetSpec, population: int, fixed: Spent, step: Spent, texts: tuple[int, int]) -> float:
    """Generations that a budget holds; seconds are not foreseen.

    Args:
        population: candidates of a generation.
        fixed: what a run without a generation takes.
        step: what a generation takes.
        texts: of a generation, and of dev.
    """
    train, dev = texts
    fits: list[float] = [budget.evaluations // population] if budget.evaluations else []
    fits += [(budget.examples - dev) // (train + dev)] if budget.examples else []
    for cap, used, more in (
        (budget.requests, fixed.requests, step.requests),
        (budget.tokens, fixed.input_tokens + fixed.output_tokens, step.input_tokens + step.output_tokens),
        (budget.dollars, fixed.dollars, step.dollars),
    ):
        fits += [(cap - used) / more] if cap is not None and more else []
    return max(0, min(fits, default=1))


def volume(examples: Sequence[Example], template: Template, characters: int, count: Count = count_roughly) -> Volume:
    """What examples come to under a template.

    Args:
        characters: that each of their texts is cut to.
        count: tokens of a text.
    """
    texts = [template.render(cut_fields(example, characters), None) for example in examples]
    longest = max(len(text.encode(errors="surrogatepass")) for text in texts)
    return Volume(len(texts), float(np.mean([count(text) for text in texts])), longest)


def priced(api: ApiSpec | None, requests: int, read: int, written: int) -> Spent:
    """What requests that read and write so many tokens in all are charged; nothing in dollars without a price."""
    price = api.price if api else None
    dollars = 0.0 if price is None else (read * price.input + written * price.output) / 1e6
    return Spent(requests, 0, read, written, dollars)
