"""A search put together with its data and its model, and everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

from bbtune.auto import resolve
from bbtune.backbone.embeddings import wire_faults
from bbtune.backbone.sources import ModelCard
from bbtune.cost import Sizes
from bbtune.errors import Fault, OptimizerError, did_you_mean
from bbtune.methods import BASELINES
from bbtune.optimizers import check_optimizer_name
from bbtune.optimizers.base import population_asked
from bbtune.optimizers.own import is_own
from bbtune.plan import NO_ROW, Parts, Plan, place_faults, row_faults
from bbtune.prompt_spec import MethodSpec, PromptSpec
from bbtune.spec import JobSpec


@dataclass(frozen=True, kw_only=True)
class SearchPlan(Plan):
    """What a worker needs to score candidates; sent to it once.

    Attributes:
        layers: the tuned ones of the model's ``depth`` layers.
        chosen: what ``auto`` chose and why; empty where nothing was open.
    """

    spec: JobSpec
    layers: tuple[int, ...]
    depth: int
    chosen: str = ""

    @property
    def sizes(self) -> Sizes:
        """What decides the cost of a call."""
        return Sizes(len(self.train), len(self.dev), self.layers, self.depth)


def examine_search(
    spec: JobSpec, parts: Parts, broken: set[str], known: list[Fault]
) -> tuple[SearchPlan | None, list[Fault]]:
    """Judge a search against its data and its model; returns all faults, those of its parts among them.

    Args:
        parts: that could be read.
        broken: paths that are known to be at fault; what depends on them is not judged.
        known: faults of the parts.
    """
    words = [fault for fault in known if fault.path == "task.label_words"]
    faults, card = _optimizer_faults(spec) + [fault for fault in known if fault not in words], parts.card
    if card is not None and not broken & {"prompt", "prompt.kind"}:
        faults += place_faults(spec.prompt, card, parts.template, spec.prompt.kind == "prefix", "prompt.kind offset")
    faults += wire_faults(spec, card) if spec.backbone.api is not None else []
    layers = _layers(spec, card, faults)
    faults += words
    read = parts.plan(spec)
    if read is None or parts.task is None or card is None or layers is None:
        return None, faults
    resolved, chosen = resolve(spec, Sizes(len(read.train), len(read.dev), layers, card.layer_count))
    shared = {name: getattr(read, name) for name in ("kind", "template", "label_words", "train", "dev")}
    plan = SearchPlan(spec=resolved, layers=layers, depth=card.layer_count, chosen=chosen, **shared)
    faults += _budget_faults(plan)
    if not {fault.path for fault in faults} & NO_ROW:
        faults += row_faults(plan, parts.task, card, with_prompt=True)
    return plan, faults


def _budget_faults(plan: SearchPlan) -> list[Fault]:
    """A budget must hold one sweep where only whole ones run, or one generation, and dev before and after it."""
    return _sweep_faults(plan) or _generation_faults(plan)


def _sweep_faults(plan: SearchPlan) -> list[Fault]:
    method, got = plan.spec.method, plan.spec.budget.evaluations
    blocks = len(plan.layers) if method.blocks == "layerwise" else 1
    start = int(method.scores_start)
    size = population_asked(method.optimizer, method.population)
    sweep = size * method.generations_per_visit * blocks + start
    if method.schedule != "whole-sweeps" or got is None or got >= sweep:
        return []
    visits = f", {method.generations_per_visit} generations each" if method.generations_per_visit > 1 else ""
    first = " and the starting point" if start else ""
    words = f"one sweep, {sweep} ({size} candidates for each of {blocks} blocks{visits}{first})"
    return [Fault("budget.evaluations", f"expected at least {words}, got {got}")]


def _generation_faults(plan: SearchPlan) -> list[Fault]:
    method, budget, sizes = plan.spec.method, plan.spec.budget, plan.sizes
    size, others = population_asked(method.optimizer, method.population), method.first_extras
    texts = min(method.probe_examples or sizes.train, sizes.train)
    forwards = sizes.layer_forwards(texts, size) + sizes.layer_forwards(sizes.train, others)
    needs = {
        "examples": (budget.examples, size * texts + others * sizes.train + 2 * sizes.dev),
        "layer_forwards": (budget.layer_forwards, forwards + 2 * sizes.layer_forwards(sizes.dev, 1)),
    }
    words = f"{size + others} candidates on {sizes.train} train examples"
    if texts < sizes.train:
        words = f"{size} candidates on {texts} train examples and {others} on {sizes.train}"
    words += f", dev of {sizes.dev} twice"
    return [
        Fault(f"budget.{key}", f"expected at least one generation, {need} ({words}), got {got}")
        for key, (got, need) in needs.items()
        if got is not None and got < need
    ]


def _optimizer_faults(spec: JobSpec) -> list[Fault]:
    if spec.method.optimizer != "auto" and not is_own(spec.method.optimizer):
        try:
            check_optimizer_name(spec.method.optimizer)
        except OptimizerError as error:
            return [Fault("method.optimizer", f"{error}{did_you_mean(spec.method.optimizer, BASELINES)}")]
    return _combination_faults(spec.method)


def _combination_faults(method: MethodSpec) -> list[Fault]:
    """Optimizers that do not go with every order of the layers, rule of acceptance and kind of probe."""
    faults = []
    models_logits = method.optimizer in ("auto", "gauss-newton")
    if models_logits and method.blocks == "layerwise":
        why = f"{method.optimizer} looks at all tuned layers together"
        faults.append(Fault("method.blocks", f"expected joint, {why}, got layerwise"))
    if models_logits and method.schedule == "whole-sweeps":
        why = f"generations of {method.optimizer} differ in size"
        faults.append(Fault("method.schedule", f"expected round-robin, {why}, got whole-sweeps"))
    if models_logits and method.accept == "best-ever":
        why = f"most candidates of {method.optimizer} are probes"
        faults.append(Fault("method.accept", f"expected improves, {why}, got best-ever"))
    if method.probe_examples is not None and not models_logits:
        why = f"{method.optimizer} does not probe"
        faults.append(Fault("method.probe_examples", f"expected none, {why}, got {method.probe_examples}"))
    if method.accept == "best-ever" and method.schedule == "recent-gain" and not models_logits:
        why = "recent-gain needs to know what each layer gains"
        faults.append(Fault("method.accept", f"expected improves, {why}, got best-ever"))
    return faults


def tuned_layers(prompt: PromptSpec, card: ModelCard) -> tuple[int, ...]:
    """Layers of the model that a job tunes, in the order of z."""
    if prompt.layers == "input":
        return (0,)
    return tuple(range(card.layer_count)) if prompt.layers == "all" else tuple(sorted(prompt.layers))


def _layers(spec: JobSpec, card: ModelCard | None, faults: list[Fault]) -> tuple[int, ...] | None:
    if card is None:
        return None
    layers = tuned_layers(spec.prompt, card)
    if outside := [layer for layer in layers if layer >= card.layer_count]:
        expected = f"expected layers 0 to {card.layer_count - 1} of the model"
        faults.append(Fault("prompt.layers", f"{expected}, got {outside}"))
    return layers
