"""What is asked of a text model, and what it answers: the same for an endpoint and for a model in this process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Style = Literal["chat", "completion"]


@dataclass(frozen=True)
class Request:
    """One question, in canonical form.

    Attributes:
        prompt: text; of a chat, the one message of the user.
        style: of the API that it goes to.
        max_tokens: most tokens of the answer.
        top_logprobs: log-probabilities that are wanted for every token of the answer, most probable first; 0 for none.
        temperature, seed, stop: of the sampling; temperature 0 takes the most probable token.
        extra: further keys of the body, such as ``("echo", True)``; values are JSON.
        repeat: not sent; requests that differ in it alone are asked each, the cache notwithstanding.
        input_tokens: not sent; of the input, where they are known. None where they can only be bounded by its bytes.
    """

    prompt: str
    style: Style
    max_tokens: int = 1
    top_logprobs: int = 0
    temperature: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    extra: tuple[tuple[str, Any], ...] = ()
    repeat: int = 0
    input_tokens: int | None = None

    def body(self, model: str) -> dict[str, Any]:
        """What is sent, as JSON."""
        body: dict[str, Any] = {"model": model, "max_tokens": self.max_tokens, "temperature": self.temperature}
        if self.style == "chat":
            body["messages"] = [{"role": "user", "content": self.prompt}]
            if self.top_logprobs:
                body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        else:
            body["prompt"] = self.prompt
            if self.top_logprobs:
                body["logprobs"] = self.top_logprobs
        if self.seed is not None:
            body["seed"] = self.seed
        if self.stop:
            body["stop"] = list(self.stop)
        return body | dict(self.extra)

    def key(self, place: str, model: str) -> str:
        """SHA-256 (hex) of all that decides the answer.

        Args:
            place: of the endpoint.
            model: name that it has there.
        """
        said = [place, self.style, self.body(model), self.repeat]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Token:
    """A token of an answer or of an echoed prompt.

    Attributes:
        text: as it stands in the text, spaces included.
        logprob: natural logarithm of its probability; None for the first token of a prompt, which has none.
        top: most probable tokens at its place, with their logprobs.
    """

    text: str
    logprob: float | None
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        text: that was generated.
        tokens: of the text, with logprobs; empty where the server gives none.
        input_tokens, output_tokens: as the server counts them.
        cached: whether it came from the cache, and cost nothing.
        raw: the response as JSON, without what differs each time; empty of a local model.
        headers: of rate limits, by name in lower case; empty of a cached answer.
    """

    text: str
    tokens: tuple[Token, ...]
    input_tokens: int
    output_tokens: int
    cached: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class TextModel(Protocol):
    """A frozen language model that is asked in text."""

    def ask(self, requests: Sequence[Request], deadline: float | None = None) -> list[Answer]:
        """Answers in the order of the requests; equal requests are asked once.

        Args:
            deadline: on the clock of :func:`time.monotonic`; passing it raises DeadlineReached.

        Raises:
            BudgetReached: if a hard cap ends the asking; what was answered is kept.
            EndpointError: if the endpoint refuses, or stays down.
        """

    def close(self) -> None:
        """Free what it holds."""
