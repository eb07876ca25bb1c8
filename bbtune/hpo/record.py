"""What an hpo study has proposed and seen so far: append-only lines on disk, and the searcher that they make.

Proposals are written before a trial begins, results when it ends, both through to the disk. A process that goes on
reads them, asks the same searcher for the same codes, and tells it the same scores in the same order.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from bbtune.hpo.searchers.base import Code, Searcher
from bbtune.hpo.space import Settings, Space
from bbtune.journal import Journal, Record, now_ms
from bbtune.selection import NOTHING_YET, Judged, is_better

_TRIES = 50  # codes asked for until one is of settings that were not proposed before
FIRST = 0  # number of the job as it is
STOPPED_EARLY = "asha"  # reason of a trial that a scheduler stopped


@dataclass(frozen=True)
class Standing:
    """Where a trial stands: what it would hand out now.

    Attributes:
        score: what searchers and schedulers see, see :func:`bbtune.hpo.trial.score`.
        train_loss: lowest so far, None before the first.
    """

    score: float
    dev_metric: float
    dev_loss: float
    train_loss: float | None
    evaluations: int
    examples: int
    layer_forwards: int
    seconds: float
    unix_ms: int


@dataclass(frozen=True)
class Ended:
    """A trial that has ended.

    Attributes:
        folder: name of its folder.
        reason: why it stopped; :data:`STOPPED_EARLY` where it was stopped.
        curve: (used of the budget, score) of each generation.
        unix_ms: when it ended.
    """

    number: int
    settings: dict[str, Any]
    folder: str
    standing: Standing
    reason: str
    curve: list[list[float]]
    unix_ms: int


class StudyRecord:
    """Proposals and results of a study.

    Args:
        journal: with its start record.
        space: that is searched.
        searcher: unused so far; what is in the journal is asked and told again.
    """

    def __init__(self, journal: Journal, space: Space, searcher: Searcher) -> None:
        self.ended: dict[int, Ended] = {}
        self.faults: dict[int, str] = {}
        self.proposals: list[dict[str, Any]] = []
        self._journal = journal
        self._space = space
        self._searcher = searcher
        self._own = space.own_code()  # None: the searcher never hears of the job as it is
        self._known = {_key({}): FIRST} | ({} if self._own is None else {_key(space.settings(self._own)): FIRST})
        self._asks: dict[int, tuple[int, Code]] = {}  # number of the trial -> number of the call, and the code
        self._calls = 0
        for record in list(journal.records):
            self._replay(record)

    @property
    def uid(self) -> str:
        """Of the study, made when it began."""
        return str(self._journal.records[0]["uid"])

    @property
    def is_over(self) -> bool:
        """Whether its last trial has ended."""
        return self._journal.find("over") is not None

    def propose(self, number: int) -> dict[str, Any] | None:
        """Settings of the trial with a number, counted from 0, the job as it is; None where nothing new is left."""
        if number < len(self.proposals):
            return self.proposals[number]
        settings = self._new(number) if number > FIRST else {}
        if settings is not None:
            self._journal.append({"event": "proposal", "number": number, "settings": settings})
            self.proposals.append(settings)
        return settings

    def end(self, trial: Ended) -> bool:
        """Take the result of a trial; whether it is new."""
        if trial.number in self.ended:
            return False
        self._journal.append({"event": "trial", **asdict(trial)})
        self._take(trial)
        return True

    def fail(self, number: int, fault: str) -> bool:
        """Take why a trial has no result; no searcher hears of it. False where it has one."""
        if number in self.ended:
            return False
        self._journal.append({"event": "fault", "number": number, "fault": fault})
        self.faults[number] = fault
        return True

    def lacks(self, total: int) -> bool:
        """Whether one of so many trials has neither result nor fault, unless nothing new is left to try."""
        done = self.ended.keys() | self.faults.keys()
        if any(number not in done for number in range(len(self.proposals))):
            return True
        return len(self.proposals) < total and self.propose(len(self.proposals)) is not None

    def close(self) -> None:
        """No trial follows."""
        if not self.is_over:
            self._journal.append({"event": "over", "unix_ms": now_ms()})

    def best(self) -> Ended | None:
        """The trial with the highest dev metric, of equals the lower dev loss, of equals the earliest."""
        best, standing = None, NOTHING_YET
        for _, trial in sorted(self.ended.items()):
            loss, metric = trial.standing.dev_loss, trial.standing.dev_metric
            if best is None or is_better("metric", loss, metric, standing):
                best, standing = trial, Judged(loss, metric, True)
        return best

    def _new(self, number: int) -> dict[str, Any] | None:
        """Settings that were not proposed before; a searcher that repeats itself is told what it was told."""
        for _ in range(_TRIES):
            self._calls += 1
            code = self._searcher.ask(self._calls)
            settings = self._space.settings(code)
            known = self._known.setdefault(_key(settings), number)
            if known == number:
                self._asks[number] = self._calls, code
                return settings
            if known in self.ended:
                self._searcher.tell(self._calls, code, self.ended[known].standing.score)
        return None

    def _take(self, trial: Ended) -> None:
        self.ended[trial.number] = trial
        self.faults.pop(trial.number, None)
        call, code = self._asks.get(trial.number, (0, self._own if trial.number == FIRST else None))
        if code is not None:
            self._searcher.tell(call, code, trial.standing.score)

    def _replay(self, record: Record) -> None:
        number = record.get("number", FIRST)
        if record["event"] == "proposal":
            again = self._new(number) if number > FIRST else {}
            if again != record["settings"]:  # a library has changed since: what was proposed stands
                self._known[_key(record["settings"])] = number
                self._asks.pop(number, None)
            self.proposals.append(record["settings"])
        elif record["event"] == "trial":
            raw = {key: value for key, value in record.items() if key != "event"}
            self._take(Ended(**{**raw, "standing": Standing(**raw["standing"])}))
        elif record["event"] == "fault":
            self.faults[number] = record["fault"]


def _key(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)
