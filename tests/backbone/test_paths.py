"""Every path through a model gives the logits of the plain forward, whatever was asked of it before."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
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
from trials import CAUSAL, DECODERS, DEPTH, DIM, PACKED, SETTINGS, Setting, Trial, examples, make_trial, numbers

from bbtune.backbone.families import FAMILIES
from bbtune.backbone.heads import WordHead
from bbtune.backbone.packed_encoder import PackedEncoder
from bbtune.backbone.paths import choose_path, why_not
from bbtune.backbone.prompted import Prompts
from bbtune.backbone.replay import ReplayStack
from bbtune.backbone.shared_decoder import SharedDecoder
from bbtune.backbone.sources import read_model_card
from bbtune.backbone.stack import Stack, Texts
from bbtune.errors import BackboneError
from bbtune.evaluation.base import losses
from bbtune.plan import make_plan
from bbtune.spec import BackboneSpec
from bbtune.task.task import label_array
from bbtune.task.verbalizer import label_token_ids

WITHIN = 1e-4
MIXED = (3, 1, 7, 3, 12, 5)  # words of each text, not in order
AS_OFFSETS = [setting for setting in SETTINGS if setting[1] == "offset"]
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
    for seed, first in enumerate((0, 2, 1, 1)):
        z = numbers(2, first, seed % 3)
        assert np.abs(trial.candidates(z, "train", first) - trial.plain_all(z, "train")).max() < WITHIN


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
    """One candidate on all texts, and all candidates on one text, of every call."""
    trial.use(examples(train, seed), examples(dev, seed + 1), layers)
    rng = np.random.default_rng(seed)
    for z, split, _, got in play(trial, layers, calls, scale, seed):
        texts = trial.texts(split)
        one, text = rng.integers(len(z)), rng.integers(len(texts))
        for i in set(rng.permutation(len(texts))[:6].tolist()):
            assert np.abs(got[one, i] - trial.plain(z[one], texts[i])).max() < WITHIN
        for p in range(len(z)):
            assert np.abs(got[p, text] - trial.plain(z[p], texts[text])).max() < WITHIN


@pytest.mark.parametrize("family", list(MAKERS))
def test_the_sequence_of_calls_changes_no_logits(family, trial_of):
    choices = [setting for setting in SETTINGS if setting[0] == family]

    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(setting=st.sampled_from(choices), **_SEQUENCE)
    def check(setting: Setting, **sequence: Any) -> None:
        check_sequence(trial_of(setting), **sequence)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_no_long_sequence_of_calls_changes_logits(setting, trial_of):
    @settings(max_examples=40, deadline=None)
    @given(**_SEQUENCE)
    def check(**sequence: Any) -> None:
        check_sequence(trial_of(setting), **sequence)

    check()


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_what_was_asked_before_changes_no_bit(setting, trial_of):
    """Actors are asked for different things in different orders, and resumed ones for nothing before."""
    trial = trial_of(setting)

    @settings(max_examples=6, deadline=None, derandomize=True)
    @given(**_SEQUENCE)
    def check(layers: Any, train: Any, dev: Any, calls: Any, scale: float, seed: int) -> None:
        trial.use(examples(train[:6], seed), examples(dev[:2], seed + 1), layers)
        *_, (z, split, first, answer) = play(trial, layers, calls, scale, seed)
        trial.restart()
        assert np.array_equal(trial.candidates(z, split, first), answer)

    check()


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_layers_visited_in_turn_leave_no_trace_in_the_bits(setting, trial_of):
    """The walk of a layerwise search, of which every answer must be what a fresh worker gives."""
    trial = trial_of(setting)
    trial.use(examples(MIXED))
    calls = [Call("train", layer % DEPTH, 2, False, True, False) for layer in range(2 * DEPTH)]
    answered = play(trial, range(DEPTH), calls, 1.0, 0)
    for z, split, first, answer in answered:
        trial.restart()
        assert np.array_equal(trial.candidates(z, split, first), answer), f"layer {first}"


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_candidates_of_one_call_are_scored_as_one_by_one(setting, trial_of):
    trial = trial_of(setting)
    trial.use(examples(MIXED))
    for first in range(DEPTH):
        z = numbers(5, first, first)
        together = trial.candidates(z, "train", first)
        alone = np.concatenate([trial.candidates(one[None], "train", first) for one in z])
        assert np.abs(together - alone).max() < 1e-5


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_forty_texts_and_single_ones_are_scored_in_their_own_order(setting, trial_of):
    trial = trial_of(setting)
    lengths = np.random.default_rng(5).integers(1, 40, 40).tolist()
    trial.use(examples(lengths), examples([4]))
    z = numbers(2, 1, 6)
    got = trial.candidates(z, "train", 1)
    for i in (0, 1, 17, 38, 39):
        assert np.abs(got[1, i] - trial.plain(z[1], trial.texts("train")[i])).max() < WITHIN
    assert np.abs(trial.candidates(z, "dev", 1) - trial.plain_all(z, "dev")).max() < WITHIN


# -- padding on the other side

WITHOUT_POSITIONS = {"t5", "flan-t5", "t5-encoder", "bart"}  # T5's are relative, and shift; BART's cannot be given


@pytest.mark.parametrize("family", list(MAKERS))
def test_it_is_known_which_families_cannot_be_told_positions(family, tiny_models):
    assert Stock(family, tiny_models[family]).takes_positions == (family not in WITHOUT_POSITIONS)


@pytest.mark.parametrize("setting", [s for s in SETTINGS if not s[3] and s[0] != "bart"], ids=named)
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
@pytest.mark.parametrize("layer", range(DEPTH))
def test_a_replay_from_any_layer_is_the_full_run_bit_for_bit(setting, layer, trial_of):
    trial = trial_of(setting)
    trial.use(examples(MIXED))
    rows = sorted((trial.encoder.row(example) for example in trial.texts("train")), key=lambda row: len(row.ids))
    prompts = trial.space.prompts(numbers(1, 0, 8)[0])

    def texts() -> Texts:
        return trial.path.prepare(rows, trial.encoder.prompt_length, trial.space.sets)

    full, restarted = texts(), texts()
    expected = trial.path.read(full, [prompts], 0)
    assert torch.equal(trial.path.read(restarted, [prompts], layer), expected)
    assert torch.equal(trial.path.read(restarted, [prompts], layer), expected)


class Counted:
    """Which layers run, as the path or the stock modules see it."""

    def __init__(self, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[int] = []
        self._handles = []
        if isinstance(trial.path, ReplayStack):
            for number, layer in enumerate(trial.model.layers):
                self._handles.append(layer.register_forward_pre_hook(self._hook(number)))
            return
        original = trial.path.run

        def run(texts: Texts, layer: int, *args: Any) -> Any:
            self.ran.append(layer)
            return original(texts, layer, *args)

        monkeypatch.setattr(trial.path, "run", run)

    def _hook(self, number: int) -> Any:
        return lambda module, args: self.ran.append(number)

    def taken(self) -> list[int]:
        """The layers that ran since it was last asked."""
        ran, self.ran = self.ran, []
        return ran

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


@pytest.fixture
def counted(monkeypatch):
    """Counts layers of a trial on one batch of texts."""
    made: list[Counted] = []

    def count(trial: Trial) -> Counted:
        made.append(Counted(trial, monkeypatch))
        return made[-1]

    yield count
    for each in made:
        each.close()


@pytest.mark.parametrize("setting", AS_OFFSETS, ids=named)
@pytest.mark.parametrize("first", range(DEPTH))
def test_a_second_call_runs_no_layer_below_the_tuned_one(setting, first, trial_of, counted):
    trial = trial_of(setting)
    trial.use(examples(MIXED), examples((2, 4)))
    z = numbers(3, first, 9)
    trial.candidates(z, "train", first)
    trial.candidates(z, "dev", first)
    count = counted(trial)
    for seed in (10, 11):
        z[:, first] = numbers(3, 0, seed)[:, 0]
        for split in ("train", "dev"):  # each keeps its own
            got = trial.candidates(z, split, first)
            assert count.taken() == list(range(first, DEPTH))
            assert np.abs(got - trial.plain_all(z, split)).max() < WITHIN
            count.taken()


@pytest.mark.parametrize("setting", AS_OFFSETS, ids=named)
def test_kept_states_are_not_used_under_another_lower_prompt(setting, trial_of, counted):
    trial = trial_of(setting)
    trial.use(examples(MIXED))
    z = numbers(2, 2, 12)
    before = trial.candidates(z, "train", 2)
    count = counted(trial)
    z[:, 0] += 0.5
    changed = trial.candidates(z, "train", 2)
    assert count.taken() == list(range(DEPTH))
    assert np.abs(changed - trial.plain_all(z, "train")).max() < WITHIN
    assert np.abs(changed - before).max() > 1e-2
    z[:, 0] -= 0.5
    assert np.abs(trial.candidates(z, "train", 2) - before).max() < WITHIN


@pytest.mark.parametrize("setting", AS_OFFSETS, ids=named)
def test_no_more_than_two_states_are_kept(setting, trial_of):
    trial = trial_of(setting)
    trial.use(examples(MIXED))
    for first in (0, 1, 2, 0, 2, 1):
        trial.candidates(numbers(2, first, first), "train", first)
        assert len(trial.kept("train")) <= 2


# -- bfloat16


@pytest.mark.parametrize("setting", [("bert", "offset"), ("llama", "offset"), ("gpt2", "offset"), ("llama", "prefix")])
def test_bfloat16_ranks_candidates_as_float32_does(setting, make_job, tmp_path):
    family, kind = setting
    widths = {"n_embd": 64} if family == "gpt2" else {"hidden_size": 64, "intermediate_size": 128}
    folder = save_model(family, tmp_path / "model", **widths)
    z, found = numbers(40, 0, 13), []
    for dtype in ("float32", "bfloat16"):
        backbone = {"model": f"path:{folder}", "dtype": dtype}
        trial = make_trial(make_job, (family, kind, "before", False), backbone=backbone)
        assert trial.model.embeddings.dtype == getattr(torch, dtype)
        logits = trial.candidates(z, "train", 0)
        found.append(losses(logits, label_array(trial.texts("train")), "cross-entropy"))
    assert np.ptp(found[0]) > 0.1  # candidates differ by much more than bfloat16 rounds
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
    path = choose_path(*_parts(trial_of((family, "offset", "before", False))))
    if family in PACKED:
        assert type(path) is PackedEncoder
        assert path.name.startswith("packed encoder, products by ")
    elif family in DECODERS:
        assert type(path) is SharedDecoder
        assert path.name.startswith("shared-prompt decoder, products by ")
    else:
        assert type(path) is ReplayStack
        assert path.name == f"the model's own layers, recorded and replayed ({WHY[family]})"


def _parts(trial: Trial) -> Any:
    return trial.model, trial.encoder


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
        ("mistral", {"sliding_window": 95}, "its attention window of 95 tokens is shorter than backbone.max_tokens, 96"),
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


ROTATIONS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 2.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    | {"original_max_position_embeddings": 32},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("rotation", list(ROTATIONS))
def test_other_rotary_positions_give_the_logits_of_the_plain_forward(rotation, place, make_job, tmp_path):
    parameters = {"rope_theta": 10000.0, **ROTATIONS[rotation]}
    folder = save_model("llama", tmp_path / "model", rope_parameters=parameters)
    trial = make_trial(make_job, ("llama", "offset", place, False), backbone={"model": f"path:{folder}"})
    assert isinstance(trial.path, ReplayStack if rotation == "dynamic" else SharedDecoder)
    trial.use(examples((2, 40, 9, 60)))
    z = numbers(2, 0, 14)
    assert np.abs(trial.candidates(z, "train", 0) - trial.plain_all(z, "train")).max() < WITHIN


@pytest.mark.parametrize("kind", ["offset", "prefix"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_window_as_long_as_the_longest_row_needs_no_replay(kind, place, make_job, tmp_path):
    folder = save_model("windowed", tmp_path / "model", sliding_window=32)
    backbone = {"model": f"path:{folder}", "max_tokens": 32}
    trial = make_trial(make_job, ("windowed", kind, place, False), backbone=backbone)
    assert type(trial.path) is SharedDecoder
    trial.use(examples((60, 2, 60, 9)))
    assert {len(trial.encoder.row(example).ids) for example in trial.texts("train")} >= {32}
    z = numbers(2, 0, 15)
    assert np.abs(trial.candidates(z, "train", 0) - trial.plain_all(z, "train")).max() < WITHIN


def test_a_family_outside_the_table_is_refused_in_a_sentence_that_names_the_known_ones(tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models["bert"], tmp_path / "model")
    config = (folder / "config.json").read_text().replace('"model_type": "bert"', '"model_type": "mpnet"')
    (folder / "config.json").write_text(config)
    with pytest.raises(BackboneError) as caught:
        read_model_card(BackboneSpec(model=f"path:{folder}"))
    sentence = str(caught.value)
    assert "is of the family 'mpnet', expected one of" in sentence
    assert all(repr(name) in sentence for name in FAMILIES)
    assert "\n" not in sentence


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

FUSED = {"encoder": "encoder.layer", "bert": "bert.encoder.layer", "distilbert": "distilbert.transformer.layer"}


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
