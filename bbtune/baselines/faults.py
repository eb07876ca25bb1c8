"""What is wrong with a baseline for its data and its model, told before any weight is read."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

from bbtune.errors import Fault, TaskError
from bbtune.methods import (
    OWN_WEIGHTS,
    PROMPTED,
    CalibrationSpec,
    EnsembleSpec,
    InContextSpec,
    ProbeSpec,
    SetFitSpec,
    TrainedSpec,
)
from bbtune.plan import Parts, place_faults, row_faults, template_fault
from bbtune.spec import BaselineJob
from bbtune.task.task import Task
from bbtune.task.template import Template

_LIBRARIES = {"logistic-regression": "sklearn", "setfit": "setfit"} | dict.fromkeys(
    ("lora", "ia3", "prefix-tuning"), "peft"
)


def baseline_faults(spec: BaselineJob, parts: Parts, broken: set[str]) -> list[Fault]:
    """Faults of the method, each with its path.

    Args:
        parts: that could be read.
        broken: paths that are known to be at fault; what depends on them is not judged.
    """
    method, card, task = spec.method, parts.card, parts.task
    faults: list[Fault] = []
    if card is not None and not broken & {"prompt"}:
        faults += place_faults(spec.prompt, card, parts.template, method.name in PROMPTED, "prompt.place before")
    if method.name in OWN_WEIGHTS and spec.backbone.dtype != "float32":
        why = f"expected float32 for {method.name}, which trains the model's own weights, got {spec.backbone.dtype}"
        advice = "use float32, or lora, which adds float32 weights to any model"
        faults.append(Fault("backbone.dtype", f"{why}; {advice}"))
    encoder = card is not None and card.kind == "sentence-encoder"
    if (library := _LIBRARIES.get(method.name)) and find_spec(library) is None:
        what = f"expected the library {library} for {method.name}, it is not installed"
        faults.append(Fault("method.name", f"{what}; pip install 'bbtune[baselines]'"))
    if isinstance(method, EnsembleSpec):
        faults += _template_faults(spec, method, parts)
    if isinstance(method, InContextSpec) and encoder:
        why = "a sentence encoder compares whole texts"
        faults.append(Fault("method.name", f"expected a language model with in-context, {why}; take another model"))
    if isinstance(method, InContextSpec) and task is not None and method.demonstrations > len(task.train):
        have = f"at most the {len(task.train)} train examples"
        faults.append(Fault("method.demonstrations", f"expected {have}, got {method.demonstrations}"))
    if isinstance(method, SetFitSpec) and card is not None and not encoder:
        why = f"a sentence encoder with setfit, {spec.backbone.model} is a {card.kind}"
        faults.append(Fault("method.name", f"expected {why}; take another model or method"))
    if isinstance(method, TrainedSpec) and task is not None:
        faults += _worker_faults(spec, method, task)
    if isinstance(method, ProbeSpec | SetFitSpec) and task is not None and (found := _one_label(task)):
        faults.append(Fault("task.source", found))
    if task is not None and card is not None:
        faults += _budget_faults(spec, task, card.layer_count)
    if isinstance(method, CalibrationSpec) and (empty := [text for text in method.neutral if not text.strip()]):
        faults.append(Fault("method.neutral", f"expected texts that are not empty, got {empty}"))
    return faults


def _one_label(task: Task) -> str | None:
    """What is wrong with a train split that a classifier cannot be fitted to."""
    if (found := len({example.label for example in task.train})) > 1:
        return None
    what = f"expected train examples of two labels or more, got those of {found}"
    return f"{what}; add examples, or take method zero-shot"


def _budget_faults(spec: BaselineJob, task: Task, depth: int) -> list[Fault]:
    """Every limit of the budget that a fit would break."""
    evaluations, examples = spec.method.price(len(task.train), len(task.dev))
    needs = {"evaluations": evaluations, "examples": examples, "layer_forwards": examples * depth}
    return [
        Fault(f"budget.{name}", f"expected at least {need}, what the method takes, got {got}; raise it or leave it out")
        for name, need in needs.items()
        if (got := getattr(spec.budget, name)) is not None and got < need
    ]


def _worker_faults(spec: BaselineJob, method: TrainedSpec, task: Task) -> list[Fault]:
    """Every worker must have a share of every whole batch, and of dev."""
    shares = {"texts of method.batch_size": method.batch_size, "train examples": len(task.train)}
    shares["dev examples"] = len(task.dev)
    what, most = min(shares.items(), key=lambda pair: pair[1])
    if (count := spec.evaluators.count) <= most:
        return []
    return [Fault("evaluators.count", f"expected at most {most}, one for each of the {most} {what}, got {count}")]


def _template_faults(spec: BaselineJob, method: EnsembleSpec, parts: Parts) -> list[Fault]:
    faults: list[Fault] = []
    for i, text in enumerate(method.templates):
        try:
            template = Template(text, parts.task.kind if parts.task else "single")
        except TaskError as error:
            faults.append(Fault(f"method.templates[{i}]", str(error)))
            continue
        if parts.card is None:
            continue
        if fault := template_fault(template, parts.card):
            faults.append(Fault(f"method.templates[{i}]", fault))
        elif parts.task and (plan := parts.plan(spec)):
            wrong = row_faults(replace(plan, template=template), parts.task, parts.card, with_prompt=False)
            faults += [Fault(f"method.templates[{i}]", fault.message) for fault in wrong]
    return faults
