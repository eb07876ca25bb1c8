"""How a prompt enters the hidden states: added to them (offset), or set in their place (prefix)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from bbtune.backbone.encoding import Batch
from bbtune.backbone.frozen import Edit, FrozenModel


def offset_edits(prompts: Mapping[int, Tensor], positions: range) -> dict[int, Edit]:
    """Add ``prompts[l]`` (T, H) to the hidden states at ``positions`` before layer l (BBTv2 section 3)."""

    def edit(prompt: Tensor) -> Edit:
        def add(hidden: Tensor) -> Tensor:
            hidden = hidden.clone()
            hidden[:, positions.start : positions.stop] += prompt.to(hidden.dtype)
            return hidden

        return add

    return {layer: edit(prompt) for layer, prompt in prompts.items()}


def prefix_edits(prompts: Mapping[int, Tensor], bases: Sequence[Tensor], positions: range) -> dict[int, Edit]:
    """Set the hidden states at ``positions`` to ``bases[l] + prompts[l]`` (T, H) before every layer l.

    What the prompt positions attend to never matters, because their states are set anew before each layer; real
    tokens attend to them. This equals a prefix of keys and values (P-Tuning v2, arXiv 2110.07602).
    """

    def edit(state: Tensor) -> Edit:
        def put(hidden: Tensor) -> Tensor:
            hidden = hidden.clone()
            hidden[:, positions.start : positions.stop] = state.to(hidden.dtype)
            return hidden

        return put

    return {layer: edit(base + prompts[layer] if layer in prompts else base) for layer, base in enumerate(bases)}


def prefix_bases(model: FrozenModel, prompt_alone: Batch, positions: range) -> list[Tensor]:
    """Hidden states (T, H) of the prompt text that enter each layer, run once without any input."""
    return [hidden[0, positions.start : positions.stop].float() for hidden in model.entering(prompt_alone, {})]
