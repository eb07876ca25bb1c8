"""From examples to token ids: special tokens, prompt, template, and the position that is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bbtune.errors import BackboneError
from bbtune.task.task import Example
from bbtune.task.template import Template

_OFFSETS: dict[str, Any] = {"add_special_tokens": False, "return_offsets_mapping": True}
_FIRST_PLACEHOLDER = 1000  # the official BBTv2 code fills prompts with the ids 1000, 1001, ...


@dataclass(frozen=True)
class Batch:
    """Right-padded rows: ``ids`` and ``mask`` (B, S), ``read`` (B,) the position whose state is scored."""

    ids: torch.Tensor
    mask: torch.Tensor
    read: torch.Tensor


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

    Args:
        tokenizer: of the model.
        kind: ``masked-lm`` reads at the mask, ``causal-lm`` at the last token, ``sentence-encoder`` pools.
        template: around each example.
        prompt_ids: T ids under the prompt, possibly none.
        joint: text that joins prompt and template (``" "`` behind an instruction in words).
        max_tokens: of a whole row; longer example texts are cut at their end, the template never.
    """

    def __init__(
        self, tokenizer: Any, kind: str, template: Template, prompt_ids: Sequence[int], joint: str, max_tokens: int
    ) -> None:
        self._tokenizer = tokenizer
        self._kind = kind
        self._template = template
        self._prompt_ids = list(prompt_ids)
        self._joint = joint
        self._max_tokens = max_tokens
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = tokenizer("a")["input_ids"]
        self.leading = whole.index(bare[0])
        self._padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0

    @property
    def prompt_positions(self) -> range:
        """Positions of the prompt in every row: behind the leading special tokens."""
        return range(self.leading, self.leading + len(self._prompt_ids))

    def row(self, example: Example) -> list[int]:
        """Token ids of one example.

        Raises:
            BackboneError: if the row cannot be made short enough by cutting the example's texts.
        """
        values = {name: self._without_specials(text) for name, text in example.fields().items()}
        while True:
            ids = self._encode(values)
            excess = len(ids) - self._max_tokens
            if excess <= 0:
                return ids
            values |= self._shortened(values, excess)

    def batch(self, rows: Sequence[list[int]]) -> Batch:
        """Pad rows on the right."""
        width = max(len(row) for row in rows)
        ids = np.full((len(rows), width), self._padding, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        read = np.array([self._read_position(row) for row in rows], dtype=np.int64)
        return Batch(torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(read))

    def prompt_alone(self) -> Batch:
        """The prompt text as the model sees it without any input: ``specials, prompt, specials``."""
        whole = self._tokenizer("a")["input_ids"]
        row = [*whole[: self.leading], *self._prompt_ids, *whole[self.leading + 1 :]]
        ids = torch.tensor([row])
        return Batch(ids, torch.ones_like(ids), torch.zeros(1, dtype=torch.int64))

    def _encode(self, values: dict[str, str]) -> list[int]:
        mask = {"masked-lm": self._tokenizer.mask_token, "causal-lm": None, "sentence-encoder": ""}[self._kind]
        text = self._joint + self._template.render(values, mask)
        ids = list(self._tokenizer(text)["input_ids"])
        return [*ids[: self.leading], *self._prompt_ids, *ids[self.leading :]]

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
                f"backbone.max_tokens: expected room for prompt, template and some text, got {self._max_tokens}; "
                "raise it, or shorten prompt or template"
            )
        return {longest: values[longest][: starts[longest][kept]]}

    def _without_specials(self, text: str) -> str:
        for token in self._tokenizer.all_special_tokens:
            text = text.replace(token, " ")
        return text

    def _read_position(self, row: list[int]) -> int:
        if self._kind == "masked-lm":
            start = self.prompt_positions.stop
            return row.index(self._tokenizer.mask_token_id, start)
        return len(row) - 1
