"""What is exported gives what the run gives, in the hands of the library that it is for; what cannot is refused."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_task import TEXTS

from bbtune import BbtuneError, api, export
from bbtune.backbone.fetch import cached_model
from bbtune.exporting.opened import open_predictor
from bbtune.exporting.probes import check_same, largest_difference, probes
from bbtune.exporting.prompt_folder import read_prompt
from bbtune.predictor import Predictor
from bbtune.result import TuneResult
from bbtune.tuned import tuned

CAUSAL = ["gpt2", "opt", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "windowed"]
FIRST = ["gpt2", "opt", "llama", "gemma2"]  # one of each kind; the others take a minute
WINDOWED = ["gemma2", "gemma3_text", "windowed"]  # padding on the left takes room in the window


def stock(folder: Path, side: str, source: str | None = None) -> np.ndarray:
    """Label logits of transformers and peft alone: nothing of ours but the card is read."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    card = json.loads((folder / "card.json").read_text())
    source = source or card["model"]["source"].removeprefix("path:")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source), str(folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side=side)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    texts = [f"{example.text} . it was" for example in probes("single")]
    batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    asked = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if side == "left":
        asked["position_ids"] = (batch.attention_mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        logits = model(**asked).logits[:, -batch.input_ids.shape[1] :]
    last = batch.attention_mask.sum(1) - 1 if side == "right" else torch.full((len(texts),), -1)
    at = logits[torch.arange(len(texts)), last]
    return torch.stack([at[:, ids].logsumexp(1) for ids in card["adapter"]["label_token_ids"]], 1).numpy()


@pytest.mark.parametrize(
    ("family", "prompt"),
    [("bert", "prefix"), ("bert", "input"), ("t5", "offsets"), ("encoder", "some"), ("llama", "behind")],
)
def test_a_prompt_in_safetensors_gives_the_label_logits_of_the_run(make_run, tmp_path, family, prompt):
    run = make_run(family, prompt)
    said = export(run, "safetensors", tmp_path / "out")
    assert "read back" in said[0]
    texts = probes("single")
    got = read_prompt(tmp_path / "out").label_logits(texts)
    with Predictor(TuneResult.load(run)) as predictor, open_predictor(tmp_path / "out") as again:
        asked = [example.text for example in texts]
        expected, found = predictor.predict(asked), again.predict(asked)
    assert largest_difference(tuned(TuneResult.load(run)).label_logits(texts), got) < 1e-6
    assert [one.label for one in found] == [one.label for one in expected]
    assert [one.probability for one in found] == pytest.approx([one.probability for one in expected], abs=1e-4)


@pytest.mark.parametrize(
    ("family", "prompt"),
    [
        *(pytest.param(family, "prefix", marks=[] if family in FIRST else pytest.mark.slow) for family in CAUSAL),
        ("gpt2", "offsets"),
        ("llama", "some"),
    ],
)
def test_stock_peft_gives_the_label_logits_of_the_run(make_run, tmp_path, family, prompt):
    run = make_run(family, prompt)
    export(run, "peft", tmp_path / "out")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["adapter"]["peft_type"] == "PREFIX_TUNING"
    assert card["adapter"]["padding"] == (["right"] if family in WINDOWED else ["right", "left"])
    expected = tuned(TuneResult.load(run)).label_logits(probes("single"))
    for side in card["adapter"]["padding"]:
        assert largest_difference(expected, stock(tmp_path / "out", side)) < 1e-4


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma"])
def test_a_prompt_at_the_input_is_prompt_tuning_for_texts_padded_on_the_right_and_a_prefix_for_both(
    make_run, tmp_path, family
):
    run = make_run(family, "input")
    expected = tuned(TuneResult.load(run)).label_logits(probes("single"))
    export(run, "peft", tmp_path / "prompt")
    export(run, "peft-prefix", tmp_path / "prefix")
    cards = [json.loads((tmp_path / name / "card.json").read_text())["adapter"] for name in ("prompt", "prefix")]
    assert [card["peft_type"] for card in cards] == ["PROMPT_TUNING", "PREFIX_TUNING"]
    assert [card["padding"] for card in cards] == [["right"], ["right", "left"]]
    assert largest_difference(expected, stock(tmp_path / "prompt", "right")) < 1e-4
    for side in ("right", "left"):
        assert largest_difference(expected, stock(tmp_path / "prefix", side)) < 1e-4


@pytest.mark.parametrize("name", ["prompt-tuning", "deep-prompts", "low-rank-prompt"])
def test_trained_prompts_are_exported_as_those_that_were_searched(make_run, tmp_path, name):
    method = {"name": name, "epochs": 2}
    run = tmp_path / "run"
    raw = TuneResult.load(make_run("llama")).spec.model_dump(mode="json", exclude={"method", "prompt", "budget"})
    api.run({**raw, "method": method, "prompt": {"tokens": 4}}, run)
    expected = tuned(TuneResult.load(run)).label_logits(probes("single"))
    with Predictor(TuneResult.load(run)) as predictor:
        probabilities = [one.probability for one in predictor.predict([text for text, _ in TEXTS])]
    export(run, "safetensors", tmp_path / "tensors")
    with open_predictor(tmp_path / "tensors") as again:
        found = [one.probability for one in again.predict([text for text, _ in TEXTS])]
    assert found == pytest.approx(probabilities, abs=1e-4)
    export(run, "peft", tmp_path / "peft")
    assert largest_difference(expected, stock(tmp_path / "peft", "right")) < 1e-4


def test_the_code_beside_an_adapter_runs_in_its_folder_and_gives_the_label_logits(make_run, tmp_path, monkeypatch):
    run = make_run("llama")
    export(run, "peft", tmp_path / "out")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL).group(1)
    source = json.loads((tmp_path / "out" / "card.json").read_text())["model"]["source"].removeprefix("path:")
    monkeypatch.chdir(tmp_path / "out")
    scope: dict[str, Any] = {}
    exec(code.replace(json.dumps(Path(source).name), json.dumps(source)), scope)  # the folder's name stands for it
    expected = tuned(TuneResult.load(run)).label_logits(probes("single"))
    for example, wanted in list(zip(probes("single"), expected, strict=True))[::10]:
        got = scope["label_logits"](example.text)
        assert list(got) == ["negative", "positive"]
        assert list(got.values()) == pytest.approx(list(wanted), abs=1e-4)


