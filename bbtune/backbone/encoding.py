"""From examples to token ids: special tokens, prompt, template, and the position that is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bbtune.backbone.sources import ModelCard
from bbtune.errors import BackboneError
from bbtune.task.task import Example
from bbtune.task.template import Template

_OFFSETS: dict[str, Any] = {"add_special_tokens": False, "return_offsets_mapping": True}
_FIRST_PLACEHOLDER = 1000  # the official BBTv2 code fills prompts with the ids 1000, 1001, ...


@dataclass(frozen=True)
class Row:
    """One example as the model reads it.

    Attributes:
        ids: token ids, the prompt's among them.
        prompt: where the prompt begins.
        read: the position whose state is scored, in the decoder's input where there is one.
        decoder_ids: input of the decoder of an encoder-decoder model.
    """

    ids: list[int]
    prompt: int
    read: int
    decoder_ids: list[int] | None = None


@dataclass(frozen=True)
class Batch:
    """Right-padded rows.

    Attributes:
        ids, mask: (B, S).
        prompt: (B,), where each row's prompt begins.
        read: (B,), the position whose state is scored.
        decoder_ids: (B, Sd), for an encoder-decoder model.
    """

    ids: Tensor
    mask: Tensor
    prompt: Tensor
    read: Tensor
    decoder_ids: Tensor | None = None


@dataclass(frozen=True)
class PromptText:
    """The tokens under a prompt, and how they stand in a row.

    Attributes:
        ids: T token ids, possibly none.
        joint: text that joins an instruction in words and the template behind it.
        place: ``before`` the template, or ``after`` its last field.
    """

    ids: tuple[int, ...] = ()
    joint: str = ""
    place: str = "before"


def prompt_token_ids(tokenizer: Any, text: str | None, tokens: int | None) -> list[int]:
    """The T token ids under a prompt.

    Args:
        text: the user's instruction, repeated until it fills ``tokens``; None for placeholders.
        tokens: T; None for the length of ``text`` (10 for placeholders).

    Raises:
        BackboneError: if ``text`` has more than ``tokens`` tokens.
    """
    if text is None:
        count = tokens or 10
        first = min(_FIRST_PLACEHOLDER, max(0, len(tokenizer) - count))
        return [(first + i) % len(tokenizer) for i in range(count)]
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not ids:
        raise BackboneError(f"prompt.text: expected text with at least one token, got {text!r}")
    if tokens is not None and len(ids) > tokens:
        raise BackboneError(
            f"prompt.tokens: expected at least the {len(ids)} tokens of prompt.text, got {tokens}; "
            "leave prompt.tokens out, or shorten the text"
        )
    return [ids[i % len(ids)] for i in range(tokens or len(ids))]


class Encoder:
    """Token ids of examples: ``specials, prompt (T), template around the example, specials``.

    With ``place="after"`` the prompt stands behind the template's last field, and the rest of the template behind it.

    Args:
        card: of the model. A masked language model is read at the mask, a causal one at the last token, an
            encoder-decoder model in its decoder; a sentence encoder pools.
        template: around each example.
        prompt: tokens under the prompt.
        max_tokens: of a whole row; longer example texts are cut at their end, the template never.
    """

    def __init__(self, card: ModelCard, template: Template, prompt: PromptText, max_tokens: int) -> None:
        self._card = card
        self._tokenizer = tokenizer = card.tokenizer
        self._template = template
        self.prompt = prompt
        self.max_tokens = max_tokens
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = tokenizer("a")["input_ids"]
        self._leading = whole[: whole.index(bare[0])]
        self._trailing = [] if card.kind == "causal-lm" else whole[len(self._leading) + len(bare) :]
        self._padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0

    @property
    def prompt_length(self) -> int:
        """T."""
        return len(self.prompt.ids)

    def row(self, example: Example) -> Row:
        """One example.

        Raises:
            BackboneError: if the row cannot be made short enough by cutting the example's texts.
        """
        values = {name: self._without_specials(text) for name, text in example.fields().items()}
        while True:
            ids, prompt = self._encode(values)
            excess = len(ids) - self.max_tokens
            if excess <= 0:
                return self._read(ids, prompt)
            values |= self._shortened(values, excess)

    def plain_row(self, text: str) -> Row:
        """A text alone, as a sentence encoder reads it."""
        return Row(list(self._tokenizer(text)["input_ids"]), 0, 0)

    def prompt_alone(self) -> Row:
        """The prompt text as the model sees it without any input: ``specials, prompt, specials``."""
        return Row([*self._leading, *self.prompt.ids, *self._trailing], len(self._leading), 0)

    def batch(self, rows: Sequence[Row]) -> Batch:
        """Pad rows on the right."""
        decoders = [row.decoder_ids for row in rows if row.decoder_ids is not None]
        return Batch(
            ids=self._padded([row.ids for row in rows]),
            mask=_ragged([[1] * len(row.ids) for row in rows], 0),
            prompt=torch.tensor([row.prompt for row in rows]),
            read=torch.tensor([row.read for row in rows]),
            decoder_ids=self._padded(decoders) if decoders else None,
        )

    def _padded(self, rows: list[list[int]]) -> Tensor:
        return _ragged(rows, self._padding)

    def _encode(self, values: dict[str, str]) -> tuple[list[int], int]:
        """Token ids, and where the prompt begins."""
        mask = {"causal-lm": None, "sentence-encoder": ""}.get(self._card.kind, self._card.mask_token)
        text = self._template.render(values, mask)
        if self.prompt.place == "before" or not self.prompt.ids:
            ids = self._specials(self.prompt.joint + text)
            start = len(self._leading)
            return [*ids[:start], *self.prompt.ids, *ids[start:]], start
        tail = self._template.ending
        head = self._specials(text.removesuffix(tail))
        rest = self._tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
        return [*head, *self.prompt.ids, *rest], len(head)

    def _specials(self, text: str) -> list[int]:
        """Token ids with the special tokens; none behind the text of a causal model, which is to go on."""
        bare = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        if not bare and self._card.kind == "causal-lm":
            bare = [self._padding]  # there must be something to read
        return [*self._leading, *bare, *self._trailing]

    def _read(self, ids: list[int], prompt: int) -> Row:
        if self._card.kind == "masked-lm":
            return Row(ids, prompt, ids.index(self._mask_id, prompt + self.prompt_length))
        if self._card.kind == "seq2seq-lm":
            start = self._card.config.decoder_start_token_id
            if self._tokenizer.mask_token_id is None:  # T5 says what stands for the sentinel
                return Row(ids, prompt, 1, [start, self._mask_id])
            read = ids.index(self._mask_id, prompt + self.prompt_length)
            return Row(ids, prompt, read, [start, *ids[:-1]])
        return Row(ids, prompt, len(ids) - 1)

    @property
    def _mask_id(self) -> int:
        return int(self._tokenizer.convert_tokens_to_ids(self._card.mask_token))

    def _shortened(self, values: dict[str, str], excess: int) -> dict[str, str]:
        """The longest text cut at its end: down to the other one, and by half of what is then too much."""
        starts = {
            name: [start for start, _ in self._tokenizer(text, **_OFFSETS)["offset_mapping"]]
            for name, text in values.items()
        }
        *others, longest = sorted(starts, key=lambda name: len(starts[name]))
        lead = min((len(starts[longest]) - len(starts[other]) for other in others), default=excess)
        kept = len(starts[longest]) - min(excess, lead + (excess - lead + 1) // 2)
        if kept < 1 or starts[longest][kept] == 0:
            raise BackboneError(
                f"backbone.max_tokens: expected room for prompt, template and some text, got {self.max_tokens}; "
                "raise it, or shorten prompt or template"
            )
        return {longest: values[longest][: starts[longest][kept]]}

    def _without_specials(self, text: str) -> str:
        for token in self._tokenizer.all_special_tokens:
            text = text.replace(token, " ")
        return text


def _ragged(rows: Sequence[list[int]], padding: int) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows])
