"""A job, against this machine."""

from __future__ import annotations

from pathlib import Path

from bbtune.backbone.sources import ModelCard, check_memory
from bbtune.doctor.finding import Finding
from bbtune.errors import BackboneError, BbtuneError
from bbtune.examine import examine
from bbtune.jobfile import read_job
from bbtune.suite import is_suite


def job_findings(job: Path) -> list[Finding]:
    """Its faults, each with what to do; or that it has none, and whether its model fits into free memory.

    Raises:
        BbtuneError: if the file is that of a suite.
    """
    if is_suite(job):
        raise BbtuneError(f"{job}: expected a job, got a suite; bbtune validate {job}, or doctor with one of its jobs")
    spec, faults, broken = read_job(job, (), None)
    card = None
    if spec is not None:
        _, _, card, more = examine(spec, broken)
        faults = [*faults, *more]
    if faults or spec is None:
        return [Finding("job", str(fault), f"correct {job}") for fault in faults]
    found = [Finding("job", f"{job} has no faults")]
    if not isinstance(card, ModelCard) or spec.backbone.api is not None:
        return found
    try:
        check_memory(card, spec.backbone, max(1, spec.evaluators.count))
    except BackboneError as error:
        seen, _, todo = str(error).partition("; ")
        return [*found, Finding("its model", seen, todo or "take a smaller one")]
    return [*found, Finding("its model", "fits into free memory, as far as that can be told here")]
