"""The BBTv2 formula, rebuilt in a few independent lines, and the values of the public BBTv2 code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from bbtune.backbone.encoding import Batch, Encoder
from bbtune.backbone.frozen import load_frozen
from bbtune.backbone.sources import ModelCard, find_model, read_model_card
from bbtune.evaluation.worker import Worker
from bbtune.plan import make_plan
from bbtune.prompts.edits import offset_edits
from bbtune.seeds import generator
from bbtune.spec import BackboneSpec
from bbtune.task.task import Example
from bbtune.task.template import Template

FAMILIES = ["bert", "roberta", "gpt2", "llama"]


def plain_layers(model: Any) -> Any:
    body = model.base_model
    return body.encoder.layer if hasattr(body, "encoder") else getattr(body, "h", None) or body.layers


def logits_by_formula(family: str, folder: Path, spec: Any, z: np.ndarray, text: str) -> np.ndarray:
    """Label logits of one text: transformers' own forward, ``hidden[:, positions] += A_l z_l`` before every layer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    causal = family in ("gpt2", "llama")
    auto = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    model = auto.from_pretrained(folder, attn_implementation="eager").eval()
    sentence = f"{text} . it was" if causal else f"{text} . it was {tokenizer.mask_token}"
    ids = tokenizer(sentence)["input_ids"]
    first = 0 if causal else 1
    tokens, dim = spec.prompt.tokens, spec.prompt.intrinsic_dim
    start = min(1000, len(tokenizer) - tokens)
    ids = [*ids[:first], *range(start, start + tokens), *ids[first:]]
    read = len(ids) - 1 if causal else ids.index(tokenizer.mask_token_id)
    for number, layer in enumerate(plain_layers(model)):
        a = generator(spec.seed, "projection", number).standard_normal((tokens * 32, dim), dtype=np.float32)
        prompt = torch.tensor(a / np.sqrt(dim) @ z[number], dtype=torch.float32).reshape(tokens, 32)
        original = layer.forward

        def forward(hidden: Any, *args: Any, _original: Any = original, _prompt: Any = prompt, **kwargs: Any) -> Any:
            hidden = hidden.clone()
            hidden[:, first : first + tokens] += _prompt
            return _original(hidden, *args, **kwargs)

        layer.forward = forward
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, read]
    space = "" if family == "bert" else " "
    words = [tokenizer(space + word, add_special_tokens=False)["input_ids"] for word in ("bad", "great")]
    assert all(len(ids) == 1 for ids in words)
    return logits[[words[0][0], words[1][0]]].numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_label_logits_equal_the_formula(family, make_job, tiny_models):
    spec = make_job(family, prompt={"kind": "offset"})
    plan, task, _ = make_plan(spec)
    z = np.random.default_rng(1).standard_normal((3, 6))
    ours = Worker(plan).candidates(z[None], "train", 0)[0]
    theirs = np.stack([logits_by_formula(family, tiny_models[family], spec, z, e.text) for e in task.train])
    assert np.abs(ours - theirs).max() < 1e-4
    zero = Worker(plan).candidates(np.zeros_like(z)[None], "train", 0)[0]
    assert np.abs(ours - zero).max() > 1e-2  # the prompt matters, so the comparison can fail


@pytest.mark.parametrize("family", [*FAMILIES, "encoder"])
def test_offsets_of_zero_leave_the_stock_model(family, make_job, tiny_models):
    words = {"label_words": ["a bad end", "a great film"]} if family == "encoder" else {}
    spec = make_job(family, prompt={"kind": "offset", "text": "is this good or bad ?", "tokens": None}, task=words)
    plan, task, _ = make_plan(spec)
    worker = Worker(plan)
    z = np.zeros((3, 6))
    tuned, untouched = worker.label_logits(z, task.test), worker.label_logits(None, task.test)
    assert np.abs(tuned - untouched).max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_equals_keys_and_values_of_its_states(family, make_job, tiny_models):
    """Real tokens see the prefix; the prefix sees nothing: its states enter every layer as they were set."""
    spec = make_job(family, prompt={"kind": "prefix", "text": "is this good or bad ?", "tokens": None})
    plan, task, _ = make_plan(spec)
    worker = Worker(plan)
    one, two = task.test[3], task.test[5]
    z = 0.5 * np.random.default_rng(2).standard_normal((3, 6))
    seen = []
    for example in (one, two):
        batch = worker._encoder.batch([worker._encoder.row(example)])
        states = worker._model.entering(batch, worker._edits(z))
        span = worker._positions
        seen.append([hidden[0, span.start : span.stop] for hidden in states])
    for first, second in zip(*seen, strict=True):
        assert torch.equal(first, second)


