"""Faults of a job's keys that are right alone and wrong together."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bbtune.errors import Fault, hide_credentials
from bbtune.optimizers.base import population_asked
from bbtune.prompt_spec import MethodSpec
from bbtune.run_spec import MONEY
from bbtune.spec import BaseJob, BaselineJob, JobSpec


def combination_faults(spec: BaseJob, broken: set[str]) -> list[Fault]:
    """Faults of fields that are right alone and wrong together; those that rest on a broken one are left out."""
    cuda = spec.backbone.device.startswith("cuda")

    def sound(*paths: str) -> bool:
        return not any(f"{b}.".startswith(f"{p}.") or p.startswith(f"{b}.") for b in broken for p in paths)

    faults = _budget_faults(spec, sound) if not isinstance(spec, BaselineJob) else []
    faults += _money_faults(spec, sound)
    if sound("selection") and spec.selection.by == "last" and spec.selection.patience is not None:
        why = "the latest prompt is always the one handed out"
        faults.append(Fault("selection.patience", f"expected none with selection.by last, {why}; take metric or loss"))
    if sound("selection") and isinstance(spec, BaselineJob) and spec.selection.average not in (None, 1):
        why = "a baseline hands out one step, no mean"
        faults.append(Fault("selection.average", f"expected none, {why}, got {spec.selection.average}"))
    if sound("evaluators", "backbone.device") and spec.evaluators.count and cuda != (spec.evaluators.gpus > 0):
        faults.append(
            Fault(
                "evaluators.gpus",
                f"expected {'more than 0' if cuda else '0'} with backbone.device {spec.backbone.device}, "
                f"got {spec.evaluators.gpus}; change one of the two",
            )
        )
    if sound("evaluators") and spec.evaluators.pool == "shared":
        faults += _shared_faults(spec)
    if sound("storage", "backbone", "method.writer") and spec.apis and "://" in (spec.storage or ""):
        faults.append(Fault("storage", needs_path(str(spec.storage))))
    for path, values in (("prompt.layers", spec.prompt.layers), ("task.labels", spec.task.labels)):
        if isinstance(values, list) and len(set(values)) < len(values):
            faults.append(Fault(path, f"expected each {path[:-1].split('.')[1]} once, got {shown(values)}"))
    if sound("task.source") and spec.task.test is not None and not spec.task.source.startswith("file:"):
        faults.append(Fault("task.test", f"expected it beside a source file:TABLE only, got {shown(spec.task.test)}"))
    return faults


def needs_path(url: str) -> str:
    """Why a job that asks an API cannot be kept at an address."""
    why = "what is paid is written there before every request, which needs a file system"
    return f"expected a path with a job that asks an API, {why}; got {url}"


def _shared_faults(spec: BaseJob) -> list[Fault]:
    """A shared pool has actors, and serves searches alone."""
    if not isinstance(spec, JobSpec):
        return [Fault("evaluators.pool", "expected private, only searches of continuous prompts can share, got shared")]
    if not spec.evaluators.count:
        return [Fault("evaluators.count", "expected at least 1 with evaluators.pool shared, got 0")]
    return []


def _money_faults(spec: BaseJob, sound: Callable[..., bool]) -> list[Fault]:
    """Caps on money need an API, and those on dollars the price of each that is paid."""
    caps, asked = spec.budget.model_dump(include=MONEY), spec.apis
    if not sound("backbone", "budget", "method.writer"):
        return []
    if not asked:
        why = "expected none, only an API is paid; take evaluations or examples"
        return [Fault(f"budget.{name}", f"{why}, got {cap}") for name, cap in caps.items() if cap is not None]
    away = {path: api for path, api in asked.items() if api.serve is None} or asked  # what is served here costs nothing
    form = "{input: DOLLARS, output: DOLLARS} for a million tokens"
    lacking = [f"{path}.price" for path, api in away.items() if api.price is None and spec.budget.dollars is not None]
    return [Fault(path, f"missing; budget.dollars needs it, {form}") for path in lacking]


def _budget_faults(spec: BaseJob, sound: Callable[..., bool]) -> list[Fault]:
    """A search needs a limit, and room for a generation under it."""
    limits = spec.budget.model_dump(exclude=set() if spec.backbone.api else MONEY)
    faults = []
    if sound("budget") and all(limit is None for limit in limits.values()):
        faults.append(Fault("budget", f"expected at least one of {', '.join(limits)}; got none"))
    return faults + (_generation_faults(spec, sound) if isinstance(spec, JobSpec) else [])


def _generation_faults(spec: JobSpec, sound: Callable[..., bool]) -> list[Fault]:
    faults: list[Fault] = []
    budget, method = spec.budget, spec.method
    size = 2 if method.optimizer == "auto" else population_asked(method.optimizer, method.population)
    least = method.members * (size + method.first_extras)  # the start and a generation, of every member
    rests_on = ("budget.evaluations", "method.population", "method.members", "method.accept", "method.preset")
    if sound(*rests_on) and budget.evaluations is not None and budget.evaluations < least:
        words = "" if method.optimizer == "auto" else f" (population {size}{_extras(method)})"
        mend = "raise the budget" if method.optimizer == "auto" else "raise the budget or lower method.population"
        expected = f"expected at least one generation, {least} evaluations{words}"
        faults.append(Fault("budget.evaluations", f"{expected}, got {budget.evaluations}; {mend}"))
    return faults


def _extras(method: MethodSpec) -> str:
    """What a first generation has beside its population, in words."""
    extras = ["the starting point"] if method.accept == "improves" else []
    extras += ["three steps"] if method.optimizer == "gauss-newton" else []
    words = "".join(f" and {extra}" for extra in extras)
    return words + (f", of {method.members} members each" if method.members > 1 else "")


def shown(value: Any) -> str:
    """A value as a message shows it, in at most 80 characters."""
    text = hide_credentials(json.dumps(value, default=str))
    return text if len(text) <= 80 else text[:77] + "..."
