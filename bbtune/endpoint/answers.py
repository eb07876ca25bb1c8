"""What servers send, read into one form; anything else is a failure of the server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan
from typing import Any

from bbtune.endpoint.failure import Failure
from bbtune.endpoint.request import Answer, Token
from bbtune.endpoint.usage import Tokens

# What differs each time, and would make equal answers look different.
_PASSING = {"id", "created", "system_fingerprint", "timings", "request_id"}


def lasting(raw: Any) -> dict[str, Any]:
    """A response without what differs each time.

    Raises:
        Failure: if it is no response.
    """
    if not isinstance(raw, dict):
        raise _unexpected("a JSON object", raw)
    kept = {name: value for name, value in raw.items() if name not in _PASSING}
    if isinstance(kept.get("usage"), dict):  # how much of the prompt the server happened to have in its own cache
        kept["usage"] = {name: value for name, value in kept["usage"].items() if name != "prompt_tokens_details"}
    if isinstance(kept.get("choices"), list):
        kept["choices"] = [_slim(choice) for choice in kept["choices"]]
    return kept


def _slim(choice: Any) -> Any:
    """A choice whose probable tokens are text and log-probability alone: a thousand with their bytes are 100 kB."""
    try:
        content = [
            {**entry, "top_logprobs": [{key: top[key] for key in ("token", "logprob")} for top in _tops(entry)]}
            for entry in choice["logprobs"]["content"]
        ]
    except (KeyError, TypeError, AttributeError):  # of another shape, which is read as it is
        return choice
    return {**choice, "logprobs": {**choice["logprobs"], "content": content}}


def read_answer(raw: Mapping[str, Any], otherwise: Tokens, cached: bool = False) -> Answer:
    """A response of chat or of completions, with logprobs in the shape of either, or without.

    Args:
        raw: the response as JSON.
        otherwise: what is charged where the server does not count.
        cached: whether it was bought before.

    Raises:
        Failure: if it is no such response.
    """
    try:
        choice = raw["choices"][0]
        text = choice["message"].get("content") if "message" in choice else choice["text"]
        tokens = _tokens(choice.get("logprobs") or {})
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise _unexpected("choices with an answer in them", raw) from None
    if not isinstance(text, str | None):
        raise _unexpected("text in the answer", text)
    used = read_usage(raw.get("usage"), otherwise)
    return Answer(text or "", tokens, used.input, used.output, cached, raw)


def read_usage(usage: Any, otherwise: Tokens) -> Tokens:
    """What the server counted; where it left out a number, the bound stands for it.

    A server that generates nothing may leave out the output; the total then tells.
    """
    if not isinstance(usage, dict):
        return otherwise
    given, output, total = (_count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    if given is not None and output is None and total is not None and total >= given:
        output = total - given
    return Tokens(otherwise.input if given is None else given, otherwise.output if output is None else output)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _tokens(logprobs: Mapping[str, Any]) -> tuple[Token, ...]:
    if logprobs.get("content"):  # of chat; llama.cpp sends the same for completions
        return tuple(
            _token(entry["token"], entry["logprob"], [(top["token"], top["logprob"]) for top in _tops(entry)])
            for entry in logprobs["content"]
        )
    texts = logprobs.get("tokens") or []
    own, tops = (
        [None] * len(texts) if logprobs.get(name) is None else logprobs[name]
        for name in ("token_logprobs", "top_logprobs")
    )
    return tuple(
        _token(text, logprob, (top or {}).items()) for text, logprob, top in zip(texts, own, tops, strict=True)
    )


def _tops(entry: Mapping[str, Any]) -> list[Any]:
    return entry.get("top_logprobs") or []


def _token(text: Any, logprob: Any, top: Iterable[tuple[str, Any]]) -> Token:
    if not isinstance(text, str):
        raise TypeError
    ranked = sorted(((name, _number(value)) for name, value in top), key=lambda pair: -pair[1])
    return Token(text, None if logprob is None else _number(logprob), tuple(ranked))


def _number(value: Any) -> float:
    if isnan(float(value)):
        raise ValueError
    return float(value)


def _unexpected(expected: str, got: Any) -> Failure:
    return Failure(f"expected {expected}, got {_start(got)}; is base_url that of an OpenAI-compatible API?")


def _start(value: Any) -> str:
    """The beginning of a value, for messages; what the server says of an error, if it does."""
    text = str(value["error"] if isinstance(value, dict) and "error" in value else value)
    return text if len(text) <= 200 else text[:200] + "..."
