"""The evaluator of prompts in words: a text model is asked, label scores are read out of its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbtune.cost import Spent
from bbtune.endpoint.reading import Reader
from bbtune.endpoint.request import Request, TextModel
from bbtune.errors import EvaluationError
from bbtune.evaluation.base import Scores, Split, label_metric
from bbtune.evaluation.race import Race
from bbtune.objective import Objective, Subset
from bbtune.prompts.text import TextPrompt, TextSpace
from bbtune.task.metrics import Metric
from bbtune.task.task import Example, label_array
from bbtune.text_plan import TextPlan


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
        reader: Reader,
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
        """
        if z.ndim != 3 or z.shape[1:] != (1, self._space.choices.dim):
            raise EvaluationError(f"z must have shape (P, 1, D) with D = {self._space.choices.dim}, got {z.shape}")
        before = self._spent()
        examples = self._examples[split]
        some = range(len(examples)) if subset is None else subset
        chosen = tuple(examples[i] for i in some)
        objective = Objective(label_array(chosen), self._loss)
        prompts = [self._space.prompt(one[0]) for one in z]

        def score(which: Sequence[int], texts: Sequence[int]) -> NDArray[np.float32]:
            return self._logits([prompts[p] for p in which], [chosen[i] for i in texts], deadline)

        if self._race is None or split != "train" or len(z) == 1:
            logits = score(range(len(z)), range(len(chosen)))
            loss, metric, count = (
                objective(logits),
                label_metric(self._metric, logits, objective.labels),
                logits[..., 0].size,
            )
        else:
            loss, metric, count = self._race.run(score, len(z), objective, self._metric)
        return Scores(loss, metric, None, count, 0, spent=self._spent() - before)

    def label_logits(self, candidate: NDArray[np.float64], examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) of any examples under a candidate (1, D)."""
        return self.under(self._space.prompt(candidate[0]), examples)

    def under(self, prompt: TextPrompt, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) of any examples under a prompt."""
        return np.asarray(self._logits([prompt], examples)[0])

    def _logits(
        self, prompts: Sequence[TextPrompt], examples: Sequence[Example], deadline: float | None = None
    ) -> NDArray[np.float32]:
        """Label logits (P, N, C): all requests of a call go out together."""
        asked: list[list[Request]] = []
        for prompt in prompts:
            texts = [prompt.render(example, self._space.characters) for example in examples]
            asked += [self.reader.requests(text, prompt.label_words) for text in texts]
        answers = iter(self._model.ask([request for one in asked for request in one], deadline))
        words = [prompt.label_words for prompt in prompts for _ in examples]
        found = [self.reader.read([next(answers) for _ in one], of) for one, of in zip(asked, words, strict=True)]
        self.notes.texts += len(found)
        self.notes.missing += sum(reading.missing for reading in found)
        self.notes.unmatched += sum(reading.unmatched for reading in found)
        logits = np.array([reading.logits for reading in found], dtype=np.float32)
        return logits.reshape(len(prompts), len(examples), -1)
