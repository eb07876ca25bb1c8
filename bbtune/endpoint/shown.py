"""Log-probabilities that a server gives for the tokens of a prompt, and how they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bbtune.endpoint.request import Answer
from bbtune.errors import EndpointError

Scored = tuple[str, float | None]  # text of a token, and its log-probability


@dataclass(frozen=True)
class PromptWay:
    """One way to them.

    Attributes:
        key: ``echo`` (the prompt comes back in the answer) or ``prompt_logprobs`` (vLLM: they come beside it).
        shift: places by which the values stand too far back; 0 of a correct server.
    """

    key: Literal["echo", "prompt_logprobs"]
    shift: int = 0

    @property
    def extra(self) -> tuple[tuple[str, Any], ...]:
        """Keys of the request."""
        # Of prompt_logprobs 0 gives the prompt's own tokens, without others that are more probable.
        return (("echo", True),) if self.key == "echo" else (("prompt_logprobs", 0),)

    @property
    def top_logprobs(self) -> int:
        """Of the request; an echo has values only where values are asked for."""
        return 1 if self.key == "echo" else 0

    def tokens(self, answer: Answer) -> list[Scored]:
        """Tokens of the prompt, each with the log-probability that is its own.

        Args:
            answer: to a request of one token with :attr:`extra`.

        Raises:
            EndpointError: if they are not in it.
        """
        row = _echoed(answer) if self.key == "echo" else _beside(answer)
        values = [value for _, value in row]
        count = len(row) - 1 if self.key == "echo" else len(row)  # behind an echo stands the token that follows
        shifted = [values[i + self.shift] if 0 <= i + self.shift < len(values) else None for i in range(count)]
        return [(text, value) for (text, _), value in zip(row[:count], shifted, strict=True)]


def _echoed(answer: Answer) -> list[Scored]:
    if len(answer.tokens) < 2:
        raise EndpointError("expected the prompt's tokens in the answer (echo), got none; probe the endpoint again")
    return [(token.text, token.logprob) for token in answer.tokens]


def _beside(answer: Answer) -> list[Scored]:
    choices = answer.raw.get("choices") or [{}]
    given = choices[0].get("prompt_logprobs") or answer.raw.get("prompt_logprobs")
    if not given:
        raise EndpointError("expected prompt_logprobs in the answer, got none; probe the endpoint again")
    row: list[Scored] = []
    for place in given:
        if place is None:  # the first token of a prompt
            row.append(("", None))
        elif len(place) == 1:
            (value,) = place.values()
            row.append((str(value.get("decoded_token")), float(value["logprob"])))
        else:
            raise EndpointError(f"expected one token at each place of prompt_logprobs, got {len(place)}")
    return row
