"""Texts of a request, judged against the prompt that they are asked under."""

from __future__ import annotations

from collections.abc import Sequence

from bbtune.serving.refusal import Refusal
from bbtune.serving.settings import Limits
from bbtune.task.task import Example


def read_texts(texts: Sequence[str | list[str]], kind: str, limits: Limits) -> list[Example]:
    """Examples of a request's texts, white space as in the rows of a task.

    Args:
        kind: ``"single"`` or ``"pair"``.

    Raises:
        Refusal: if there are too many, one is too long or empty, or a pair is none.
    """
    if len(texts) > limits.texts:
        raise Refusal(413, f"at most {limits.texts} texts", f"{len(texts)}", "send several requests")
    return [_example(i, text, kind, limits.characters) for i, text in enumerate(texts)]


def _example(i: int, text: str | list[str], kind: str, most: int) -> Example:
    parts = [text] if isinstance(text, str) else text
    expected = "one text that is not empty" if kind == "single" else "a pair of texts that are not empty, [text, text]"
    if len(parts) != (1 if kind == "single" else 2):
        what = "one text" if len(parts) == 1 else f"a list of {len(parts)}"
        raise Refusal(422, expected, what, f"texts[{i}], see the prompt's kind in GET /v1/prompts")
    if (length := sum(map(len, parts))) > most:
        raise Refusal(413, f"at most {most} characters", f"{length}", f"shorten texts[{i}]")
    if not all(map(_is_unicode, parts)):
        raise Refusal(422, "Unicode characters", "half a surrogate pair", f"send texts[{i}] in UTF-8")
    clean = [" ".join(part.split()) for part in parts]
    if not all(clean):
        raise Refusal(422, expected, "an empty one", f"fill or leave out texts[{i}]")
    return Example(clean[0], clean[1] if kind == "pair" else None, 0)


def _is_unicode(text: str) -> bool:
    """Whether it can be encoded; JSON can say halves of characters, which tokenizers do not take."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
