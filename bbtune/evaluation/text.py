"""The evaluator of prompts in words: a text model is asked, and its answers are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bbtune.cost import Spent
from bbtune.endpoint.reading import FreeForm, Reader, Reading
from bbtune.endpoint.request import Answer, TextModel
from bbtune.errors import EvaluationError
from bbtune.evaluation.base import Marks, Scores, Split
from bbtune.evaluation.race import Race
from bbtune.objective import Objective, Subset
from bbtune.prompts.text import TextPrompt, TextSpace
from bbtune.task.metrics import UNDECIDED, Labels, Metric
from bbtune.task.task import Example, label_array, truth_array
from bbtune.text_plan import TextPlan

_AT_ONCE = 512  # texts of one call
T = TypeVar("T")


@dataclass
class Notes:
    """What readers had to guess so far, over all texts that were scored.

    Attributes:
        texts: scored.
        missing: labels that were not among the most probable tokens, bounded by the last of those.
        unmatched: generated answers that name no label.
    """

    texts: int = 0
    missing: int = 0
    unmatched: int = 0


class TextEvaluator:
    """Scores prompts in words.

    Args:
        model: that is asked.
        reader: of its answers.
        space: from candidates to prompts.
        plan: of the job.
        metric: of the task.
        spent: what was paid so far.

    Attributes:
        reader: of answers.
        notes: what had to be guessed.
    """

    def __init__(
        self,
        model: TextModel,
        reader: Reader | FreeForm,
        space: TextSpace,
        plan: TextPlan,
        metric: Metric,
        spent: Callable[[], Spent] = Spent,
    ) -> None:
        self._model = model
        self.reader = reader
        self._space = space
        self._metric = metric
        self._spent = spent
        self._examples: dict[Split, tuple[Example, ...]] = {"train": plan.train, "dev": plan.dev}
        self._loss = plan.spec.method.loss
        block = plan.spec.method.race
        self._race = None if block is None else Race(block, plan.spec.seed)
        self.notes = Notes()

    def evaluate(
        self,
        z: NDArray[np.float64],
        split: Split,
        deadline: float | None = None,
        first: int = 0,
        subset: Subset | None = None,
    ) -> Scores:
        """Scores of candidates z (P, 1, D), whole numbers of the space.

        On train, where the job has a race, candidates that are clearly worse than the best are not scored on all
        examples; the loss of such a one is the best one's and the difference so far.

        Args:
            deadline: on the clock of :func:`time.monotonic`.
            first: of no use here.
            subset: examples of the split to score on; None for all.

        Raises:
            EvaluationError: for z of another shape.
        """
        if z.ndim != 3 or z.shape[1:] != (1, self._space.choices.dim):
            raise EvaluationError(f"z must have shape (P, 1, D) with D = {self._space.choices.dim}, got {z.shape}")
        before = self._spent()
        examples = self._examples[split]
        some = range(len(examples)) if subset is None else subset
        chosen = tuple(examples[i] for i in some)
        truth, prompts = truth_array(chosen), [self._space.prompt(one[0]) for one in z]

        def mark(which: Sequence[int], texts: Sequence[int]) -> Marks:
            return self._marks([prompts[p] for p in which], [chosen[i] for i in texts], deadline)

        if self._race is None or split != "train" or len(z) == 1:
            marks = mark(range(len(z)), range(len(chosen)))
            loss, count = marks.losses.mean(axis=1), marks.losses.size
            metric = self._metric(np.broadcast_to(truth, marks.predicted.shape), marks.predicted)
        else:
            loss, metric, count = self._race.run(mark, len(z), truth, self._metric)
        return Scores(loss, metric, None, count, 0, spent=self._spent() - before)

    def predicted(self, candidate: NDArray[np.float64], examples: Sequence[Example]) -> Labels:
        """Labels, or scores of answers in words, (N,) of any examples under a candidate (1, D)."""
        return np.asarray(self._marks([self._space.prompt(candidate[0])], examples).predicted[0])

    def under(self, prompt: TextPrompt, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) of any examples under a prompt.

        Raises:
            EvaluationError: where answers are words.
        """
        if isinstance(self.reader, FreeForm):
            raise EvaluationError("expected answers that are labels, got answers in words; read those with said()")
        readings = self._readings(self.reader, [prompt], examples)
        return np.array([reading.logits for reading in readings], dtype=np.float32)

    def said(self, prompt: TextPrompt, examples: Sequence[Example]) -> list[str]:
        """Answers in words to any examples under a prompt.

        Raises:
            EvaluationError: where answers are labels.
        """
        reader = self.reader
        if not isinstance(reader, FreeForm):
            raise EvaluationError("expected answers in words, got answers that are labels; read those with under()")
        return self._each([prompt], examples, lambda answers, *_: reader.said(answers))

    def _marks(
        self, prompts: Sequence[TextPrompt], examples: Sequence[Example], deadline: float | None = None
    ) -> Marks:
        """Marks (P, N): the one place where labels and answers in words part."""
        reader, shape = self.reader, (len(prompts), len(examples))
        if isinstance(reader, FreeForm):
            found = self._each(prompts, examples, lambda answers, _, e: reader.read(answers, e.answer or ""), deadline)
            scores = np.array(found, dtype=np.float64).reshape(shape)
            return Marks(1 - scores, scores)
        readings = self._readings(reader, prompts, examples, deadline)
        logits = np.array([reading.logits for reading in readings], dtype=np.float32).reshape(*shape, -1)
        decided = np.array([reading.decided for reading in readings]).reshape(shape)
        predicted = np.where(decided, logits.argmax(axis=-1), UNDECIDED)
        return Marks(Objective(label_array(examples), self._loss).each(logits), predicted)

    def _readings(
        self,
        reader: Reader,
        prompts: Sequence[TextPrompt],
        examples: Sequence[Example],
        deadline: float | None = None,
    ) -> list[Reading]:
        """Label scores of each example, those under the first prompt first."""
        found = self._each(prompts, examples, lambda answers, p, _: reader.read(answers, p.label_words), deadline)
        self.notes.texts += len(found)
        self.notes.missing += sum(reading.missing for reading in found)
        self.notes.unmatched += sum(reading.unmatched for reading in found)
        return found

    def _each(
        self,
        prompts: Sequence[TextPrompt],
        examples: Sequence[Example],
        read: Callable[[list[Answer], TextPrompt, Example], T],
        deadline: float | None = None,
    ) -> list[T]:
        """What is read out of the answers about each example, those under the first prompt first.

        Many go out together, and not all of a large split: an answer may hold a thousand tokens, a third of a MiB.
        """
        pairs, found = [(prompt, example) for prompt in prompts for example in examples], []
        for start in range(0, len(pairs), _AT_ONCE):
            some = pairs[start : start + _AT_ONCE]
            asked = [self.reader.requests(p.render(e, self._space.characters), p.label_words) for p, e in some]
            answers = iter(self._model.ask([request for one in asked for request in one], deadline))
            found += [read([next(answers) for _ in one], *pair) for one, pair in zip(asked, some, strict=True)]
        return found
