"""Find out what a server really does by asking it: several answer 200 and ignore what they do not know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from bbtune.endpoint.abilities import Abilities
from bbtune.endpoint.failure import Refused
from bbtune.endpoint.proof import IGNORED, fault_of, first_tokens, same_text, same_top, shift_of
from bbtune.endpoint.request import Answer, Request, Style, TextModel
from bbtune.endpoint.shown import PromptWay
from bbtune.endpoint_spec import ApiSpec
from bbtune.errors import EndpointError
from bbtune.task.verbalizer import Words

_PROMPT = "Last week my neighbour told me about"  # goes on in many ways, so that neighbouring values differ
_OTHER = "One, two, three, four,"
_ONLY = "only with completions"
# llama.cpp takes any number, vLLM as many as it is set to, OpenAI's chat 20, its completions 5.
_TOPS = (1000, 100, 20, 5, 0)
_TOKENS = 4
_DRAWN = 12
_KEY = (401, 403)
_WORDS = 16  # label words whose first tokens are looked at


def probe(model: TextModel, spec: ApiSpec, words: Words, embeds: Callable[[str], str] | None = None) -> Abilities:
    """Ask about 15 tiny questions, and compare the answers with what must hold.

    Args:
        model: the endpoint, or a model in this process.
        spec: of the job; only a style that it allows is tried.
        words: of each label, whose first tokens are looked at; none for answers in words.
        embeds: from a text to the value of ``prompt_embeds``, to try that too.

    Raises:
        EndpointError: if no style works, or the endpoint stays down.
    """
    return _Probe(model).found(spec, words, embeds)


class _Probe:
    def __init__(self, model: TextModel) -> None:
        self._model = model
        self._reasons: dict[str, str] = {}
        self._plain: Request | None = None  # one that was answered

    def found(self, spec: ApiSpec, words: Words, embeds: Callable[[str], str] | None) -> Abilities:
        styles: tuple[Style, ...] = ("completion", "chat") if spec.style == "auto" else (spec.style,)
        firsts: dict[Style, Answer] = {}
        failure: EndpointError | None = None
        for style in styles:
            try:
                firsts[style] = self._first(style)
            except EndpointError as error:
                if isinstance(error, Refused) and error.status in _KEY:
                    raise  # of the key; the other style has the same
                failure = error
                self._reasons[style] = _short(error)
        if failure and not firsts:
            raise failure
        untried = {"completion", "chat"} - set(styles)
        self._reasons |= dict.fromkeys(untried, "not tried, as the job says")
        return self._rest(firsts, words, embeds)

    def _rest(self, firsts: dict[Style, Answer], words: Words, embeds: Callable[[str], str] | None) -> Abilities:
        tops = {f"{style}_top": self._top(f"{style}_top", first) for style, first in firsts.items()}
        main: Style = "completion" if "completion" in firsts else "chat"
        first = firsts.get("completion")
        return Abilities(
            chat="chat" in firsts,
            completion="completion" in firsts,
            **tops,
            echo=self._way("echo", first),
            prompt_logprobs=self._way("prompt_logprobs", first),
            lists=self._lists(),
            seeds=self._seeds(main),
            repeatable=self._repeatable(),
            rate_limits=tuple(sorted(firsts[main].headers)),
            prompt_embeds=self._embeds(first, embeds) if first and embeds else None,
            pieces=self._pieces(main, words) if words and tops[f"{main}_top"] else (),
            reasons=tuple(self._reasons.items()),
        )

    def _ask(self, request: Request) -> Answer:
        return self._model.ask([request])[0]

    def _may(self, name: str, request: Request) -> Answer | None:
        """The answer to what a server may not know; None, and the reason noted, if it refuses that and nothing else."""
        try:
            return self._ask(request)
        except EndpointError as error:
            self._reasons[name] = _short(error)
            if not isinstance(error, Refused) and self._plain:
                # Raises if it is down altogether; never an answer that is there already.
                self._ask(replace(self._plain, repeat=1 + len(self._reasons)))
            return None

    def _first(self, style: Style) -> Answer:
        """A greedy answer with as many log-probabilities as are given; servers refuse what is too many for them."""
        request = Request(_PROMPT, style, _TOKENS)
        refusal: Refused | None = None
        for top in _TOPS:
            try:
                answer = self._ask(replace(request, top_logprobs=top))
            except Refused as error:
                if error.status in (*_KEY, 404, 405):
                    raise
                refusal = error
                continue
            if refusal and not top:
                self._reasons[f"{style}_top"] = _short(refusal)
            self._plain = self._plain or request
            return answer
        raise refusal or EndpointError("nothing was asked")

    def _top(self, name: str, answer: Answer) -> int:
        """How many most probable tokens come, and can be believed."""
        fault = fault_of(answer.tokens)
        if fault:
            self._reasons.setdefault(name, fault)
            return 0
        return min(len(token.top) for token in answer.tokens)

    def _way(self, key: Literal["echo", "prompt_logprobs"], first: Answer | None) -> PromptWay | None:
        """What the server generated is sent as a prompt: the same log-probabilities must come back."""
        if first is None:
            self._reasons[key] = _ONLY
            return None
        known = [token.logprob for token in first.tokens if token.logprob is not None]
        way = PromptWay(key)
        prompt = _PROMPT + "".join(token.text for token in first.tokens)
        if not known:
            self._reasons[key] = "no log-probabilities to compare with"
            return None
        answer = self._may(key, Request(prompt, "completion", 1, way.top_logprobs, extra=way.extra))
        if answer is None:
            return None
        try:
            texts = [text for text, _ in way.tokens(answer)]
        except EndpointError:
            texts = []
        if not same_text(texts, prompt):
            self._reasons[key] = IGNORED
            return None
        shift = shift_of(key, answer, known)
        if shift is None:
            self._reasons[key] = "what comes differs from the log-probabilities of the same tokens when generated"
            return None
        return PromptWay(key, shift)

    def _lists(self) -> bool:
        """Two prompts at once, against each by itself; some servers count the tokens of the first alone."""
        if self._plain is None or self._plain.style != "completion":
            self._reasons["lists"] = _ONLY
            return False
        alone = [self._ask(Request(prompt, "completion", _TOKENS)) for prompt in (_PROMPT, _OTHER)]
        extra = (("prompt", (_PROMPT, _OTHER)), ("max_tokens", _TOKENS))
        both = self._may("lists", Request(_PROMPT + _OTHER, "completion", 2 * _TOKENS, extra=extra))
        if both is None:
            return False
        texts = [str(choice.get("text")) for choice in both.raw.get("choices") or []]
        if texts != [answer.text for answer in alone]:
            self._reasons["lists"] = "the answers differ from those to each by itself"
            return False
        if both.input_tokens < sum(answer.input_tokens for answer in alone):
            self._reasons["lists"] = "answered, but not all of their tokens are counted"
            return False
        return True

    def _seeds(self, style: Style) -> bool:
        request = Request(_PROMPT, style, _DRAWN, temperature=1.0, seed=1)
        one = self._may("seeds", request)
        if one is None:
            return False
        again, other = self._ask(replace(request, repeat=1)), self._ask(replace(request, seed=2))
        if one.text != again.text:
            self._reasons["seeds"] = "the same seed gives other texts"
        elif one.text == other.text:
            self._reasons["seeds"] = "another seed gives the same text"
        return one.text == again.text != other.text

    def _repeatable(self) -> bool:
        request = self._plain
        return request is not None and self._ask(request).text == self._ask(replace(request, repeat=1)).text

    def _embeds(self, first: Answer, embeds: Callable[[str], str]) -> bool:
        extra = (("prompt", None), ("prompt_embeds", embeds(_PROMPT)))  # vLLM refuses an empty text beside them
        answer = self._may("prompt_embeds", Request("", "completion", 1, 5, extra=extra))
        if answer is None:
            return False
        if not (answer.tokens and first.tokens and same_top(answer.tokens[0], first.tokens[0])):
            self._reasons["prompt_embeds"] = "the answer is not that to the text with these embeddings"
            return False
        return True

    def _pieces(self, style: Style, words: Words) -> tuple[tuple[str, str], ...]:
        """First tokens of label words, seen where the model copies a list of them."""
        asked = [word for of_label in words for word in of_label][:_WORDS]
        line = f"Words: {', '.join(asked)}."
        prompt = "\n".join([line] * 3 + ["Words:"]) if style == "completion" else f"Repeat this line.\n\n{line}"
        answer = self._ask(Request(prompt, style, min(96, 4 + sum(2 + len(word) // 3 for word in asked)), 1))
        return tuple(first_tokens(answer.tokens, asked).items())


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 160 else text[:160] + "..."
