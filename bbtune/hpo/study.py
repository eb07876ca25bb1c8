"""What an hpo study is of: a job, a space, and how it is searched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbtune.errors import BbtuneError, Fault, JobError, did_you_mean
from bbtune.hpo.searchers import SEARCHERS
from bbtune.hpo.space import Space
from bbtune.hpo.space_file import AshaSpec, read_space
from bbtune.spec import BaseJob
from bbtune.yaml_text import read_yaml


@dataclass(frozen=True)
class Options:
    """What a command says beside job and space; None is what the space says."""

    trials: int | None = None
    searcher: str | None = None
    seed: int = 0
    asha: bool = True
    concurrent: int | None = None


@dataclass(frozen=True)
class HpoStudy:
    """What a study is of.

    Attributes:
        spec: the job as it is, the first trial.
        asha: None where no trial is stopped early.
        concurrent: trials at a time; None is as many as there are evaluators of the job, or room for.
    """

    space: Space
    spec: BaseJob
    searcher: str
    trials: int
    seed: int
    asha: AshaSpec | None
    concurrent: int | None
    space_file: Path

    @property
    def options(self) -> dict[str, Any]:
        """All that decides what is proposed; of the job and the space their hashes."""
        domains = json.dumps({path: repr(domain) for path, domain in self.space.domains.items()}, sort_keys=True)
        return {
            "job": self.spec.spec_hash[:12],
            "space": hashlib.sha256(domains.encode()).hexdigest()[:12],
            "searcher": self.searcher,
            "trials": self.trials,
            "seed": self.seed,
            "asha": None if self.asha is None else self.asha.model_dump(),
        }

    @property
    def default_folder(self) -> Path:
        """Where a study lies unless told otherwise."""
        digest = hashlib.sha256(json.dumps(self.options, sort_keys=True).encode()).hexdigest()
        return Path("runs") / f"{self.spec.name}-hpo-{digest[:8]}"


def read_study(job: Path, space_file: Path, options: Options, overrides: Sequence[str] = ()) -> HpoStudy:
    """Read job and space; nothing is written.

    Raises:
        JobError: with every fault of the job, else with every fault of the space.
    """
    said, space = read_space(space_file, read_yaml(job), overrides)
    spec = space.spec({})
    searcher = options.searcher or said.searcher
    if searcher not in SEARCHERS:
        hint = did_you_mean(searcher, list(SEARCHERS))
        raise BbtuneError(f"--searcher: expected one of {', '.join(SEARCHERS)}, got {searcher!r}{hint}")
    if faults := _refusals(spec):
        raise JobError(faults)
    return HpoStudy(
        space=space,
        spec=spec,
        searcher=searcher,
        trials=options.trials or said.trials,
        seed=options.seed,
        asha=said.asha if options.asha else None,
        concurrent=options.concurrent,
        space_file=space_file,
    )


def _refusals(spec: BaseJob) -> list[Fault]:
    """What a study cannot do with a job that could be run."""
    faults = []
    if spec.apis:
        why = "every trial would pay the whole budget again"
        faults.append(Fault(next(iter(spec.apis)), f"expected a model that is loaded here, {why}; run the job alone"))
    if spec.storage is not None:
        why = "a study is kept in --out, a folder that all machines see"
        faults.append(Fault("storage", f"expected none, {why}, got {spec.storage}"))
    return faults
