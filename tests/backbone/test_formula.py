"""The BBTv2 formula, rebuilt in a few independent lines, and the values of the public BBTv2 code."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stock import Line, stock_of
from tiny_models import MAKERS
from torch.nn import functional
from transformers import AutoConfig, AutoTokenizer
from trials import CAUSAL, DEPTH, DIM, TOKENS, Trial, make_trial

from bbtune.backbone.encoding import Batch, Row
from bbtune.backbone.frozen import FrozenModel, load_frozen
from bbtune.backbone.heads import WordHead
from bbtune.backbone.packed_encoder import PackedEncoder
from bbtune.backbone.products import TORCH, Products
from bbtune.backbone.prompted import Prompts
from bbtune.backbone.sources import ModelCard, find_model
from bbtune.backbone_spec import BackboneSpec
from bbtune.examine import make_plan
from bbtune.seeds import generator

WORDPIECE = ["bert", "distilbert", "electra", "encoder"]
SENTINEL = ["t5", "flan-t5", "t5-encoder"]
STARTED = ["opt", "mistral", "qwen3", "gemma", "gemma2", "gemma3_text", "windowed"]  # tokenizers with a token in front
PLACED = [(family, place) for family in MAKERS for place in (["before", "after"] if family in CAUSAL else ["before"])]
stock_tokenizer = cache(AutoTokenizer.from_pretrained)
INSTRUCTION = {"text": "is this good or bad ?", "tokens": None}


def special_ids(family: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids in front of a text, and behind it."""
    if family in CAUSAL:
        return ([tokenizer.eos_token_id] if family in STARTED else []), []
    if family in SENTINEL:
        return [], [tokenizer.eos_token_id]
    return [tokenizer.cls_token_id], [tokenizer.sep_token_id]


def line_by_formula(family: str, tokenizer: Any, place: str, text: str) -> Line:
    """What the model reads for one text."""
    lead, trail = special_ids(family, tokenizer)
    first = min(1000, len(tokenizer) - TOKENS)
    prompt = list(range(first, first + TOKENS))

    def tokens(words: str) -> list[int]:
        return list(tokenizer(words, add_special_tokens=False)["input_ids"])

    if place == "after":
        head = [*lead, *tokens(text)]
        ids = [*head, *prompt, *tokens(" . it was")]
        return Line(ids, len(head), len(ids) - 1)
    if family.endswith("encoder"):
        return Line([*lead, *prompt, *tokens(text), *trail], len(lead))
    if family in CAUSAL:
        ids = [*lead, *prompt, *tokens(f"{text} . it was")]
        return Line(ids, len(lead), len(ids) - 1)
    mask = "<extra_id_0>" if family in SENTINEL else tokenizer.mask_token
    ids = [*lead, *prompt, *tokens(f"{text} . it was {mask}"), *trail]
    if family in SENTINEL:
        return Line(ids, len(lead), 1, [0, tokenizer.convert_tokens_to_ids(mask)])
    decoder = [2, *ids[:-1]] if family == "bart" else None
    return Line(ids, len(lead), ids.index(tokenizer.mask_token_id), decoder)


def logits_by_formula(family: str, folder: Path, kind: str, place: str, z: np.ndarray, texts: list[str]) -> np.ndarray:
    """Label logits (N, C), text by text: transformers' forward, ``hidden[:, positions] += A_l z_l`` before each layer,
    or ``= base_l + A_l z_l``."""
    tokenizer, stock = stock_tokenizer(folder), stock_of(family, folder)
    lines = [line_by_formula(family, tokenizer, place, text) for text in texts]
    lead, trail = special_ids(family, tokenizer)
    prompt = lines[0].ids[lines[0].prompt : lines[0].prompt + TOKENS]
    bases = [states[len(lead) :][:TOKENS] for states in stock.entering([*lead, *prompt, *trail])]
    prompts = {}
    for layer in range(DEPTH):
        a = generator(3, "projection", layer).standard_normal((TOKENS * 32, DIM), dtype=np.float32)
        prompts[layer] = torch.tensor(a / np.sqrt(DIM) @ z[layer], dtype=torch.float32).reshape(TOKENS, 32)
        if kind == "prefix":
            prompts[layer] += bases[layer]
    outputs = torch.cat([stock.outputs([line], prompts, kind == "prefix") for line in lines])
    if family.endswith("encoder"):
        described = [Line(tokenizer(words)["input_ids"]) for words in ("a bad end", "a great film")]
        labels = torch.cat([stock.outputs([line], {}) for line in described])
        return (functional.normalize(outputs) @ functional.normalize(labels).T / 0.05).numpy()
    space = "" if family in WORDPIECE else " "
    words = [tokenizer(space + word, add_special_tokens=False)["input_ids"] for word in ("bad", "great")]
    assert all(len(ids) == 1 for ids in words)
    return outputs[:, [words[0][0], words[1][0]]].numpy()


