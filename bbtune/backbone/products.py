"""Which matrix product is fastest on this machine, found out by a measurement of milliseconds at start.

MKL, behind torch's own ``linear``, runs at half speed on some processors where oneDNN does not; and bfloat16
products are slower than float32 ones on processors without the instructions for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # x (M, K), weight (N, K), bias (N,) -> (M, N)

_TRIAL = (512, 384, 1536)  # M, K, N: of a small model, milliseconds
_ROUNDS = 9
_GAIN = 1.1  # what another product must gain to be taken: less is noise

TORCH, ONEDNN, UPCAST = "torch's own", "oneDNN", "float32 on bfloat16 weights"


@dataclass(frozen=True)
class Products:
    """How a path multiplies.

    Args:
        name: TORCH, ONEDNN or UPCAST.
        weights: dtype of the weights.
    """

    name: str
    weights: torch.dtype

    @property
    def linear(self) -> Product:
        """``x @ weight.T + bias``."""
        return _PRODUCTS[self.name]

    @property
    def dtype(self) -> torch.dtype:
        """Of the hidden states between the products."""
        return torch.float32 if self.name == UPCAST else self.weights


def fastest_product(weights: torch.dtype, device: str, threads: int) -> str:
    """The name of the fastest product for weights of a dtype, measured in turns on this machine.

    Two measurements may differ, so a run makes one and hands it to every worker.
    """
    if device != "cpu":
        return TORCH
    names = [TORCH, *([ONEDNN] if onednn_works(weights) else []), *([UPCAST] if weights == torch.bfloat16 else [])]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        seconds = _seconds([Products(name, weights) for name in names])
    finally:
        torch.set_num_threads(before)
    return min(names, key=lambda name: seconds[name] * (1 if name == TORCH else _GAIN))


def fused(linears: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
    """Linear maps of one input as one; the stock modules become views of it, so that nothing is stored twice."""
    weight = torch.cat([linear.weight.data for linear in linears])
    bias = None if linears[0].bias is None else torch.cat([linear.bias.data for linear in linears])
    start = 0
    for linear in linears:
        stop = start + len(linear.weight)
        linear.weight.data = weight[start:stop]
        if bias is not None:
            linear.bias.data = bias[start:stop]
        start = stop
    return weight, bias


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]


def _in_float32(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return functional.linear(x, weight.float(), None if bias is None else bias.float())


def onednn_works(dtype: torch.dtype) -> bool:
    """A private operation of torch: it may be absent, or change what it takes or gives."""
    x, weight = torch.ones(2, 64, dtype=dtype), torch.full((32, 64), 0.5, dtype=dtype)
    try:
        got = _onednn(x, weight, None)
    except (AttributeError, RuntimeError, TypeError):
        return False
    expected = functional.linear(x, weight)
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=1e-2, atol=1e-3)


def _seconds(rivals: Sequence[Products]) -> dict[str, float]:
    """Shortest time of each, by name, measured in turns."""
    rows, inner, outer = _TRIAL
    found = {of.name: float("inf") for of in rivals}
    for _ in range(_ROUNDS):
        for of in rivals:
            x, weight = torch.ones(rows, inner, dtype=of.dtype), torch.ones(outer, inner, dtype=of.weights)
            start = time.perf_counter()
            of.linear(x, weight, None)
            found[of.name] = min(found[of.name], time.perf_counter() - start)
    return found


_PRODUCTS: dict[str, Product] = {TORCH: functional.linear, ONEDNN: _onednn, UPCAST: _in_float32}
