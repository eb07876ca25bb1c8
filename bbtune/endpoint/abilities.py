"""What a server really does, in data and in words, and which way to label scores follows from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from bbtune.endpoint.matching import told_apart
from bbtune.endpoint.reading import FreeForm, Generated, LabelLogprobs, PromptLogprobs, Reader
from bbtune.endpoint.request import Style
from bbtune.endpoint.shown import PromptWay
from bbtune.endpoint_spec import ANSWER_TOKENS, ApiSpec
from bbtune.errors import EndpointError
from bbtune.task.verbalizer import Words

_NAMES: dict[Style, str] = {"chat": "chat", "completion": "completions"}


@dataclass(frozen=True)
class Abilities:
    """What was found by asking (:func:`bbtune.endpoint.probe.probe`).

    Attributes:
        chat, completion: whether it answers in that style.
        chat_top, completion_top: most probable tokens that come with a token of the answer; 0 where none do.
        echo, prompt_logprobs: how log-probabilities of a prompt's tokens are had; None where they are not, or wrong.
        lists: whether several prompts in one request are answered, and counted, as they are apart.
        seeds: whether a seed fixes a drawn answer.
        repeatable: whether the same question has the same answer at temperature 0.
        rate_limits: names of the headers that tell of them.
        prompt_embeds: whether it takes embeddings instead of text; None where it was not tried.
        pieces: pairs of a label word and its first token, where that was seen.
        reasons: pairs of a name above and why it is not there.
    """

    chat: bool
    completion: bool
    chat_top: int = 0
    completion_top: int = 0
    echo: PromptWay | None = None
    prompt_logprobs: PromptWay | None = None
    lists: bool = False
    seeds: bool = False
    repeatable: bool = False
    rate_limits: tuple[str, ...] = ()
    prompt_embeds: bool | None = None
    pieces: tuple[tuple[str, str], ...] = ()
    reasons: tuple[tuple[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dict(json.loads(json.dumps(asdict(self))))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Back from JSON."""
        ways = {name: raw[name] and PromptWay(**raw[name]) for name in ("echo", "prompt_logprobs")}
        pairs = {name: tuple((a, b) for a, b in raw[name]) for name in ("pieces", "reasons")}
        return cls(**{**raw, **ways, **pairs, "rate_limits": tuple(raw["rate_limits"])})

    def top(self, style: Style) -> int:
        """Most probable tokens that come with a token of the answer."""
        return self.chat_top if style == "chat" else self.completion_top

    def sentences(self) -> list[str]:
        """What was found."""
        return [
            *(self._said(name, style, getattr(self, style)) for style, name in _NAMES.items()),
            *self._tops(),
            *(self._way(name) for name in ("echo", "prompt_logprobs")),
            self._said("several prompts in one request", "lists", self.lists),
            self._said("seeds", "seeds", self.seeds),
            self._said("the same answer again at temperature 0", "repeatable", self.repeatable),
            f"rate limits told in headers: {', '.join(self.rate_limits) or 'none'}",
            "prompt_embeds: not tried"
            if self.prompt_embeds is None
            else self._said("prompt_embeds", "prompt_embeds", self.prompt_embeds),
        ]

    def _said(self, what: str, name: str, there: bool) -> str:
        reason = dict(self.reasons).get(name)
        return f"{what}: {'yes' if there else 'no'}" + (f" ({reason})" if reason else "")

    def _tops(self) -> Iterator[str]:
        for style, name in _NAMES.items():
            if getattr(self, style):
                top, reason = self.top(style), dict(self.reasons)
                why = f" ({reason[f'{style}_top']})" if f"{style}_top" in reason else ""
                yield f"log-probabilities of {name}: {f'of the {top} most probable tokens' if top else 'no'}{why}"

    def _way(self, name: str) -> str:
        way: PromptWay | None = getattr(self, name)
        if way and way.shift:
            return f"{name}: yes, but the values stand {way.shift:+d} place off, which is put right"
        return self._said(name, name, way is not None)


def choose(
    abilities: Abilities,
    spec: ApiSpec,
    words: Words,
    follows_space: bool,
    others: Sequence[Words] = (),
    answer_tokens: int = ANSWER_TOKENS,
) -> Reader:
    """The way to label scores: first tokens if they tell the labels apart, else prompts, else words that are said.

    Args:
        abilities: of the server.
        spec: of the job, which may demand a style or a way.
        words: of each label.
        follows_space: whether a space stands between the text and the word.
        others: words that a search may choose instead, which have to be told apart, too.
        answer_tokens: most tokens of an answer in words.

    Raises:
        EndpointError: if what is demanded is not there.
    """
    return _best(abilities, spec, (words, *others), follows_space, answer_tokens)[0]


