"""What a run leaves behind: scores with intervals, cost, and the prompt itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbtune.errors import BbtuneError
from bbtune.jobfile import load_job
from bbtune.loop import Cost
from bbtune.spec import JobSpec
from bbtune.task.metrics import Estimate

RESULT, PROMPT, SPEC, JOURNAL, PLOT = "result.json", "prompt.safetensors", "spec.yaml", "journal.jsonl", "plot.png"


@dataclass(frozen=True)
class Scored:
    """Dev and test score of one way to use the model."""

    dev: Estimate
    test: Estimate


@dataclass(frozen=True)
class Reading:
    """How texts are put to the model, as it was resolved from job and data: enough to predict without the data."""

    kind: str
    template: str
    label_words: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class TuneResult:
    """The end of a run.

    Attributes:
        z: (L, D), what the optimizer found, before scaling.
        scales: (L,), calibrated factors of z.
        scores: ``majority``, ``zero_shot`` and ``tuned``.
        gain: tuned - zero_shot on test, paired bootstrap interval.
        reading: template and label words.
        stopped_ms: time of day when the search ended, milliseconds since 1970.
    """

    spec: JobSpec
    labels: tuple[str, ...]
    metric: str
    z: NDArray[np.float64]
    scales: NDArray[np.float64]
    stop_reason: str
    cost: Cost
    scores: dict[str, Scored]
    gain: Estimate
    seeds: dict[str, int]
    versions: dict[str, str]
    reading: Reading
    stopped_ms: int

    def save(self, folder: Path) -> None:
        """Write result.json and prompt.safetensors, result.json last and at once."""
        from safetensors.numpy import save_file

        save_file({"z": self.z, "scales": self.scales}, folder / PROMPT)
        part = folder / (RESULT + ".part")
        part.write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")
        part.replace(folder / RESULT)

    def as_dict(self) -> dict[str, Any]:
        """The content of result.json."""
        from bbtune.journal import z_digest

        return {
            "name": self.spec.name,
            "spec_hash": self.spec.spec_hash,
            "stop_reason": self.stop_reason,
            "cost": asdict(self.cost),
            "metric": self.metric,
            "labels": list(self.labels),
            "scores": {
                name: {"dev": scored.dev.as_dict(), "test": scored.test.as_dict()}
                for name, scored in self.scores.items()
            },
            "gain": self.gain.as_dict(),
            "z_sha256": z_digest(self.z),
            "seeds": self.seeds,
            "versions": self.versions,
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
            hint = f"; it has not finished: bbtune resume {folder}" if (folder / JOURNAL).is_file() else ""
            raise BbtuneError(f"{folder}: expected a finished run with {RESULT}, found none{hint}")
        try:
            return cls._read(folder)
        except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
            raise BbtuneError(f"{folder}: the result cannot be read ({type(error).__name__}: {error})") from error

    @classmethod
    def _read(cls, folder: Path) -> TuneResult:
        from safetensors.numpy import load_file

        raw = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        arrays = load_file(folder / PROMPT)
        spec = load_job(folder / SPEC)
        if spec.spec_hash != raw["spec_hash"]:
            raise ValueError(f"{SPEC} has changed since: it is {spec.spec_hash[:12]}, was {raw['spec_hash'][:12]}")
        reading = raw["reading"]
        words = tuple(tuple(words) for words in reading["label_words"])
        return cls(
            spec=spec,
            labels=tuple(raw["labels"]),
            metric=raw["metric"],
            z=arrays["z"],
            scales=arrays["scales"],
            stop_reason=raw["stop_reason"],
            cost=Cost(**raw["cost"]),
            scores={
                name: Scored(Estimate(**value["dev"]), Estimate(**value["test"]))
                for name, value in raw["scores"].items()
            },
            gain=Estimate(**raw["gain"]),
            seeds=raw["seeds"],
            versions=raw["versions"],
            reading=Reading(reading["kind"], reading["template"], words),
            stopped_ms=raw["stopped_ms"],
        )

    def summary(self) -> str:
        """The result in words."""
        cost, task = self.cost, self.spec.task
        rows = [f"{'':<12}{'dev (selected on)':<24}test"]
        for name, scored in self.scores.items():
            rows.append(f"{name.replace('_', '-'):<12}{scored.dev!s:<24}{scored.test}")
        return "\n".join(
            [
                f"{self.spec.name}: {self.metric} of {len(self.labels)} labels, 95 % intervals",
                *rows,
                f"{'gain':<12}{'':<24}{self.gain.value:+.3f} [{self.gain.low:+.3f}, {self.gain.high:+.3f}]",
                self.verdict(),
                f"cost: {cost.evaluations} evaluations, {cost.examples} examples, "
                f"{cost.layer_forwards} layer-forwards, {cost.seconds:.1f} s; stopped by {self.stop_reason}",
                f"spec {self.spec.spec_hash[:12]}, seeds: job {self.seeds['job']}, task {self.seeds['task']}; "
                f"task {task.source}, model {self.spec.backbone.model}",
            ]
        )

    def verdict(self) -> str:
        """Whether tuning helped on the test split, in words."""
        if self.gain.low > 0:
            return "tuned is better than zero-shot on test: the interval of the gain lies above 0"
        if self.gain.high < 0:
            return "tuned is worse than zero-shot on test: the interval of the gain lies below 0"
        return "no significant difference between tuned and zero-shot on test: the interval of the gain holds 0"
