"""Which path a model takes, why it is not one of our own, and that other settings of a family are followed."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from tiny_models import MAKERS, save_model
from transformers import AutoConfig
from trials import (
    DECODERS,
    PACKED,
    WITHIN,
    examples,
    make_trial,
    numbers,
    settings_of,
)

from bbtune.backbone.families import FAMILIES
from bbtune.backbone.packed_encoder import PackedEncoder
from bbtune.backbone.paths import choose_path, why_not
from bbtune.backbone.products import TORCH, Products
from bbtune.backbone.replay import ReplayStack
from bbtune.backbone.shared_decoder import SharedDecoder
from bbtune.backbone.sources import read_model_card
from bbtune.backbone_spec import BackboneSpec


@pytest.fixture(scope="module")
def trial_of(make_job):
    """Trials by setting; each test gives them the texts it wants."""
    return cache(lambda setting: make_trial(make_job, setting))


WHY = {
    "modernbert": "no path is written for the layers of modernbert",
    "modernbert-encoder": "no path is written for the layers of modernbert",
    "gpt2": "no path is written for the layers of gpt2",
    "opt": "no path is written for the layers of opt",
    "gpt_neox": "no path is written for the layers of gpt_neox",
    "gemma2": "no path is written for the layers of gemma2",
    "gemma3_text": "no path is written for the layers of gemma3_text",
    "windowed": "its attention window of 8 tokens is shorter than backbone.max_tokens, 96",
    "t5": "no path is written for the layers of t5",
    "flan-t5": "no path is written for the layers of t5",
    "t5-encoder": "no path is written for the layers of t5",
    "bart": "no path is written for the layers of bart",
}


@pytest.mark.parametrize("family", list(MAKERS))
def test_every_family_takes_the_fastest_exact_path_and_says_so(family, trial_of):
    trial = trial_of((family, "offset", "before", False))
    path = choose_path(trial.model, trial.encoder, Products(TORCH, torch.float32))
    if family in PACKED:
        assert type(path) is PackedEncoder
        assert path.name == "packed encoder, products by torch's own"
    elif family in DECODERS:
        assert type(path) is SharedDecoder
        assert path.name == "shared-prompt decoder, products by torch's own"
    else:
        assert type(path) is ReplayStack
        assert path.name == f"the model's own layers, recorded and replayed ({WHY[family]})"


def test_every_known_family_has_a_tiny_model_here(tiny_models):
    kinds = {AutoConfig.from_pretrained(folder).model_type for folder in tiny_models.values()}
    assert kinds == set(FAMILIES)


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        ("bert", {"is_decoder": True}, "the encoder is set up as a decoder"),
        ("bert", {"position_embedding_type": "relative_key"}, "its positions are relative_key"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic"}}, "(dynamic) depend on the length of the text"),
        ("llama", {"rope_parameters": {"rope_type": "longrope"}}, "(longrope) depend on the length of the text"),
        ("llama", {"partial_rotary_factor": 0.5}, "only part of each head is turned"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "only part of each head is turned"),
        (
            "mistral",
            {"sliding_window": 95},
            "its attention window of 95 tokens is shorter than backbone.max_tokens, 96",
        ),
        ("mistral", {"sliding_window": 96}, None),
        ("llama", {"rope_parameters": {"rope_type": "llama3"}}, None),
    ],
)
def test_settings_that_a_path_of_ours_does_not_follow_are_told(family, settings, words, tiny_models):
    card = read_model_card(BackboneSpec(model=f"path:{tiny_models[family]}"))
    for key, value in settings.items():
        setattr(card.config, key, value)
    found = why_not(card, 96)
    assert found is None if words is None else words in str(found)


# -- settings that the tiny models leave at their defaults

_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_SCALED: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 2.0},
    "llama3": {**_LLAMA3, "original_max_position_embeddings": 32},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
}
VARIANTS: list[tuple[str, type, dict[str, Any]]] = [
    *(
        ("llama", ReplayStack if name == "dynamic" else SharedDecoder, {"rope_parameters": {"rope_theta": 1e4, **rope}})
        for name, rope in _SCALED.items()
    ),
    ("llama", SharedDecoder, {"attention_bias": True, "mlp_bias": True}),
    ("llama", SharedDecoder, {"num_key_value_heads": 4}),
    ("llama", SharedDecoder, {"num_key_value_heads": 1, "head_dim": 12, "tie_word_embeddings": True}),
    ("llama", SharedDecoder, {"num_hidden_layers": 1}),
    ("qwen2", ReplayStack, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    ("qwen3", SharedDecoder, {"attention_bias": True}),
    ("gemma", SharedDecoder, {"num_hidden_layers": 1}),
    ("bert", PackedEncoder, {"hidden_act": "gelu_new"}),
    ("bert", PackedEncoder, {"hidden_act": "relu"}),
    ("bert", PackedEncoder, {"num_hidden_layers": 1}),
    ("encoder", PackedEncoder, {"num_hidden_layers": 1}),
    ("electra", PackedEncoder, {"embedding_size": 32}),
    ("distilbert", PackedEncoder, {"activation": "relu", "sinusoidal_pos_embds": True}),
    ("gpt2", ReplayStack, {"n_layer": 1}),
    ("gpt2", ReplayStack, {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
    ("opt", ReplayStack, {"do_layer_norm_before": False}),
    ("gpt_neox", ReplayStack, {"use_parallel_residual": False}),
    ("modernbert", ReplayStack, {"global_attn_every_n_layers": 2, "local_attention": 4}),
    ("t5", ReplayStack, {"relative_attention_num_buckets": 4, "relative_attention_max_distance": 8}),
    ("bart", ReplayStack, {"scale_embedding": True, "encoder_layers": 1}),
]


@pytest.mark.parametrize(
    ("family", "path", "changes"), VARIANTS, ids=lambda value: getattr(value, "__name__", str(value))[:60]
)
def test_other_settings_of_a_model_are_followed(family, path, changes, make_job, tmp_path):
    folder = save_model(family, tmp_path / "model", **changes)
    for setting in (setting for setting in settings_of(family) if not setting[3]):
        trial = make_trial(make_job, setting, backbone={"model": f"path:{folder}"})
        assert type(trial.path) is path
        depth = len(trial.model.layers)
        trial.use(examples((2, 40, 9)), layers=range(depth))
        first = depth // 2
        z = numbers(2, first, 14, depth)
        assert trial.off(z, "train", trial.candidates(z, "train", first)) < WITHIN


@pytest.mark.parametrize("kind", ["offset", "prefix"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_window_as_long_as_the_longest_row_needs_no_replay(kind, place, make_job, tmp_path):
    folder = save_model("windowed", tmp_path / "model", sliding_window=32)
    backbone = {"model": f"path:{folder}", "max_tokens": 32}
    trial = make_trial(make_job, ("windowed", kind, place, False), backbone=backbone)
    assert type(trial.path) is SharedDecoder
    trial.use(examples((60, 2, 60, 9)))
    assert max(len(trial.encoder.row(example).ids) for example in trial.texts("train")) == 32
    z = numbers(2, 0, 15)
    assert trial.off(z, "train", trial.candidates(z, "train", 0)) < WITHIN
