"""Sizes of what was learned, layer by layer; no weights of the model are read."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from bbtune.backbone.sources import read_model_card
from bbtune.errors import BackboneError
from bbtune.methods import OWN_WEIGHTS
from bbtune.plan import Plan
from bbtune.prompts.space import PromptSpace
from bbtune.result import TuneResult
from bbtune.search_plan import tuned_layers
from bbtune.spec import JobSpec
from bbtune.task.template import Template

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)(?:\.|$)")

_ELSEWHERE = (
    "The model's files here are others than those of the run, or lie elsewhere: the sizes are right if its width and "
    "its tokenizer are the same."
)


@dataclass(frozen=True)
class Norms:
    """Sizes by layer.

    Attributes:
        natural: what to measure them by; empty where nothing is known.
        doubt: what may be wrong with them; empty where nothing is.
    """

    layers: tuple[int, ...]
    sizes: tuple[float, ...]
    natural: tuple[float, ...] = ()
    doubt: str = ""


def searched_norms(result: TuneResult) -> Norms:
    """Mean over prompt tokens of the length of ``A_l (scale_l z_l)``, and of a deviation of a natural hidden state.

    Raises:
        BackboneError: if the model's configuration cannot be read, or has not the layers of the run.
    """
    spec, reading = result.spec, result.reading
    if not isinstance(spec, JobSpec):
        raise TypeError(f"expected a search for a continuous prompt, got {spec.method_name}")
    card = read_model_card(spec.backbone)
    doubt = "" if card.fingerprint == result.fingerprints["model"] else _ELSEWHERE
    template, words = Template(reading.template, reading.kind), reading.label_words
    plan = Plan(spec=spec, kind=reading.kind, template=template, label_words=words, train=(), dev=())
    width = int(card.config.hidden_size)
    shape = (plan.encoder(card, with_prompt=True).prompt_length, width)
    layers, scales = tuned_layers(spec.prompt, card), result.learned["scales"]
    if len(layers) != len(scales):
        raise BackboneError(f"{spec.backbone.model} has {len(layers)} layers to tune, the run tuned {len(scales)}")
    sizes = []
    for layer, z, scale in zip(layers, result.learned["z"], scales, strict=True):
        space = PromptSpace(spec.seed, [layer], shape, spec.prompt.intrinsic_dim)  # one projection in memory at a time
        prompt = space.prompts((scale * z)[None]).layers[layer]
        sizes.append(float(prompt.norm(dim=1).mean()))
    stds = np.asarray(scales) * spec.method.sigma / spec.method.alpha
    return Norms(layers, tuple(sizes), tuple(float(std) * width**0.5 for std in stds), doubt)


def trained_norms(result: TuneResult) -> Norms | None:
    """Frobenius norms of what a baseline trained beside the model, by layer; None where nothing is of single layers."""
    squares: dict[int, float] = defaultdict(float)
    if result.spec.method_name in (*OWN_WEIGHTS, "setfit"):
        return None  # the norm of a weight says nothing of its change
    for name, array in result.learned.items():
        if found := _LAYER.search(name):
            squares[int(found[1])] += float(np.square(array.astype(np.float64)).sum())
    layers = tuple(sorted(squares))
    return Norms(layers, tuple(squares[layer] ** 0.5 for layer in layers)) if len(layers) > 1 else None
