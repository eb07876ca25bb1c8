"""Texts of different prompts share a forward, and each gets the label logits that it gets alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from small_task import TEXTS

from bbtune.backbone.mixed import Asked, MixedPath, StockMixed, alike
from bbtune.backbone.mixed_encoder import PackedMixed, rounded
from bbtune.backbone.paths import choose_mixed
from bbtune.backbone.products import ONEDNN, TORCH, Products, onednn_works
from bbtune.backbone.prompted import Prompts
from bbtune.evaluation.scorer import load_model
from bbtune.plan import Plan, read_parts
from bbtune.task.task import Example
from bbtune.tuned import Tuned

# name of tests/tiny_models.py -> whether a path of our own is taken
FAMILIES = {
    "bert": True,
    "roberta": True,
    "xlm-roberta": True,
    "distilbert": True,
    "electra": True,
    "modernbert": False,
    "gpt2": False,
    "opt": False,
    "gpt_neox": False,
    "llama": False,
    "mistral": False,
    "qwen2": False,
    "qwen3": False,
    "gemma": False,
    "gemma2": False,
    "gemma3_text": False,
    "windowed": False,
    "t5": False,
    "flan-t5": False,
    "bart": False,
    "encoder": True,
    "roberta-encoder": True,
    "modernbert-encoder": False,
    "t5-encoder": False,
}
LONG = " and ".join(text for text, _ in TEXTS)
ASKED = [*(text for text, _ in TEXTS[:5]), LONG, "late"]


def plan_of(make_job, family: str, prompt: dict, template: str | None) -> Plan:
    task = {} if template is None or family.endswith("encoder") else {"template": template}
    spec = make_job(family, prompt=prompt, task=task)
    parts, faults = read_parts(spec, set())
    assert not faults, faults
    plan = parts.plan(spec)
    assert plan is not None
    return plan


def prompts_of(depth: int, tokens: int, width: int, seed: int, sets: bool, layers: Sequence[int] | None = None):
    rng = torch.Generator().manual_seed(seed)
    where = range(depth) if layers is None else layers
    return Prompts({layer: torch.randn(tokens, width, generator=rng) for layer in where}, sets)


def several(make_job, family: str) -> list[Tuned]:
    """Prompts of both kinds, of different lengths, at all layers or some, under different templates."""
    plans = [
        plan_of(make_job, family, {"tokens": 4, "kind": "prefix"}, None),
        plan_of(make_job, family, {"tokens": 7, "kind": "prefix", "text": "good or bad"}, "so {text} is {mask}"),
        plan_of(make_job, family, {"tokens": 5, "kind": "offset"}, "it was {text} . {mask}"),
        plan_of(make_job, family, {"tokens": 2, "kind": "offset"}, None),
        plan_of(make_job, family, {"tokens": 3, "kind": "prefix"}, "{text} {mask}"),
    ]
    model = load_model(plans[0])
    shape = model.card.layer_count, model.hidden_size
    kinds = [(True, None), (True, None), (False, None), (False, [1]), (True, [0])]  # the last: as prompt tuning does
    return [
        Tuned(plan, ("bad", "good"), model, prompts_of(shape[0], plan.spec.prompt.tokens, shape[1], seed, sets, layers))
        for seed, (plan, (sets, layers)) in enumerate(zip(plans, kinds, strict=True))
    ]


def mixed_logits(path: MixedPath, asked: Sequence[tuple[Tuned, Example]]) -> np.ndarray:
    """Of all texts in one call."""
    held = {id(tuned): path.hold(tuned.prompts, tuned.encoder) for tuned, _ in asked}
    states = path.states([Asked(held[id(tuned)], tuned.encoder.row(example)) for tuned, example in asked])
    with torch.inference_mode():
        return np.stack([tuned.head(state[None])[0].numpy() for (tuned, _), state in zip(asked, states, strict=True)])


def every(tuned: Sequence[Tuned]) -> list[tuple[Tuned, Example]]:
    """Every text under every prompt, in an order in which neighbours have neither in common."""
    pairs = [(of, Example(text, None, 0)) for text in ASKED for of in tuned]
    return pairs[::2] + pairs[1::2]


def alone(asked: Sequence[tuple[Tuned, Example]]) -> np.ndarray:
    """By the stock layers, one text at a time."""
    return np.concatenate([tuned.label_logits([example]) for tuned, example in asked])


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_of_different_prompts_and_kinds_in_one_batch_have_the_label_logits_that_each_has_alone(make_job, family):
    tuned = several(make_job, family)
    path = choose_mixed(tuned[0].model, 96, Products(TORCH, torch.float32))
    assert isinstance(path, PackedMixed) == FAMILIES[family]
    asked = every(tuned)
    np.testing.assert_allclose(mixed_logits(path, asked), alone(asked), atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "encoder"])
def test_the_stock_layers_and_the_packed_ones_agree(make_job, family):
    tuned = several(make_job, family)
    asked = every(tuned)
    np.testing.assert_allclose(
        mixed_logits(StockMixed(tuned[0].model), asked),
        mixed_logits(PackedMixed(tuned[0].model, Products(TORCH, torch.float32)), asked),
        atol=1e-4,
    )


@pytest.mark.skipif(not onednn_works(torch.float32), reason="this torch has no such product")
def test_the_other_matrix_product_gives_the_same(make_job):
    tuned = several(make_job, "encoder")
    asked = every(tuned)
    found = mixed_logits(PackedMixed(tuned[0].model, Products(ONEDNN, torch.float32)), asked)
    np.testing.assert_allclose(found, alone(asked), atol=1e-4)


def test_a_text_has_the_same_label_logits_whatever_shares_its_batch(make_job):
    tuned = several(make_job, "encoder")
    path = choose_mixed(tuned[0].model, 96, Products(TORCH, torch.float32))
    one = (tuned[1], Example("a great film", None, 0))
    found = [mixed_logits(path, [one, *others])[0] for others in ([], every(tuned)[:3], every(tuned))]
    np.testing.assert_allclose(found, [found[0]] * 3, atol=1e-5)


def test_a_prompt_behind_the_text_shares_a_batch_with_others(make_job):
    tuned = several(make_job, "llama")
    plan = plan_of(make_job, "llama", {"tokens": 4, "kind": "offset", "place": "after"}, "{text} it was {mask}")
    model = tuned[0].model
    behind = Tuned(plan, ("bad", "good"), model, prompts_of(3, 4, model.hidden_size, 9, sets=False))
    asked = every([*tuned, behind])
    found = mixed_logits(choose_mixed(model, 96, Products(TORCH, torch.float32)), asked)
    np.testing.assert_allclose(found, alone(asked), atol=1e-4)


def test_of_a_prefix_of_every_layer_only_the_keys_and_values_are_kept(make_job):
    tuned = several(make_job, "encoder")
    path = PackedMixed(tuned[0].model, Products(TORCH, torch.float32))
    kept = [path.hold(of.prompts, of.encoder).kept for of in tuned]
    assert [bool(of) for of in kept] == [True, True, False, False, False]
    width = tuned[0].model.hidden_size
    assert [tuple(of.shape) for of in kept[0]] == [(4, 2 * width)] * 3


def test_rows_are_grouped_so_that_little_is_padded():
    lengths = [10, 200, 12, 11, 190, 9, 40]
    groups = alike(lengths)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert [sorted(lengths[i] for i in group) for group in groups] == [[9, 10, 11, 12], [40], [190, 200]]
    assert max(len(group) for group in alike([200] * 100)) * 200 <= 4096


def test_few_numbers_of_rows_are_put_to_the_model():
    found = [rounded(rows) for rows in range(1, 8193)]
    assert all(rows <= one <= rows + max(7, rows / 8) for rows, one in enumerate(found, start=1))
    assert len(set(found)) < 80
