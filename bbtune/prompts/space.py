"""Continuous prompts: a random projection of a few hundred numbers per layer (Sun et al. 2022, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbtune.backbone.encoding import Encoder
from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.prompted import Prompts
from bbtune.seeds import generator


class PromptSpace:
    """Random projections A_l from z_l (D,) to a prompt (T, H), one per tuned layer.

    Entries of A_l are N(0, 1) / sqrt(D); the calibrated scale is a factor of z (:func:`layer_scales`), so that a
    worker needs the seed and nothing that was measured.

    Args:
        seed: of the job.
        layers: tuned layers, in the order of z's first dimension.
        shape: (T, H).
        intrinsic_dim: D.
        bases: of prefix prompts, (T, H) for every layer of the model: what the prompts are added to.
        device: where the projections lie.
    """

    def __init__(
        self,
        seed: int,
        layers: Sequence[int],
        shape: tuple[int, int],
        intrinsic_dim: int,
        bases: Sequence[Tensor] = (),
        device: torch.device | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self._shape = shape
        self._bases = list(bases)
        self._projections = [self._draw(seed, layer, intrinsic_dim).to(device) for layer in self.layers]
        self._last: list[tuple[bytes, Tensor] | None] = [None] * len(self.layers)

    @property
    def sets(self) -> bool:
        """Whether prompts set hidden states (prefix) or are added to them (offset)."""
        return bool(self._bases)

    @property
    def bases(self) -> Prompts:
        """What stands in the place of a prompt that has not been found yet."""
        return Prompts(dict(enumerate(self._bases)), self.sets)

    def prompts(self, z: NDArray[np.float64]) -> Prompts:
        """Prompts of scaled z (L, D)."""
        found = dict(enumerate(self._bases))
        return Prompts(found | {layer: self._project(i, z[i]) for i, layer in enumerate(self.layers)}, self.sets)

    def _project(self, i: int, z: NDArray[np.float64]) -> Tensor:
        # A layerwise search changes one layer at a time: the others' last prompts are kept, and being the same
        # objects they tell the evaluator that nothing has changed.
        key = z.tobytes()
        last = self._last[i]
        if last is None or last[0] != key:
            values = torch.from_numpy(np.array(z, dtype=np.float32)).to(self._projections[i].device)
            prompt = (self._projections[i] @ values).reshape(self._shape)
            self._last[i] = last = (key, prompt + self._bases[self.layers[i]] if self._bases else prompt)
        return last[1]

    def _draw(self, seed: int, layer: int, dim: int) -> Tensor:
        rows = self._shape[0] * self._shape[1]
        entries = generator(seed, "projection", layer).standard_normal((rows, dim), dtype=np.float32)
        return torch.from_numpy(entries / np.float32(np.sqrt(dim)))


def layer_scales(stds: NDArray[np.float64], alpha: float, sigma: float) -> NDArray[np.float64]:
    """Factors of z per tuned layer, ``alpha * std_l / sigma`` (BBTv2 eq. 6, its 1 / sqrt(D) is in the projection).

    A first population of step sigma then gives prompts whose entries have the standard deviation alpha * std_l.
    """
    return alpha * stds / sigma


def prefix_bases(model: FrozenModel, encoder: Encoder) -> list[Tensor]:
    """Hidden states (T, H) of the prompt text that enter each layer, run once without any input.

    What the prompt positions attend to never matters, because their states are set anew before each layer; real
    tokens attend to them. This equals a prefix of keys and values (P-Tuning v2, arXiv 2110.07602).
    """
    alone = encoder.prompt_alone()
    span = slice(alone.prompt, alone.prompt + encoder.prompt_length)
    return [hidden[0, span].float() for hidden in model.entering(encoder.batch([alone]))]
