"""Many runs under one roof: a job over several seeds, or the jobs of a suite."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbtune.errors import BbtuneError, Fault, JobError
from bbtune.files import locked, replaced
from bbtune.result import JOURNAL, RESULT, SPEC, STUDY
from bbtune.spec import BaseJob

_LOCK = "study.lock"


@dataclass(frozen=True)
class Member:
    """One run of a study: a job with one seed."""

    folder: Path
    spec: BaseJob

    @property
    def is_done(self) -> bool:
        """Whether its result is there."""
        return (self.folder / RESULT).is_file()


@dataclass(frozen=True)
class Group:
    """A job over its seeds: one parent run in MLflow."""

    name: str
    members: tuple[Member, ...]

    @property
    def lacking(self) -> list[Member]:
        """Runs that have no result yet."""
        return [member for member in self.members if not member.is_done]


@dataclass(frozen=True)
class Study:
    """All runs of a study, in the order in which they are begun."""

    name: str
    folder: Path
    groups: tuple[Group, ...]
    reference: str | None = None

    @property
    def members(self) -> list[Member]:
        """Runs of all groups."""
        return [member for group in self.groups for member in group.members]


def seeded_study(spec: BaseJob, seeds: Sequence[int], folder: Path) -> Study:
    """One job over several seeds.

    Raises:
        JobError: if a seed is given twice, or is below 0.
    """
    if len(set(seeds)) < len(seeds) or not seeds or min(seeds) < 0:
        raise JobError([Fault("--seeds", f"expected seeds from 0 on, each once, got {list(seeds)}")])
    return study_of(spec.name, folder, {spec.name: {f"seed{seed}": spec.with_seed(seed) for seed in seeds}})


def study_of(name: str, folder: Path, jobs: Mapping[str, Mapping[str, BaseJob]], reference: str | None = None) -> Study:
    """The study of jobs, each with its runs by the names of their folders; nothing is written."""
    groups = [Group(job, tuple(Member(folder / run, spec) for run, spec in runs.items())) for job, runs in jobs.items()]
    return Study(name, folder, tuple(groups), reference)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from the study of a folder meanwhile.

    Raises:
        BbtuneError: if another one is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{folder}: another process is running this study; wait for it, or end it"
    with locked(folder / _LOCK, BbtuneError(busy)):
        yield


def record_of(study: Study) -> dict[str, dict[str, Any]]:
    """What there is to know of each group of a study; ids stay what they were when it was begun.

    Raises:
        BbtuneError: if the folder holds a run, or a study whose jobs were others.
    """
    if (study.folder / JOURNAL).is_file():
        raise BbtuneError(f"{study.folder} holds a run, expected a folder for several; give another one as --out")
    known = read_record(study.folder)
    for group in study.groups:
        before = known.get(group.name, {"uid": uuid.uuid4().hex, "hashes": {}})
        hashes = {member.folder.name: member.spec.spec_hash for member in group.members}
        begun = [run for run in hashes if (study.folder / run / SPEC).is_file()]
        if changed := [run for run in begun if before["hashes"].get(run, hashes[run]) != hashes[run]]:
            raise BbtuneError(
                f"{study.folder} holds a study whose jobs were others when they began ({', '.join(changed[:3])}); "
                "restore them, delete the folders of these runs, or give another folder as --out"
            )
        known[group.name] = {**before, "hashes": before["hashes"] | hashes}
    return known


def read_record(folder: Path) -> dict[str, dict[str, Any]]:
    """What is known of each group of a study: its id, its jobs, what MLflow has of it; nothing of a new one.

    Raises:
        BbtuneError: if the file is damaged.
    """
    path = folder / STUDY
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except ValueError as error:
        raise BbtuneError(
            f"{path}: expected the record of a study, found damaged text ({error}); restore it"
        ) from error


def write_record(folder: Path, record: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace the record of a study, in one step."""
    with replaced(folder / STUDY) as part:
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