def test_t5_takes_a_prompt_at_the_input_as_prompt_tuning(make_run, tmp_path):
    said = export(make_run("t5", "input"), "peft", tmp_path / "out")
    assert "prompt tuning" in said[0]
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"


@pytest.mark.parametrize(
    ("family", "parts", "form", "words"),
    [
        ("bert", {}, "peft", "got a masked-lm .bert.: peft puts its tokens before the special ones"),
        ("encoder", {}, "peft", "got a sentence-encoder"),
        ("t5", {}, "peft", "expected an offset prompt at the input of a seq2seq-lm"),
        ("t5", {"prompt": "input"}, "peft-prefix", "expected a causal language model, got a seq2seq-lm"),
        ("bart", {"prompt": "input"}, "peft", "without a special token before the text, got bart"),
        ("llama", {"prompt": "behind"}, "peft", "got one behind it"),
        ("opt", {"prompt": "input"}, "peft", "24 wide, its layers 32; use peft-prefix"),
        ("llama", {}, "text", "expected a prompt in words"),
        ("llama", {}, "peff", 'did you mean "peft"'),
    ],
)
def test_what_a_form_cannot_hold_is_refused_in_words_and_leaves_nothing(make_run, tmp_path, family, parts, form, words):
    with pytest.raises(BbtuneError, match=words):
        export(make_run(family, **parts), form, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_gives_something_else_is_not_kept(make_run, tmp_path, monkeypatch):
    from bbtune.exporting import peft_adapter

    true = peft_adapter.keys_and_values
    monkeypatch.setattr(peft_adapter, "keys_and_values", lambda found: true(found) * 1.01)
    with pytest.raises(BbtuneError, match="read back, to give the label logits of the run within 0"):
        export(make_run("llama"), "peft", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_differences_that_are_no_numbers_are_not_taken_for_equality():
    good = np.zeros((2, 2), dtype=np.float32)
    with pytest.raises(BbtuneError, match="nan"):
        check_same(good, good * np.nan, "float32", "it")


def test_a_folder_that_holds_something_is_left_alone(make_run, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(BbtuneError, match="expected a new or empty folder"):
        export(make_run("llama"), "safetensors", tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"


def test_what_is_exported_can_be_read_by_others(make_run, tmp_path):
    export(make_run("llama"), "peft", tmp_path / "out")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {0o644}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755


def test_the_card_says_model_task_template_label_words_scores_and_the_job(make_run, tmp_path):
    run = make_run("bert")
    export(run, "safetensors", tmp_path / "out")
    card, result = json.loads((tmp_path / "out" / "card.json").read_text()), TuneResult.load(run)
    assert card["model"]["source"] == result.spec.backbone.model
    assert card["reading"]["template"] == "{text} . it was {mask}"
    assert card["reading"]["label_words"] == [["bad"], ["great"]]
    assert card["scores"]["tuned"]["test"]["value"] == result.scores["tuned"].test.value
    assert card["spec"]["prompt"]["tokens"] == 4
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "* positive: great" in readme
    assert f"{result.scores['tuned'].test.value:.3f} [" in readme


def test_a_damaged_prompt_is_told(make_run, tmp_path):
    export(make_run("bert"), "safetensors", tmp_path / "out")
    (tmp_path / "out" / "prompt.safetensors").write_bytes(b"nothing")
    with pytest.raises(BbtuneError, match="the prompt cannot be read"):
        read_prompt(tmp_path / "out")
    with pytest.raises(BbtuneError, match="expected a folder of bbtune export"):
        read_prompt(tmp_path)


@pytest.mark.slow
def test_stock_peft_gives_the_label_logits_of_smollm2_padded_on_either_side(tmp_path):
    try:
        cached_model("smollm2-135m")
    except BbtuneError as missing:
        pytest.skip(str(missing))
    rows = [f"{text} {i},{'positive' if label else 'negative'}" for i in range(6) for text, label in TEXTS]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *(row.replace(" , ", " ") for row in rows)]))
    job = {
        "name": "smollm2",
        "task": {"source": f"file:{tmp_path / 'texts.csv'}", "shots": 4, "template": "{text} . it was {mask}"},
        "backbone": {"model": "cache:smollm2-135m"},
        "prompt": {"kind": "prefix", "tokens": 8, "layers": [4, 12, 20], "intrinsic_dim": 20},
        "method": {"optimizer": "cma-diagonal", "population": 4},
        "budget": {"evaluations": 13},
        "evaluators": {"count": 0},
        "tracking": {"enabled": False},
    }
    api.run(job, tmp_path / "run")
    expected = tuned(TuneResult.load(tmp_path / "run")).label_logits(probes("single"))
    assert len(expected) == 50
    export(tmp_path / "run", "peft", tmp_path / "out")
    source = cached_model("smollm2-135m")
    for side in ("right", "left"):
        assert largest_difference(expected, stock(tmp_path / "out", side, str(source))) < 1e-4
