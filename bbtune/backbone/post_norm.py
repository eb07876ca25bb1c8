"""The parts of encoder layers of the BERT kind, in the memory of the stock model."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bbtune.backbone.families import PostNorm
from bbtune.backbone.packing import chunks
from bbtune.backbone.products import fused

Weights = tuple[Tensor, Tensor | None]  # (N, K), (N,)
Linear = Callable[[Tensor, Weights], Tensor]

_AT_ONCE = 1024  # rows of one pass behind the attention


class _Norm:
    """A layer normalisation in the dtype of the hidden states."""

    def __init__(self, norm: Any, dtype: torch.dtype) -> None:
        self._shape = norm.normalized_shape
        self._weight, self._bias = norm.weight.to(dtype), norm.bias.to(dtype)
        self._eps = norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self._shape, self._weight, self._bias, self._eps)


class PostNormLayer:
    """The weights of one layer.

    Attributes:
        qkv: query, key and value as one product (3H, H).
        queries, keys_values: parts of it (H, H) and (2H, H).
    """

    def __init__(self, layer: Any, names: PostNorm, dtype: torch.dtype) -> None:
        def part(name: str) -> Any:
            return attrgetter(name)(layer)

        self.qkv = fused([part(names.query), part(names.key), part(names.value)])
        weight, bias = self.qkv
        width = weight.shape[1]
        self.queries: Weights = weight[:width], None if bias is None else bias[:width]
        self.keys_values: Weights = weight[width:], None if bias is None else bias[width:]
        self.out, self.up, self.down = (
            (linear.weight, linear.bias) for linear in (part(names.out), part(names.up), part(names.down))
        )
        self.act = _in_place(part(names.act))
        self.norm, self.last_norm = _Norm(part(names.norm), dtype), _Norm(part(names.last_norm), dtype)

    def behind(self, linear: Linear, mixed: Tensor, state: Tensor) -> Tensor:
        """The rest of the layer behind its attention, some rows at a time so that they stay in the cache.

        Args:
            linear: ``x @ weight.T + bias``.
            mixed: what the attention gave (R, H), before its output product.
            state: what entered the layer (R, H).
        """
        found = torch.empty_like(mixed)
        for some in chunks(len(mixed), _AT_ONCE):
            rows = self.norm(linear(mixed[some], self.out).add_(state[some]))
            inner = self.act(linear(rows, self.up))
            found[some] = self.last_norm(linear(inner, self.down).add_(rows))
        return found


def _in_place(act: Any) -> Any:
    """The activation, overwriting its input where torch can."""
    if type(act).__name__ == "GELUActivation":  # by name: transformers is imported only when it has been made quiet
        return lambda x: torch.ops.aten.gelu.out(x, out=x)
    return act
