"""How well an answer in words fits a truth in words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from bbtune.errors import TaskError

_ARTICLES = {"a", "an", "the"}


def plain_words(text: str) -> list[str]:
    """Words in lower case, without punctuation and English articles, as SQuAD (arXiv 1606.05250) compares."""
    letters = "".join(c for c in text.casefold() if unicodedata.category(c)[0] != "P")
    return [word for word in letters.split() if word not in _ARTICLES]


def exact_match(answer: str, truth: str) -> float:
    """1.0 if both have the same words in the same order, else 0.0."""
    return float(plain_words(answer) == plain_words(truth))


def token_f1(answer: str, truth: str) -> float:
    """Harmonic mean of the shares of each one's words that are in the other, in [0, 1]; two empty texts are equal."""
    said, true = plain_words(answer), plain_words(truth)
    if not said or not true:
        return float(said == true)
    return 2 * sum((Counter(said) & Counter(true)).values()) / (len(said) + len(true))


def regex_match(answer: str, pattern: str) -> float:
    """1.0 if a regular expression is found in the answer, else 0.0.

    Raises:
        TaskError: if the pattern is none.
    """
    try:
        return float(re.search(pattern, answer) is not None)
    except re.error as error:
        raise TaskError(f"expected a regular expression, got {pattern!r} ({error})") from error
