"""Continuous prompts: a random projection of a few hundred numbers per layer (Sun et al. 2022, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbtune.seeds import generator


class PromptSpace:
    """Random projections A_l from z_l (D,) to a prompt (T, H), one per tuned layer.

    Entries of A_l are N(0, 1) / sqrt(D); the calibrated scale is a factor of z (:func:`layer_scales`), so that a
    worker needs the seed and nothing that was measured.

    Args:
        seed: of the job.
        layers: tuned layers, in the order of z's first dimension.
        tokens: T.
        hidden_size: H.
        intrinsic_dim: D.
        device: where the projections lie.
    """

    def __init__(
        self, seed: int, layers: Sequence[int], tokens: int, hidden_size: int, intrinsic_dim: int, device: str = "cpu"
    ) -> None:
        self.layers = tuple(layers)
        self._shape = (tokens, hidden_size)
        self._projections = [
            self._draw(seed, layer, tokens * hidden_size, intrinsic_dim).to(device) for layer in self.layers
        ]
        self._last: list[tuple[bytes, Tensor] | None] = [None] * len(self.layers)

    def prompts(self, z: NDArray[np.float64]) -> dict[int, Tensor]:
        """Prompts (T, H) by layer, for scaled z (L, D)."""
        return {layer: self._project(i, z[i]) for i, layer in enumerate(self.layers)}

    def _project(self, i: int, z: NDArray[np.float64]) -> Tensor:
        # A layerwise search changes one layer at a time: the others' last prompts are kept.
        key = z.tobytes()
        last = self._last[i]
        if last is None or last[0] != key:
            values = torch.from_numpy(np.array(z, dtype=np.float32)).to(self._projections[i].device)
            self._last[i] = last = (key, (self._projections[i] @ values).reshape(self._shape))
        return last[1]

    @staticmethod
    def _draw(seed: int, layer: int, rows: int, dim: int) -> Tensor:
        entries = generator(seed, "projection", layer).standard_normal((rows, dim), dtype=np.float32)
        return torch.from_numpy(entries / np.float32(np.sqrt(dim)))


def layer_scales(stds: NDArray[np.float64], alpha: float, sigma: float) -> NDArray[np.float64]:
    """Factors of z per tuned layer, ``alpha * std_l / sigma`` (BBTv2 eq. 6, its 1 / sqrt(D) is in the projection).

    A first population of step sigma then gives prompts whose entries have the standard deviation alpha * std_l.
    """
    return alpha * stds / sigma
