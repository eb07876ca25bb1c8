"""Whatever product is chosen gives what ``linear`` gives, and its absence is no fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Linear, functional
from trials import DECODERS, PACKED, Trial, examples, numbers

from bbtune.backbone import products
from bbtune.backbone.products import ONEDNN, TORCH, UPCAST, Products, fastest_product, fused
from bbtune.examine import make_plan

SHAPES = [(2, 3), (64, 32), (33, 65), (96, 17)]
WITHIN = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def fastest_if(monkeypatch: pytest.MonkeyPatch, wanted: str, dtype: torch.dtype, seconds: float = 0.1) -> str:
    """What is chosen where ``wanted`` takes so long, and every other product one second."""
    monkeypatch.setattr(
        products, "_seconds", lambda rivals: {of.name: seconds if of.name == wanted else 1.0 for of in rivals}
    )
    return fastest_product(dtype, "cpu", 1)


def usable(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> list[Products]:
    """Every product that this torch has."""
    return [Products(name, dtype) for name in (TORCH, ONEDNN, UPCAST) if fastest_if(monkeypatch, name, dtype) == name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [(1,), (5, 1), (2, 3, 4), (1, 300)])
@pytest.mark.parametrize("biased", [False, True])
def test_every_product_gives_what_linear_gives(dtype, shape, rows, biased, monkeypatch):
    weight, bias = drawn(*shape, dtype=dtype), drawn(shape[0], dtype=dtype, seed=1) if biased else None
    for each in usable(monkeypatch, dtype):
        x = drawn(*rows, shape[1], dtype=each.dtype, seed=2)
        got = each.linear(x, weight, bias)
        exact = functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
        assert got.dtype == each.dtype
        assert got.shape == exact.shape
        assert (got - exact).abs().max() < WITHIN[each.dtype] * max(1.0, float(exact.abs().max()))


@pytest.mark.parametrize(("dtype", "upcast"), [(torch.float32, False), (torch.bfloat16, True)])
def test_only_bfloat16_weights_are_multiplied_in_another_dtype(dtype, upcast, monkeypatch):
    names = [each.name for each in usable(monkeypatch, dtype)]
    assert TORCH in names
    assert (UPCAST in names) == upcast


def test_float32_products_on_bfloat16_weights_round_only_the_weights():
    weight, x = drawn(64, 32, dtype=torch.bfloat16), drawn(7, 32, seed=3)
    upcast = Products(UPCAST, torch.bfloat16)
    assert upcast.dtype == torch.float32
    assert torch.equal(upcast.linear(x, weight, None), functional.linear(x, weight.float()))


def test_a_slice_of_a_larger_weight_is_multiplied_as_itself(monkeypatch):
    whole, x = drawn(96, 32), drawn(3, 5, 32, seed=4)
    for each in usable(monkeypatch, torch.float32):
        assert torch.allclose(each.linear(x, whole[32:64], None), functional.linear(x, whole[32:64]), atol=1e-5)


class _Absent:
    """Stands for ``torch.ops.mkldnn`` of a torch without the private operation."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


@pytest.mark.parametrize("error", [AttributeError("no such operation"), RuntimeError("built without oneDNN")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_the_private_operation_another_product_is_taken(error, dtype, monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", _Absent(error))
    assert fastest_if(monkeypatch, ONEDNN, dtype) == TORCH


@pytest.mark.parametrize(
    "other",
    [lambda x, weight, *_: x @ weight.T + 1, lambda x, weight: x @ weight.T, lambda x, weight, *_: weight @ x.T],
)
def test_a_private_operation_that_has_changed_is_not_used(other, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", other)
    assert fastest_if(monkeypatch, ONEDNN, torch.float32) == TORCH


def test_a_gain_within_the_noise_changes_nothing(monkeypatch):
    assert fastest_if(monkeypatch, UPCAST, torch.bfloat16, seconds=0.95) == TORCH
    assert fastest_if(monkeypatch, UPCAST, torch.bfloat16, seconds=0.85) == UPCAST


def test_measuring_leaves_the_number_of_threads_as_it_was():
    before = torch.get_num_threads()
    assert fastest_product(torch.float32, "cpu", before + 1) in (TORCH, ONEDNN)
    assert torch.get_num_threads() == before
    assert fastest_product(torch.float32, "cuda", 1) == TORCH


@pytest.mark.parametrize(
    ("family", "place"), [*((name, "before") for name in PACKED + DECODERS), ("llama", "after"), ("qwen2", "after")]
)
@pytest.mark.parametrize("name", [TORCH, ONEDNN])
def test_a_path_multiplies_as_the_plan_says_and_gives_the_same_logits(family, name, place, make_job, monkeypatch):
    if fastest_if(monkeypatch, name, torch.float32) != name:
        pytest.skip(f"this torch has no {name}")
    plan, _, _ = make_plan(make_job(family, prompt={"kind": "offset", "place": place}))
    trial = Trial(replace(plan, product=name))
    assert trial.path.name.endswith(f"products by {name}")
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