@pytest.mark.parametrize("kind", ["offset", "prefix"])
@pytest.mark.parametrize(("family", "place"), PLACED)
def test_label_logits_equal_the_formula(family, place, kind, make_job, tiny_models):
    plan, task, _ = make_plan(make_job(family, prompt={"kind": kind, "place": place}))
    worker = Trial(plan)
    z = np.random.default_rng(1).standard_normal((DEPTH, DIM))
    ours = worker.candidates(z[None], "train", 0)[0]
    theirs = logits_by_formula(
        family, tiny_models[family], kind, place, z, [example.text for example in task.train[:4]]
    )
    assert np.abs(ours[:4] - theirs).max() < 1e-4
    zero = worker.candidates(np.zeros_like(z)[None], "train", 0)[0]
    assert np.abs(ours - zero).max() > 1e-2  # the prompt matters, so the comparison can fail


@pytest.mark.parametrize(("family", "place"), PLACED)
def test_offsets_of_zero_leave_the_stock_model_with_the_prompt_in_words(family, place, make_job):
    plan, task, _ = make_plan(make_job(family, prompt={"kind": "offset", "place": place, **INSTRUCTION}))
    worker = Trial(plan)
    tuned, untouched = worker.label_logits(np.zeros((DEPTH, DIM)), task.test), worker.label_logits(None, task.test)
    assert np.abs(tuned - untouched).max() < 1e-4


@pytest.mark.parametrize("family", list(MAKERS))
def test_a_prefix_equals_keys_and_values_of_its_states(family, make_job):
    """Real tokens see the prefix; the prefix sees nothing: its states enter every layer as they were set."""
    trial = make_trial(make_job, (family, "prefix", "before", False), prompt=INSTRUCTION)
    prompts = trial.space.prompts(np.random.default_rng(2).standard_normal((DEPTH, DIM)))
    for example in trial.texts("train")[:2]:
        row = trial.encoder.row(example)
        entering = trial.model.entering(trial.encoder.batch([row]), prompts)
        for layer, hidden in enumerate(entering):
            inside = hidden[0, row.prompt : row.prompt + trial.encoder.prompt_length]
            assert torch.equal(inside, prompts.layers[layer])


@pytest.mark.parametrize("family", CAUSAL)
def test_a_causal_prefix_of_zero_equals_the_prompt_as_text(family, make_job):
    """For causal models the states of a prompt in front do not depend on what follows."""
    plan, task, _ = make_plan(make_job(family, prompt={"kind": "prefix", **INSTRUCTION}))
    worker = Trial(plan)
    tuned, text = worker.label_logits(np.zeros((DEPTH, DIM)), task.test), worker.label_logits(None, task.test)
    assert np.abs(tuned - text).max() < 1e-4


@pytest.mark.parametrize("family", list(MAKERS))
def test_logits_do_not_depend_on_what_is_scored_beside_a_text(family, make_job):
    plan, task, _ = make_plan(make_job(family))
    worker = Trial(plan)
    z = np.random.default_rng(4).standard_normal((DEPTH, DIM))
    together = worker.label_logits(z, task.test)
    alone = np.concatenate([worker.label_logits(z, [example]) for example in task.test])
    assert np.abs(together - alone).max() < 1e-4


GOLDEN = Path(__file__).parents[1] / "golden"


def golden_model(family: str) -> tuple[FrozenModel, dict[str, torch.Tensor]]:
    spec = BackboneSpec(model=f"path:{GOLDEN / family}", kind="masked-lm")
    config = AutoConfig.from_pretrained(GOLDEN / family)
    model = load_frozen(ModelCard(find_model(spec), config, None, "masked-lm"), spec)
    return model, load_file(GOLDEN / family / "golden.safetensors")


@pytest.mark.parametrize("path", ["plain", "packed"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("prompted", [True, False])
def test_logits_equal_those_of_the_public_bbtv2_code(family, prompted, path):
    model, golden = golden_model(family)
    prompts = Prompts(dict(enumerate(golden["prompts"])) if prompted else {})
    ids, mask, read = golden["input_ids"], golden["attention_mask"], golden["mask_position"]
    batch = Batch(ids, mask, torch.ones_like(read), read)
    if path == "plain":
        states = model.readout(batch, model.states(batch, prompts), 0)
    else:
        packed = PackedEncoder(model, SimpleNamespace(batch=lambda rows: batch), Products(TORCH, torch.float32))
        lengths = mask.sum(dim=1).tolist()
        rows = [Row(ids[i, :length].tolist(), 1, int(read[i])) for i, length in enumerate(lengths)]
        states = packed.read(packed.prepare(rows, 5 * prompted, False), [prompts], 0)[0]
    head = WordHead(model, [torch.tensor([token]) for token in range(golden["official_logits"].shape[1])])
    official = golden["official_logits" if prompted else "official_logits_zero_prompt"]
    assert (head(states) - official).abs().max() < 1e-5
