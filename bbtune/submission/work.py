"""What is submitted: a job, a job over seeds, or a suite; judged here as far as this machine can."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbtune import api
from bbtune.errors import BbtuneError, Fault, JobError
from bbtune.jobfile import load_job
from bbtune.source_names import local_path
from bbtune.spec import BaseJob
from bbtune.study_run import validate_suite
from bbtune.suite import is_suite, parse_suite

_DRIVER_BYTES = 2**30  # what a driver with evaluators elsewhere takes: Python, torch and MLflow's client


@dataclass(frozen=True)
class Work:
    """A job or a suite, with every override laid over it.

    Args:
        name: as it names itself.
        digest: SHA-256 (hex) of all that decides its trace.
        jobs: by the names of their files.
        suite: what the suite file says beside its jobs; None of a job.
        seeds: of a job over several, as the command line has them.
    """

    name: str
    digest: str
    jobs: Mapping[str, BaseJob]
    suite: Mapping[str, Any] | None = None
    seeds: str | None = None

    @property
    def id(self) -> str:
        """What tells it from other work."""
        return f"{self.name}-{self.digest[:8]}{'' if self.seeds is None else '-seeds'}"

    @property
    def folder(self) -> str:
        """Name of its folder in the storage."""
        return self.id if self.suite is None else self.name

    @property
    def file(self) -> str:
        """Name of its file in the working folder."""
        return "job.yaml" if self.suite is None else "suite.yaml"

    @property
    def entrypoint(self) -> str:
        """The command that is the driver."""
        seeds = [] if self.seeds is None else ["--seeds", self.seeds]
        return shlex.join(["exec", "python", "-m", "bbtune.coordinator", self.file, *seeds])

    @property
    def room(self) -> dict[str, float]:
        """What the driver takes of the cluster, so that those of a long queue begin one after the other.

        A job without evaluators works in its driver, which takes their processors. A driver of evaluators takes memory
        alone: were it a processor, drivers that wait for evaluators could take all that these wait for.
        """
        (first, *more) = self.jobs.values()
        if more or self.suite is not None or self.seeds is not None or first.evaluators.count:
            return {"entrypoint_memory": _DRIVER_BYTES}
        gpus = max(first.evaluators.gpus, float(first.backbone.device.startswith("cuda")))
        return {"entrypoint_num_cpus": first.evaluators.threads, **({"entrypoint_num_gpus": gpus} if gpus else {})}


def read_work(
    path: Path, overrides: Sequence[str] = (), method: str | None = None, seeds: str | None = None
) -> tuple[Work, list[str]]:
    """A job or suite file, and a sentence for all that only the cluster can judge.

    Raises:
        JobError: with every fault that can be seen here.
    """
    if is_suite(path):
        if method or seeds:
            raise BbtuneError("expected a suite without --method and --seeds: its file names them")
        return _suite(path, overrides)
    try:
        spec = load_job(path, overrides, method)
    except JobError as error:  # of the text alone; tell those that data and model show, too
        raise JobError(api.validate(path, overrides, method) or error.faults) from error
    if seeds is not None and not all(part.strip().isdigit() for part in seeds.split(",")):
        raise BbtuneError(f"--seeds: expected numbers with commas between them, got {seeds!r}")
    notes = _judged(api.validate(spec), "job", {""})
    return Work(spec.name, spec.spec_hash, {"job": spec}, seeds=seeds), notes + _models([spec])


def _suite(path: Path, overrides: Sequence[str]) -> tuple[Work, list[str]]:
    suite = parse_suite(path, overrides)
    notes = _judged(validate_suite(path, overrides), "suite", {"", "all jobs", *suite.jobs})
    jobs = {name: spec for name, (spec, _, _) in suite.jobs.items() if spec is not None}
    said = {"name": suite.spec.name, "seeds": suite.spec.seeds, "reference": suite.spec.reference}
    parts = [said, {name: spec.spec_hash for name, spec in jobs.items()}]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return Work(suite.spec.name, digest, jobs, said), notes + _models(jobs.values())


def _judged(faults: Sequence[Fault], what: str, of_a_model: set[str]) -> list[str]:
    """Sentences on models that cannot be had here, and may be there.

    Args:
        of_a_model: paths that such faults have: those of a job as a whole.

    Raises:
        JobError: where there are other faults.
    """
    if not all(of_a_model.issuperset(fault.path.split(", ")) for fault in faults):
        raise JobError(faults, what)
    return [f"not judged here, the cluster may have it: {fault.message}" for fault in faults]


def _models(specs: Any) -> list[str]:
    """A sentence on models that are folders: they do not travel."""
    paths = sorted({path for spec in specs if (path := local_path(spec.backbone.model)) is not None})
    return [f"{path} does not travel: expected at this path on every machine of the cluster" for path in paths]