def _impossible(spec: ApiSpec, reasons: list[str]) -> EndpointError:
    asked = f"style: {spec.style}, read: {spec.read}"
    return EndpointError(
        f"{spec.place}: expected a server on which {asked} is possible, but {'; '.join(reasons)}; "
        "leave style and read at auto"
    )


def choose_free_form(
    abilities: Abilities, spec: ApiSpec, score: Callable[[str, str], float], answer_tokens: int = ANSWER_TOKENS
) -> tuple[FreeForm, list[str]]:
    """The way to answers in words, and in words what was found and is used: a model that chats answers questions.

    Args:
        abilities: of the server.
        spec: of the job, which may demand a style.
        score: of an answer and a truth.
        answer_tokens: most tokens of an answer.

    Raises:
        EndpointError: if what is demanded is not there.
    """
    styles = _styles(abilities, spec)
    if not styles:
        raise _impossible(spec, [_no_style(spec)])
    used = f"used: the words of the answer of {_NAMES[styles[-1]]}, at most {answer_tokens} tokens"
    return FreeForm(styles[-1], answer_tokens, score), [*abilities.sentences(), used]


def _styles(abilities: Abilities, spec: ApiSpec) -> list[Style]:
    """That are there and that the job allows, chat last."""
    return [s for s in ("completion", "chat") if getattr(abilities, s) and spec.style in ("auto", s)]


def _no_style(spec: ApiSpec) -> str:
    return f"it does not answer in style {spec.style}"


def explain(
    abilities: Abilities, spec: ApiSpec, words: Words, follows_space: bool, others: Sequence[Words] = ()
) -> list[str]:
    """What was found, what is used, and why nothing better; raises as :func:`choose` does."""
    reader, reasons = _best(abilities, spec, (words, *others), follows_space, ANSWER_TOKENS)
    demanded = spec.read != "auto" or spec.style != "auto"
    why = "as the job says" if demanded else "; ".join(reasons) or "the best way there is"
    return [*abilities.sentences(), f"used: {_in_words(reader)}; {why}"]


def _in_words(reader: Reader) -> str:
    name = _NAMES[reader.style]
    if isinstance(reader, LabelLogprobs):
        return f"label-logprobs: the first token of {name}, of which the {reader.top} most probable are seen"
    if isinstance(reader, PromptLogprobs):
        return f"prompt-logprobs: every label word behind the text, by {reader.how.key} of {name}, a request for each"
    return "generated: the words of the answer, matched to labels"


def _best(
    abilities: Abilities, spec: ApiSpec, every: Sequence[Words], space: bool, answer_tokens: int
) -> tuple[Reader, list[str]]:
    """The best way that the job allows, and why others are not possible."""
    possible, reasons = _ways(abilities, spec, every, space, answer_tokens)
    if not possible:
        raise _impossible(spec, reasons)
    return possible[0], reasons


def _ways(
    abilities: Abilities, spec: ApiSpec, every: Sequence[Words], space: bool, answer_tokens: int
) -> tuple[list[Reader], list[str]]:
    """What is possible, best first, and why the rest is not."""
    found: list[tuple[int, Reader]] = []
    reasons: list[str] = []
    pieces = dict(abilities.pieces)
    styles = _styles(abilities, spec)
    if not styles:
        return [], [_no_style(spec)]
    apart = all(told_apart(words, pieces) for words in every)
    if not apart:
        reasons.append("label-logprobs cannot tell labels apart whose words begin alike")
    for rank, style in enumerate(styles):
        top = abilities.top(style)
        if not top:
            reasons.append(f"label-logprobs: {_NAMES[style]} come without log-probabilities")
        elif apart:  # with fewer tokens than labels, those of the prompt say more
            found.append((rank if top >= len(every[0]) else 3, LabelLogprobs(style, top, pieces)))
    how = abilities.prompt_logprobs or abilities.echo
    if how and "completion" in styles:
        found.append((2, PromptLogprobs("completion", how, space)))
    else:
        reasons.append("prompt-logprobs: the server gives none that are right")
    for rank, style in enumerate(reversed(styles)):  # a model that chats answers questions
        found.append((4 + rank, Generated(style, answer_tokens)))
    ranked = [reader for _, reader in sorted(found, key=lambda pair: pair[0])]
    return [reader for reader in ranked if spec.read in ("auto", reader.name)], reasons
