"""Label words: which tokens of a vocabulary stand for which label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Words = tuple[tuple[str, ...], ...]  # of each label


def words_per_label(words: Sequence[str | Sequence[str]]) -> Words:
    """Words of each label, where a single word may stand for itself."""
    return tuple((word,) if isinstance(word, str) else tuple(word) for word in words)


def label_token_ids(
    words: Sequence[Sequence[str]], tokenizer: Any, after_space: bool
) -> tuple[list[list[int]], list[str]]:
    """Token ids of each label's words, and what is wrong with them.

    Args:
        words: the words of each label; several words of one label are summed in probability.
        tokenizer: of the model.
        after_space: whether white space precedes the label word in the text; byte-level vocabularies hold
            ``" great"`` and ``"great"`` as different tokens, and the one that belongs there is taken.

    Returns:
        Token ids per label, and one sentence per fault (empty when all is well).
    """
    ids: list[list[int]] = []
    faults: list[str] = []
    owner: dict[int, str] = {}
    for label in words:
        ids.append([])
        for word in label:
            token, pieces = _single_token(word, tokenizer, after_space)
            if token is None:
                faults.append(f"expected a word that is one token of the model's vocabulary, got {word!r} = {pieces}")
            elif token in owner:
                faults.append(
                    f"expected a token of its own for each word, got the same for {owner[token]!r} and {word!r}"
                )
            else:
                owner[token] = word
                ids[-1].append(token)
    return ids, faults


def _single_token(word: str, tokenizer: Any, after_space: bool) -> tuple[int | None, list[str]]:
    variants = [f" {word}", word] if after_space else [word, f" {word}"]
    for variant in variants:
        ids = tokenizer(variant, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            return ids[0], []
    return None, tokenizer.convert_ids_to_tokens(tokenizer(variants[0], add_special_tokens=False)["input_ids"])
