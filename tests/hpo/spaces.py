"""Jobs, spaces and records of hpo studies for tests."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import yaml

from bbtune.hpo.domains import Choice, Domain, Number
from bbtune.hpo.record import Ended, Standing, StudyRecord
from bbtune.hpo.searchers import SEARCHERS
from bbtune.hpo.space import Space
from bbtune.journal import FORMAT, Journal
from bbtune.spec import JobSpec

FIELDS: dict[str, Any] = {
    "method.sigma": {"float": [0.02, 2.0], "log": True},
    "method.population": {"int": [3, 8]},
    "method.accept": {"choice": ["improves", "best-ever"]},
}
DOMAINS: dict[str, Domain] = {
    "method.sigma": Number(0.02, 2.0, log=True, whole=False),
    "method.population": Number(3, 8, log=False, whole=True),
    "method.accept": Choice(("improves", "best-ever")),
}


def raw_of(spec: JobSpec) -> dict[str, Any]:
    """What a job file says, defaults written out."""
    return dict(yaml.safe_load(spec.to_yaml()))


def files(spec: JobSpec, folder: Path, **space: Any) -> tuple[Path, Path]:
    """A job file and a space file."""
    job, path = folder / "job.yaml", folder / "space.yaml"
    job.write_text(spec.to_yaml())
    path.write_text(yaml.safe_dump({"parameters": FIELDS, **space}, sort_keys=False))
    return job, path


def space_of(spec: JobSpec) -> Space:
    """The fields above, over a job."""
    return Space(DOMAINS, raw_of(spec))


def record_in(folder: Path, space: Space, searcher: str = "random", seed: int = 0) -> tuple[Journal, StudyRecord]:
    """A study's record, begun or gone on with; the journal is to be closed."""
    journal = Journal(folder / "hpo.jsonl")
    if not journal.records:
        journal.append({"event": "start", "format": FORMAT, "uid": uuid.uuid4().hex, "options": {}})
    return journal, StudyRecord(journal, space, SEARCHERS[searcher](space.sizes, seed, 20, 1))


def ended(number: int, metric: float, loss: float = 0.5, **parts: Any) -> Ended:
    """A trial with a dev metric."""
    standing = Standing(metric, metric, loss, 0.4, 20, 100, 0, 1.0, 1_700_000_000_000 + number)
    whole: dict[str, Any] = {"settings": {}, "folder": f"trial{number:02d}", "reason": "budget.evaluations"}
    return Ended(
        number, standing=standing, curve=[[20.0, metric]], unix_ms=1_700_000_000_000 + number, **(whole | parts)
    )
