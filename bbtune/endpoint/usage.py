"""What requests cost, and the most that one can cost before it is sent; money is counted in whole numbers."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from threading import Lock

from bbtune.endpoint.request import Answer, Request, Style
from bbtune.endpoint_spec import PriceSpec

PICO = 10**12  # units of money in a dollar: prices for a million tokens are whole to six places
_OVERHEAD: dict[Style, int] = {"completion": 64, "chat": 256}


@dataclass(frozen=True)
class Tokens:
    """Tokens of one request, or of many."""

    input: int = 0
    output: int = 0

    @classmethod
    def of(cls, answer: Answer) -> Tokens:
        """What an answer was charged at."""
        return cls(answer.input_tokens, answer.output_tokens)

    @property
    def total(self) -> int:
        """Input and output."""
        return self.input + self.output


@dataclass(frozen=True)
class Price:
    """Of a token, in 1e-12 dollars."""

    input: int = 0
    output: int = 0

    @classmethod
    def of(cls, spec: PriceSpec | None) -> Price:
        """The price that a job names; nothing where it names none."""
        return cls(_each(spec.input), _each(spec.output)) if spec else cls()

    def times(self, tokens: Tokens) -> int:
        """What tokens cost, in 1e-12 dollars."""
        return self.input * tokens.input + self.output * tokens.output


def _each(dollars_a_million: float) -> int:
    return int((Decimal(str(dollars_a_million)) * (PICO // 10**6)).to_integral_value(ROUND_CEILING))


class Bound:
    """The most tokens that a request can be charged for.

    A token of a byte-level vocabulary, or of one that falls back to bytes, stands for at least one byte, so that a
    prompt has at most as many tokens as bytes; in the longer of its own and its NFKC form, in which some tokenizers
    read it; a request that knows its tokens, such as one of embeddings, is taken at its word. To it comes what the
    server adds, such as a chat template: an allowance, raised when the server counts more. An answer has at most
    ``max_tokens``, once for every choice that is asked for.
    """

    def __init__(self) -> None:
        self._overhead = dict(_OVERHEAD)
        self._lock = Lock()

    def of(self, request: Request) -> Tokens:
        """The bound of one request."""
        extra = dict(request.extra)
        choices = max(int(extra.get(name) or 1) for name in ("n", "best_of"))
        with self._lock:
            overhead = self._overhead[request.style]
        return Tokens(_longest(request) + overhead, max(1, request.max_tokens) * choices)

    def learn(self, request: Request, used: Tokens) -> None:
        """Take note of what a server counted; a little is added, as templates hold dates and the like."""
        over = used.input - _longest(request)
        with self._lock:
            if over > self._overhead[request.style]:
                self._overhead[request.style] = over + 16


def _longest(request: Request) -> int:
    if request.input_tokens is not None:
        return request.input_tokens
    forms = (request.prompt, unicodedata.normalize("NFKC", request.prompt))
    return max(len(form.encode(errors="surrogatepass")) for form in forms) + len(json.dumps(request.extra))