def test_a_causal_prefix_of_zero_equals_the_prompt_as_text(make_job):
    """For causal models the states of a prompt in front do not depend on what follows."""
    spec = make_job("llama", prompt={"kind": "prefix", "text": "is this good or bad ?", "tokens": None})
    plan, task, _ = make_plan(spec)
    worker = Worker(plan)
    tuned, text = worker.label_logits(np.zeros((3, 6)), task.test), worker.label_logits(None, task.test)
    assert np.abs(tuned - text).max() < 1e-4


@pytest.mark.parametrize("family", [*FAMILIES, "encoder"])
def test_logits_do_not_depend_on_the_rows_of_a_batch(family, make_job):
    words = {"label_words": ["a bad end", "a great film"]} if family == "encoder" else {}
    plan, task, _ = make_plan(make_job(family, task=words))
    worker = Worker(plan)
    z = np.random.default_rng(4).standard_normal((3, 6))
    together = worker.label_logits(z, task.test)
    alone = np.concatenate([worker.label_logits(z, [example]) for example in task.test])
    assert np.abs(together - alone).max() < 1e-4


GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("prompted", [True, False])
def test_logits_equal_those_of_the_public_bbtv2_code(family, prompted):
    spec = BackboneSpec(model=f"path:{GOLDEN / family}", kind="masked-lm")
    auto_config = AutoModel.from_pretrained(GOLDEN / family).config
    model = load_frozen(ModelCard(find_model(spec), auto_config, None, "masked-lm"), spec)
    golden = load_file(GOLDEN / family / "golden.safetensors")
    prompts = dict(enumerate(golden["prompts"])) if prompted else {}
    batch = Batch(golden["input_ids"], golden["attention_mask"], golden["mask_position"])
    states = model.states(batch, offset_edits(prompts, range(1, 6)))
    words = [torch.tensor([token]) for token in range(golden["official_logits"].shape[1])]
    logits = model.word_logits(states, batch, words)
    official = golden["official_logits" if prompted else "official_logits_zero_prompt"]
    assert (logits - official).abs().max() < 1e-5


def test_causal_models_read_the_last_real_token_not_padding(make_job):
    plan, task, _ = make_plan(make_job("gpt2"))
    encoder = Worker(plan)._encoder
    rows = [encoder.row(example) for example in task.train]
    batch = encoder.batch(rows)
    assert batch.read.tolist() == [len(row) - 1 for row in rows]
    assert len({len(row) for row in rows}) > 1


def test_a_model_card_knows_its_kind(tiny_models):
    kinds = {name: read_model_card(BackboneSpec(model=f"path:{folder}")).kind for name, folder in tiny_models.items()}
    assert kinds == {
        "bert": "masked-lm",
        "roberta": "masked-lm",
        "gpt2": "causal-lm",
        "llama": "causal-lm",
        "encoder": "sentence-encoder",
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", ["é😀漢字 " * 60, "a great film " * 90, "😀" * 200])
def test_long_texts_are_cut_and_the_template_is_not(family, text, make_job):
    plan, _, card = make_plan(make_job(family, backbone={"max_tokens": 40}))
    encoder = plan.encoder(card, with_prompt=True)
    row = encoder.row(Example(text, None, 0))
    assert len(row) <= 40
    assert len(row) >= 30 or family == "bert"  # to which a word of emoji is one unknown token
    assert row[encoder.batch([row]).read[0]] == (
        card.tokenizer.mask_token_id if family in ("bert", "roberta") else row[-1]
    )
    ending = card.tokenizer.decode(row).replace(" ", "")
    assert "itwas" in ending


def test_of_a_pair_both_texts_keep_their_beginning(make_job, tiny_models):
    card = read_model_card(BackboneSpec(model=f"path:{tiny_models['bert']}"))
    template = Template("{text_a} ? {mask} , {text_b}", "pair")
    encoder = Encoder(card.tokenizer, "masked-lm", template, [1, 2], "", 40)
    row = card.tokenizer.decode(encoder.row(Example("great " * 100, "bad " * 300, 0)))
    assert 10 < row.count("great") < 20
    assert 10 < row.count("bad") < 20


def test_a_newline_before_the_mask_stays_in_the_prompt(make_job):
    plan, task, card = make_plan(
        make_job("gpt2", task={"template": "{text}\nLabel:\n{mask}", "label_words": ["a", "b"]})
    )
    row = plan.encoder(card, with_prompt=False).row(task.train[0])
    assert card.tokenizer.decode(row).endswith("Label:\n")


def test_mask_tokens_in_a_users_text_are_not_masks(make_job):
    plan, _, card = make_plan(make_job("bert"))
    encoder = plan.encoder(card, with_prompt=True)
    row = encoder.row(Example("a [MASK] film [SEP] great", None, 0))
    assert row.count(card.tokenizer.mask_token_id) == 1
