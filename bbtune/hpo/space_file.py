"""A space file: which fields of a job are searched, what is laid over the job first, and how it is searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from bbtune.combinations import shown
from bbtune.errors import Fault, JobError, did_you_mean
from bbtune.examine import examine
from bbtune.hpo.domains import Domain, read_domain
from bbtune.hpo.searchers import SEARCHERS
from bbtune.hpo.space import Space, laid_over, space_faults
from bbtune.jobfile import faults_in, override, parse_job, with_method
from bbtune.methods import Part
from bbtune.spec import JobSpec, merged
from bbtune.yaml_text import read_yaml

_SAME_DATA = "all trials are scored on the same data"
_ONE_MODEL = "a study is of one model, loaded once"
_NO_SCORE = "it changes no score"
# Fields that are not searched, and why.
REFUSED = {
    "name": "it only names the job",
    "seed": "the luckiest would win; the winner is trained again with others",
    "task.seed": "the luckiest would win; the winner is trained again with others",
    **{f"task.{key}": _SAME_DATA for key in ("source", "test", "shots", "holdout", "labels", "columns")},
    **dict.fromkeys(("task.metric", "task.positive_label"), "scores of two metrics cannot be compared"),
    **{f"backbone.{key}": _ONE_MODEL for key in ("model", "api", "revision", "kind", "dtype", "device")},
    **{f"backbone.{key}": _ONE_MODEL for key in ("trust_remote_code", "allow_pickle")},
    "method.name": "it is another method; search each, and compare them",
    "budget": "the largest would win by being the largest",
    **dict.fromkeys(("evaluators", "tracking", "storage"), _NO_SCORE),
}
_GROUPS = ("task", "backbone", "prompt", "method", "selection")


class AshaSpec(Part):
    """When trials are stopped early.

    Attributes:
        grace: share of a trial's budget before which none is.
        reduction: at each rung, the best of so many go on; the budget grows by it from rung to rung.
    """

    grace: Annotated[float, Field(gt=0, le=1)] = 0.25
    reduction: Annotated[float, Field(gt=1)] = 2.0


class SpaceSpec(Part):
    """A space file.

    Attributes:
        about: what it is for, in words.
        method: that the job is given, as by ``bbtune run --method``, if it has another one.
        fixed: values by dotted path, laid over the job: what they make of it is the first trial.
        parameters: what is searched, by dotted path.
    """

    about: str | None = None
    method: str | None = None
    fixed: dict[str, Any] = Field({})
    parameters: Annotated[dict[str, Any], Field(min_length=1)]
    searcher: str = "optuna"
    trials: Annotated[int, Field(ge=1)] = 20
    asha: AshaSpec = AshaSpec()


def read_space_file(path: str | Path) -> tuple[SpaceSpec, dict[str, Domain], list[Fault]]:
    """A space file, the fields that can be read, and every fault of its text.

    Raises:
        JobError: if it cannot be read at all.
    """
    raw = read_yaml(path, "space")
    faults: list[Fault] = []
    given = raw["parameters"] if isinstance(raw.get("parameters"), dict) else {}
    try:
        spec = SpaceSpec.model_validate(raw)
    except ValidationError as error:
        faults = faults_in(error, SpaceSpec)
        spec = SpaceSpec(parameters=given or {"none": None})  # the rest is judged all the same
    domains = {}
    for field, said in given.items():
        domain, wrong = read_domain(field, said)
        wrong = _refused(field) or wrong
        faults += wrong
        if domain is not None and not wrong:
            domains[field] = domain
    if isinstance(name := raw.get("searcher", spec.searcher), str) and name not in SEARCHERS:
        expected = f"expected one of {', '.join(SEARCHERS)}, got {shown(name)}"
        faults.append(Fault("searcher", expected + did_you_mean(name, list(SEARCHERS))))
    return spec, domains, [Fault(fault.path, f"{fault.message} (space {path})") for fault in faults]


def _refused(field: str) -> list[Fault]:
    """Why a field is not searched, if it is not."""
    where = f"parameters.{field}"
    if field in _GROUPS:
        return [Fault(where, f"expected a field of {field}, such as prompt.tokens or method.sigma")]
    why = next((why for path, why in REFUSED.items() if field == path or field.startswith(f"{path}.")), None)
    return [Fault(where, f"is not searched: {why}")] if why else []


def read_space(path: str | Path, job: Mapping[str, Any], overrides: Sequence[str] = ()) -> tuple[SpaceSpec, Space]:
    """The space of a file over a job.

    Args:
        path: of the space file.
        job: what the job file says.
        overrides: ``key.path=value`` each, over the job and over what the space fixes.

    Raises:
        JobError: with every fault of the job, else with every fault of the space and of what it makes of the job.
    """
    spec, domains, faults = read_space_file(path)
    given = merged({}, job)
    if spec.method is not None and spec.method != _method_of(job):
        given = with_method(given, spec.method)
    if wrong := _faults_of(_overridden(given, overrides)):
        raise JobError(wrong)
    space = Space(domains, _overridden(laid_over(given, spec.fixed), overrides))
    if wrong := _faults_of(space.job) if spec.fixed else []:
        faults += [Fault(fault.path, f"{fault.message} (with what the space fixes)") for fault in wrong]
    else:
        faults += space_faults(space)
    if faults:
        raise JobError(faults, "space")
    return spec, space


def _method_of(job: Mapping[str, Any]) -> str | None:
    """The name of a job's method, as ``--method`` has it; None where the job is too faulty to have one."""
    spec, _, _ = parse_job(job)
    return spec.method.optimizer if isinstance(spec, JobSpec) else None if spec is None else spec.method_name


def _overridden(job: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    raw = merged({}, job)
    for change in overrides:
        override(raw, change)
    return raw


def _faults_of(job: Mapping[str, Any]) -> Sequence[Fault]:
    spec, faults, broken = parse_job(job)
    return faults if faults or spec is None else examine(spec, broken)[3]
