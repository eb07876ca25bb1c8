"""How label scores are read out of answers: first tokens, tokens of the prompt, or the text itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bbtune.endpoint.matching import bare, begins, flat, said_label
from bbtune.endpoint.request import Answer, Request, Style
from bbtune.endpoint.shown import PromptWay
from bbtune.errors import EndpointError
from bbtune.task.verbalizer import Words

_SURE = 0.95  # probability of a label that was answered in words; the others share the rest


@dataclass(frozen=True)
class Reading:
    """Label scores of one text.

    Attributes:
        logits: (C,), float32; log-probabilities, not normalised over the labels.
        missing: labels that were not among the most probable tokens, and are bounded by the last of them.
        unmatched: 1 where the answer says nothing about the labels, and all are equal; else 0.
    """

    logits: NDArray[np.float32]
    missing: int = 0
    unmatched: int = 0

    @property
    def decided(self) -> bool:
        """Whether something is known of a label, so that the highest is a prediction."""
        return not self.unmatched and self.missing < len(self.logits)


class Reader(Protocol):
    """A way from a text to label scores."""

    @property
    def style(self) -> Style:
        """Of the API."""

    @property
    def name(self) -> str:
        """As in a job: ``label-logprobs``, ``prompt-logprobs`` or ``generated``."""

    def requests(self, text: str, words: Words) -> list[Request]:
        """What to ask about one text, which ends without the one space that belongs to the label word."""

    def read(self, answers: Sequence[Answer], words: Words) -> Reading:
        """Label scores out of the answers to :meth:`requests`, in their order."""


@dataclass(frozen=True)
class LabelLogprobs:
    """Scores labels by the first token of the answer; the surface variants of a label's words are summed.

    Attributes:
        style: of the API.
        top: most probable tokens that are asked for.
        pieces: first token, in lower case and without its space, of the words whose first token is known.
    """

    style: Style
    top: int
    pieces: Mapping[str, str] = field(default_factory=dict)
    name: str = field(default="label-logprobs", init=False)

    def requests(self, text: str, words: Words) -> list[Request]:
        """One, for one token."""
        return [Request(text, self.style, max_tokens=1, top_logprobs=self.top)]

    def read(self, answers: Sequence[Answer], words: Words) -> Reading:
        """Probabilities of matching tokens, summed per label.

        Raises:
            EndpointError: if a text came without log-probabilities.
        """
        (answer,) = answers
        if not answer.tokens or not answer.tokens[0].top:
            if answer.text:
                raise EndpointError("expected log-probabilities with the answer, got none; probe the endpoint again")
            return _nothing(len(words))  # the model ended its answer before it began
        found: list[list[float]] = [[] for _ in words]
        top = answer.tokens[0].top
        initials = {bare(word)[:1] for of_label in words for word in of_label}
        for token, logprob in top:
            name = bare(token)
            label = self._label(name, words) if name[:1] in initials else None  # most begin no word
            if label is not None:
                found[label].append(logprob)
        bound = min(logprob for _, logprob in top)
        logits = [_log_sum(values) if values else bound for values in found]
        return Reading(np.array(logits, dtype=np.float32), missing=sum(not values for values in found))

    def _label(self, token: str, words: Words) -> int | None:
        labels = {i for i, of_label in enumerate(words) if any(begins(token, word, self.pieces) for word in of_label)}
        whole = {i for i, of_label in enumerate(words) if any(token == bare(word) for word in of_label)}
        owners = labels if len(labels) == 1 or not whole else whole
        return owners.pop() if len(owners) == 1 else None


@dataclass(frozen=True)
class PromptLogprobs:
    """Scores every label word behind the text by the log-probabilities that the server gives for a prompt's tokens.

    Attributes:
        style: of the API.
        how: what the probe has found out of these log-probabilities.
        follows_space: whether a space stands between the text and the word.
    """

    style: Style
    how: PromptWay
    follows_space: bool = True
    name: str = field(default="prompt-logprobs", init=False)

    def requests(self, text: str, words: Words) -> list[Request]:
        """One for each word."""
        space = " " if self.follows_space else ""
        return [
            Request(f"{text}{space}{word}", self.style, 1, self.how.top_logprobs, extra=self.how.extra)
            for of_label in words
            for word in of_label
        ]

    def read(self, answers: Sequence[Answer], words: Words) -> Reading:
        """Log-probabilities of the words' tokens, added up; the probabilities of a label's words are summed.

        Raises:
            EndpointError: if an answer lacks them.
        """
        rows = [self.how.tokens(answer) for answer in answers]
        every = [word for of_label in words for word in of_label]
        for row, word in zip(rows, every, strict=True):
            _check_ends("".join(text for text, _ in row[-_covering([text for text, _ in row], word) - 1 :]), word)
        # The words are read from the same place on, where the text ends: even if one of them begins inside a token
        # of the text, so that all of the text's last token belongs to them, their scores can be compared.
        first = min(
            len(row) - _covering([text for text, _ in row], word) for row, word in zip(rows, every, strict=True)
        )
        first = min(first, _shared([[text for text, _ in row] for row in rows]))
        scores = iter([_added([value for _, value in row[first:]]) for row in rows])
        logits = [_log_sum([next(scores) for _ in of_label]) for of_label in words]
        return Reading(np.array(logits, dtype=np.float32))


@dataclass(frozen=True)
class Generated:
    """Matches the text of the answer to label words.

    Attributes:
        style: of the API.
        max_tokens: of the answer.
    """

    style: Style
    max_tokens: int
    name: str = field(default="generated", init=False)

    def requests(self, text: str, words: Words) -> list[Request]:
        """One."""
        return [generation(text, self.style, self.max_tokens)]

    def read(self, answers: Sequence[Answer], words: Words) -> Reading:
        """Nearly all of the probability for the label that is said, the same for each where none or several are."""
        label = said_label(answers[0].text, words)
        if label is None:
            return _nothing(len(words))
        logits = np.full(len(words), math.log((1 - _SURE) / (len(words) - 1)), dtype=np.float32)
        logits[label] = math.log(_SURE)
        return Reading(logits)


@dataclass(frozen=True)
class FreeForm:
    """Scores the text of the answer against a truth that is text too.

    Attributes:
        style: of the API.
        max_tokens: of the answer.
        score: of an answer and a truth, in [0, 1]; such as :func:`bbtune.task.free_form.token_f1`.
    """

    style: Style
    max_tokens: int
    score: Callable[[str, str], float]

    def requests(self, text: str, words: Words = ()) -> list[Request]:
        """One; there are no label words."""
        return [generation(text, self.style, self.max_tokens)]

    def said(self, answers: Sequence[Answer]) -> str:
        """The answer, without white space around it."""
        return answers[0].text.strip()

    def read(self, answers: Sequence[Answer], truth: str) -> float:
        """The score in [0, 1]."""
        return self.score(self.said(answers), truth)


def generation(text: str, style: Style, max_tokens: int) -> Request:
    """A request for an answer in words; a completion ends with its line, a chat ends by itself."""
    return Request(text, style, max_tokens, stop=("\n",) if style == "completion" else ())


def _nothing(labels: int) -> Reading:
    return Reading(np.full(labels, -math.log(labels), dtype=np.float32), unmatched=1)


def _log_sum(logprobs: Sequence[float]) -> float:
    return float(np.logaddexp.reduce(np.asarray(logprobs, dtype=np.float64)))


def _added(logprobs: Sequence[float | None]) -> float:
    known = [logprob for logprob in logprobs if logprob is not None]
    if len(known) < len(logprobs):
        raise EndpointError("expected a log-probability for every token of a label word, got none for one of them")
    return math.fsum(known)


def _check_ends(text: str, word: str) -> None:
    """Refuse tokens that are not those up to the word, as where a server leaves out the one that ends an answer.

    Letters of other scripts may be spread over tokens that have no text of their own, and are believed.
    """
    if word.isascii() and not flat(text).casefold().endswith(flat(word).casefold()):
        raise EndpointError(
            f"expected the tokens of a prompt that ends in {word!r}, got some that end in {text[-40:]!r}; "
            "set read: generated"
        )


def _covering(tokens: Sequence[str], word: str) -> int:
    """How many of the last tokens hold the word."""
    need, count = len(bare(word)), 0
    for count in range(1, len(tokens) + 1):
        if len(bare("".join(tokens[len(tokens) - count :]))) >= need:
            break
    return count


def _shared(rows: Sequence[Sequence[str]]) -> int:
    """How many first tokens all rows have in common."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False)))
