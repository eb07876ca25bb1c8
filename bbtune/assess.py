"""The honest part: test data, scored once, after the search, beside what costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bbtune.files import replaced
from bbtune.method import Method
from bbtune.result import Scored
from bbtune.seeds import generator
from bbtune.task.free_form import constant_scores
from bbtune.task.metrics import Estimate, Labels, gain_with_interval, score_with_interval
from bbtune.task.task import Example, Task, label_array, truth_array

Examples = tuple[Example, ...]


def _constant(task: Task, examples: Examples) -> Labels:
    """What is predicted (N,) if the answer is always the same: the best label, or the most frequent answer of train."""
    if not task.metric.free_form:
        return np.full(len(examples), _best_label(task), dtype=np.int64)
    answers, truths = ([example.answer or "" for example in split] for split in (task.train, examples))
    return np.array(constant_scores(task.metric.name, answers, truths))


def _best_label(task: Task) -> int:
    """The label that scores best on the test split when it is always given: the majority class, for accuracy.

    Few-shot train splits are balanced, so only the test split knows its majority class; taking it in hindsight makes
    the baseline the strongest of its kind.
    """
    truth = label_array(task.test)
    return int(np.argmax([task.metric(truth, np.full_like(truth, label)) for label in range(len(task.labels))]))


@dataclass(frozen=True)
class ZeroShot:
    """Answers of the untouched model, kept in a folder for the other runs of a study that have the same.

    Args:
        folder: of the study; None keeps nothing.
        key: of model, texts and the way they are put to it.
    """

    folder: Path | None
    key: str

    def labels(self, method: Method, splits: Mapping[str, Examples]) -> dict[str, Labels]:
        """Labels, or scores of answers in words, (N,) of each split, remembered or asked for."""
        from safetensors.numpy import load_file, save_file

        path = None if self.folder is None else self.folder / f"zero-shot-{self.key[:16]}.safetensors"
        if path is not None and path.is_file():
            return load_file(path)
        found = {split: method.untouched_predicted(examples) for split, examples in splits.items()}
        if path is not None:
            with replaced(path) as part:  # other runs may be at the same
                save_file(found, part)
        return found


def assess(
    method: Method, task: Task, seed: int, zero_shot: ZeroShot
) -> tuple[dict[str, Scored], Estimate, dict[str, Labels]]:
    """Scores of the best constant answer, untouched model and tuned model, and the gain of the last over the second.

    Args:
        method: fitted or restored.
        seed: of the bootstrap.
        zero_shot: what is known of the untouched model.

    Returns:
        Scores on dev and test by name, tuned - zero_shot on test, and labels, or scores of answers in words, (N,) on
        test: ``truth``, ``zero_shot`` and ``tuned``, and of answers in words ``majority``, which no label tells.
    """
    splits: dict[str, Examples] = {"dev": task.dev, "test": task.test}
    truth = {split: truth_array(examples) for split, examples in splits.items()}
    predicted = {
        "majority": {split: _constant(task, examples) for split, examples in splits.items()},
        "zero_shot": zero_shot.labels(method, splits),
        "tuned": {split: method.predicted(examples) for split, examples in splits.items()},
    }

    def scored(name: str, split: str) -> Estimate:
        return score_with_interval(
            task.metric, truth[split], predicted[name][split], generator(seed, "bootstrap", name, split)
        )

    test = {"truth": truth["test"], "zero_shot": predicted["zero_shot"]["test"], "tuned": predicted["tuned"]["test"]}
    if task.metric.free_form:
        test["majority"] = predicted["majority"]["test"]
    rng = generator(seed, "bootstrap", "gain")
    gain = gain_with_interval(task.metric, test["truth"], test["zero_shot"], test["tuned"], rng)
    return {name: Scored(scored(name, "dev"), scored(name, "test")) for name in predicted}, gain, test
