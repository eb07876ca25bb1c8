"""What is told of a study while it runs, and where its record is found by what Ray Tune makes anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bbtune.hpo.record import STOPPED_EARLY, Ended, Standing, StudyRecord
from bbtune.hpo.trial import Trials
from bbtune.journal import now_ms
from bbtune.progress import Show


@dataclass
class Watched:
    """A study in this process: its record, and what is told of it.

    Attributes:
        total: number of trials.
        unit: field of a standing that the budget counts, such as ``evaluations``.
        budget: of a trial in that unit, None where it has none.
        sent: called after every trial that ends.
    """

    trials: Trials
    record: StudyRecord
    show: Show
    total: int
    unit: str
    budget: float | None
    sent: Callable[[], None]
    curves: dict[int, list[list[float]]] = field(default_factory=dict)

    def heard(self, number: int, standing: Standing) -> None:
        """A generation of a trial; a trial that is begun again starts its curve anew."""
        used, curve = float(getattr(standing, self.unit)), self.curves.setdefault(number, [])
        while curve and curve[-1][0] >= used:
            curve.pop()
        curve.append([used, standing.score])

    def ended(self, number: int, standing: Standing, reason: str) -> None:
        """The end of a trial; of one that is known already nothing is told again."""
        settings = self.record.propose(number) or {}
        folder = self.trials.place(number, settings).name
        curve = self.curves.pop(number, [])
        trial = Ended(number, settings, folder, standing, reason or STOPPED_EARLY, curve, now_ms())
        if self.record.end(trial):
            self.say(f"trial {number}: {self._said(trial)}")
            self.sent()

    def failed(self, number: int, fault: str) -> None:
        """A trial without a result."""
        if self.record.fail(number, fault):
            self.say(f"trial {number} failed: {fault}; {said(self.record.propose(number) or {})}")
            self.sent()

    def say(self, text: str) -> None:
        """One line behind how many trials are done."""
        done = len(self.record.ended) + len(self.record.faults)
        self.show.say(f"[{done}/{self.total}] {text}")
        self.show.runs(done, self.total)

    def _said(self, trial: Ended) -> str:
        best, standing = self.record.best(), trial.standing
        used = f"{getattr(standing, self.unit):g}" + (f" of {self.budget:g}" if self.budget else "")
        end = "stopped early at" if trial.reason == STOPPED_EARLY else f"{trial.reason},"
        rank = "the best so far" if best == trial else f"best so far {best.standing.dev_metric:.3f}" if best else ""
        dev = f"dev {standing.dev_metric:.3f} (loss {standing.dev_loss:.3f})"
        return f"{dev}, {end} {used} {self.unit}; {rank}; {said(trial.settings)}"


def said(settings: dict[str, Any]) -> str:
    """Settings in a line."""
    given = [f"{path} {value if _is_plain(value) else json.dumps(value)}" for path, value in settings.items()]
    return ", ".join(given) or "the job as it is"


def _is_plain(value: Any) -> bool:
    """Whether it is a text without line breaks."""
    return isinstance(value, str) and value.isprintable()


# By folder: Ray Tune makes searcher, scheduler and callback anew from pickles when it restores a study.
WATCHED: dict[str, Watched] = {}
