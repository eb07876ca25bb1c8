"""A prompt as an adapter that stock peft loads onto the stock model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbtune.backbone.packing import chunks
from bbtune.baselines.learner import import_peft
from bbtune.errors import ExportError
from bbtune.exporting.card import card_of, write_card
from bbtune.exporting.found import found_prompt
from bbtune.exporting.peft_usage import decoder_start, put_text, stock_name, usage
from bbtune.exporting.probes import check_same, uncut
from bbtune.exporting.virtual_tokens import check_exportable, input_embeddings, is_input_only, keys_and_values
from bbtune.result import TuneResult
from bbtune.task.task import Example
from bbtune.task.verbalizer import label_token_ids
from bbtune.tuned import Tuned

_ROWS = 16  # of a batch


def write_adapter(result: TuneResult, folder: Path) -> str:
    """Write a prompt at the input as peft's prompt tuning, any other of a causal model as its prefix tuning.

    Raises:
        BbtuneError: if peft cannot express the prompt, or what is read back gives other label logits.
    """
    found = found_prompt(result)
    check_exportable(found)
    return _written(result, found, folder, prefix=not is_input_only(found))


def write_prefix(result: TuneResult, folder: Path) -> str:
    """Write any prompt of a causal model as peft's prefix tuning, which takes texts that are padded on the left, too.

    Raises:
        BbtuneError: as :func:`write_adapter`, and for models that are not causal.
    """
    found = found_prompt(result)
    check_exportable(found)
    if found.model.card.kind != "causal-lm":
        raise ExportError(f"expected a causal language model, got a {found.model.card.kind}; use --format peft")
    return _written(result, found, folder, prefix=True)


def _written(result: TuneResult, found: Tuned, folder: Path, prefix: bool) -> str:
    weights = keys_and_values(found) if prefix else input_embeddings(found)
    flat = weights.permute(3, 0, 1, 2, 4).flatten(1) if prefix else weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft and transformers, on names of each other's that are to change
        peft = import_peft()
        config = _prefix_config(peft, weights) if prefix else _prompt_config(peft, found, weights)
        adapter = peft.get_peft_model(found.model.model, config)
        with torch.no_grad():
            adapter.prompt_encoder["default"].embedding.weight.copy_(flat)
        adapter.peft_config["default"].base_model_name_or_path = stock_name(result)
        adapter.save_pretrained(str(folder), save_embedding_layers=False)  # "auto" would ask a hub
        again = peft.PeftModel.from_pretrained(found.model.model, str(folder)).eval()
    sides, said = _checked(found, again)
    ids = _label_ids(found)
    facts = {"peft_type": config.peft_type.value, "virtual_tokens": len(flat), "label_token_ids": ids, "padding": sides}
    write_card(folder, card_of(result, adapter=facts), usage(result, found, ids, sides))
    return f"{'prefix' if prefix else 'prompt'} tuning, {said}"


def _checked(found: Tuned, again: Any) -> tuple[list[str], str]:
    """The sides on which texts may be padded, and how near the adapter comes, in words."""
    texts, dtype = uncut(found), found.plan.spec.backbone.dtype
    expected = found.label_logits(texts)
    right = check_same(expected, stock_logits(found, again, texts, "right"), dtype, "the adapter")
    said = f"{len(texts)} texts read back: label logits differ by {right:.1g} at the most"
    try:
        left = check_same(expected, stock_logits(found, again, texts, "left"), dtype, "the adapter")
    except ExportError:
        return ["right"], f"{said}, padded on the right; on the left stock peft gives something else"
    return ["right", "left"], f"{said}, {left:.1g} where they are padded on the left"


def stock_logits(found: Tuned, adapter: Any, examples: Sequence[Example], side: str) -> NDArray[np.float32]:
    """Label logits (N, C) of a peft model, as its user would ask for them.

    Args:
        adapter: peft's model.
        side: ``"right"`` or ``"left"``, where texts are padded; on the left with the positions that
            ``generate`` of transformers gives.
    """
    ids = _label_ids(found)
    logits = torch.cat([_read(found, adapter, examples[some], side) for some in chunks(len(examples), _ROWS)])
    return torch.stack([logits[:, of].logsumexp(dim=1) for of in ids], dim=1).cpu().numpy()


@torch.inference_mode()
def _read(found: Tuned, adapter: Any, examples: Sequence[Example], side: str) -> Tensor:
    """Logits (B, V) at the position that is read."""
    card, device = found.model.card, found.model.device
    decodes = card.kind == "seq2seq-lm"
    texts = [put_text(found, example.fields()) for example in examples]
    rows = [card.tokenizer(text, add_special_tokens=decodes)["input_ids"] for text in texts]
    ids, mask = (of.to(device) for of in _padded(rows, card.tokenizer.pad_token_id or 0, side))
    asked = {"input_ids": ids, "attention_mask": mask}
    read = mask.sum(dim=1) - 1 if side == "right" else torch.full((len(rows),), ids.shape[1] - 1)
    if decodes:
        asked["decoder_input_ids"] = torch.tensor([decoder_start(found)] * len(rows), device=device)
        read = torch.ones(len(rows), dtype=torch.int64)
    if side == "left" and not decodes:
        asked["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # prompt tuning says that it leaves positions out
        logits: Tensor = adapter(**asked).logits.float()
    virtual = 0 if decodes else logits.shape[1] - ids.shape[1]  # prompt tuning answers at its own positions, too
    return logits[torch.arange(len(rows)), read.cpu() + virtual]


def _padded(rows: Sequence[list[int]], padding: int, side: str) -> tuple[Tensor, Tensor]:
    """Token ids (B, S), and which of them are no padding."""
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), padding), torch.zeros(len(rows), width, dtype=torch.int64)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, place], mask[i, place] = torch.tensor(row), 1
    return ids, mask


def _label_ids(found: Tuned) -> list[list[int]]:
    plan = found.plan
    return label_token_ids(plan.label_words, found.model.card.tokenizer, plan.template.word_follows_space)[0]


def _prefix_config(peft: Any, weights: Tensor) -> Any:
    layers, _, heads, tokens, width = weights.shape
    return peft.PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=tokens,
        num_layers=layers,
        num_attention_heads=heads,
        token_dim=heads * width,
        num_transformer_submodules=1,
        inference_mode=True,
    )


def _prompt_config(peft: Any, found: Tuned, weights: Tensor) -> Any:
    return peft.PromptTuningConfig(
        task_type="CAUSAL_LM" if found.model.card.kind == "causal-lm" else "SEQ_2_SEQ_LM",
        num_virtual_tokens=len(weights),
        token_dim=weights.shape[1],
        num_transformer_submodules=1,
        inference_mode=True,
    )
