"""A whole study in one file: jobs x tasks x seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, field_validator

from bbtune.errors import Fault, JobError, did_you_mean
from bbtune.jobfile import faults_in, override, parse_job
from bbtune.methods import Part
from bbtune.spec import BaseJob, merged
from bbtune.storage.place import study_folder
from bbtune.study import Study, study_of
from bbtune.yaml_text import read_yaml


def _each_once(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("expected each seed once")
    return seeds


class EntrySpec(Part):
    """A job of a suite that is changed for it; ``name`` is its own there, and tells it from others of the same file."""

    job: str
    name: str | None = None
    set: dict[str, Any] = Field({})


class SuiteSpec(Part):
    """A suite file.

    Attributes:
        jobs: job files, relative to the suite's folder, or such files with what is laid over them alone.
        tasks: what is laid over every job for each task, ``{task: {source: ...}, prompt: ...}``.
        seeds: each is the few-shot draw and the seed of everything random.
        set: laid over every job, below the tasks.
        reference: job that the others are compared with.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    jobs: Annotated[list[EntrySpec], Field(min_length=1)]
    tasks: Annotated[list[dict[str, Any]], Field(min_length=1)] = Field([{}])
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_each_once)]
    set: dict[str, Any] = Field({})
    reference: str | None = None

    @field_validator("jobs", mode="before")
    @classmethod
    def _files(cls, given: Any) -> Any:
        if not isinstance(given, list):
            return given
        return [{"job": entry} if isinstance(entry, str) else entry for entry in given]


@dataclass(frozen=True)
class Suite:
    """A suite file and the text of its jobs.

    Attributes:
        jobs: what :func:`bbtune.jobfile.parse_job` says of each, by the name that it has in the suite.
        faults: of the suite itself, and of files that cannot be read.
    """

    spec: SuiteSpec
    jobs: Mapping[str, tuple[BaseJob | None, list[Fault], set[str]]]
    faults: list[Fault]


def is_suite(path: str | Path) -> bool:
    """Whether a file is a suite: it names jobs, where a job names a task."""
    return "jobs" in read_yaml(path)


def read_suite(path: str | Path, overrides: Sequence[str], out: Path | None) -> Study:
    """Every run of a suite file.

    Args:
        path: of the suite.
        overrides: ``key.path=value`` each, over every job.
        out: folder of the study; without it ``<name>`` in the storage of its jobs, else in ``runs``.

    Raises:
        JobError: with every fault of the suite and of the text of its jobs.
    """
    suite = parse_suite(path, overrides)
    if faults := [*suite.faults, *by_job({job: wrong for job, (_, wrong, _) in suite.jobs.items()})]:
        raise JobError(faults, "suite")
    specs = {job: spec for job, (spec, _, _) in suite.jobs.items() if spec is not None}
    found = {
        job: {f"{job}-seed{seed}": spec.with_seed(seed) for seed in suite.spec.seeds} for job, spec in specs.items()
    }
    return study_of(suite.spec.name, out or study_folder(specs.values(), suite.spec.name), found, suite.spec.reference)


def parse_suite(path: str | Path, overrides: Sequence[str]) -> Suite:
    """A suite file, its jobs parsed.

    Raises:
        JobError: if it cannot be read, or is no suite.
    """
    spec = _suite(path)
    jobs: dict[str, tuple[BaseJob | None, list[Fault], set[str]]] = {}
    faults: list[Fault] = []
    for job, entry, task in _entries(spec):
        if job in jobs:
            faults.append(Fault(job, "expected jobs of different names, got it twice; give one of them a name"))
            continue
        try:
            jobs[job] = parse_job(_content(entry, Path(path).parent, [spec.set, task], overrides))
        except JobError as error:
            faults += error.faults
    if not faults and not any(wrong for _, wrong, _ in jobs.values()):  # else names of methods may be stand-ins
        faults += _reference_faults(spec.reference, [of for of, _, _ in jobs.values() if of is not None])
    return Suite(spec, jobs, list(dict.fromkeys(faults)))


def by_job(found: Mapping[str, Sequence[Fault]]) -> list[Fault]:
    """Faults of several jobs with the names of those that have them; what all have is told once."""
    jobs: dict[Fault, list[str]] = {}
    for job, faults in found.items():
        for fault in dict.fromkeys(faults):
            jobs.setdefault(fault, []).append(job)
    if len(found) == 1:
        return list(jobs)
    named = [("all jobs" if len(names) == len(found) else ", ".join(names), fault) for fault, names in jobs.items()]
    return [Fault(f"{who}: {fault.path}".removesuffix(": "), fault.message) for who, fault in named]


def _suite(path: str | Path) -> SuiteSpec:
    raw = read_yaml(path, "suite")
    try:
        return SuiteSpec.model_validate(raw)
    except ValidationError as error:
        found = [Fault(of.path, f"{of.message} (suite {path})") for of in faults_in(error, SuiteSpec)]
        raise JobError(found, "suite") from error


def _reference_faults(asked: str | None, specs: Sequence[BaseJob]) -> list[Fault]:
    """A reference that no row can have, told before hours of work.

    A label is a method or a job, and what tells it from others behind it; which method "auto" takes is known later.
    """
    methods = {spec.method_name for spec in specs} - {"auto"}
    names = sorted(methods | {spec.name for spec in specs} | {"majority", "zero-shot"})
    if asked is None or any(
        asked == name or asked.startswith((f"{name} (", f"{name} on ", f"{name} #")) for name in names
    ):
        return []
    expected = f"expected a method or a job of the suite ({', '.join(names)}), got {asked!r}"
    return [Fault("reference", expected + did_you_mean(asked, names))]


def _entries(suite: SuiteSpec) -> Iterator[tuple[str, EntrySpec, dict[str, Any]]]:
    """Every job on every task: its name there, its entry, and what the task lays over it."""
    several = len(suite.tasks) > 1
    for task, task_name in zip(suite.tasks, _task_names(suite.tasks), strict=True):
        for entry in suite.jobs:
            stem = entry.name or Path(entry.job).stem
            yield (f"{task_name}-{stem}" if several else stem), entry, task


def _content(
    entry: EntrySpec, folder: Path, over: Sequence[Mapping[str, Any]], overrides: Sequence[str]
) -> dict[str, Any]:
    raw = read_yaml(folder / entry.job)
    for layer in (*over, entry.set):
        raw = merged(raw, layer)
    if entry.name is not None:
        raw["name"] = entry.name
    for change in overrides:
        override(raw, change)
    return raw


def _task_names(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Short ones, for folders: the last part of where a task comes from, with a number where that is not its own."""
    inner = [task.get("task") for task in tasks]
    sources = [str(task.get("source", "")) if isinstance(task, Mapping) else "" for task in inner]
    names = [source.replace(":", "/").rstrip("/").rsplit("/", 1)[-1] or "task" for source in sources]
    return [name if names.count(name) == 1 else f"{name}{number}" for number, name in enumerate(names, 1)]
