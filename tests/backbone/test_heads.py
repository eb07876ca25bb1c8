"""Label words get the logits of the stock head, and paths lie in the stock model's memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from stock import Line, Stock, stock_of
from tiny_models import MAKERS
from trials import (
    DECODERS,
    MIXED,
    PACKED,
    WITHIN,
    examples,
    make_trial,
    numbers,
)

from bbtune.backbone.heads import WordHead


@pytest.fixture(scope="module")
def trial_of(make_job):
    """Trials by setting; each test gives them the texts it wants."""
    return cache(lambda setting: make_trial(make_job, setting))


HEADED = [name for name in MAKERS if not name.endswith("encoder")]


@pytest.mark.parametrize("family", HEADED)
def test_label_words_get_the_logits_of_the_whole_head(family, trial_of, tiny_models):
    """Of one word, and of several words of a label their summed exponentials."""
    trial = trial_of((family, "offset", "before", False))
    trial.use(examples(MIXED))
    model, stock = trial.model, stock_of(family, tiny_models[family])
    words = [torch.tensor([5]), torch.tensor([9, 17, 40]), torch.tensor([30, 31])]
    for example in trial.texts("train"):
        row = trial.encoder.row(example)
        batch = trial.encoder.batch([row])
        state = model.readout(batch, model.states(batch), 0)
        whole = stock.outputs([Line(row.ids, row.prompt, row.read, row.decoder_ids)], {})
        expected = torch.stack([whole[:, ids].logsumexp(dim=-1) for ids in words], dim=-1)
        assert (WordHead(model, words)(state) - expected).abs().max() < WITHIN


def test_the_heads_peculiarities_are_there_to_be_seen(trial_of):
    """Else the test above proves less than it says."""

    def model(family: str) -> Any:
        return trial_of((family, "offset", "before", False)).model.model

    assert model("gemma2").config.final_logit_softcapping
    assert model("bart").final_logits_bias.abs().max() > 0.05
    assert model("t5").config.scale_decoder_outputs
    assert not model("flan-t5").config.scale_decoder_outputs


# -- weights


def _maps(family: str, layer: Any) -> list[list[Any]]:
    """Linear maps of a stock layer that are one product."""
    if family == "distilbert":
        return [[layer.attention.q_lin, layer.attention.k_lin, layer.attention.v_lin]]
    if family in PACKED:
        attend = layer.attention.self
        return [[attend.query, attend.key, attend.value]]
    attend, mlp = layer.self_attn, layer.mlp
    return [[attend.q_proj, attend.k_proj, attend.v_proj], [mlp.gate_proj, mlp.up_proj]]


@pytest.mark.parametrize("family", PACKED + DECODERS)
def test_weights_that_are_one_product_lie_in_the_memory_of_the_stock_model(family, make_job, tiny_models):
    trial = make_trial(make_job, (family, "offset", "before", False))
    fresh = stock_of(family, tiny_models[family])
    for number, layer in enumerate(trial.model.layers):
        for maps in _maps(family, layer):
            storages = {linear.weight.untyped_storage().data_ptr() for linear in maps}
            assert len(storages) == 1
            places = [linear.weight.data_ptr() for linear in maps]
            sizes = [linear.weight.numel() * linear.weight.element_size() for linear in maps]
            assert places == [places[0] + sum(sizes[:i]) for i in range(len(maps))]
        for (name, used), (_, stock) in zip(
            layer.named_parameters(), fresh.layers[number].named_parameters(), strict=True
        ):
            assert torch.equal(used, stock), name
    before = trial.candidates(numbers(1, 0, 16), "train", 0)
    first = _maps(family, trial.model.layers[0])[0][1].weight
    kept = first.data.clone()
    first.data.zero_()
    trial.restart()
    changed = trial.candidates(numbers(1, 0, 16), "train", 0)
    first.data.copy_(kept)
    assert np.abs(changed - before).max() > 1e-3  # the path reads that memory


@pytest.mark.parametrize("family", PACKED + DECODERS)
def test_the_stock_forward_is_the_same_once_a_path_is_made(family, make_job, tiny_models):
    trial = make_trial(make_job, (family, "offset", "before", False))
    rows = [trial.encoder.row(example) for example in trial.texts("train")]
    lines = [Line(row.ids, row.prompt, row.read) for row in rows]
    fresh, used = stock_of(family, tiny_models[family]), Stock(family, tiny_models[family])
    expected = fresh.outputs(lines, {})
    used.model = trial.model.model
    assert torch.allclose(used.outputs(lines, {}), expected, atol=1e-5)
