"""A prompt in hidden states: what is added to them, or set in their place, before each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

_NOTHING: Mapping[int, Tensor] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Prompts:
    """One candidate.

    Attributes:
        layers: by layer, (T, H) for the prompt's positions. The same tensor object means the same numbers: what was
            computed under it may be kept.
        sets: whether they take the place of the hidden states there (prefix), or are added to them (offset).
    """

    layers: Mapping[int, Tensor] = field(default_factory=lambda: _NOTHING)
    sets: bool = False

    def below(self, layer: int) -> tuple[Tensor | None, ...]:
        """What the hidden states that enter ``layer`` rest on."""
        return tuple(self.layers.get(i) for i in range(layer))


def put(hidden: Tensor, start: Tensor, prompt: Tensor, sets: bool) -> Tensor:
    """Hidden states (B, S, H) with ``prompt`` (T, H) at the T positions from ``start`` (B,) on."""
    rows = torch.arange(len(hidden), device=hidden.device)[:, None]
    places = start.to(hidden.device)[:, None] + torch.arange(len(prompt), device=hidden.device)
    hidden, prompt = hidden.clone(), prompt.to(hidden.dtype)
    hidden[rows, places] = prompt if sets else hidden[rows, places] + prompt
    return hidden
