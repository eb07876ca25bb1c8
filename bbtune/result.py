"""What a run leaves behind: scores with intervals, cost, and the prompt itself."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from bbtune.cost import Spent
from bbtune.errors import BbtuneError
from bbtune.files import replaced
from bbtune.jobfile import load_job
from bbtune.journal import array_digest
from bbtune.learned import Arrays, Learned
from bbtune.loop import Cost
from bbtune.plan import Reading
from bbtune.predictor import Prediction, Predictor
from bbtune.spec import TextJob
from bbtune.task.metrics import Estimate
from bbtune.task.verbalizer import words_per_label

RESULT, SPEC, JOURNAL, PLOT = "result.json", "spec.yaml", "journal.jsonl", "plot.png"
STUDY = "study.json"
LEARNED, PREDICTED, TRAINING = "learned.safetensors", "predicted.safetensors", "training"

_LOADING = Lock()  # several threads may ask a result for the first time


@dataclass(frozen=True)
class Scored:
    """Dev and test score of one way to use the model."""

    dev: Estimate
    test: Estimate


@dataclass(frozen=True)
class Point:
    """Where a method stood after so much cost.

    Attributes:
        best_loss: lowest train loss so far, None before the first.
        dev: metric of what would have been handed out.
    """

    evaluations: int
    examples: int
    layer_forwards: int
    backward_examples: int
    seconds: float
    best_loss: float | None
    dev: float
    requests: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0


@dataclass(frozen=True, eq=False)
class TuneResult(Learned):
    """The end of a run.

    Attributes:
        parameters: how many numbers were searched or trained.
        scores: ``majority``, ``zero_shot`` and ``tuned``.
        gain: tuned - zero_shot on test, paired bootstrap interval.
        predicted: labels (N,) on the test split: ``truth``, ``zero_shot`` and ``tuned``, -1 where an answer named none;
            of answers in words their scores in [0, 1], truth 1, and ``majority`` too.
        curve: of the search or the training, in order.
        seeds: ``job``, of everything random, and ``task``, of the few-shot draw.
        fingerprints: SHA-256 (hex) of ``task`` (all splits), ``test`` (its test split) and ``model``.
        task: name of the task.
        paid: to an API, in all, the probe and the test split included.
        peak_memory_mib: highest resident memory of a process that held the model, on a GPU what it allocated there.
        stopped_ms: time of day when the search ended, milliseconds since 1970.
    """

    parameters: int
    stop_reason: str
    cost: Cost
    scores: dict[str, Scored]
    gain: Estimate
    predicted: Arrays
    curve: tuple[Point, ...]
    seeds: dict[str, int]
    versions: dict[str, str]
    fingerprints: dict[str, str]
    task: str
    peak_memory_mib: float
    stopped_ms: int
    paid: Spent = field(default_factory=Spent)

    def predict(self, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
        """Labels of new texts, or answers to them, each with ``label`` and ``probability``.

        The model is loaded at the first call, in this process, and kept for as long as the result is. A model behind
        an API is asked for every text, at its price and without the caps of the run.

        Args:
            texts: N of them; pairs of texts as tuples for a task of pairs.

        Raises:
            BbtuneError: for anything but a list of texts (or pairs) that are not empty.
        """
        with _LOADING:
            predictor = self._predictor
        return predictor.predict(texts)

    @cached_property
    def _predictor(self) -> Predictor:
        predictor = Predictor(self)
        weakref.finalize(self, predictor.close)
        return predictor

    def __getstate__(self) -> dict[str, Any]:
        """All but a model that was loaded."""
        return {name: value for name, value in self.__dict__.items() if name != "_predictor"}

    def save(self, folder: Path) -> None:
        """Write learned.safetensors, predicted.safetensors and result.json, the last at the end and at once."""
        from safetensors.numpy import save_file

        save_file(dict(self.learned), folder / LEARNED)
        save_file(dict(self.predicted), folder / PREDICTED)
        with replaced(folder / RESULT) as part:
            part.write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")

    def as_dict(self) -> dict[str, Any]:
        """The content of result.json."""
        return {
            "name": self.spec.name,
            "method": self.spec.method_name,
            "task": self.task,
            "spec_hash": self.spec.spec_hash,
            "stop_reason": self.stop_reason,
            "cost": asdict(self.cost),
            "paid": asdict(self.paid),
            "metric": self.metric,
            "labels": list(self.labels),
            "scores": {
                name: {"dev": scored.dev.as_dict(), "test": scored.test.as_dict()}
                for name, scored in self.scores.items()
            },
            "gain": self.gain.as_dict(),
            "parameters": self.parameters,
            "peak_memory_mib": self.peak_memory_mib,
            "learned_sha256": {name: array_digest(array) for name, array in self.learned.items()},
            "seeds": self.seeds,
            "versions": self.versions,
            "fingerprints": self.fingerprints,
            "curve": [asdict(point) for point in self.curve],
            "reading": asdict(self.reading),
            "stopped_ms": self.stopped_ms,
        }

    @classmethod
    def load(cls, folder: str | Path) -> TuneResult:
        """Read the result of a finished run.

        Raises:
            BbtuneError: if the folder holds none, or one that was written by another version.
        """
        from safetensors import SafetensorError

        folder = Path(folder)
        if not (folder / RESULT).is_file():
            unfinished = f"; it has not finished: bbtune resume {folder}"
            hint = unfinished if (folder / JOURNAL).is_file() else study_hint(folder)
            raise BbtuneError(f"{folder}: expected a finished run with {RESULT}, found none{hint}")
        try:
            return cls._read(folder)
        except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
            raise BbtuneError(f"{folder}: the result cannot be read ({type(error).__name__}: {error})") from error

    @classmethod
    def _read(cls, folder: Path) -> TuneResult:
        from safetensors.numpy import load_file

        raw = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        spec = load_job(folder / SPEC)
        if spec.spec_hash != raw["spec_hash"]:
            raise ValueError(f"{SPEC} has changed since: it is {spec.spec_hash[:12]}, was {raw['spec_hash'][:12]}")
        reading = raw["reading"]
        words, first = (words_per_label(reading.get(key, ())) for key in ("label_words", "first_words"))
        return cls(
            spec=spec,
            metric=raw["metric"],
            learned=load_file(folder / LEARNED),
            predicted=load_file(folder / PREDICTED),
            versions=raw["versions"],
            reading=Reading(**{**reading, "label_words": words, "first_words": first}),
            **outcome(raw),
        )

    def summary(self) -> str:
        """The result in words."""
        cost, task = self.cost, self.spec.task
        counted = f"{cost.evaluations} evaluations, {cost.examples} examples"
        backward = f"{cost.backward_examples} of them backward, " if cost.backward_examples else ""
        forwards = f"{cost.layer_forwards} layer-forwards, " if cost.layer_forwards else ""
        rows = [f"{'':<12}{'dev (selected on)':<24}test"]
        for name, scored in self.scores.items():
            rows.append(f"{name.replace('_', '-'):<12}{scored.dev!s:<24}{scored.test}")
        return "\n".join(
            [
                f"{self.spec.name}: {self.metric} of {self._answers()}, 95 % intervals",
                *rows,
                f"{'gain':<12}{'':<24}{self.gain.value:+.3f} [{self.gain.low:+.3f}, {self.gain.high:+.3f}]",
                self.verdict(),
                f"cost: {counted}, {backward}{forwards}{cost.seconds:.1f} s; stopped by {self.stop_reason}",
                *self._in_words(),
                f"spec {self.spec.spec_hash[:12]}, seeds: job {self.seeds['job']}, task {self.seeds['task']}; "
                f"task {task.source}, model {self.spec.backbone.named}",
            ]
        )

    def _answers(self) -> str:
        return f"{len(self.labels)} labels" if self.labels else "answers in words"

    def _in_words(self) -> list[str]:
        """What was paid, and the prompt of a search for one in words."""
        paid, lines = self.paid, []
        if self.spec.backbone.api is not None:
            price = "" if self.spec.backbone.api.price is None else f", ${paid.dollars:.4f} at the prices of the job"
            tokens = f"{paid.input_tokens} tokens in, {paid.output_tokens} out{price}"
            lines.append(f"paid in all: {paid.requests} requests ({paid.cached} answers from the cache), {tokens}")
        if isinstance(self.spec, TextJob):
            whole = f"{self.reading.preamble}{self.reading.template}"
            lines += ["prompt:", *(f"  | {line}" for line in whole.splitlines())]
        return lines

    def verdict(self) -> str:
        """Whether tuning helped on the test split, in words."""
        if self.gain.low > 0:
            return "tuned is better than zero-shot on test: the interval of the gain lies above 0"
        if self.gain.high < 0:
            return "tuned is worse than zero-shot on test: the interval of the gain lies below 0"
        return "no significant difference between tuned and zero-shot on test: the interval of the gain holds 0"


def outcome(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What the content of result.json says that a comparison needs, too, as attributes of :class:`TuneResult`."""
    plain = ("parameters", "stop_reason", "seeds", "fingerprints", "task", "peak_memory_mib", "stopped_ms")
    return {
        "labels": tuple(raw["labels"]),
        "cost": Cost(**raw["cost"]),
        "paid": Spent(**raw["paid"]),
        "scores": {
            name: Scored(Estimate(**value["dev"]), Estimate(**value["test"])) for name, value in raw["scores"].items()
        },
        "gain": Estimate(**raw["gain"]),
        "curve": tuple(Point(**point) for point in raw["curve"]),
        **{name: raw[name] for name in plain},
    }


def with_more(folder: Path | str, reason: str) -> str:
    """The command that goes on with a run whose budget ended, such as ``budget.dollars``, before it was done."""
    return f"bbtune resume {folder} --set {reason}=MORE"


def study_hint(folder: Path) -> str:
    """What else to do with a folder that holds a study where a run was expected; nothing of other folders."""
    if not (folder / STUDY).is_file():
        return ""
    done = sorted(path.parent for path in folder.glob(f"*/{RESULT}"))
    one = f"name one of its runs, such as {done[0]}, or bbtune compare {folder}; " if done else ""
    return f"; it holds a study: {one}what it lacks, the bbtune run that began it runs and sends"
