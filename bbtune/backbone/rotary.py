"""The parts of decoder layers of the Llama kind, in the memory of the stock model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bbtune.backbone.products import fused

KeysValues = tuple[Tensor, Tensor]  # each (B, K, kv heads, head size)
Turn = tuple[Tensor, Tensor]  # cosines and sines (R, 1, head size) of positions


class RmsNorm:
    """An RMS norm in the dtype of the hidden states."""

    def __init__(self, norm: Any, offset: float, dtype: torch.dtype) -> None:
        self._weight = (norm.weight.float() + offset).to(dtype)
        self._eps = getattr(norm, "variance_epsilon", None) or norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self._weight.shape, self._weight, self._eps)


class RotaryLayer:
    """The weights of one layer, in the memory of the stock model."""

    def __init__(self, layer: Any, offset: float, dtype: torch.dtype) -> None:
        attend, mlp = layer.self_attn, layer.mlp
        self.head_size = int(attend.head_dim)
        self.q_width = len(attend.q_proj.weight)
        self.qkv = fused([attend.q_proj, attend.k_proj, attend.v_proj])
        self.out = (attend.o_proj.weight, attend.o_proj.bias)
        self.gate_up = fused([mlp.gate_proj, mlp.up_proj])
        self.down = (mlp.down_proj.weight, mlp.down_proj.bias)
        self.act = mlp.act_fn
        self.norm = RmsNorm(layer.input_layernorm, offset, dtype)
        self.last_norm = RmsNorm(layer.post_attention_layernorm, offset, dtype)
        self.q_norm, self.k_norm = (
            RmsNorm(norm, offset, dtype) if (norm := getattr(attend, name, None)) is not None else None
            for name in ("q_norm", "k_norm")
        )


def turned_heads(x: Tensor, norm: RmsNorm | None, head_size: int, turn: Turn | None) -> Tensor:
    """x (..., R, width) as heads (..., R, heads, head size), normalised if the model does, turned to its positions."""
    x = heads(x, head_size)
    if norm is not None:
        x = norm(x)
    return x if turn is None else rotated(x, turn)


def heads(x: Tensor, head_size: int) -> Tensor:
    """x (..., width) as (..., heads, head size)."""
    return x.reshape(*x.shape[:-1], -1, head_size)


def rotated(x: Tensor, turn: Turn) -> Tensor:
    """x (..., R, heads, head size) turned to its positions."""
    cos, sin = turn
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """(queries, keys): the last queries see what stands before them."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
