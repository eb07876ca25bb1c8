"""A search of a prompt in words put together with its data, and everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

from bbtune.backbone.sources import read_model_card
from bbtune.backbone_spec import BackboneSpec
from bbtune.errors import BackboneError, Fault, OptimizerError, TaskError
from bbtune.plan import Parts, Plan
from bbtune.prompts.text import TextSpace, every_words
from bbtune.spec import TextJob
from bbtune.task.template import Template
from bbtune.task.verbalizer import Words, words_per_label
from bbtune.text_search import NEEDS_WRITER, WRITING, check_search_name
from bbtune.text_spec import TextMethodSpec


@dataclass(frozen=True, kw_only=True)
class TextPlan(Plan):
    """What is needed to score prompts in words."""

    spec: TextJob

    @property
    def every_words(self) -> list[Words]:
        """The label words that a search starts from, and all that it may choose instead."""
        return every_words(self.spec.prompt, self.label_words)

    def space(self) -> TextSpace:
        """The prompts that the job can be given; a search enters what it writes into the library of a new one."""
        spec = self.spec
        return TextSpace(spec.prompt, self.template, self.label_words, self.train, spec.backbone.max_tokens)


def examine_text(spec: TextJob, parts: Parts, known: list[Fault]) -> tuple[TextPlan | None, list[Fault]]:
    """Judge a search against its data; returns all faults, those of its parts among them.

    Args:
        parts: that could be read.
        known: faults of the parts.
    """
    faults = known + _method_faults(spec) + _model_faults(spec, parts)
    read = parts.plan(spec)
    if parts.template is not None:
        faults += _template_faults(spec, parts.template)
    if parts.task is not None and parts.task.metric.free_form:
        faults += _answer_faults(spec, parts.task.metric.name)
    elif parts.words is not None:
        faults += _word_faults(spec, len(parts.words))
    if read is None:
        return None, faults
    shared = {name: getattr(read, name) for name in ("kind", "template", "label_words", "train", "dev")}
    plan = TextPlan(spec=spec, **shared)
    return plan, faults + _size_faults(plan)


def _method_faults(spec: TextJob) -> list[Fault]:
    method, faults = spec.method, []
    try:
        check_search_name(method.search)
    except OptimizerError as error:
        faults.append(Fault("method.search", str(error)))
    faults += _writer_faults(method)
    if spec.selection.average not in (None, 1):
        why = "words have no mean"
        faults.append(Fault("selection.average", f"expected none, {why}, got {spec.selection.average}"))
    return faults


def _writer_faults(method: TextMethodSpec) -> list[Fault]:
    writer, faults = method.writer, []
    if writer is not None and (writer.model is None) == (writer.api is None):
        faults.append(Fault("method.writer", "expected one of model (loaded here) and api (asked there)"))
    if method.search in NEEDS_WRITER and (writer is None or writer.model is None):
        why = f"{method.search} puts vectors into a model that is loaded here"
        faults.append(Fault("method.writer.model", f"missing; {why}, such as cache:smollm2-135m"))
    if writer is not None and method.search.partition(":")[0] not in WRITING:
        faults.append(Fault("method.writer", f"expected none with {method.search}, which chooses and writes nothing"))
    if method.search in NEEDS_WRITER and method.population < 3:
        expected = f"expected 3 or more for {method.search}, which optimizes one vector less"
        faults.append(Fault("method.population", f"{expected}, got {method.population}"))
    if writer is not None and writer.model is not None:
        try:
            kind = read_model_card(BackboneSpec(model=writer.model)).kind
        except BackboneError as error:
            why = str(error).removeprefix("backbone.model: ")
            faults.append(Fault("method.writer.model", why))
        else:
            if kind != "causal-lm":
                faults.append(Fault("method.writer.model", f"expected a causal-lm, which writes text, got a {kind}"))
    return faults


def _model_faults(spec: TextJob, parts: Parts) -> list[Fault]:
    faults = []
    if parts.card is not None and parts.card.kind != "causal-lm":
        why = "a prompt in words is put to a causal language model"
        faults.append(Fault("backbone.model", f"expected a causal-lm or an api, {why}, got a {parts.card.kind}"))
    if spec.evaluators.count:
        why = "one process asks; backbone.api.concurrency says how much at once"
        faults.append(Fault("evaluators.count", f"expected 0, {why}, got {spec.evaluators.count}"))
    if spec.budget.layer_forwards is not None:
        why = "layers are not counted where a model is asked in words"
        faults.append(Fault("budget.layer_forwards", f"expected none, {why}; take examples"))
    return faults


def _template_faults(spec: TextJob, template: Template) -> list[Fault]:
    """All templates must parse, and end where the label word belongs."""
    faults: list[Fault] = []
    for path, text in [("task.template", template.text)] + [
        (f"prompt.templates[{i}]", text) for i, text in enumerate(spec.prompt.templates)
    ]:
        try:
            parsed = Template(text, template.kind)
        except TaskError as error:
            faults.append(Fault(path, str(error)))
            continue
        if parsed.fields_behind_mask:
            why = "the model is asked for what comes next"
            faults.append(Fault(path, f"expected {{mask}} behind all fields, {why}, got {text!r}"))
        elif parsed.word_follows_space != template.word_follows_space:
            form = "a space before {mask}" if template.word_follows_space else "no space before {mask}"
            faults.append(Fault(path, f"expected {form}, as in {template.text!r}: words are read alike, got {text!r}"))
    return faults


def _word_faults(spec: TextJob, labels: int) -> list[Fault]:
    return [
        Fault(f"prompt.label_words[{i}]", f"expected {labels} entries, one for each label, got {len(words)}")
        for i, words in enumerate(spec.prompt.label_words)
        if len(words_per_label(words)) != labels
    ]


def _answer_faults(spec: TextJob, metric: str) -> list[Fault]:
    """What goes with labels, and not with answers in words; and what shows answers, of which a pattern is none."""
    prompt, method, api = spec.prompt, spec.method, spec.backbone.api
    label, pattern = f"metric {metric} knows no labels", "a regular expression is no answer to show to a model"
    hinge = "the loss of an answer in words is 1 - its score"
    faults = [
        Fault(path, f"expected none, {why}, got {got!r}; {mend}")
        for path, got, why, mend in (
            ("prompt.keywords", prompt.keywords, "keywords are what tells labels apart", "leave it out"),
            ("prompt.label_words", prompt.label_words, label, "leave it out"),
            ("method.loss", method.loss if method.loss == "hinge" else "", hinge, "leave it out"),
            ("prompt.demonstrations", prompt.demonstrations * (metric == "regex"), pattern, "take metric token_f1"),
        )
        if got
    ]
    if metric == "regex" and method.search in NEEDS_WRITER:
        mend = "take another search, or metric token_f1"
        faults.append(
            Fault("method.search", f"expected one that shows no answers, {pattern}, got {method.search}; {mend}")
        )
    if api is not None and api.read not in ("auto", "generated"):
        why = "answers in words are generated"
        faults.append(Fault("backbone.api.read", f"expected auto or generated, {why}, got {api.read}; leave it out"))
    return faults


def _size_faults(plan: TextPlan) -> list[Fault]:
    """Minibatch and race must fit into the train split, a generation into the budget."""
    spec, method, train = plan.spec, plan.spec.method, len(plan.train)
    faults = [
        Fault(f"method.{key}", f"expected at most {most}, the {what}, got {got}")
        for key, got, most, what in (
            ("minibatch", method.minibatch, train, "train examples"),
            ("race", method.race, method.minibatch or train, "examples of a generation"),
        )
        if got is not None and got > most
    ]
    if spec.prompt.demonstrations >= train:
        most = f"expected fewer than the {train} train examples"
        faults.append(Fault("prompt.demonstrations", f"{most}, got {spec.prompt.demonstrations}"))
    texts = min(method.minibatch or train, train)
    need = method.population * texts + 2 * len(plan.dev)
    words = f"{method.population} candidates on {texts} train examples, dev of {len(plan.dev)} twice"
    _at_least(faults, "budget.examples", spec.budget.examples, need, words)
    _at_least(faults, "budget.evaluations", spec.budget.evaluations, method.population, "the population")
    return faults


def _at_least(faults: list[Fault], path: str, got: int | None, need: int, words: str) -> None:
    if got is not None and got < need:
        faults.append(Fault(path, f"expected at least one generation, {need} ({words}), got {got}"))
