"""Whatever product is chosen gives what ``linear`` gives, and its absence is no fault."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Linear, functional
from trials import examples, make_trial, numbers

from bbtune.backbone import products
from bbtune.backbone.products import Products, choose_products, fused

SHAPES = [(2, 3), (64, 32), (33, 65), (96, 17)]
WITHIN = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def taken(monkeypatch: pytest.MonkeyPatch, wanted: str, weight: Tensor) -> Products:
    """What is chosen where ``wanted`` is by far the fastest."""
    monkeypatch.setattr(products, "_seconds", lambda of, _: 1.0 if of.name == wanted else 2.0)
    return choose_products(weight)


def all_products(monkeypatch: pytest.MonkeyPatch, weight: Tensor) -> list[Products]:
    names = ["torch's own", "oneDNN", "float32 on bfloat16 weights"]
    return list({found.name: found for found in (taken(monkeypatch, name, weight) for name in names)}.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [(1,), (5, 1), (2, 3, 4), (1, 700)])
@pytest.mark.parametrize("biased", [False, True])
def test_every_product_gives_what_linear_gives(dtype, shape, rows, biased, monkeypatch):
    weight, bias = drawn(*shape, dtype=dtype), drawn(shape[0], dtype=dtype, seed=1) if biased else None
    found = all_products(monkeypatch, weight)
    assert len(found) >= 1 + (dtype == torch.bfloat16)
    for each in found:
        x = drawn(*rows, shape[1], dtype=each.dtype, seed=2)
        got = each.linear(x, weight, bias)
        exact = functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
        assert got.dtype == each.dtype
        assert got.shape == exact.shape
        assert (got - exact).abs().max() < WITHIN[each.dtype] * max(1.0, float(exact.abs().max()))


def test_float32_products_on_bfloat16_weights_round_only_the_weights(monkeypatch):
    weight = drawn(64, 32, dtype=torch.bfloat16)
    found = taken(monkeypatch, "float32 on bfloat16 weights", weight)
    assert (found.name, found.dtype) == ("float32 on bfloat16 weights", torch.float32)
    x = drawn(7, 32, seed=3)
    assert torch.equal(found.linear(x, weight, None), functional.linear(x, weight.float()))


def test_a_slice_of_a_larger_weight_is_multiplied_as_itself(monkeypatch):
    whole, x = drawn(96, 32), drawn(3, 5, 32, seed=4)
    for each in all_products(monkeypatch, whole):
        assert torch.allclose(each.linear(x, whole[32:64], None), functional.linear(x, whole[32:64]), atol=1e-5)


class _Absent:
    """Stands for ``torch.ops`` of a torch without the private operation."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


@pytest.mark.parametrize("error", [AttributeError("no such operation"), RuntimeError("built without oneDNN")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_the_private_operation_another_product_is_taken(error, dtype, monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", _Absent(error))
    found = taken(monkeypatch, "oneDNN", drawn(64, 32, dtype=dtype))
    assert found.name == "torch's own"
    assert found.linear is functional.linear


@pytest.mark.parametrize(
    "other",
    [lambda x, weight, *_: x @ weight.T + 1, lambda x, weight: x @ weight.T, lambda x, weight, *_: weight @ x.T],
)
def test_a_private_operation_that_has_changed_is_not_used(other, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", other)
    assert taken(monkeypatch, "oneDNN", drawn(64, 32)).name == "torch's own"


def test_a_gain_within_the_noise_changes_nothing(monkeypatch):
    monkeypatch.setattr(products, "_seconds", lambda of, _: 1.0 if of.name == "torch's own" else 0.95)
    assert choose_products(drawn(64, 32)).name == "torch's own"


@pytest.mark.parametrize("family", ["bert", "encoder", "llama", "qwen2"])
@pytest.mark.parametrize("name", ["torch's own", "oneDNN"])
def test_a_path_gives_the_same_logits_with_every_product(family, name, make_job, monkeypatch):
    monkeypatch.setattr(products, "_seconds", lambda of, _: 1.0 if of.name == name else 2.0)
    trial = make_trial(make_job, (family, "offset", "before", False))
    if name not in trial.path.name:
        pytest.skip(f"this torch has no {name}")
    trial.use(examples((3, 1, 7, 3)))
    for first in (0, 2):
        z = numbers(2, first, first)
        assert trial.off(z, "train", trial.candidates(z, "train", first)) < 1e-4


@pytest.mark.parametrize("biased", [False, True])
def test_fused_maps_are_one_product_and_store_nothing_twice(biased):
    maps = [Linear(8, width, bias=biased).requires_grad_(False) for width in (8, 4, 4)]
    x = drawn(3, 8)
    expected = torch.cat([each(x) for each in maps], dim=-1)
    weight, bias = fused(maps)
    assert torch.allclose(functional.linear(x, weight, bias), expected, atol=1e-6)
    assert torch.allclose(torch.cat([each(x) for each in maps], dim=-1), expected, atol=1e-6)
    assert (bias is not None) == biased
    for name, whole in [("weight", weight), ("bias", bias)][: 1 + biased]:
        places = [getattr(each, name).data_ptr() for each in maps]
        assert places == [whole.data_ptr(), whole[8:].data_ptr(), whole[12:].data_ptr()]
