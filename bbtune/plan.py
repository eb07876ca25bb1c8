"""A job put together with its data and its model's tokenizer, and everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

from bbtune.auto import resolve
from bbtune.backbone.encoding import Encoder, PromptText, prompt_token_ids
from bbtune.backbone.sources import ModelCard, read_model_card
from bbtune.cost import Sizes
from bbtune.errors import BackboneError, Fault, JobError, OptimizerError, TaskError
from bbtune.optimizers import check_optimizer_name
from bbtune.optimizers.base import population_asked
from bbtune.spec import JobSpec, MethodSpec, PromptSpec
from bbtune.task.sources import load_task
from bbtune.task.task import Example, Task
from bbtune.task.template import FIELDS, Template
from bbtune.task.verbalizer import label_token_ids, words_per_label

Words = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Plan:
    """What a worker needs to score candidates; small, and sent to it once. No test example is in it.

    ``layers`` are the tuned ones of the model's ``depth`` layers. ``product`` names the matrix product that all workers
    use; without it a worker chooses for itself.
    """

    spec: JobSpec
    kind: str
    template: Template
    label_words: Words
    layers: tuple[int, ...]
    depth: int
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    product: str | None = None
    chosen: str = ""

    @property
    def sizes(self) -> Sizes:
        """What decides the cost of a call."""
        return Sizes(len(self.train), len(self.dev), self.layers, self.depth)

    def encoder(self, card: ModelCard, with_prompt: bool) -> Encoder:
        """Encoder of the job's rows; without the prompt only its text in words stays, as a user would write it."""
        prompt = self.spec.prompt
        text, joint = prompt.text, ""
        if text and prompt.place == "before" and not text[-1].isspace():
            joint = " "
        if text and prompt.place == "after" and not text[0].isspace():
            text = " " + text
        ids = []
        if with_prompt or text:
            ids = prompt_token_ids(card.tokenizer, text, prompt.tokens if with_prompt else None)
        room = min(self.spec.backbone.max_tokens, _positions(card))
        return Encoder(card, self.template, PromptText(tuple(ids), joint, prompt.place), room)


def _positions(card: ModelCard) -> int:
    """Positions that the model knows; RoBERTa spends two of them on padding."""
    known = getattr(card.config, "max_position_embeddings", None) or 1 << 30
    return int(known) - (2 if "roberta" in card.config.model_type else 0)


def make_plan(spec: JobSpec) -> tuple[Plan, Task, ModelCard]:
    """Task, model card and plan of a job.

    Raises:
        JobError: with every fault found.
    """
    plan, task, card, faults = examine(spec, set())
    if faults or plan is None or task is None or card is None:
        raise JobError(faults)
    return plan, task, card


def examine(spec: JobSpec, broken: set[str]) -> tuple[Plan | None, Task | None, ModelCard | None, list[Fault]]:
    """Read data, configuration and tokenizer, and judge the job against them; no weights are read.

    Args:
        broken: paths that are known to be at fault; what depends on them is not judged.
    """
    faults = _optimizer_faults(spec)
    task = card = None
    if not broken & {"task", "task.source"}:
        try:
            task = load_task(spec.task)
        except TaskError as error:
            faults.append(Fault("task", str(error)))
    if not broken & {"backbone", "backbone.model"}:
        try:
            card = read_model_card(spec.backbone)
        except BackboneError as error:
            faults.append(Fault("", str(error)))
    template = _template(spec, task, card, faults)
    if card is not None and not broken & {"prompt", "prompt.kind"}:
        faults += _place_faults(spec.prompt, card, template)
    layers = _layers(spec, card, faults)
    words = _label_words(spec, task, card, template, faults)
    if task is None or card is None or template is None or words is None or layers is None:
        return None, task, card, _unbroken(faults, broken)
    resolved, chosen = resolve(spec, Sizes(len(task.train), len(task.dev), layers, card.layer_count))
    parts = (resolved, task.kind, template, words, layers, card.layer_count, task.train, task.dev)
    plan = Plan(*parts, chosen=chosen)
    faults += _budget_faults(plan)
    if not {fault.path for fault in faults} & {"task.template", "prompt.place"}:  # no row can be built with those
        faults += _row_faults(plan, task, card)
    return plan, task, card, _unbroken(faults, broken)


