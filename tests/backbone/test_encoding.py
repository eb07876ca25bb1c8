"""From examples to rows: what is cut, what is read, and where the prompt stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import MAKERS
from trials import CAUSAL, WORDS, Trial

from bbtune.backbone.encoding import Encoder, PromptText
from bbtune.backbone.sources import read_model_card
from bbtune.backbone_spec import BackboneSpec
from bbtune.examine import make_plan
from bbtune.task.task import Example
from bbtune.task.template import Template

KINDS = {
    "masked-lm": ["bert", "roberta", "xlm-roberta", "distilbert", "electra", "modernbert"],
    "causal-lm": CAUSAL,
    "seq2seq-lm": ["t5", "flan-t5", "bart"],
    "sentence-encoder": ["encoder", "roberta-encoder", "modernbert-encoder", "t5-encoder"],
}
FAMILIES = [name for name in MAKERS if not name.endswith("encoder")]


def encoder_of(make_job: Any, family: str, **parts: Any) -> tuple[Encoder, Any]:
    """The encoder of a job's rows with their prompt, and the tokenizer."""
    plan, _, card = make_plan(make_job(family, **parts))
    return plan.encoder(card, with_prompt=True), card.tokenizer


def test_a_model_card_knows_its_kind(tiny_models):
    kinds = {name: read_model_card(BackboneSpec(model=f"path:{folder}")).kind for name, folder in tiny_models.items()}
    assert kinds == {name: kind for kind, names in KINDS.items() for name in names}


def test_rows_are_padded_on_the_right_and_read_at_their_own_last_token(make_job):
    encoder, _ = encoder_of(make_job, "gpt2")
    rows = [encoder.row(Example(text, None, 0)) for text in ("great", "a great film , truly good", "bad end")]
    batch = encoder.batch(rows)
    assert batch.mask.sum(dim=1).tolist() == [len(row.ids) for row in rows]
    assert batch.read.tolist() == [len(row.ids) - 1 for row in rows]
    for i, row in enumerate(rows):
        assert batch.ids[i, : len(row.ids)].tolist() == row.ids
    assert len({len(row.ids) for row in rows}) > 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", ["é😀漢字 " * 60, "a great film " * 90, "😀" * 200])
def test_long_texts_are_cut_and_the_template_is_not(family, text, make_job):
    encoder, tokenizer = encoder_of(make_job, family, backbone={"max_tokens": 40})
    row = encoder.row(Example(text, None, 0))
    assert len(row.ids) <= 40
    assert len(row.ids) >= 30 or tokenizer.unk_token_id is not None  # a word of emoji may be one unknown token
    assert "itwas" in tokenizer.decode(row.ids).replace(" ", "")
    if family in ("t5", "flan-t5"):
        assert row.read == 1
        assert row.decoder_ids == [0, tokenizer.convert_tokens_to_ids("<extra_id_0>")]
        assert row.decoder_ids[1] in row.ids
    elif family in CAUSAL:
        assert row.read == len(row.ids) - 1
        assert row.decoder_ids is None
    else:
        assert row.ids[row.read] == tokenizer.mask_token_id
        assert row.decoder_ids == ([2, *row.ids[:-1]] if family == "bart" else None)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mask_is_read_where_more_words_stand_behind_it(family, make_job):
    template = "{text} is {mask}" if family in CAUSAL else "{text} is {mask} , they say"
    encoder, tokenizer = encoder_of(make_job, family, task={"template": template})
    row = encoder.row(Example("a great film", None, 0))
    if family in CAUSAL:
        assert tokenizer.decode(row.ids).endswith(" is")
    elif family not in ("t5", "flan-t5"):
        assert row.ids[row.read] == tokenizer.mask_token_id
        assert row.read < len(row.ids) - 2


def test_of_a_pair_both_texts_keep_their_beginning(tiny_models):
    card = read_model_card(BackboneSpec(model=f"path:{tiny_models['bert']}"))
    template = Template("{text_a} ? {mask} , {text_b}", "pair")
    encoder = Encoder(card, template, PromptText((1, 2)), 40)
    row = card.tokenizer.decode(encoder.row(Example("great " * 100, "bad " * 300, 0)).ids)
    assert 10 < row.count("great") < 20
    assert 10 < row.count("bad") < 20


def test_a_newline_before_the_mask_stays_in_the_prompt(make_job):
    plan, task, card = make_plan(
        make_job("gpt2", task={"template": "{text}\nLabel:\n{mask}", "label_words": ["a", "b"]})
    )
    row = plan.encoder(card, with_prompt=False).row(task.train[0])
    assert card.tokenizer.decode(row.ids).endswith("Label:\n")


