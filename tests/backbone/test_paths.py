"""Every path through a model gives the logits of the plain forward, whatever was asked of it before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MAKERS, save_model
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import spearmanr
from stock import Line, Stock
from transformers import AutoConfig
from trials import DECODERS, DEPTH, DIM, PACKED, SETTINGS, Setting, Trial, examples, make_trial, numbers, settings_of

from bbtune.backbone.families import FAMILIES
from bbtune.backbone.heads import WordHead
from bbtune.backbone.packed_encoder import PackedEncoder
from bbtune.backbone.paths import choose_path, why_not
from bbtune.backbone.products import TORCH, UPCAST, Products
from bbtune.backbone.replay import ReplayStack
from bbtune.backbone.shared_decoder import SharedDecoder
from bbtune.backbone.sources import read_model_card
from bbtune.backbone.stack import Texts
from bbtune.evaluation.base import losses
from bbtune.plan import make_plan
from bbtune.spec import BackboneSpec
from bbtune.task.task import label_array
from bbtune.task.verbalizer import label_token_ids

WITHIN = 1e-4
MIXED = (3, 1, 7, 3, 12, 5)  # words of each text, not in order
BY_CHOICE = [setting for setting in SETTINGS if not setting[3]]  # on the path that the model is given
EVERY_WAY = [setting for setting in BY_CHOICE if setting[0] in ("bert", "encoder", "llama", "qwen3", "gpt2")]
AS_OFFSETS = [setting for setting in BY_CHOICE if setting[1] == "offset"]
OWN_PATHS = [setting for setting in SETTINGS if setting[0] in PACKED + DECODERS and not setting[3]]
REPLAYED = [setting for setting in SETTINGS if setting[3] or setting[0] not in PACKED + DECODERS]


def named(setting: Setting) -> str:
    family, kind, place, replays = setting
    return f"{family}-{kind}-{place}{'-replayed' if replays else ''}"


@pytest.fixture(scope="module")
def trial_of(make_job):
    """Trials by setting; each test gives them the texts it wants."""
    return cache(lambda setting: make_trial(make_job, setting))


# -- the logits


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_every_path_gives_the_logits_of_the_plain_forward(setting, trial_of):
    trial = trial_of(setting)
    trial.use(examples(MIXED))
    for first in (0, 1):
        z = numbers(2, first, first)
        got = trial.candidates(z, "train", first)
        assert trial.off(z, "train", got) < WITHIN
    assert np.abs(trial.label_logits(z[1], trial.texts("train")) - got[1]).max() < WITHIN


@dataclass(frozen=True)
class Call:
    """One call of a worker.

    Attributes:
        first: of the tuned layers, modulo their number: the lowest in which the candidates differ.
        upwards: whether the candidates differ in all layers from ``first`` on, or in that one alone.
        moves: whether the search goes on from the first of the candidates.
        jumps: whether another starting point is taken before the call, as for a judgement on dev.
    """

    split: str
    first: int
    population: int
    upwards: bool
    moves: bool
    jumps: bool


_LENGTHS = st.integers(1, 40)
_TEXTS = st.one_of(
    st.lists(_LENGTHS, min_size=1, max_size=6),
    st.builds(lambda length, count: [length] * count, _LENGTHS, st.integers(1, 6)),
    st.lists(st.sampled_from([2, 3, 9]), min_size=40, max_size=40),
)
_LAYERS = st.sets(st.integers(0, DEPTH - 1), min_size=1).map(sorted)
_CALLS = st.builds(
    Call,
    split=st.sampled_from(["train", "train", "dev"]),
    first=st.integers(0, DEPTH - 1),
    population=st.integers(1, 5),
    upwards=st.booleans(),
    moves=st.booleans(),
    jumps=st.sampled_from([False, False, True]),
)
_SEQUENCE = {
    "layers": _LAYERS,
    "train": _TEXTS,
    "dev": _TEXTS,
    "calls": st.lists(_CALLS, min_size=1, max_size=5),
    "scale": st.sampled_from([0.3, 1.0, 2.0]),
    "seed": st.integers(0, 2**16),
}


def play(
    trial: Trial, layers: Sequence[int], calls: Sequence[Call], scale: float, seed: int
) -> list[tuple[NDArray[np.float64], str, int, NDArray[np.float32]]]:
    """What was asked, z (P, L, D) on a split from a layer on, and what was answered."""
    rng, width = np.random.default_rng(seed), len(layers)
    here = rng.standard_normal((width, DIM))
    answered = []
    for call in calls:
        first = call.first % width
        if call.jumps:
            here = rng.standard_normal((width, DIM))
        z = np.repeat(here[None], call.population, axis=0)
        stop = width if call.upwards else first + 1
        z[:, first:stop] += rng.standard_normal((call.population, stop - first, DIM))
        answered.append((scale * z, call.split, first, trial.candidates(scale * z, call.split, first)))
        if call.moves:
            here = z[0]
    return answered


def check_sequence(trial: Trial, train: Any, dev: Any, layers: Any, calls: Any, scale: float, seed: int) -> None:
    trial.use(examples(train, seed), examples(dev, seed + 1), layers)
    for z, split, _, got in play(trial, layers, calls, scale, seed):
        assert trial.off(z, split, got) < WITHIN


@pytest.mark.parametrize("family", list(MAKERS))
def test_the_sequence_of_calls_changes_no_logits(family, trial_of):
    choices = [setting for setting in SETTINGS if setting[0] == family]

    @settings(max_examples=4, deadline=None, derandomize=True)
    @given(setting=st.sampled_from(choices), **_SEQUENCE)
    def check(setting: Setting, **sequence: Any) -> None:
        check_sequence(trial_of(setting), **sequence)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_no_long_sequence_of_calls_changes_logits(setting, trial_of):
    @settings(max_examples=8, deadline=None)
    @given(**_SEQUENCE)
    def check(**sequence: Any) -> None:
        check_sequence(trial_of(setting), **sequence)

    check()


@pytest.mark.parametrize("setting", BY_CHOICE, ids=named)
def test_layers_visited_in_turn_leave_no_trace_in_the_bits(setting, trial_of):
    """Actors are asked for different things in different orders, and those of a resumed run for nothing before."""
    trial = trial_of(setting)
    trial.use(examples(MIXED[:4]))
    calls = [Call("train", layer, 2, False, True, False) for layer in (0, 1, 2, 1, 2)]
    for z, split, first, answer in play(trial, range(DEPTH), calls, 1.0, 0)[2:]:
        trial.restart()
        assert np.array_equal(trial.candidates(z, split, first), answer), f"layer {first}"


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_what_was_asked_before_changes_no_bit(setting, trial_of):
    trial = trial_of(setting)

    @settings(max_examples=5, deadline=None)
    @given(**_SEQUENCE)
    def check(layers: Any, train: Any, dev: Any, calls: Any, scale: float, seed: int) -> None:
        trial.use(examples(train[:6], seed), examples(dev[:2], seed + 1), layers)
        for z, split, first, answer in play(trial, layers, calls, scale, seed):
            trial.restart()
            assert np.array_equal(trial.candidates(z, split, first), answer)

    check()


@pytest.mark.parametrize("setting", BY_CHOICE, ids=named)
def test_candidates_of_one_call_are_scored_as_one_by_one(setting, trial_of):
    trial = trial_of(setting)
    trial.use(examples(MIXED))
    z = numbers(5, 1, 5)
    together = trial.candidates(z, "train", 1)
    alone = np.concatenate([trial.candidates(one[None], "train", 1) for one in z])
    assert np.abs(together - alone).max() < 1e-5


@pytest.mark.parametrize("setting", EVERY_WAY, ids=named)
def test_forty_texts_and_single_ones_are_scored_in_their_own_order(setting, trial_of):
    trial = trial_of(setting)
    lengths = np.random.default_rng(5).integers(1, 40, 40).tolist()
    trial.use(examples(lengths), examples([4]))
    z = numbers(3, 1, 6)
    assert trial.off(z, "train", trial.candidates(z, "train", 1), most=20) < WITHIN
    assert trial.off(z, "dev", trial.candidates(z, "dev", 1)) < WITHIN


# -- padding on the other side

WITHOUT_POSITIONS = {"t5", "flan-t5", "t5-encoder", "bart"}  # T5's are relative, and shift; BART's cannot be given


@pytest.mark.parametrize("family", list(MAKERS))
def test_it_is_known_which_families_cannot_be_told_positions(family, tiny_models):
    assert Stock(family, tiny_models[family]).takes_positions == (family not in WITHOUT_POSITIONS)


@pytest.mark.parametrize("setting", [s for s in BY_CHOICE if s[0] != "bart"], ids=named)
def test_the_stock_model_padded_on_the_left_gives_the_same_logits(setting, trial_of, tiny_models):
    family, kind, _, _ = setting
    trial = trial_of(setting)
    trial.use(examples(MIXED))
    z = numbers(1, 0, 7)
    ours = trial.candidates(z, "train", 0)[0]
    rows = [trial.encoder.row(example) for example in trial.texts("train")]
    assert len({len(row.ids) for row in rows}) > 2
    lines = [Line(row.ids, row.prompt, row.read, row.decoder_ids) for row in rows]
    prompts = trial.space.prompts(z[0]).layers
    outputs = Stock(family, tiny_models[family]).outputs(lines, prompts, kind == "prefix", left=True)
    if family.endswith("encoder"):
        theirs = trial.head(outputs)
    else:
        ids, _ = label_token_ids(trial.plan.label_words, trial.model.card.tokenizer, True)
        theirs = torch.stack([outputs[:, of_label].logsumexp(dim=-1) for of_label in ids], dim=-1)
    assert np.abs(ours - theirs.numpy()).max() < WITHIN


# -- what is kept between calls


@pytest.mark.parametrize("setting", REPLAYED, ids=named)
def test_a_replay_from_any_layer_is_the_full_run_bit_for_bit(setting, trial_of):
    trial = trial_of(setting)
    trial.use(examples(MIXED))
    rows = sorted((trial.encoder.row(example) for example in trial.texts("train")), key=lambda row: len(row.ids))
    prompts = trial.space.prompts(numbers(1, 0, 8)[0])

    def texts() -> Texts:
        return trial.path.prepare(rows, trial.encoder.prompt_length, trial.space.sets)

    expected = trial.path.read(texts(), [prompts], 0)
    for layer in range(1, DEPTH):
        restarted = texts()
        assert torch.equal(trial.path.read(restarted, [prompts], layer), expected)
        assert torch.equal(trial.path.read(restarted, [prompts], layer), expected)


class Counted:
    """Which layers run, as the stock modules see it, or a path of our own."""

    def __init__(self, trial: Trial) -> None:
        self._path, self._ran = trial.path, list[int]()
        self._handles: list[Any] = []
        if isinstance(trial.path, ReplayStack):
            self._handles = [
                layer.register_forward_pre_hook(lambda module, args, number=number: self._ran.append(number))
                for number, layer in enumerate(trial.model.layers)
            ]
        else:
            original = trial.path.run
            trial.path.run = lambda texts, layer, *rest: (self._ran.append(layer), original(texts, layer, *rest))[1]

    def __enter__(self) -> list[int]:
        return self._ran

    def __exit__(self, *_: object) -> None:
        vars(self._path).pop("run", None)
        for handle in self._handles:
            handle.remove()


@pytest.mark.parametrize("setting", AS_OFFSETS, ids=named)
def test_a_second_call_runs_no_layer_below_the_tuned_one(setting, trial_of):
    trial = trial_of(setting)
    for first in range(DEPTH):
        trial.use(examples(MIXED[:4]), examples((2, 4)))
        z = numbers(3, first, 9)
        trial.candidates(z, "train", first)
        trial.candidates(z, "dev", first)
        z[:, first] = numbers(3, 0, 10)[:, 0]
        with Counted(trial) as ran:
            found = {split: trial.candidates(z, split, first) for split in ("train", "dev")}  # each keeps its own
        assert ran == 2 * list(range(first, DEPTH))
        for split, got in found.items():
            assert trial.off(z, split, got) < WITHIN


@pytest.mark.parametrize("setting", AS_OFFSETS, ids=named)
def test_kept_states_are_not_used_under_another_lower_prompt(setting, trial_of):
    trial = trial_of(setting)
    trial.use(examples(MIXED[:4]))
    z = numbers(2, 2, 12)
    before = trial.candidates(z, "train", 2)
    z[:, 0] += 0.5
    with Counted(trial) as ran:
        changed = trial.candidates(z, "train", 2)
    assert ran == list(range(DEPTH))
    assert trial.off(z, "train", changed) < WITHIN
    assert np.abs(changed - before).max() > 1e-2
    z[:, 0] -= 0.5
    assert np.abs(trial.candidates(z, "train", 2) - before).max() < WITHIN


@pytest.mark.parametrize("setting", AS_OFFSETS, ids=named)
def test_no_more_than_two_states_are_kept(setting, trial_of):
    trial = trial_of(setting)
    trial.use(examples((3, 1)))
    for first in (0, 1, 2, 0, 2, 1):
        trial.candidates(numbers(2, first, first), "train", first)
        assert len(trial.kept("train")) <= 2


# -- bfloat16


@pytest.mark.parametrize(
    ("family", "kind", "product"),
    [
        ("bert", "offset", TORCH),
        ("bert", "prefix", UPCAST),
        ("llama", "offset", UPCAST),
        ("llama", "prefix", TORCH),
        ("gpt2", "offset", TORCH),
    ],
)
def test_bfloat16_ranks_candidates_as_float32_does(family, kind, product, make_job, tmp_path):
    # At an initializer_range of 0.3 the attention of a random model is so sharp that rounding moves whole ranks.
    width = {"n_embd": 128} if family == "gpt2" else {"hidden_size": 128, "intermediate_size": 256}
    folder = save_model(family, tmp_path / "model", **width, initializer_range=0.15)
    z, found = numbers(40, 0, 13), []
    for dtype in ("float32", "bfloat16"):
        job = make_job(family, prompt={"kind": kind}, backbone={"model": f"path:{folder}", "dtype": dtype})
        plan, _, _ = make_plan(job)
        trial = Trial(replace(plan, product=product if dtype == "bfloat16" else TORCH))
        assert trial.model.embeddings.dtype == getattr(torch, dtype)
        trial.use(examples([2 + i % 9 for i in range(16)]))
        logits = trial.candidates(z, "train", 0)
        found.append(losses(logits, label_array(trial.texts("train")), "cross-entropy"))
    assert np.ptp(found[0]) > 0.3  # candidates differ by much more than bfloat16 rounds
    assert spearmanr(*found).statistic > 0.99


# -- which path

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


@pytest.mark.parametrize(("family", "path", "changes"), VARIANTS, ids=lambda value: str(value)[:60])
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


@pytest.mark.parametrize(
    "setting", [s for s in BY_CHOICE if s[0] in ("bert", "encoder", "llama", "qwen3", "gpt2")], ids=named
)
@pytest.mark.parametrize(
    "prompt", [{"tokens": 1}, {"tokens": 30}, {"text": "is this good or bad ?", "tokens": 9}], ids=str
)
def test_prompts_of_any_length_are_followed(setting, prompt, make_job):
    trial = make_trial(make_job, setting, prompt=prompt)
    trial.use(examples(MIXED))
    z = numbers(2, 0, 15)
    assert trial.off(z, "train", trial.candidates(z, "train", 0)) < WITHIN


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_a_prompt_behind_the_text_may_be_the_last_that_is_read(family, make_job):
    trial = make_trial(make_job, (family, "offset", "after", False), task={"template": "{text} {mask}"})
    trial.use(examples(MIXED))
    row = trial.encoder.row(trial.texts("train")[0])
    assert row.read == row.prompt + trial.encoder.prompt_length - 1
    for first in range(DEPTH):
        z = numbers(2, first, 16)
        assert trial.off(z, "train", trial.candidates(z, "train", first)) < WITHIN


# -- the head

HEADED = [name for name in MAKERS if not name.endswith("encoder")]


@pytest.mark.parametrize("family", HEADED)
def test_label_words_get_the_logits_of_the_whole_head(family, trial_of, tiny_models):
    """Of one word, and of several words of a label their summed exponentials."""
    trial = trial_of((family, "offset", "before", False))
    trial.use(examples(MIXED))
    model, stock = trial.model, Stock(family, tiny_models[family])
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
    fresh = Stock(family, tiny_models[family])
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
    fresh, used = Stock(family, tiny_models[family]), Stock(family, tiny_models[family])
    expected = fresh.outputs(lines, {})
    used.model = trial.model.model
    assert torch.allclose(used.outputs(lines, {}), expected, atol=1e-5)
