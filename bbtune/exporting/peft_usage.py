"""How an adapter is used, as the README beside it says; a test runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bbtune.result import TuneResult
from bbtune.task.template import FIELDS
from bbtune.tuned import Tuned

_CODE = """\
import torch
from peft import PeftModel
from transformers import {auto}, AutoTokenizer

MODEL, ADAPTER = {model}, "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(MODEL{more})
frozen = {auto}.from_pretrained(MODEL{more}, dtype=torch.{dtype})
model = PeftModel.from_pretrained(frozen, ADAPTER).eval()
labels = {labels}


def label_logits({fields}):
    text = {text}
    batch = tokenizer(text, add_special_tokens={specials}, return_tensors="pt")
    with torch.inference_mode():
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask{decoder}).logits[0, -1]
    return {{label: logits[ids].float().logsumexp(0).item() for label, ids in labels.items()}}
"""
_BOTH = (
    "Texts may be padded on the right, or on the left with `position_ids=(mask.cumsum(1) - 1).clamp(min=0)`, as "
    "`generate` of transformers gives them; without those a model takes padding for distance."
)
_RIGHT = "Texts may be padded on the right; padded on the left, stock peft gives something else here."
_SPECIALS = " Texts are put without special tokens: those that stand before the prompt are part of it."
_CUT = "The run cuts long texts, so that they and the prompt have at most {tokens} tokens; this code does not."


def usage(result: TuneResult, found: Tuned, ids: Sequence[Sequence[int]], sides: Sequence[str]) -> str:
    """Words and code.

    Args:
        ids: token ids of each label's words.
        sides: on which texts may be padded.
    """
    decodes, backbone = found.model.card.kind == "seq2seq-lm", result.spec.backbone
    arguments = found.model.card.files.arguments(backbone)
    decoder = f", decoder_input_ids=torch.tensor([{decoder_start(found)}])" if decodes else ""
    code = _CODE.format(
        auto="AutoModelForSeq2SeqLM" if decodes else "AutoModelForCausalLM",
        model=json.dumps(stock_name(result), ensure_ascii=False),
        more="".join(f", {name}={value!r}" for name, value in arguments.items() if value),
        dtype=backbone.dtype,
        labels=dict(zip(result.labels, ids, strict=True)),
        fields=", ".join(FIELDS[found.plan.kind]),
        text=_text(found),
        specials=decodes,
        decoder=decoder,
    )
    cut = _CUT.format(tokens=found.encoder.max_tokens)
    padding = _BOTH if "left" in sides else _RIGHT
    return f"An adapter for stock peft.\n\n```python\n{code}```\n\n{padding}{'' if decodes else _SPECIALS} {cut}"


def stock_name(result: TuneResult) -> str:
    """The name that transformers knows the model by; of a local one, its folder's."""
    scheme, _, name = str(result.spec.backbone.model).partition(":")
    return name if scheme == "hf" else Path(name).name


def decoder_start(found: Tuned) -> list[int]:
    """What the decoder of an encoder-decoder model is given."""
    card = found.model.card
    return [card.config.decoder_start_token_id, card.tokenizer.convert_tokens_to_ids(card.mask_token)]


def put_text(found: Tuned, values: Mapping[str, str]) -> str:
    """The text that is put to the stock model for the values of the fields."""
    mask = found.model.card.mask_token if found.model.card.kind == "seq2seq-lm" else None
    return found.encoder.prompt.joint + found.plan.template.render(dict(values), mask)


def _text(found: Tuned) -> str:
    """The text that is put to the model, as an expression of Python."""
    whole = put_text(found, {name: f"\0{name}\0" for name in FIELDS[found.plan.kind]})
    parts = [part if i % 2 else repr(part) for i, part in enumerate(whole.split("\0"))]
    return " + ".join(part for part in parts if part != "''")
