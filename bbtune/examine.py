"""Every fault of a job, and its plan where there is none."""

from __future__ import annotations

from bbtune.baselines.faults import baseline_faults
from bbtune.errors import Fault, JobError
from bbtune.own import Own
from bbtune.plan import NO_ROW, Card, Plan, read_parts, row_faults
from bbtune.search_plan import examine_search
from bbtune.spec import BaseJob, BaselineJob, JobSpec, TextJob
from bbtune.task.task import Task
from bbtune.text_plan import examine_text

NOTHING = Own()


def make_plan(spec: BaseJob, own: Own = NOTHING) -> tuple[Plan, Task, Card]:
    """Task, model card and plan of a job.

    Args:
        own: what a program gives beside it.

    Raises:
        JobError: with every fault found.
    """
    plan, task, card, faults = examine(spec, set(), own)
    if faults or plan is None or task is None or card is None:
        raise JobError(faults)
    return plan, task, card


def examine(
    spec: BaseJob, broken: set[str], own: Own = NOTHING
) -> tuple[Plan | None, Task | None, Card | None, list[Fault]]:
    """Read data, configuration and tokenizer, and judge the job against them; no weights are read.

    Args:
        broken: paths that are known to be at fault; what depends on them is not judged.
        own: what a program gives beside it.
    """
    lacking = [fault for fault in own.faults(spec) if fault.path not in broken]
    broken = broken | {fault.path for fault in lacking}
    parts, faults = read_parts(spec, broken, own.task)
    plan: Plan | None = None
    if parts.task is not None and parts.task.metric.free_form and not isinstance(spec, TextJob):
        faults += _answer_faults(spec, parts.task.metric.name)
    elif parts.remote is not None and not isinstance(spec, TextJob):
        faults += _away_faults(spec)
    elif isinstance(spec, TextJob):
        plan, faults = examine_text(spec, parts, faults)
    elif isinstance(spec, JobSpec):
        plan, faults = examine_search(spec, parts, broken, faults)
    elif isinstance(spec, BaselineJob):
        plan = parts.plan(spec)
        faults += baseline_faults(spec, parts, broken)
        if plan and parts.task and parts.card and not {fault.path for fault in faults} & NO_ROW:
            faults += row_faults(plan, parts.task, parts.card, with_prompt=True)
    return plan, parts.task, parts.where, lacking + _unbroken(faults, broken)


def _away_faults(spec: BaseJob) -> list[Fault]:
    """What a model that is only asked cannot do."""
    else_take = "tune a prompt in words: prompt.kind text"
    if isinstance(spec, JobSpec):
        why = "a continuous prompt is made with the tokenizer and the embeddings of the model that the API serves"
        return [Fault("backbone.model", f"missing; {why}; name a copy of it, or {else_take}")]
    return [Fault("backbone.model", f"missing; {spec.method_name} needs a model that is loaded here; {else_take}")]


def _answer_faults(spec: BaseJob, metric: str) -> list[Fault]:
    """Only prompts in words are tuned to answers in words."""
    what = "a continuous prompt" if isinstance(spec, JobSpec) else spec.method_name
    expected = f"expected a metric of labels with {what}, got {metric}, whose answers are words"
    return [Fault("task.metric", f"{expected}; tune a prompt in words: prompt.kind text, and a search as method")]


def _unbroken(faults: list[Fault], broken: set[str]) -> list[Fault]:
    """Faults that do not rest on a place that is known to be at fault."""

    def rests(path: str) -> bool:
        known = {b for b in broken if path != "task" or not b.startswith(("task.template", "task.label_words"))}
        return any(b == path or b.startswith((f"{path}.", f"{path}[")) for b in known)

    return [fault for fault in faults if not rests(fault.path)]
