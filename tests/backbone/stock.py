"""An oracle that shares no code with bbtune: transformers' own forward, with a hook before each layer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tiny_models import MAKERS
from torch import Tensor

LAYERS = {
    "BertForMaskedLM": "bert.encoder.layer",
    "RobertaForMaskedLM": "roberta.encoder.layer",
    "XLMRobertaForMaskedLM": "roberta.encoder.layer",
    "DistilBertForMaskedLM": "distilbert.transformer.layer",
    "ElectraForMaskedLM": "electra.encoder.layer",
    "ModernBertForMaskedLM": "model.layers",
    "GPT2LMHeadModel": "transformer.h",
    "OPTForCausalLM": "model.decoder.layers",
    "GPTNeoXForCausalLM": "gpt_neox.layers",
    "T5ForConditionalGeneration": "encoder.block",
    "BartForConditionalGeneration": "model.encoder.layers",
    "BertModel": "encoder.layer",
    "RobertaModel": "encoder.layer",
    "ModernBertModel": "layers",
    "T5EncoderModel": "encoder.block",
}  # every other one: model.layers
FIRST_POSITION = {"roberta": 2, "xlm-roberta": 2, "roberta-encoder": 2}  # the padding's id comes before
ENCODER_DECODERS = ("T5ForConditionalGeneration", "BartForConditionalGeneration")


@dataclass(frozen=True)
class Line:
    """Token ids of a row, where its prompt begins, the position that is read, and the decoder's input."""

    ids: Sequence[int]
    prompt: int = 0
    read: int = 0
    decoder_ids: Sequence[int] | None = None


class Stock:
    """A model as transformers loads it.

    Args:
        name: of the family in MAKERS.
        folder: of the model.
    """

    def __init__(self, name: str, folder: Path) -> None:
        class_name = MAKERS[name][1]
        self.model = getattr(hf, class_name).from_pretrained(folder, attn_implementation="eager").eval()
        self.layers = attrgetter(LAYERS.get(class_name, "model.layers"))(self.model)
        self.takes_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        self._first_position = FIRST_POSITION.get(name, 0)
        self._decodes = class_name in ENCODER_DECODERS
        self._pools = name.endswith("encoder")

    @torch.no_grad()
    def entering(self, ids: Sequence[int]) -> list[Tensor]:
        """Hidden states (S, H) that enter each layer."""
        seen: list[Tensor] = []
        with ExitStack() as hooks:
            for layer in self.layers:
                hooks.callback(_hook(layer, lambda hidden: (seen.append(hidden[0]), hidden)[1]).remove)
            inputs = {"input_ids": torch.tensor([ids])}
            (self.model.get_encoder() if self._decodes else self.model)(**inputs)
        return seen

    @torch.no_grad()
    def outputs(
        self, lines: Sequence[Line], prompts: Mapping[int, Tensor], sets: bool = False, left: bool = False
    ) -> Tensor:
        """Logits (N, vocabulary) at the position read, or mean states (N, H).

        Args:
            prompts: (T, H) by layer.
            sets: whether they take the place of the states there, or are added to them.
            left: pad on the left, with explicit positions where the model takes them.
        """
        lengths = [len(line.ids) for line in lines]
        width = max(lengths)
        shifts = [width - length if left else 0 for length in lengths]
        ids = torch.tensor([_padded(line.ids, width, left) for line in lines])
        mask = torch.tensor([_padded([1] * length, width, left) for length in lengths])
        pooled = mask.clone()
        spans = []
        tokens = len(next(iter(prompts.values()))) if prompts else 0
        for row, (line, shift) in enumerate(zip(lines, shifts, strict=True)):
            spans.append(slice(line.prompt + shift, line.prompt + shift + tokens))
            if sets:
                pooled[row, spans[-1]] = 0
        with ExitStack() as hooks:
            for number, prompt in prompts.items():
                hooks.callback(_hook(self.layers[number], _changed(spans, prompt, sets)).remove)
            if self._decodes:
                states = self.model.get_encoder()(input_ids=ids, attention_mask=mask)
            else:
                positions = torch.arange(width) - torch.tensor(shifts)[:, None]
                where = {"position_ids": positions.clamp(min=0) + self._first_position} if self.takes_positions else {}
                out = self.model(input_ids=ids, attention_mask=mask, **where)
        rows = torch.arange(len(lines))
        if self._pools:
            weight = pooled[:, :, None].float()
            return (out.last_hidden_state * weight).sum(dim=1) / weight.sum(dim=1)
        if not self._decodes:
            return out.logits[rows, torch.tensor([line.read for line in lines]) + torch.tensor(shifts)]
        decoder = torch.tensor([_padded(line.decoder_ids or [], width, False) for line in lines])
        out = self.model(encoder_outputs=states, attention_mask=pooled, decoder_input_ids=decoder)
        return out.logits[rows, torch.tensor([line.read for line in lines])]


stock_of = cache(Stock)


def _padded(values: Sequence[int], width: int, left: bool) -> list[int]:
    padding = [0] * (width - len(values))
    return [*padding, *values] if left else [*values, *padding]


def _changed(spans: Sequence[slice], prompt: Tensor, sets: bool) -> Any:
    def change(hidden: Tensor) -> Tensor:
        hidden = hidden.clone()
        for row, span in enumerate(spans):
            hidden[row, span] = prompt if sets else hidden[row, span] + prompt
        return hidden

    return change


def _hook(layer: Any, change: Any) -> Any:
    def before(_: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    return layer.register_forward_pre_hook(before, with_kwargs=True)
