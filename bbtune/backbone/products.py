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

_ROWS = 512  # of the trial: as many as a small candidate has
_ROUNDS = 7
_GAIN = 1.1  # what another product must gain to be taken: less is noise


@dataclass(frozen=True)
class Products:
    """How a path multiplies.

    Attributes:
        name: of the product, for people.
        linear: ``x @ weight.T + bias``.
        dtype: of the hidden states between the products.
    """

    name: str
    linear: Product
    dtype: torch.dtype


def choose_products(weight: Tensor) -> Products:
    """The fastest product for weights like ``weight`` (N, K), on its device and in its dtype."""
    stock = Products("torch's own", functional.linear, weight.dtype)
    if weight.device.type != "cpu":
        return stock
    rivals = [Products("oneDNN", _onednn, weight.dtype)] if _onednn_works(weight) else []
    if weight.dtype == torch.bfloat16:
        rivals.append(Products("float32 on bfloat16 weights", _in_float32, torch.float32))
    best, shortest = stock, _seconds(stock, weight)
    for rival in rivals:
        seconds = _seconds(rival, weight)
        if seconds * _GAIN < shortest:
            best, shortest = rival, seconds
    return best


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


def _onednn_works(weight: Tensor) -> bool:
    """A private operation of torch: it may be absent, or change what it takes or gives."""
    x = torch.ones(2, weight.shape[1], dtype=weight.dtype)
    try:
        got = _onednn(x, weight, None)
    except (AttributeError, RuntimeError, TypeError):
        return False
    expected = functional.linear(x, weight)
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=1e-2, atol=1e-3)


def _seconds(products: Products, weight: Tensor) -> float:
    x = torch.ones(_ROWS, weight.shape[1], dtype=products.dtype)
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        products.linear(x, weight, None)
        times.append(time.perf_counter() - start)
    return min(times)