def test_mask_tokens_in_a_users_text_are_not_masks(make_job):
    encoder, tokenizer = encoder_of(make_job, "bert")
    row = encoder.row(Example("a [MASK] film [SEP] great", None, 0))
    assert row.ids.count(tokenizer.mask_token_id) == 1


def test_sentinels_in_a_users_text_are_not_masks(make_job):
    encoder, tokenizer = encoder_of(make_job, "t5")
    row = encoder.row(Example("a <extra_id_0> film </s> great", None, 0))
    assert row.ids.count(tokenizer.convert_tokens_to_ids("<extra_id_0>")) == 1
    assert row.ids.count(tokenizer.eos_token_id) == 1


def test_special_tokens_that_a_causal_tokenizer_puts_behind_a_text_are_left_out(make_job, tmp_path, tiny_models):
    """The model is to go on where the text ends, not behind its end."""
    import shutil

    from tokenizers import processors
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_models["llama"], tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer.save_pretrained(folder)
    encoder, tokenizer = encoder_of(make_job, "llama", backbone={"model": f"path:{folder}"})
    assert tokenizer("a")["input_ids"][0] == tokenizer("a")["input_ids"][-1] == 0
    row = encoder.row(Example("a great film", None, 0))
    assert row.ids[0] == 0
    assert row.ids.count(0) == 1
    assert encoder.prompt_alone().ids == [0, *encoder.prompt.ids]
    assert tokenizer.decode(row.ids).endswith("it was")


# -- the prompt behind the text

_TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map(" ".join)


@pytest.mark.parametrize("family", CAUSAL)
def test_a_prompt_behind_the_text_stands_between_the_last_field_and_the_ending(family, make_job):
    encoder, tokenizer = encoder_of(make_job, family, prompt={"place": "after"}, backbone={"max_tokens": 40})
    ending = tokenizer(" . it was", add_special_tokens=False)["input_ids"]

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(_TEXTS)
    def check(text: str) -> None:
        row = encoder.row(Example(text, None, 0))
        behind = row.prompt + encoder.prompt_length
        assert tuple(row.ids[row.prompt : behind]) == encoder.prompt.ids
        assert row.ids[behind:] == ending
        assert row.read == len(row.ids) - 1
        assert len(row.ids) <= 40
        head = tokenizer.decode(row.ids[: row.prompt], skip_special_tokens=True)
        assert text.startswith(head)
        assert head == text or len(row.ids) >= 38

    check()


@pytest.mark.parametrize("kind", ["offset", "prefix"])
def test_of_a_pair_the_prompt_stands_behind_the_second_text(kind, tiny_models):
    card = read_model_card(BackboneSpec(model=f"path:{tiny_models['llama']}"))
    template = Template("{text_a} ? or {text_b} ! so {mask}", "pair")
    encoder = Encoder(card, template, PromptText((7, 8), place="after"), 40)
    row = encoder.row(Example("great film", "bad end", 0))
    assert row.ids[row.prompt : row.prompt + 2] == [7, 8]
    assert card.tokenizer.decode(row.ids[: row.prompt]) == "great film ? or bad end"
    assert card.tokenizer.decode(row.ids[row.prompt + 2 :]) == " ! so"


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("before", "is this good or bad ? a great film . it was"),
        ("after", "a great film is this good or bad ? . it was"),
    ],
)
def test_the_untouched_model_reads_the_prompts_text_in_words_at_its_place(family, place, expected, make_job):
    plan, _, card = make_plan(
        make_job(family, prompt={"kind": "offset", "place": place, "text": "is this good or bad ?", "tokens": None})
    )
    example = Example("a great film", None, 0)
    plain, tuned = (plan.encoder(card, with_prompt=with_prompt).row(example) for with_prompt in (False, True))
    assert card.tokenizer.decode(plain.ids, skip_special_tokens=True) == expected
    assert plain == tuned


@pytest.mark.parametrize("place", ["before", "after"])
def test_without_a_prompt_text_the_untouched_model_reads_the_template_alone(place, make_job):
    plan, _, card = make_plan(make_job("llama", prompt={"kind": "offset", "place": place}))
    row = plan.encoder(card, with_prompt=False).row(Example("a great film", None, 0))
    assert row.ids == card.tokenizer("a great film . it was", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", ["offset", "prefix"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_a_text_that_is_empty_once_its_special_tokens_are_gone_is_scored(kind, family, make_job):
    """Nothing stands in front of a prompt behind it, not even a special token for some models."""
    plan, _, _ = make_plan(make_job(family, prompt={"kind": kind, "place": "after"}))
    trial = Trial(plan)
    trial.use([Example("", None, 0), Example("a great film", None, 1)])
    z = np.random.default_rng(0).standard_normal((2, 3, 6))
    assert trial.off(z, "train", trial.candidates(z, "train", 0)) < 1e-4
