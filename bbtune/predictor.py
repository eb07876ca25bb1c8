"""Use a tuned prompt: texts in, labels or answers out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from bbtune.backbone.sources import read_model_card
from bbtune.baselines.account import NO_PAST
from bbtune.baselines.methods import make_baseline
from bbtune.errors import BbtuneError
from bbtune.evaluation.account import Account
from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.evaluation.text import TextEvaluator
from bbtune.evaluation.text_models import TextModels
from bbtune.learned import Learned
from bbtune.plan import Plan
from bbtune.prompt_search import make_pool
from bbtune.prompts.text import TextPrompt
from bbtune.run_spec import MONEY
from bbtune.search_plan import SearchPlan, tuned_layers
from bbtune.spec import BaseJob, JobSpec, TextJob
from bbtune.task.metrics import Metric
from bbtune.task.rows import half_character
from bbtune.task.task import Example
from bbtune.task.template import Template
from bbtune.text_plan import TextPlan
from bbtune.tuned import Tuned


@dataclass(frozen=True)
class Prediction:
    """What a model says of a text.

    Attributes:
        label: the label, or the answer in words.
        probability: of the label among the labels; None of an answer in words.
    """

    label: str
    probability: float | None


class Predictor:
    """The frozen model with the tuned prompt, loaded once; the task's data are not needed.

    Args:
        result: of a run, or a prompt in full on its model.

    Attributes:
        kind: ``"single"`` or ``"pair"``.
    """

    def __init__(self, result: Learned | Tuned) -> None:
        if isinstance(result, Tuned):
            self.kind = result.plan.kind
            self._open = ExitStack()
            self._predict: Predict = partial(_likeliest, result.labels, result.label_logits)
            return
        reading = result.reading
        self.kind = reading.kind
        with ExitStack() as opened:  # closed again where the model cannot be had
            self._predict = _restored(result, Template(reading.template, reading.kind), opened)
            self._open = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free what was opened."""
        self._open.close()

    def predict(self, texts: Sequence[str | tuple[str, ...]]) -> list[Prediction]:
        """Labels of texts, or answers to them; of pairs of texts for a task of pairs.

        Raises:
            BbtuneError: for a text where a pair is expected, the other way round, an empty text, or no list.
        """
        if isinstance(texts, str):
            raise BbtuneError(f"expected a list of texts, got one text; write [{texts!r}]")
        if not isinstance(texts, Iterable):
            raise BbtuneError(f"expected a list of texts, got {texts!r:.80}")
        examples = [self._example(text) for text in texts]
        return self._predict(examples) if examples else []

    def _example(self, text: str | tuple[str, ...]) -> Example:
        parts = tuple(text) if isinstance(text, tuple | list) else (text,)
        expected = 2 if self.kind == "pair" else 1
        if len(parts) != expected or not all(isinstance(part, str) and part.strip() for part in parts):
            what = "a pair of texts, (one, other)," if expected == 2 else "one text"
            raise BbtuneError(f"expected {what} that is not empty, got {text!r}")
        if any(half_character(part) for part in parts):
            raise BbtuneError(f"expected text, got half a character (a lone surrogate) in {text!r}")
        clean = [" ".join(part.split()) for part in parts]  # as the rows of a task are read
        return Example(clean[0], clean[1] if expected == 2 else None, 0)


AnyJob = TypeVar("AnyJob", bound=BaseJob)
Scorer = Callable[[Sequence[Example]], NDArray[np.float32]]
Predict = Callable[[Sequence[Example]], list[Prediction]]


def _restored(result: Learned, template: Template, opened: ExitStack) -> Predict:
    """From examples to predictions, by what a run has learned.

    Args:
        opened: what has to be closed in the end.
    """
    if isinstance(result.spec, TextJob):
        return _in_words(result, result.spec, template, opened)
    return partial(_likeliest, result.labels, _scorer(result, template, opened))


def _uncapped(spec: AnyJob) -> AnyJob:
    """The job without its caps on money, which are those of the run."""
    return spec.model_copy(update={"budget": spec.budget.model_copy(update=dict.fromkeys(MONEY))})


def _likeliest(labels: Sequence[str], score: Scorer, examples: Sequence[Example]) -> list[Prediction]:
    """The label with the highest of each example's label logits."""
    logits = score(examples).astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return [Prediction(labels[i], float(share[i])) for share, i in zip(shares, logits.argmax(1), strict=True)]


def _in_words(result: Learned, spec: TextJob, template: Template, opened: ExitStack) -> Predict:
    """As :func:`_restored`, of a prompt in words."""
    metric = Metric(result.metric, len(result.labels))
    reading = result.reading
    words = reading.first_words or reading.label_words
    shared: dict[str, Any] = {"kind": reading.kind, "template": template, "label_words": words}
    plan = TextPlan(spec=_uncapped(spec), train=(), dev=(), **shared)
    models = TextModels(plan, Path(opened.enter_context(TemporaryDirectory())))
    opened.callback(models.close)
    reader, _ = models.reader(reading.abilities, metric)
    evaluator = TextEvaluator(models.scorer, reader, plan.space(), plan, metric)
    prompt = TextPrompt(reading.preamble, template, reading.label_words)
    if metric.free_form:
        return lambda examples: [Prediction(answer, None) for answer in evaluator.said(prompt, examples)]
    return partial(_likeliest, result.labels, partial(evaluator.under, prompt))


def _scorer(result: Learned, template: Template, opened: ExitStack) -> Scorer:
    """As :func:`_restored`, to label logits (N, C)."""
    spec, metric = result.spec, Metric("accuracy", len(result.labels))
    words, kind = result.reading.label_words, result.reading.kind
    if not isinstance(spec, JobSpec):
        plan = Plan(spec=spec, kind=kind, template=template, label_words=words, train=(), dev=())
        baseline = make_baseline(plan, metric, Path(), NO_PAST)
        baseline.restore(result.learned)
        return baseline.label_logits
    card = read_model_card(spec.backbone)
    searched = SearchPlan(
        spec=spec.model_copy(update={"evaluators": spec.evaluators.model_copy(update={"count": 0})}),
        kind=kind,
        template=template,
        label_words=words,
        layers=tuned_layers(spec.prompt, card),
        depth=card.layer_count,
        train=(),
        dev=(),
    )
    account = None
    if spec.backbone.api is not None:
        account = Account(_uncapped(spec), Path(opened.enter_context(TemporaryDirectory())))
        opened.callback(account.close)
    pool = make_pool(searched, account, lambda _: None)
    opened.callback(pool.close)
    evaluator = PromptEvaluator(pool, searched, metric, result.learned["scales"], together=1)
    return partial(evaluator.label_logits, result.learned["z"])
