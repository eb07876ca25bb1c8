"""The natural scale of hidden states, which prompts are measured in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bbtune.backbone.encoding import Batch
from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.prompted import Prompts

_AT_ONCE = 2**27  # hidden states held at a time, as float32: half a GiB; a large model takes several passes


def clipped_std(values: Tensor) -> float:
    """Standard deviation after clipping to mean +- 3 std, five times, as the BBTv2 code does."""
    values = values.double()
    for _ in range(5):
        mean, std = values.mean(), values.std(unbiased=False)
        values = values.clamp(mean - 3 * std, mean + 3 * std)
    return float(values.std(unbiased=False))


def layer_stds(model: FrozenModel, batches: Sequence[Batch], prompts: Prompts) -> np.ndarray:
    """Standard deviation (L,) of the hidden states that enter each layer, padding left out.

    Args:
        batches: the train examples.
        prompts: what stands in the place of the prompt while measuring.
    """
    numbers = sum(int(batch.mask.sum()) for batch in batches) * model.hidden_size
    at_once = max(1, _AT_ONCE // numbers)
    stds: list[float] = []
    for first in range(0, len(model.layers), at_once):
        seen: list[list[Tensor]] = [[] for _ in model.layers[first : first + at_once]]
        for batch in batches:
            real = batch.mask.bool().to(model.embeddings.device)
            for values, hidden in zip(seen, model.entering(batch, prompts)[first:], strict=False):
                values.append(hidden[real].flatten().cpu().float())
        stds += [clipped_std(torch.cat(values)) for values in seen]
    return np.array(stds)
