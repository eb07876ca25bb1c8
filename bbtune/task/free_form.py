"""How well an answer in words fits a truth in words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

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


SCORES: dict[str, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "token_f1": token_f1,
    "regex": regex_match,
}


def truth_fault(name: str, truth: str) -> str | None:
    """Why a score cannot have this truth; None where it can.

    Args:
        name: of the score.
    """
    if name != "regex":
        why = "signs and articles do not count"
        return None if plain_words(truth) else f"expected words, {why}, got {truth!r}; take metric regex"
    try:
        re.compile(truth)
    except re.error as error:
        return f"expected a regular expression, got {truth!r} ({error})"
    return None


def constant_scores(name: str, train: Sequence[str], truths: Sequence[str]) -> list[float]:
    """Scores against truths of an answer that fits the most frequent truth of train, whatever the question.

    A pattern stands for an answer that it matches, and is tried as a text on the other patterns.

    Args:
        name: of the score.
        train: truths of the train split; of equally frequent ones the first counts.
    """
    ((frequent, _),) = Counter(train).most_common(1)
    return [1.0 if truth == frequent else SCORES[name](frequent, truth) for truth in truths]
