"""The fields of a job that are searched, and what a searcher's codes make of the job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from bbtune.combinations import shown
from bbtune.errors import Fault, JobError
from bbtune.examine import examine
from bbtune.hpo.domains import Choice, Domain, Number
from bbtune.hpo.searchers.base import Code
from bbtune.jobfile import parse_job
from bbtune.spec import BaseJob, flattened, merged

Settings = Mapping[str, Any]  # values by dotted path; empty is the job as it is


@dataclass(frozen=True)
class Space:
    """Fields of a job with what they may be.

    Attributes:
        job: what a job file says, ``fixed`` laid over it; settings are laid over that.
    """

    domains: Mapping[str, Domain]
    job: Mapping[str, Any]

    @property
    def sizes(self) -> list[int]:
        """Of each field its number of choices, 0 for a number."""
        return [len(domain.values) if isinstance(domain, Choice) else 0 for domain in self.domains.values()]

    def settings(self, code: Code) -> dict[str, Any]:
        """What a code of a searcher stands for."""
        return {path: domain.at(x) for (path, domain), x in zip(self.domains.items(), code, strict=True)}

    def code(self, settings: Settings) -> Code | None:
        """The code of settings; None where one is outside the space."""
        places = [domain.place(settings[path]) for path, domain in self.domains.items()]
        return None if any(place is None for place in places) else tuple(place for place in places if place is not None)

    def own_code(self) -> Code | None:
        """The code of the job as it is, everything chosen; None where a field of it is outside the space."""
        spec = self.spec({})
        plan = examine(spec, set())[0]
        known = flattened((spec if plan is None else plan.spec).model_dump(mode="json"))
        return self.code({path: known.get(path) for path in self.domains})

    def raw(self, settings: Settings) -> dict[str, Any]:
        """The job file with settings laid over it."""
        return laid_over(self.job, settings)

    def spec(self, settings: Settings) -> BaseJob:
        """The job with settings.

        Raises:
            JobError: with every fault that they show together.
        """
        spec, faults, _ = parse_job(self.raw(settings))
        if faults or spec is None:
            raise JobError(faults)
        return spec


def laid_over(job: Mapping[str, Any], values: Settings) -> dict[str, Any]:
    """A job file with values by dotted path laid over it."""
    found = merged({}, job)
    for path, value in values.items():
        *above, last = path.split(".")
        holder = found
        for key in above:
            if not isinstance(holder.get(key), dict):
                holder[key] = {}
            holder = holder[key]
        holder[last] = deepcopy(value)
    return found


def space_faults(space: Space) -> list[Fault]:
    """What the job, its data or its model refuse of the ends and choices of a space, each alone, then all ends.

    The job as it is must have no fault.
    """
    faults: list[Fault] = []
    for path, domain in space.domains.items():
        for value in domain.extremes:
            faults += _of_settings(space, {path: value}, path)
    if not faults and len(space.domains) > 1:
        for end in (0, -1):
            ends = {path: domain.extremes[end] for path, domain in space.domains.items() if isinstance(domain, Number)}
            faults += _of_settings(space, ends, None) if ends else []
    return list(dict.fromkeys(faults))


def _of_settings(space: Space, settings: Settings, path: str | None) -> list[Fault]:
    spec, faults, broken = parse_job(space.raw(settings))
    if not faults and spec is not None:
        faults = examine(spec, broken)[3]
    if path is None:
        said = ", ".join(f"{field} {json.dumps(value)}" for field, value in settings.items())
        return [Fault("parameters", f"with {said} together, {fault}") for fault in faults]
    where = f"parameters.{path}"
    if unknown := [fault for fault in faults if fault.message.startswith("unknown key")]:
        return [Fault(where, fault.message) for fault in unknown]
    return [Fault(where, f"{shown(settings[path])} is refused: {fault}") for fault in faults]
