"""Reference cells of the study of searches: what a search is measured against; see search_quality.py.

They have the splits, texts and label descriptions of the searches, and one point that no number of calls belongs to:

* majority: the best constant answer, in hindsight;
* zero-shot: the untouched model with the instruction in words;
* logistic-regression: on frozen sentence embeddings (L2-normalised) of the texts alone, C chosen on dev;
* adam: gradient descent on the prefix prompt of the searches, every number of it free, learning rate and step chosen
  on dev. It starts where the searches start.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from study_cells import TEXT_TOKENS, job_of
from torch import Tensor
from torch.nn.functional import cross_entropy

from bbtune.backbone.encoding import Batch, Encoder, PromptText
from bbtune.backbone.frozen import FrozenModel, load_frozen
from bbtune.backbone.packing import chunks
from bbtune.backbone.prompted import Prompts
from bbtune.backbone.sources import read_model_card
from bbtune.evaluation.worker import Worker
from bbtune.examine import make_plan
from bbtune.jobfile import parse_job
from bbtune.prompts.space import PromptSpace, prefix_bases
from bbtune.search_plan import SearchPlan
from bbtune.task.task import Example, Task, label_array

Examples = tuple[Example, ...]
Labels = NDArray[np.int64]

PROMPT_OF = "elitist-cma"  # the method whose prompt zero-shot and adam have
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # C of the logistic regression
RATES = (0.003, 0.01, 0.03)  # of Adam
STEPS, PATIENCE = 30, 10  # of each rate; it ends where so many steps in a row were no better on dev
_ROWS = 8  # of a batch, texts of like length
_CHUNK = 64  # test examples of one call
_TOLERANCE = 1e-4  # of label logits, between the forward with gradients and the product's


@dataclass(frozen=True)
class Answers:
    """Dev accuracy, predicted labels (N,) of the test split, and what was chosen on dev."""

    dev: float
    predicted: Labels
    chosen: dict[str, float] = field(default_factory=dict)


def majority(plan: SearchPlan, task: Task) -> Answers:
    """The label that is right most often on the test split; few-shot splits are balanced."""
    constant = int(np.bincount(label_array(task.test)).argmax())
    return Answers(float((label_array(task.dev) == constant).mean()), np.full(len(task.test), constant))


def zero_shot(plan: SearchPlan, task: Task) -> Answers:
    """The untouched model with the instruction in words."""
    worker = Worker(plan)
    dev = (predicted(worker, None, task.dev) == label_array(task.dev)).mean()
    return Answers(float(dev), predicted(worker, None, task.test))


def logistic_regression(plan: SearchPlan, task: Task) -> Answers:
    """Trained on the embeddings of the train split."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    card = read_model_card(plan.spec.backbone)
    model = load_frozen(card, plan.spec.backbone)
    encoder = Encoder(card, plan.template, PromptText(), TEXT_TOKENS + 2)
    train, dev, test = (embeddings(model, encoder, split) for split in (task.train, task.dev, task.test))
    labels, found = label_array(task.dev), []
    for strength in STRENGTHS:
        fitted = LogisticRegression(C=strength, max_iter=1000).fit(train, label_array(task.train))
        found.append((fitted.score(dev, labels), -log_loss(labels, fitted.predict_proba(dev)), -strength, fitted))
    metric, _, strength, fitted = max(found, key=lambda one: one[:3])
    return Answers(float(metric), fitted.predict(test), {"C": -strength})


def adam(plan: SearchPlan, task: Task) -> Answers:
    """Gradient descent on the cross-entropy of the train split."""
    worker = WholePrompt(plan)
    worker.check_forward()
    best = Step(*worker.judged(worker.zero), 0.0, 0, worker.zero)
    for rate in RATES:
        best = max(best, best_step(worker, rate), key=Step.rank)
    return Answers(best.metric, predicted(worker, best.z, task.test), {"learning_rate": best.rate, "step": best.number})


@dataclass(frozen=True)
class Step:
    """A prompt that Adam came to, with its dev scores."""

    metric: float
    gain: float  # negative loss
    rate: float
    number: int
    z: NDArray[np.float64]

    def rank(self) -> tuple[float, float]:
        """By what dev selects."""
        return self.metric, self.gain


def best_step(worker: WholePrompt, rate: float) -> Step:
    """The step that dev selects of one learning rate."""
    steps: list[Step] = []
    for number, z in enumerate(worker.descent(rate), 1):
        steps.append(Step(*worker.judged(z), rate, number, z))
        best = max(steps, key=Step.rank)
        if number == STEPS or number - best.number >= PATIENCE:
            break
    return best


REFERENCES: dict[str, Callable[[SearchPlan, Task], Answers]] = {
    "majority": majority,
    "zero-shot": zero_shot,
    "logistic-regression": logistic_regression,
    "adam": adam,
}


class Unprojected(PromptSpace):
    """z (L, T * H) is what is added to the base of every layer."""

    def __init__(self, bases: Sequence[Tensor]) -> None:
        self.layers = tuple(range(len(bases)))
        self._bases = list(bases)

    def _project(self, i: int, z: NDArray[np.float64]) -> Tensor:
        return self._bases[i] + torch.from_numpy(z.astype(np.float32)).reshape(self._bases[i].shape)


