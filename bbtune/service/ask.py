"""Ask an HTTP server on this machine or another: seconds of patience, no proxy, no library."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 5.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Answer:
    """What came back.

    Args:
        status: of HTTP; 0 if nothing answered.
        body: as it came.
        reason: in words, where nothing answered.
    """

    status: int
    body: bytes = b""
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the server did what was asked."""
        return self.status == 200

    def json(self) -> Any:
        """The body as JSON, None where it is something else."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def ask(url: str, token: str | None = None, timeout_s: float = PATIENCE_S) -> Answer:
    """GET an address, with a token if one is given."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with _DIRECT.open(urllib.request.Request(url, headers=headers), timeout=timeout_s) as response:
            return Answer(int(response.status), response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Answer(0, reason=str(getattr(error, "reason", None) or error or type(error).__name__))
