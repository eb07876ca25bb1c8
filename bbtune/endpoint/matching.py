"""Which label a token or a text stands for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from bbtune.task.verbalizer import Words

_SHORTEST = 3  # letters of a token that may stand for a longer word that it begins: " a" is no " anger"
_SPACES = " \t\r\n▁Ġ"  # as they are written in the vocabularies of some servers


def bare(token: str) -> str:
    """A token or word without the spaces around it, in lower case."""
    return token.strip(_SPACES).casefold()


def flat(text: str) -> str:
    """A text without white space, however that is written."""
    return "".join(c for c in text if not c.isspace() and c not in _SPACES)


def begins(token: str, word: str, pieces: Mapping[str, str]) -> bool:
    """Whether a token (bare) may be the first of a word, in any way of writing it."""
    whole = bare(word)
    if not token or not whole.startswith(token):
        return False
    return token == whole or len(token) >= len(pieces.get(word, " " * _SHORTEST))


def told_apart(words: Words, pieces: Mapping[str, str]) -> bool:
    """Whether the first token of an answer says which label it begins.

    Args:
        words: of each label.
        pieces: first tokens that are known; of other words the first letters have to do.
    """
    for label, of_label in enumerate(words):
        others = [bare(word) for other, of_other in enumerate(words) if other != label for word in of_other]
        for word in of_label:
            piece = pieces.get(word, bare(word)[:_SHORTEST])
            if any(other.startswith(piece) for other in others):
                return False
    return True


def said_label(answer: str, words: Words) -> int | None:
    """The label whose word the answer begins with (the longest such word), else the only one whose word is in it."""
    said = _plain(answer)
    known = [(_plain(word), label) for label, of_label in enumerate(words) for word in of_label]
    begun = [(len(word), label) for word, label in known if _starts(said, word)]
    if begun:
        longest = {label for length, label in begun if length == max(begun)[0]}
        return longest.pop() if len(longest) == 1 else None
    inside = {label for word, label in known if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", said)}
    return inside.pop() if len(inside) == 1 else None


def _plain(text: str) -> str:
    """In lower case, signs and runs of white space as one space: quotes, dots and stars of Markdown say nothing."""
    letters = "".join(" " if unicodedata.category(c)[0] in "PZC" else c for c in text.casefold())
    # A word that is made of signs stays what it is.
    return " ".join(letters.split()) or " ".join(text.casefold().split())


def _starts(said: str, word: str) -> bool:
    return said.startswith(word) and not re.match(r"\w", said[len(word) :])
