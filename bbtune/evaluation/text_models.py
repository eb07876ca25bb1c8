"""The models of a search for a prompt in words, opened together: the one that scores, and the one that writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from bbtune.backbone_spec import BackboneSpec
from bbtune.endpoint.abilities import Abilities, choose, choose_free_form, explain
from bbtune.endpoint.api_writer import ApiWriter
from bbtune.endpoint.matching import told_apart
from bbtune.endpoint.probe import probe
from bbtune.endpoint.reading import FreeForm, LabelLogprobs, PromptLogprobs, Reader
from bbtune.endpoint.request import Style, TextModel
from bbtune.endpoint.shown import PromptWay
from bbtune.evaluation.account import Account
from bbtune.evaluation.instruction_writer import InstructionWriter
from bbtune.evaluation.local_text import LocalText
from bbtune.prompts.text import answer_of
from bbtune.task.free_form import SCORES
from bbtune.task.metrics import Metric
from bbtune.task.task import Example
from bbtune.task.verbalizer import Words
from bbtune.text_plan import TextPlan
from bbtune.text_search.writer import Ask, TimedWriter

_LOCAL_TOP = 1000  # of a model in this process
_SHOWN = 5  # examples that a writer is shown


class TextModels:
    """The models of a search, each opened when it is first asked.

    Args:
        plan: of the search.
        folder: of the run; what is paid is kept there.

    Attributes:
        purse: of the run, from which all are paid.
        writer: of new instructions, where the job has one.
    """

    def __init__(self, plan: TextPlan, folder: Path) -> None:
        self._plan = plan
        self._account = Account(plan.spec, folder)
        self.purse = self._account.purse
        self.writer = _Later(self._make_writer)

    @cached_property
    def scorer(self) -> TextModel:
        """The model whose answers are scored."""
        backbone = self._plan.spec.backbone
        threads = self._plan.spec.evaluators.threads
        return LocalText(backbone, threads) if backbone.api is None else self._account.endpoint(backbone.api, threads)

    def probe(self) -> dict[str, Any] | None:
        """What the endpoint can do, as plain data; None of a model in this process, which is known."""
        plan = self._plan
        api = plan.spec.backbone.api
        return None if api is None else probe(self.scorer, api, _together(plan.every_words)).as_dict()

    def reader(self, abilities: Mapping[str, Any] | None, metric: Metric) -> tuple[Reader | FreeForm, list[str]]:
        """The way to read answers, and why, in words.

        Args:
            abilities: what :meth:`probe` found.
            metric: of the task.
        """
        plan = self._plan
        api = plan.spec.backbone.api
        if metric.free_form:
            return self._free_form(abilities, metric)
        space, (words, *others) = plan.template.word_follows_space, plan.every_words
        if api is None or abilities is None:
            return self._local_reader(), []
        asked = Abilities.from_dict(abilities), api, words, space, others
        return choose(*asked, plan.spec.prompt.answer_tokens), explain(*asked)

    def _local_reader(self) -> Reader:
        """First tokens where they tell all labels apart, which a tokenizer that is here knows; else whole words."""
        every, space = self._plan.every_words, self._plan.template.word_follows_space
        asked = [word for of_label in _together(every) for word in of_label]
        pieces = self.scorer.first_pieces(asked, space) if isinstance(self.scorer, LocalText) else {}
        if len(pieces) == len(set(asked)) and all(told_apart(words, pieces) for words in every):
            return LabelLogprobs("completion", _LOCAL_TOP, pieces)
        return PromptLogprobs("completion", PromptWay("echo"), space)

    def _free_form(self, abilities: Mapping[str, Any] | None, metric: Metric) -> tuple[FreeForm, list[str]]:
        api, score = self._plan.spec.backbone.api, SCORES[metric.name]
        most = self._plan.spec.prompt.answer_tokens
        if api is not None and abilities is not None:
            return choose_free_form(Abilities.from_dict(abilities), api, score, most)
        chats = isinstance(self.scorer, LocalText) and self.scorer.chats
        return FreeForm("chat" if chats else "completion", most, score), []

    def close(self) -> None:
        """Close what was opened."""
        if "scorer" in self.__dict__ and self._plan.spec.backbone.api is None:
            self.scorer.close()
        self._account.close()

    def _make_writer(self) -> TimedWriter:
        spec = self._plan.spec.method.writer
        if spec is None:
            raise ValueError("expected a job with method.writer, got none")
        if spec.api is not None:
            style: Style = "completion" if spec.api.style == "completion" else "chat"
            return ApiWriter(self._account.endpoint(spec.api, 1), style, spec.max_tokens, spec.temperature)
        shown = _solved(self._plan.train, self._plan.label_words)
        job = self._plan.spec
        backbone = BackboneSpec(model=spec.model, device=job.backbone.device)
        return InstructionWriter(backbone, spec, shown, job.seed, job.evaluators.threads)


class _Later:
    """A writer that is made when it is first asked: a replay does not need it."""

    def __init__(self, make: Callable[[], TimedWriter]) -> None:
        self._make = make
        self._writer: TimedWriter | None = None

    def write(self, asks: Sequence[Ask], deadline: float | None = None) -> list[str]:
        """One text for each ask."""
        self._writer = self._writer or self._make()
        return self._writer.write(asks, deadline)


def _together(every: Sequence[Words]) -> Words:
    """All words of each label."""
    return tuple(tuple(dict.fromkeys(word for words in of for word in words)) for of in zip(*every, strict=True))


def _solved(train: Sequence[Example], words: Words) -> list[tuple[str, str]]:
    """Some train examples, of different labels first, as text and answer."""
    turn: dict[int, int] = {}
    order = []
    for i, example in enumerate(train):
        turn[example.label] = turn.get(example.label, 0) + 1
        order.append((turn[example.label], i))
    chosen = [train[i] for _, i in sorted(order)[:_SHOWN]]
    return [(" ".join(example.fields().values()), answer_of(example, words)) for example in chosen]
