"""Which model families are known, and where their parts are. Add a family by adding a row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Paths inside a transformers model.

    Attributes:
        layers: the list of layers, from the body (``model.base_model``).
        head: the language-modelling head, from the model with its head.
    """

    layers: str
    head: str


# transformers' ``config.model_type`` -> family
FAMILIES = {
    "bert": Family(layers="encoder.layer", head="cls"),
    "roberta": Family(layers="encoder.layer", head="lm_head"),
    "xlm-roberta": Family(layers="encoder.layer", head="lm_head"),
    "gpt2": Family(layers="h", head="lm_head"),
    "llama": Family(layers="layers", head="lm_head"),
    "mistral": Family(layers="layers", head="lm_head"),
    "qwen2": Family(layers="layers", head="lm_head"),
}
