"""Texts of different prompts in one forward: every row has its own prompt, and is read in its own place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbtune.backbone.encoding import Encoder, Row
from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.prompted import Prompts

_SLACK = 1.25, 4  # a row is padded by at most a quarter of the shortest one's length, and four tokens
_TOKENS = 4096  # of one padded batch


@dataclass(frozen=True, eq=False)
class Held:
    """A prompt made ready for a path.

    Attributes:
        prompts: by layer.
        encoder: of rows with room for it.
        kept: by layer, keys and values (T, 2H) that stand for the prompt's rows; empty where those run.
    """

    prompts: Prompts
    encoder: Encoder
    kept: tuple[Tensor, ...] = ()

    @property
    def tokens(self) -> int:
        """T."""
        return self.encoder.prompt_length

    @property
    def hidden(self) -> int:
        """How many of a row's positions are no outputs: T of a prefix, else 0."""
        return self.tokens if self.prompts.sets else 0


@dataclass(frozen=True, eq=False)
class Asked:
    """A text and the prompt that it is asked under."""

    held: Held
    row: Row


class MixedPath(ABC):
    """One way through the layers of a model for texts of different prompts.

    Args:
        model: whose layers run.
    """

    name: str

    def __init__(self, model: FrozenModel) -> None:
        self.model = model

    def hold(self, prompts: Prompts, encoder: Encoder) -> Held:
        """Make a prompt ready: what is the same for all of its texts is computed here."""
        return Held(prompts, encoder)

    @abstractmethod
    def states(self, asked: Sequence[Asked]) -> Tensor:
        """The states (N, H) that are scored."""


class StockMixed(MixedPath):
    """Any family's own layers, with every row's prompt put in before each of them."""

    name = "the model's own layers"

    @torch.inference_mode()
    def states(self, asked: Sequence[Asked]) -> Tensor:
        """The states (N, H) that are scored, rows of about one length at a time."""
        found: list[Tensor | None] = [None] * len(asked)
        for group in alike([len(one.row.ids) for one in asked]):
            for i, state in zip(group, self._batch([asked[i] for i in group]), strict=True):
                found[i] = state
        return torch.stack([state for state in found if state is not None])

    def _batch(self, asked: Sequence[Asked]) -> Tensor:
        batch = asked[0].held.encoder.batch([one.row for one in asked])
        places = [torch.arange(one.held.tokens) + one.row.prompt for one in asked]
        at = [(torch.full_like(place, i), place) for i, place in enumerate(places)]
        changes = [self._change(asked, at, layer) for layer in range(len(self.model.layers))]

        def change(layer: int, hidden: Tensor) -> Tensor:
            return hidden if (of := changes[layer]) is None else of.put(hidden)

        hidden = torch.tensor([one.held.hidden for one in asked])
        return self.model.readout(batch, self.model.changed(batch, change), hidden)

    def _change(self, asked: Sequence[Asked], at: Sequence[tuple[Tensor, ...]], layer: int) -> Change | None:
        """What the prompts that have the layer put into its input, at their places."""
        putting = [i for i, one in enumerate(asked) if layer in one.held.prompts.layers]
        return change_of([at[i] for i in putting], [asked[i].held.prompts for i in putting], layer, self.model.device)


@dataclass(frozen=True, eq=False)
class Change:
    """What is put into the hidden states that enter a layer.

    Attributes:
        at: an index of K positions in them.
        values: (K, H).
        adds: (K, 1), whether a value is added to what is there, or takes its place.
    """

    at: tuple[Tensor, ...]
    values: Tensor
    adds: Tensor

    def put(self, hidden: Tensor) -> Tensor:
        """The hidden states, changed."""
        hidden, values = hidden.clone(), self.values.to(hidden.dtype)
        hidden[self.at] = torch.where(self.adds, hidden[self.at] + values, values)
        return hidden


def change_of(
    places: Sequence[tuple[Tensor, ...]], prompts: Sequence[Prompts], layer: int, device: torch.device
) -> Change | None:
    """The change of a layer's input by prompts at their places, one index of T positions each; None without any."""
    if not places:
        return None
    at = tuple(torch.cat(parts).to(device) for parts in zip(*places, strict=True))
    adds = torch.cat([torch.full((len(of.layers[layer]), 1), not of.sets) for of in prompts]).to(device)
    return Change(at, torch.cat([of.layers[layer] for of in prompts]).to(device), adds)


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of rows by length, in groups that need little padding and fit into memory."""
    factor, more = _SLACK
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        group = groups[-1] if groups else []
        close = bool(group) and lengths[i] <= factor * lengths[group[0]] + more
        if close and lengths[i] * (len(group) + 1) <= _TOKENS:
            group.append(i)
        else:
            groups.append([i])
    return groups
