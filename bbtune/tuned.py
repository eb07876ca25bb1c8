"""A tuned prompt in full, tensors in place of the numbers that the optimizer saw, on its frozen model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from bbtune.backbone.encoding import Encoder
from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.prompted import Prompts
from bbtune.backbone.replay import ReplayStack
from bbtune.baselines.prompts import DeepPrompts, LowRankPrompt, PromptLearner, PromptTuning
from bbtune.errors import BbtuneError
from bbtune.evaluation.scorer import label_head, load_model, sorted_rows
from bbtune.evaluation.worker import prompt_space
from bbtune.learned import Learned
from bbtune.plan import Plan, Reading
from bbtune.search_plan import SearchPlan, tuned_layers
from bbtune.spec import BaseJob, BaselineJob, JobSpec
from bbtune.task.task import Example
from bbtune.task.template import Template

# Baselines that learn hidden states; what the others learn is no prompt of this kind.
_TRAINED: dict[str, Callable[[Plan, FrozenModel], PromptLearner]] = {
    "prompt-tuning": PromptTuning,
    "deep-prompts": DeepPrompts,
    "low-rank-prompt": LowRankPrompt,
}


class Tuned:
    """A frozen model with a prompt in its hidden states, read by label words.

    Args:
        plan: how texts are put to the model; its splits are not needed.
        labels: C names.
        model: the plan's, shared by all that have it.
        prompts: (T, H) by layer.

    Attributes:
        plan, labels, model, prompts: as given.
        encoder: of rows with room for the prompt.
        head: from the states that are read to label logits.
    """

    def __init__(self, plan: Plan, labels: Sequence[str], model: FrozenModel, prompts: Prompts) -> None:
        self.plan = plan
        self.labels = tuple(labels)
        self.model = model
        self.prompts = prompts
        self.encoder: Encoder = plan.encoder(model.card, with_prompt=True)
        self.head = label_head(plan, model)

    @torch.inference_mode()
    def label_logits(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C), by the stock layers: what faster ways and exports are measured against."""
        rows, order = sorted_rows(self.encoder, examples)
        stock = ReplayStack(self.model, self.encoder, "what other paths are measured against")
        states = stock.read_once(rows, self.encoder.prompt_length, self.prompts.sets, self.prompts)[0]
        found = np.empty((len(rows), len(self.labels)), dtype=np.float32)
        found[order] = self.head(states).float().cpu().numpy()
        return found


def tuned(result: Learned, model: FrozenModel | None = None) -> Tuned:
    """What a finished run has found, in full.

    Args:
        result: of a search for a continuous prompt, or of a baseline that trains one.
        model: the run's, where it is loaded already.

    Raises:
        BbtuneError: if the run has learned something else, or the model cannot be read.
    """
    spec = check_continuous(result)
    plan = plan_here(result.spec, result.reading)
    model = model or load_model(plan)
    with torch.no_grad():
        return Tuned(plan, result.labels, model, _prompts(result, spec, plan, model))


def check_continuous(result: Learned) -> JobSpec | BaselineJob:
    """The job of a run that has found a continuous prompt.

    Raises:
        BbtuneError: if it has found anything else.
    """
    spec = result.spec
    if isinstance(spec, JobSpec) or (isinstance(spec, BaselineJob) and spec.method.name in _TRAINED):
        return spec
    expected = f"a search for a continuous prompt, or one of {', '.join(_TRAINED)}"
    found = "a prompt in words" if not isinstance(spec, BaselineJob) else f"what {spec.method_name} has learned"
    raise BbtuneError(f"expected a run that has found prompts in hidden states ({expected}), got {found}")


def plan_here(spec: BaseJob, reading: Reading) -> Plan:
    """How a run's texts are put to its model, loaded in this process; no data, and no API."""
    backbone = spec.backbone.model_copy(update={"api": None})
    return Plan(
        spec=spec.model_copy(update={"backbone": backbone}),
        kind=reading.kind,
        template=Template(reading.template, reading.kind),
        label_words=reading.label_words,
        train=(),
        dev=(),
    )


def _prompts(result: Learned, spec: JobSpec | BaselineJob, plan: Plan, model: FrozenModel) -> Prompts:
    if isinstance(spec, BaselineJob):
        learner = _TRAINED[spec.method.name](plan, model)
        learner.load({name: torch.from_numpy(array) for name, array in result.learned.items()})
        found = learner.prompts()
    else:
        shared = {name: getattr(plan, name) for name in ("kind", "template", "label_words", "train", "dev")}
        depth, layers = model.card.layer_count, tuned_layers(spec.prompt, model.card)
        search = SearchPlan(spec=spec, layers=layers, depth=depth, **shared)
        space = prompt_space(search, model, plan.encoder(model.card, with_prompt=True))
        found = space.prompts(result.learned["z"] * result.learned["scales"][:, None])
    return replace(found, layers={layer: prompt.detach().float().clone() for layer, prompt in found.layers.items()})
