"""What must hold of a server's answers, so that one that ignores a question is not believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from bbtune.endpoint.matching import bare, flat
from bbtune.endpoint.request import Answer, Token
from bbtune.endpoint.shown import PromptWay

IGNORED = "it answers, and ignores that it was asked"

_CLOSE = 0.15  # servers that compute in 16 bits are no closer than that to themselves


def first_tokens(tokens: Sequence[Token], words: Sequence[str]) -> dict[str, str]:
    """The first token, bare, of the words that a text has in this order.

    Args:
        tokens: of the text.
        words: to look for.
    """
    starts, text = [], ""
    for token in tokens:
        starts.append(len(text))
        text += token.text
    found, place = {}, 0
    for word in words:
        begin = text.find(word, place)
        if begin < 0:
            break
        place = begin + len(word)
        covering = max(i for i, start in enumerate(starts) if start <= begin)
        piece = bare(tokens[covering].text)
        if piece and bare(word).startswith(piece):
            found[word] = piece
    return found


def fault_of(tokens: Sequence[Token]) -> str | None:
    """What is wrong with the log-probabilities of a greedy answer, None if nothing is."""
    if not tokens or not all(token.top and token.logprob is not None for token in tokens):
        return IGNORED
    for token in tokens:
        values = [value for _, value in token.top]
        if max(values) > 1e-6 or math.fsum(map(math.exp, values)) > 1.01:
            return "what comes are no log-probabilities"
        if values != sorted(values, reverse=True):
            return "the tokens are not in the order of their probability"
        if token.text not in dict(token.top):
            return "the token that was taken is not among the most probable"
    return None


def shift_of(key: Literal["echo", "prompt_logprobs"], answer: Answer, known: Sequence[float]) -> int | None:
    """Places by which the values stand too far back, if one place, and no other, fits what is known."""
    gaps: dict[int, float] = {}
    for shift in (0, 1, -1):
        values = [value for _, value in PromptWay(key, shift).tokens(answer)[-len(known) :]]
        pairs = [(value, own) for value, own in zip(values, known, strict=False) if value is not None]
        # Values behind the last cannot be seen where no token follows.
        gaps[shift] = max((abs(value - own) for value, own in pairs), default=math.inf) if len(pairs) > 1 else math.inf
    best, second = sorted(gaps, key=lambda shift: gaps[shift])[:2]
    return best if gaps[best] <= _CLOSE and gaps[second] > 3 * gaps[best] + 0.02 else None


def same_top(one: Token, other: Token) -> bool:
    """Whether the five most probable tokens of one have, within 1e-3, the log-probabilities that the other has."""
    gaps = [
        min((abs(value - own) for name, own in other.top if name == text), default=math.inf)  # texts can come twice
        for text, value in one.top[:5]
    ]
    return bool(gaps) and max(gaps) <= 1e-3


def same_text(texts: Sequence[str], prompt: str) -> bool:
    """Whether tokens are those of a prompt: the first may be a special token, or one whose text is not told."""
    whole, wanted = flat("".join(texts)), flat(prompt)
    rest = flat("".join(texts[1:]))
    return whole.endswith(wanted) or (len(texts) > 1 and 2 * len(rest) > len(wanted) and wanted.endswith(rest))
