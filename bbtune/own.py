"""What a program gives to a job beside its text: data in memory, and an optimizer of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbtune.errors import Fault, JobError, TaskError
from bbtune.jobfile import override, parse_job, read_job, with_method
from bbtune.optimizers.own import MakeOptimizer, is_own, own_name
from bbtune.spec import BaseJob, JobSpec, merged
from bbtune.task.data import TaskData

Job = BaseJob | Mapping[str, Any] | str | Path


@dataclass(frozen=True)
class Own:
    """Data and optimizer of a program's; None where the job's text says all.

    Attributes:
        optimizer: (dim, population, sigma, generator) -> optimizer.
    """

    task: TaskData | None = None
    optimizer: MakeOptimizer | None = None

    def __post_init__(self) -> None:
        if self.task is not None and not isinstance(self.task, TaskData):
            hint = "a source such as file:PATH is named in the job, as task.source"
            raise TaskError(f"task: expected a bbtune.TaskData, got {self.task!r:.80}; {hint}")

    def read(
        self, job: Job, overrides: Sequence[str] = (), method: str | None = None
    ) -> tuple[BaseJob | None, list[Fault], set[str]]:
        """As :func:`bbtune.jobfile.read_job`, of any job, with what is given here named in its text.

        Args:
            overrides: ``key.path=value`` each, over the job.
            method: another one than that of the job.

        Raises:
            JobError: for what can be no job.
        """
        changes = [*overrides, *self._changes()]
        if isinstance(job, str | Path):
            return read_job(job, changes, method)
        if isinstance(job, BaseJob):
            if not changes and method is None:
                return job, [], set()
            job = job.model_dump(mode="json")
        if not isinstance(job, Mapping):
            raise JobError([Fault("job", f"expected a path, a mapping or a job, got {job!r:.80}")])
        raw = merged({}, job)
        if method is not None:
            raw = with_method(raw, method)
        for change in changes:
            override(raw, change)
        return parse_job(raw)

    def _changes(self) -> list[str]:
        """What the job says of it; where to look in another source goes."""
        said = []
        if self.task is not None:
            said += [f"task.source={self.task.source}", "task.test=null", "task.columns={}"]
        if self.optimizer is not None:
            said.append(f"method.optimizer={own_name(self.optimizer)}")
        return said

    def faults(self, spec: BaseJob) -> list[Fault]:
        """What the job names and is not given here, or the other way round."""
        optimizer = spec.method.optimizer if isinstance(spec, JobSpec) else ""
        named = {
            "task.source": spec.task.source if spec.task.source.startswith("object:") else None,
            "method.optimizer": optimizer if is_own(optimizer) else None,
        }
        given = {
            "task.source": None if self.task is None else self.task.source,
            "method.optimizer": None if self.optimizer is None else own_name(self.optimizer),
        }
        return [_fault(path, named[path], given[path]) for path in named if named[path] != given[path]]


def _fault(path: str, named: str | None, given: str | None) -> Fault:
    if named is None:
        return Fault(path, f"expected a job that names what is given, {given}; it names another")
    keyword = "task" if path == "task.source" else "optimizer"
    call = f"give it in Python, as {keyword}=... of bbtune.run, resume or validate"
    return Fault(path, f"expected {named}, an object of the program that made the job, got {given or 'none'}; {call}")
