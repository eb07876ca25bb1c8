"""Names of baselines, and what each does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bbtune.baselines.account import Past
from bbtune.baselines.features import LogisticRegression
from bbtune.baselines.in_context import InContext
from bbtune.baselines.learners import LEARNERS
from bbtune.baselines.setfit import SetFit
from bbtune.baselines.trained import Trained
from bbtune.baselines.untuned import Calibration, Majority, TemplateEnsemble, ZeroShot
from bbtune.method import Baseline
from bbtune.plan import Plan
from bbtune.spec import BaselineJob
from bbtune.task.metrics import Metric

UNTRAINED: dict[str, Callable[[Plan, Metric, Past], Baseline]] = {
    "majority": Majority,
    "zero-shot": ZeroShot,
    "template-ensemble": TemplateEnsemble,
    "in-context": InContext,
    "calibration": Calibration,
    "logistic-regression": LogisticRegression,
    "setfit": SetFit,
}


def make_baseline(plan: Plan, metric: Metric, folder: Path, past: Past) -> Baseline:
    """The baseline of a job.

    Args:
        plan: of the job.
        metric: of the task.
        folder: for the checkpoints of those that train by gradients.
        past: of the run, for those without checkpoints.
    """
    assert isinstance(plan.spec, BaselineJob)  # for mypy: a search is no baseline
    name = plan.spec.method.name
    return Trained(plan, metric, folder) if name in LEARNERS else UNTRAINED[name](plan, metric, past)