def _row_faults(plan: Plan, task: Task, card: ModelCard) -> list[Fault]:
    """Prompt and template must leave room for a text."""
    longest = max((*task.train, *task.dev, *task.test), key=lambda e: len(e.text) + len(e.text_b or ""))
    try:
        plan.encoder(card, with_prompt=True).row(longest)
    except BackboneError as error:
        return [Fault("", str(error))]
    return []


def _budget_faults(plan: Plan) -> list[Fault]:
    """A budget must hold one sweep where only whole ones run, or one generation, and dev before and after it."""
    return _sweep_faults(plan) or _generation_faults(plan)


def _sweep_faults(plan: Plan) -> list[Fault]:
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


def _generation_faults(plan: Plan) -> list[Fault]:
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
    if spec.method.optimizer != "auto":
        try:
            check_optimizer_name(spec.method.optimizer)
        except OptimizerError as error:
            return [Fault("method.optimizer", str(error))]
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


def _unbroken(faults: list[Fault], broken: set[str]) -> list[Fault]:
    """Faults that do not rest on a place that is known to be at fault."""

    def rests(path: str) -> bool:
        known = {b for b in broken if path != "task" or not b.startswith(("task.template", "task.label_words"))}
        return any(b == path or b.startswith((f"{path}.", f"{path}[")) for b in known)

    return [fault for fault in faults if not rests(fault.path)]


def _template(spec: JobSpec, task: Task | None, card: ModelCard | None, faults: list[Fault]) -> Template | None:
    if task is None:
        return None
    encoder = card is not None and card.kind == "sentence-encoder"
    plain = " ".join(f"{{{name}}}" for name in FIELDS[task.kind])
    text = spec.task.template or (plain if encoder else task.template)
    if text is None:
        example = plain + " It was {mask}."
        faults.append(Fault("task.template", f"missing; a language model needs one, such as {example!r}"))
        return None
    try:
        template = Template(text, task.kind)
    except TaskError as error:
        faults.append(Fault("task.template", str(error)))
        return None
    if card is not None and (fault := _template_fault(template, card)):
        faults.append(Fault("task.template", fault))
    return template


def _template_fault(template: Template, card: ModelCard) -> str | None:
    if card.kind in ("masked-lm", "seq2seq-lm") and not template.has_mask:
        return f"expected {{mask}} where the label word belongs, for a {card.kind}, got {template.text!r}"
    if card.kind == "sentence-encoder" and template.has_mask:
        return f"expected no {{mask}}, a sentence encoder compares whole texts, got {template.text!r}"
    if card.kind == "causal-lm" and template.fields_behind_mask:
        hidden = ", ".join(f"{{{name}}}" for name in template.fields_behind_mask)
        return f"expected {{mask}} at the end, a causal model sees only what stands before it, got {hidden} behind it"
    return None


def _place_faults(prompt: PromptSpec, card: ModelCard, template: Template | None) -> list[Fault]:
    """A prompt behind the text needs a model that reads from left to right, and a prefix words that come after it."""
    if prompt.place == "before":
        return []
    if card.kind != "causal-lm":
        why = "only a causal language model can have its prompt behind the text"
        return [Fault("prompt.place", f"expected before for a {card.kind}, {why}, got after")]
    if prompt.kind == "offset" or template is None or template.ending or template.fields_behind_mask:
        return []
    why = "a prefix is only seen by the tokens behind it"
    text = f"expected words between the last field and {{mask}} with prompt.place after, {why}, got {template.text!r}"
    return [Fault("task.template", f"{text}; add words there, or take prompt.kind offset")]


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


def _label_words(
    spec: JobSpec, task: Task | None, card: ModelCard | None, template: Template | None, faults: list[Fault]
) -> Words | None:
    if task is None:
        return None
    words = task.label_words or words_per_label(task.labels)
    if spec.task.label_words is not None:
        words = words_per_label(spec.task.label_words)
    if len(words) != len(task.labels) or not all(words):
        expected = f"{len(task.labels)} entries with words, one for each of {list(task.labels)}"
        faults.append(Fault("task.label_words", f"expected {expected}, got {len(words)}"))
        return None
    if card is not None and card.kind != "sentence-encoder":
        _, wrong = label_token_ids(words, card.tokenizer, template is None or template.word_follows_space)
        faults += [Fault("task.label_words", sentence) for sentence in wrong]
    return words
