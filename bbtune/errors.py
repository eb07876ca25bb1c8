"""Every error that bbtune raises on purpose.

    BbtuneError
    ├── JobError          the job file is at fault; carries every fault found
    ├── TaskError         the data are at fault; names file and line
    ├── BackboneError     the model cannot be had, or does not fit the job
    ├── EvaluationError   the machinery failed; never scored as a bad prompt
    │   ├── ResourcesError    the cluster lacks what the job asks for
    │   └── EndpointError     an API refuses, or stays down
    ├── OptimizerError    an ask/tell contract was broken
    ├── JournalError      the record on disk does not fit the run
    ├── TrackingError     MLflow could not be reached or refused
    ├── ExportError       a form cannot hold what a run has found
    ├── DeadlineReached   the budget of seconds ended inside a generation
    └── BudgetReached     a cap on requests, tokens or dollars ended the asking

All survive pickling, so that they cross process borders whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class BbtuneError(Exception):
    """Base of all errors that bbtune raises on purpose."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a job: where, and what was expected, what came, what to do."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class JobError(BbtuneError):
    """The job, or the suite of jobs, is at fault; ``faults`` holds all of them, not only the first."""

    def __init__(self, faults: Sequence[Fault], what: str = "job") -> None:
        super().__init__(list(faults), what)
        self.faults = list(faults)
        self.what = what

    def __str__(self) -> str:
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        head = f"{count} in the {self.what}"
        return "\n".join([head, *(f"  {fault}" for fault in self.faults)])


class TaskError(BbtuneError):
    """The data of a task cannot be used as they are."""


class BackboneError(BbtuneError):
    """The model cannot be loaded, or does not fit the job."""


class EvaluationError(BbtuneError):
    """The machinery that scores candidates failed."""


class ResourcesError(EvaluationError):
    """The cluster does not have the resources that the job asks for."""


class EndpointError(EvaluationError):
    """An API refuses what is asked, or stays down; what it has answered is kept."""


class OptimizerError(BbtuneError):
    """An optimizer was used out of order, or fed arrays of the wrong shape."""


class JournalError(BbtuneError):
    """The journal on disk is damaged or belongs to another run."""


class TrackingError(BbtuneError):
    """MLflow could not be reached, or refused what was sent."""


class ExportError(BbtuneError):
    """What a run has found cannot be put into the form that was asked for, or gives something else there."""


class DeadlineReached(BbtuneError):
    """The budget of seconds ended while a generation was being scored."""

    def __init__(self, message: str = "the budget of seconds ended inside a generation") -> None:
        super().__init__(message)


class BudgetReached(BbtuneError):
    """A hard cap would be passed by the next request; ``reason`` names it, such as ``budget.dollars``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_SECRET = r"(?:user|username|auth|authorization|sig|signature|[\w.-]*(?:key|token|secret|password|passwd|pwd))"
_CREDENTIALS = re.compile(rf"(?<=://)[^/\s][^\s\"']*@|(?i:(?<=[?&]){_SECRET}=[^&\s\"']*)")


def hide_credentials(text: str) -> str:
    """The text without the user names, passwords and keys that addresses in it hold."""
    return _CREDENTIALS.sub("***", text)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A hint such as ``; did you mean "tokens"?``, empty where nothing is close."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""