class WholePrompt(Worker):
    """A worker that tunes the prompt itself, at every layer, and knows the gradient of the loss."""

    def __init__(self, plan: SearchPlan) -> None:
        super().__init__(plan)
        rows = [self._encoder.row(example) for example in plan.train]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        labels, self._dev = torch.from_numpy(label_array(plan.train)), label_array(plan.dev)
        self._batches: list[tuple[Batch, Tensor, list[int]]] = []
        for some in chunks(len(rows), _ROWS):
            places = order[some]
            self._batches.append((self._encoder.batch([rows[i] for i in places]), labels[places], places))

    @property
    def zero(self) -> NDArray[np.float64]:
        """Where every search starts: z (L, T * H) of the bases alone."""
        bases = self._space.bases.layers
        return np.zeros((len(bases), bases[0].numel()))

    def descent(self, rate: float) -> Iterator[NDArray[np.float64]]:
        """z (L, T * H) after each step of Adam, without end."""
        free = torch.zeros(self.zero.shape, requires_grad=True)
        optimizer = torch.optim.Adam([free], lr=rate)
        while True:
            optimizer.zero_grad()
            for batch, labels, _ in self._batches:  # each with a backward of its own, which holds less memory
                loss = cross_entropy(self._forward(batch, free), labels, reduction="sum") / len(self._plan.train)
                loss.backward()
            optimizer.step()
            yield free.detach().numpy().astype(np.float64)

    def judged(self, z: NDArray[np.float64]) -> tuple[float, float]:
        """Accuracy and negative loss on dev, as a search judges its incumbents."""
        logits, labels = (torch.from_numpy(of) for of in (self.candidates(z[None], "dev", 0)[0], self._dev))
        return float((logits.argmax(dim=-1) == labels).double().mean()), -float(cross_entropy(logits, labels))

    def check_forward(self) -> None:
        """The forward that has gradients must be the product's."""
        expected = self.candidates(self.zero[None], "train", 0)[0]
        for batch, _, places in self._batches:
            got = self._forward(batch, torch.zeros(self.zero.shape)).numpy()
            if (off := float(np.abs(got - expected[places]).max())) > _TOLERANCE:
                raise SystemExit(f"expected the product's label logits within {_TOLERANCE}, they differ by {off:.1e}")

    def _forward(self, batch: Batch, z: Tensor) -> Tensor:
        """Label logits (B, C) under z (L, T * H), with their graph."""
        bases = self._space.bases.layers
        prompts = Prompts({layer: base + z[layer].reshape(base.shape) for layer, base in bases.items()}, sets=True)
        states = self.model.states(batch, prompts)
        return self._head(self.model.readout(batch, states, self._encoder.prompt_length))

    def _prompt_space(self) -> PromptSpace:
        return Unprojected(prefix_bases(self.model, self._encoder))


def embeddings(model: FrozenModel, encoder: Encoder, examples: Examples) -> NDArray[np.float32]:
    """Mean states (N, H) of texts, L2-normalised."""
    rows = [encoder.row(example) for example in examples]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    found = np.empty((len(rows), model.hidden_size), dtype=np.float32)
    for some in chunks(len(rows), _ROWS):
        batch = encoder.batch([rows[i] for i in order[some]])
        found[order[some]] = model.readout(batch, model.states(batch), 0).numpy()
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def predicted(worker: Worker, z: NDArray[np.float64] | None, examples: Examples) -> Labels:
    """Labels (N,) that the model gives under z; None is the untouched model."""
    parts = [worker.label_logits(z, examples[i : i + _CHUNK]) for i in range(0, len(examples), _CHUNK)]
    return np.asarray(np.concatenate(parts).argmax(axis=-1), dtype=np.int64)


def reference_job(task: str, seed: int, data: Path) -> dict[str, Any]:
    """The job whose splits, texts and prompt the references share."""
    return job_of(task, seed, PROMPT_OF, data)


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Whether this process, and no other, has the cell in hand."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def write_cell(folder: Path, name: str, answers: Answers, truth: Labels, seconds: float) -> None:
    """Leave the cell in the form of a search's, with one point."""
    right = (answers.predicted == truth).astype(int).tolist()
    point = {"calls": None, "found_at": None, "layer_forwards": None, "dev": answers.dev}
    point |= {"test": float(np.mean(right)), "right": "".join(map(str, right)), "chosen": answers.chosen}
    whole = {"name": name, "points": [point], "seconds": round(seconds, 1)}
    (folder / "cell.json.part").write_text(json.dumps(whole))
    (folder / "cell.json.part").rename(folder / "cell.json")


def work_through_references(root: Path, data: Path, names: list[tuple[str, int, str]]) -> None:
    """Make every reference cell that is not done; two processes may share a root."""
    for task_name, seed, reference in names:
        name = f"{task_name}-{seed}-{reference}"
        with held(root / name) as ours:
            if not ours or (root / name / "cell.json").is_file():
                continue
            spec, faults, _ = parse_job(reference_job(task_name, seed, data))
            if spec is None or faults:
                raise SystemExit(f"{name}: {[str(fault) for fault in faults]}")
            plan, task, _ = make_plan(spec)
            began = time.monotonic()
            answers = REFERENCES[reference](plan, task)
            write_cell(root / name, name, answers, label_array(task.test), time.monotonic() - began)
        test = (answers.predicted == label_array(task.test)).mean()
        print(f"{name}: {test:.3f} {answers.chosen} in {time.monotonic() - began:.0f} s", flush=True)
