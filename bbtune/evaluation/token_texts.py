"""What single tokens look like in a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TokenTexts:
    """Texts of token ids, with the spaces that belong to them.

    Args:
        tokenizer: of transformers.

    Attributes:
        ends: ids of the tokens that end an answer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}
        # Some tokenizers take the space away from the first token of a text: behind this one it stays.
        self._anchor = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        self._skip = len(self._decoded(self._anchor))
        self.ends = _ends(tokenizer)

    def __getitem__(self, number: int) -> str:
        """Text of one token."""
        if number not in self._known:
            self._known[number] = self.together([number])
        return self._known[number]

    def together(self, ids: Sequence[int]) -> str:
        """Text of tokens in a row: of letters that take several tokens, too."""
        return self._decoded([*self._anchor, *ids])[self._skip :]

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _ends(tokenizer: Any) -> list[int]:
    """Ids of the tokens that end an answer."""
    names = [tokenizer.eos_token, "<|im_end|>", "<|eot_id|>", "<end_of_turn>"]
    vocabulary = tokenizer.get_vocab()
    found = [vocabulary[name] for name in names if name is not None and name in vocabulary]
    return list(dict.fromkeys(found)) or [tokenizer.pad_token_id or 0]
