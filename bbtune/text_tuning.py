"""A search of a prompt in words as a method: a text model is asked, what was answered before comes from the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from bbtune.backbone.memory import peak_memory
from bbtune.build import limits, make_selection, make_text_search, replayed
from bbtune.cost import Sizes, Spent
from bbtune.endpoint.reading import FreeForm, Reader
from bbtune.errors import BbtuneError, BudgetReached
from bbtune.evaluation.text import TextEvaluator
from bbtune.evaluation.text_models import TextModels
from bbtune.forecast import Asking, Forecast, Volume, count_roughly
from bbtune.journal import MONEY_REASONS, Journal, Record, Recorded
from bbtune.loop import Generation, Ledger, run_search
from bbtune.method import Fitted, Method
from bbtune.plan import Reading
from bbtune.result import with_more
from bbtune.spec import TextJob
from bbtune.task.metrics import Labels, Metric
from bbtune.task.task import Example
from bbtune.text_plan import TextPlan
from bbtune.text_search.choices import Choices, Library
from bbtune.written import RecordedWriter


class TextTuning(Method):
    """The search of a plan.

    Args:
        plan: of the search.
        metric: of the task.
        journal: with its start record; what is found out, written and scored goes there.
        say: told what the endpoint can do.
        test: gives the size of the split for which the search leaves enough; asked where an API is paid.
    """

    def __init__(
        self,
        plan: TextPlan,
        metric: Metric,
        journal: Journal,
        say: Callable[[str], None],
        test: Callable[[], Volume],
    ) -> None:
        self._plan = plan
        self._metric = metric
        self._journal = journal
        self._say = say
        self._folder = journal.path.parent  # what is paid is kept there
        self._test = test
        self._space = plan.space()
        self._models = TextModels(plan, self._folder)
        self._evaluator: TextEvaluator | None = None
        self._z: NDArray[np.float64] = np.zeros((1, self._space.choices.dim))

    def fit(self) -> Iterator[Generation | Fitted]:
        """The generations of the search."""
        spec, records = self._plan.spec, list(self._journal.records)
        writer = RecordedWriter(self._models.writer, records, self._journal)
        search = make_text_search(spec, self._space.choices, len(self._plan.train), writer)
        evaluator = self._found()
        self._hold_back()
        recorded = Recorded(evaluator, records, self._journal)
        ledger = Ledger(limits(spec), _sizes(len(self._plan.train), len(self._plan.dev)), recorded.began)
        writer.deadline = ledger.deadline()
        begun = False
        for event in run_search(search, recorded, ledger, make_selection(spec, search)):
            if isinstance(event, Generation):
                begun = True
                self._hold_back(event.cost.input_tokens / max(event.cost.requests, 1))
                yield event
                continue
            if not begun and event.reason in MONEY_REASONS:
                raise self._too_little(event.reason, "before the starting point was judged, with enough left to test")
            self._z = event.z
            self._models.purse.release_hold()
            self._tell_guesses(evaluator)
            cost = replace(event.cost, **asdict(self.paid()))  # the probe and the writer, too
            yield Fitted(event.reason, cost, {"z": event.z}, event.z.size, self._reading(event.z))

    def predicted(self, examples: Sequence[Example]) -> Labels:
        """Labels, or scores of answers in words, (N,) under the prompt that was handed out."""
        return self._found().predicted(self._z, examples)

    def untouched_predicted(self, examples: Sequence[Example]) -> Labels:
        """As :meth:`predicted`, under the prompt that the search began with."""
        return self._found().predicted(np.zeros_like(self._z), examples)

    def paid(self) -> Spent:
        """What was paid so far, in all sessions of the run."""
        return self._models.purse.spent()

    def peak_memory_mib(self) -> float:
        """Highest memory so far of this process."""
        return peak_memory(torch.device("cpu")) / 2**20

    def close(self) -> None:
        """End what was opened."""
        self._models.close()

    def _found(self) -> TextEvaluator:
        """The evaluator, once it is known how answers are read."""
        if self._evaluator is None:
            plan = self._plan
            reader = self._reader()
            self._evaluator = TextEvaluator(
                self._models.scorer, reader, self._space, plan, self._metric, self._models.purse.spent
            )
        return self._evaluator

    def _too_little(self, reason: str, when: str) -> BbtuneError:
        what = f"{reason} ended {when}; bbtune run JOB --dry-run tells what is needed"
        return BbtuneError(f"{what}; go on with: {with_more(self._folder, reason)}")

    def _hold_back(self, seen: float = 0.0) -> None:
        """Leave enough for the test split, where the budget caps money.

        Args:
            seen: tokens in of a request of the search in the mean, once that is known.
        """
        if self._plan.spec.backbone.api is None:
            return  # a writer alone is paid, and not asked any more
        self._models.purse.hold_back(self._forecast.held_back(self._test(), seen))

    @cached_property
    def _forecast(self) -> Forecast:
        reader = self._found().reader
        asked = reader.requests("", self._plan.label_words)
        asking = Asking(len(asked), sum(request.max_tokens for request in asked), reader.style)
        return Forecast(self._plan, self._space, count_roughly, asking)

    def _reader(self) -> Reader | FreeForm:
        """The way to read answers; what the endpoint can do is found out once in the life of a run."""
        record = self._journal.find("probe")
        if record is None:
            try:
                record = {"event": "probe", "abilities": self._models.probe()}
            except BudgetReached as error:
                raise self._too_little(error.reason, "while it was found out what the endpoint can do") from error
            self._journal.append(record)
        reader, sentences = self._models.reader(record["abilities"], self._metric)
        if self._journal.find("stop") is None:
            for sentence in sentences[-1:]:  # what is used; bbtune probe tells the rest
                self._say(sentence)
        return reader

    def _reading(self, z: NDArray[np.float64]) -> Reading:
        prompt = self._space.prompt(z[0])
        plan = self._plan
        found = (self._journal.find("probe") or {}).get("abilities")
        return Reading(plan.kind, prompt.template.text, prompt.label_words, prompt.preamble, plan.label_words, found)

    def _tell_guesses(self, evaluator: TextEvaluator) -> None:
        notes = evaluator.notes
        if notes.missing:
            self._say(
                f"{notes.missing} label scores of {notes.texts} texts were below the most probable tokens that the "
                "server tells, and were bounded by the last of those"
            )
        if notes.unmatched:
            self._say(f"{notes.unmatched} of {notes.texts} answers named no label, and counted as undecided")


def _sizes(train: int, dev: int) -> Sizes:
    """Of the splits; the layers of the model do not count."""
    return Sizes(train, dev, (0,), 0)


def replayed_text_generations(spec: TextJob, records: Sequence[Record]) -> list[Generation]:
    """The generations of a search, from its records alone."""
    start = records[0]
    given: list[str] = start["instructions"]
    choices = Choices(Library(given), len(given), tuple(start["slots"]))
    train = len(start["train_labels"])
    search = make_text_search(spec, choices, train, RecordedWriter(None, list(records), None))
    return replayed(spec, search, _sizes(train, start["dev_size"]), records)
