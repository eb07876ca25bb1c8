"""How texts are put to a model in a job, and what of it is wrong for its data and its model's tokenizer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from bbtune.backbone.encoding import Encoder, PromptText, prompt_token_ids
from bbtune.backbone.sources import ModelCard, read_model_card
from bbtune.backbone_spec import BackboneSpec
from bbtune.errors import BackboneError, Fault, TaskError
from bbtune.prompt_spec import PromptSpec
from bbtune.spec import BaseJob, TextJob
from bbtune.task.data import TaskData
from bbtune.task.sources import load_task
from bbtune.task.task import Example, Task
from bbtune.task.template import FIELDS, Template
from bbtune.task.verbalizer import Words, label_token_ids, words_per_label
from bbtune.task_spec import TaskSpec


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How texts are put to a model, and the examples of train and dev; small. No test example is in it.

    Attributes:
        kind: ``"single"`` or ``"pair"``.
        label_words: of each label; none where answers are words.
        product: names the matrix product that all workers use; without it a worker chooses for itself.
    """

    spec: BaseJob
    kind: str
    template: Template
    label_words: Words
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    product: str | None = None

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
        room = min(self.spec.backbone.max_tokens, card.positions)
        return Encoder(card, self.template, PromptText(tuple(ids), joint, prompt.place), room)


