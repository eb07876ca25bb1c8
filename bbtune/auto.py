"""The choice of a search where the job leaves it open: ``method.optimizer: auto``."""

from __future__ import annotations

from typing import Any

from bbtune.cost import Sizes
from bbtune.run_spec import BudgetSpec
from bbtune.spec import JobSpec

_ROUNDS = 8  # of probes that the budget should hold, at least
_LEAST_PROBES = 4  # fewer say too little of a step
_STEPS = 6  # that a round tries at most
_MANY = 128  # train examples, from which on probes see a part of them, where texts or time are the budget
_SHARE = 5  # of the examples are one that a probe sees
_BY, _AVERAGE = "loss", 3  # of the selection; docs/decisions.md has the figures
_PROPER_BUDGET = 100  # evaluations; below, an estimate of the slope by losses alone does not get anywhere


def resolve(spec: JobSpec, sizes: Sizes, logits: bool = True) -> tuple[JobSpec, str]:
    """The job with everything chosen, and what was chosen and why; empty where nothing was open.

    Args:
        sizes: of the splits and the model.
        logits: whether the evaluator returns label logits, or only scores.
    """
    if spec.method.optimizer != "auto":
        return _changed(spec, {}, by="metric", average=1), ""
    calls = affordable_calls(spec.budget, sizes)
    known = f"{calls} evaluations" if calls is not None else "no limit but time"
    if logits and (calls is None or calls > 3 * _LEAST_PROBES):
        probes, part = _probes(spec, sizes, calls)
        how = f"{probes} probes a round" + (f" on {part} examples each" if part else "")
        why = f"gauss-newton with {how}: the evaluator returns label logits, the budget is {known}"
        chosen = {"optimizer": "gauss-newton", "blocks": "joint", "population": probes, "probe_examples": part}
        return _changed(spec, chosen), why
    others = {"blocks": "joint", "probe_examples": None}
    if calls is None or calls >= _PROPER_BUDGET:
        why = f"spsa over all layers: the evaluator returns losses alone, the budget is {known}"
        return _changed(spec, {**others, "optimizer": "spsa", "population": 11}), why
    population = max(2, min(20, calls - 1))
    why = f"random search: a budget of {known} is too small to learn from"
    return _changed(spec, {**others, "optimizer": "random", "population": population}, average=1), why


def _probes(spec: JobSpec, sizes: Sizes, calls: int | None) -> tuple[int, int | None]:
    """Probes of a round, and on how many examples each; None for all."""
    most = max(2, min(spec.method.population, len(sizes.layers) * spec.prompt.intrinsic_dim))
    whole = most if calls is None else max(2, min(most, max(_LEAST_PROBES, calls // _ROUNDS)))
    given, counted = spec.method.probe_examples, spec.budget.evaluations is not None
    part = given or (sizes.train // _SHARE if sizes.train >= _MANY and not counted else sizes.train)
    if part >= sizes.train:
        return whole, None
    if counted or calls is None:  # a probe is an evaluation, however few its texts
        return whole, part
    probes = min(most, (calls // _ROUNDS - _STEPS) * sizes.train // part)
    if given:
        return max(min(most, _LEAST_PROBES), probes), part
    return (probes, part) if probes >= whole else (whole, None)


def affordable_calls(budget: BudgetSpec, sizes: Sizes) -> int | None:
    """Evaluations that a budget holds at most, and dev twice; None where it limits nothing but time."""
    calls = [budget.evaluations] if budget.evaluations is not None else []
    if budget.examples is not None:
        calls.append(max(0, budget.examples - 2 * sizes.dev) // sizes.train)
    if budget.layer_forwards is not None:
        forwards = budget.layer_forwards - 2 * sizes.layer_forwards(sizes.dev, 1)
        calls.append(max(0, forwards) // sizes.layer_forwards(sizes.train, 1))
    return min(calls) if calls else None


def _changed(spec: JobSpec, method: dict[str, Any], by: str = _BY, average: int = _AVERAGE) -> JobSpec:
    """The job with another method, and the selection where it leaves it open."""
    selection = {"by": spec.selection.by or by, "average": spec.selection.average or average}
    parts = {"method": spec.method.model_copy(update=method), "selection": spec.selection.model_copy(update=selection)}
    return spec.model_copy(update=parts)
