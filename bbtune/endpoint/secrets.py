"""A key that can be used and not shown: it is in no text that leaves here."""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode, urlsafe_b64encode
from typing import Any, NoReturn
from urllib.parse import quote, quote_plus

from bbtune.errors import EndpointError

HIDDEN = "***"
# Local servers want any key, or a short one such as "EMPTY": no secret, and hiding it would eat words of answers.
SHORTEST = 6


class Secret:
    """The key of an endpoint; ``repr``, ``str`` and pickling do not give it away.

    Args:
        key: as the server wants it; empty for an endpoint without one.
        source: where it came from, for messages, such as ``the environment variable OPENAI_API_KEY``.
    """

    __slots__ = ("_hidden", "_key", "_shortest", "source")

    def __init__(self, key: str, source: str = "the job") -> None:
        if not key.isascii() or not key.isprintable() or " " in key:
            raise EndpointError(f"{source}: expected a key of visible ASCII characters; set it again, without quotes")
        self._key = key
        self.source = source
        forms = sorted(_forms(key), key=len, reverse=True) if len(key) >= SHORTEST else []
        self._hidden = re.compile("|".join(map(re.escape, forms))) if forms else None
        self._shortest = min(map(len, forms), default=0)

    @classmethod
    def from_environment(cls, name: str | None) -> Secret:
        """The key that a variable of the environment holds.

        Args:
            name: of the variable; None for an endpoint without a key.

        Raises:
            EndpointError: if the variable is not set, or cannot be a key.
        """
        if name is None:
            return cls("", "the job, which names no variable that holds one")
        key = os.environ.get(name, "").strip()
        if not key:
            raise EndpointError(f"expected a key in the environment variable {name}, got nothing; export {name}=...")
        return cls(key, f"the environment variable {name}")

    def reveal(self) -> str:
        """The key itself, for the header of a request; a word of our own where there is none."""
        return self._key or "no-key"

    def redact(self, text: str) -> str:
        """The text with the key, plain or encoded, replaced by ``***``."""
        if self._hidden is None or len(text) < self._shortest:  # most texts are the single tokens of an answer
            return text
        return self._hidden.sub(HIDDEN, text)

    def redact_all(self, value: Any) -> Any:
        """A JSON value with the key replaced in every text of it, names of fields included."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, list):
            return [self.redact_all(item) for item in value]
        if isinstance(value, dict):
            return {self.redact(name): self.redact_all(item) for name, item in value.items()}
        return value

    def __repr__(self) -> str:
        return f"Secret({HIDDEN!r}, {self.source!r})" if self._key else "Secret('')"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled; read it from the environment where it is used")


def _forms(key: str) -> set[str]:
    """What a key looks like in addresses, JSON, Python and base64."""
    escaped = {json.dumps(key)[1:-1], repr(key)[1:-1], json.dumps(json.dumps(key))[2:-2].strip("\\").strip('"')}
    return {key, quote(key, safe=""), quote(key), quote_plus(key)} | escaped | _in_base64(key)


def _in_base64(key: str) -> set[str]:
    """Base64 of the key alone and inside a longer text, where it may begin at any of three places."""
    found = set()
    for encode in (b64encode, urlsafe_b64encode):
        for before in range(3):
            whole = encode(b"\0" * before + key.encode()).decode().rstrip("=")
            # Digits that hold bits of the neighbours, too, are left out.
            found.add(whole[(0, 2, 3)[before] : len(whole) - ((before + len(key)) % 3 > 0)])
    return found
