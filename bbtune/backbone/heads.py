"""From the state that is read to label logits."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from bbtune.backbone.frozen import FrozenModel


class WordHead:
    """Scores label words: the model's own head, its vocabulary cut down to the words.

    A label's logit is the log of the summed exponentials of its words'.

    Args:
        model: with its language-modelling head.
        words: token ids of each label's words.
    """

    def __init__(self, model: FrozenModel, words: Sequence[Tensor]) -> None:
        family, whole = model.card.family, model.model
        self._steps = [_step(whole, name) for name in family.transform]
        vocabulary = attrgetter(family.vocabulary)(whole)
        ids = torch.cat(list(words)).to(model.device)
        self._weight = vocabulary.weight[ids]
        bias = getattr(whole, "final_logits_bias", None)  # BART keeps it apart
        bias = vocabulary.bias if bias is None else bias[0]
        self._bias = None if bias is None else bias[ids].to(self._weight.dtype)
        self._cap = getattr(model.card.config, "final_logit_softcapping", None)
        self._sizes = [len(of_label) for of_label in words]

    def __call__(self, states: Tensor) -> Tensor:
        """Label logits (B, C) of last hidden states (B, H) at the position that is read."""
        states = states.to(self._weight.dtype)
        for step in self._steps:
            states = step(states)
        logits = torch.nn.functional.linear(states, self._weight, self._bias).float()
        if self._cap is not None:
            logits = torch.tanh(logits / self._cap) * self._cap
        return torch.stack([of.logsumexp(dim=-1) for of in torch.split(logits, self._sizes, dim=-1)], dim=-1)


class CosineHead:
    """Scores label descriptions: cosine over the temperature, exponentials summed per label.

    Args:
        labels: embeddings (descriptions, H) of each label.
        temperature: divides the cosines.
    """

    def __init__(self, labels: Sequence[Tensor], temperature: float) -> None:
        self._labels = [torch.nn.functional.normalize(of.float(), dim=-1) for of in labels]
        self._temperature = temperature

    def __call__(self, states: Tensor) -> Tensor:
        """Label logits (B, C) of mean states (B, H)."""
        pooled = torch.nn.functional.normalize(states.float(), dim=-1)
        return torch.stack([(pooled @ of.T / self._temperature).logsumexp(dim=-1) for of in self._labels], dim=-1)


def _step(model: Any, name: str) -> Any:
    return torch.nn.functional.gelu if name == "gelu" else attrgetter(name)(model)