@dataclass(frozen=True)
class RemoteCard:
    """A model of which nothing is here but where it is asked."""

    spec: BackboneSpec

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of where it is, and of the name that it has there."""
        return hashlib.sha256(self.spec.named.encode()).hexdigest()


Card = ModelCard | RemoteCard


@dataclass(frozen=True)
class Reading:
    """How texts are put to the model, as it was resolved from job and data: enough to predict without the data.

    ``preamble`` is what a search for a prompt in words has put before the template, ``first_words`` are the label words
    that it began with: how answers are read depends on them, too. ``abilities`` are what was found of an API, as JSON.
    """

    kind: str
    template: str
    label_words: Words
    preamble: str = ""
    first_words: Words = ()
    abilities: dict[str, Any] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Parts:
    """What a job is made of, as far as it could be read; None where it could not.

    ``card`` is of a model that is here, ``remote`` of one that is not.
    """

    task: Task | None
    card: ModelCard | None
    remote: RemoteCard | None
    template: Template | None
    words: Words | None

    @property
    def where(self) -> Card | None:
        """The model, wherever it is."""
        return self.card or self.remote

    def plan(self, spec: BaseJob) -> Plan | None:
        """The plan of the job, where every part is there."""
        if self.task is None or self.where is None or self.template is None or self.words is None:
            return None
        return Plan(
            spec=spec,
            kind=self.task.kind,
            template=self.template,
            label_words=self.words,
            train=self.task.train,
            dev=self.task.dev,
        )


def read_parts(spec: BaseJob, broken: set[str], data: TaskData | None = None) -> tuple[Parts, list[Fault]]:
    """Read data, configuration and tokenizer, and judge template and label words against them; no weights are read.

    Args:
        broken: paths that are known to be at fault; what depends on them is not judged.
        data: of a program, where the job names them.
    """
    faults: list[Fault] = []
    task = card = remote = None
    away = spec.backbone.api is not None and (spec.backbone.model is None or isinstance(spec, TextJob))
    if not broken & {"task", "task.source"}:
        try:
            task = load_task(spec.task, data)
        except TaskError as error:
            faults.append(Fault("task", str(error)))
    if away:
        remote = RemoteCard(spec.backbone)
    elif not broken & {"backbone", "backbone.model"}:
        try:
            card = read_model_card(spec.backbone)
        except BackboneError as error:
            faults.append(Fault("", str(error)))
    template = _template(spec, task, card, faults)
    words = _label_words(spec, task, card, template, faults)
    return Parts(task, card, remote, template, words), faults


NO_ROW = {"task.template", "prompt.place"}  # what is at fault where no row can be built


def place_faults(
    prompt: PromptSpec, card: ModelCard, template: Template | None, prefix: bool, else_take: str
) -> list[Fault]:
    """A prompt behind the text needs a model that reads from left to right, and a prefix words that come after it.

    Args:
        prefix: whether the prompt's states are set, so that nothing of the text reaches its positions.
        else_take: what would do instead of such words.
    """
    if prompt.place == "before":
        return []
    if card.kind != "causal-lm":
        why = "only a causal language model can have its prompt behind the text"
        return [Fault("prompt.place", f"expected before for a {card.kind}, {why}, got after")]
    if not prefix or template is None or template.ending or template.fields_behind_mask:
        return []
    why = "a prefix is only seen by the tokens behind it"
    text = f"expected words between the last field and {{mask}} with prompt.place after, {why}, got {template.text!r}"
    return [Fault("task.template", f"{text}; add words there, or take {else_take}")]


def row_faults(plan: Plan, task: Task, card: ModelCard, with_prompt: bool) -> list[Fault]:
    """Prompt and template must leave room for a text."""
    longest = max((*task.train, *task.dev, *task.test), key=lambda e: len(e.text) + len(e.text_b or ""))
    try:
        plan.encoder(card, with_prompt).row(longest)
    except BackboneError as error:
        return [Fault("", str(error))]
    return []


def _template(spec: BaseJob, task: Task | None, card: ModelCard | None, faults: list[Fault]) -> Template | None:
    if task is None:
        return None
    encoder = card is not None and card.kind == "sentence-encoder"
    plain = " ".join(f"{{{name}}}" for name in FIELDS[task.kind])
    text = spec.task.template or (plain if encoder else task.template)
    if text is None and task.metric.free_form:
        text = f"{plain}\nAnswer: {{mask}}"
    if text is None:
        example = plain + " It was {mask}."
        faults.append(Fault("task.template", f"missing; a language model needs one, such as {example!r}"))
        return None
    try:
        template = Template(text, task.kind)
    except TaskError as error:
        faults.append(Fault("task.template", str(error)))
        return None
    if card is not None and (fault := template_fault(template, card)):
        faults.append(Fault("task.template", fault))
    return template


def template_fault(template: Template, card: ModelCard) -> str | None:
    """Why a template does not go with a kind of model; None where it does."""
    if card.kind in ("masked-lm", "seq2seq-lm") and not template.has_mask:
        return f"expected {{mask}} where the label word belongs, for a {card.kind}, got {template.text!r}"
    if card.kind == "sentence-encoder" and template.has_mask:
        return f"expected no {{mask}}, a sentence encoder compares whole texts, got {template.text!r}"
    if card.kind == "causal-lm" and template.fields_behind_mask:
        hidden = ", ".join(f"{{{name}}}" for name in template.fields_behind_mask)
        return f"expected {{mask}} at the end, a causal model sees only what stands before it, got {hidden} behind it"
    return None


def _answer_faults(spec: TaskSpec, metric: str) -> list[Fault]:
    """What a task says of labels though its answers are words."""
    why = f"expected none, metric {metric} scores answers in words"
    return [
        Fault(f"task.{key}", f"{why}, got {value!r}; leave it out, or take a metric of labels")
        for key in ("labels", "label_words", "positive_label")
        if (value := getattr(spec, key)) is not None
    ]


def _label_words(
    spec: BaseJob, task: Task | None, card: ModelCard | None, template: Template | None, faults: list[Fault]
) -> Words | None:
    if task is None:
        return None
    if task.metric.free_form:
        faults += _answer_faults(spec.task, task.metric.name)
        return ()
    words = task.label_words or words_per_label(task.labels)
    if spec.task.label_words is not None:
        words = words_per_label(spec.task.label_words)
    if len(words) != len(task.labels) or not all(words):
        expected = f"{len(task.labels)} entries with words, one for each of {list(task.labels)}"
        faults.append(Fault("task.label_words", f"expected {expected}, got {len(words)}"))
        return None
    if card is not None and card.kind != "sentence-encoder" and not isinstance(spec, TextJob):
        _, wrong = label_token_ids(words, card.tokenizer, template is None or template.word_follows_space)
        faults += [Fault("task.label_words", sentence) for sentence in wrong]
    return words
