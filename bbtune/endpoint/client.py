"""The one place that knows the ``openai`` client: one attempt, and what its failures mean."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import isnan
from typing import Any
from urllib.parse import urlsplit

from bbtune.endpoint.failure import Failure, Kind
from bbtune.endpoint.request import Request
from bbtune.endpoint.secrets import Secret
from bbtune.errors import EndpointError

_PATHS = {"chat": "/chat/completions", "completion": "/completions"}
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_QUOTA = "insufficient_quota"


@dataclass(frozen=True)
class Response:
    """A body of JSON and the headers that speak of rate limits."""

    raw: Any
    headers: Mapping[str, str]


class Client:
    """Sends one request once; what it gives, and what its errors say, is without the key.

    Args:
        base_url: of the API.
        model: name that it has there.
        secret: key of the API.
        timeout_s: seconds without a sign of life after which an attempt is given up.

    Raises:
        EndpointError: if the address is none.
    """

    def __init__(self, base_url: str, model: str, secret: Secret, timeout_s: float) -> None:
        import httpx2
        import openai

        self._openai, self._httpx = openai, httpx2
        self._model, self._secret = model, secret
        # A redirect would send, and pay, a second time; a proxy of the environment does not know this machine.
        try:
            http = openai.DefaultHttpxClient(
                follow_redirects=False, trust_env=urlsplit(base_url).hostname not in _LOCAL, timeout=timeout_s
            )
            self._client = openai.OpenAI(
                base_url=base_url, api_key=secret.reveal(), timeout=timeout_s, max_retries=0, http_client=http
            )
        except (ValueError, httpx2.InvalidURL) as error:
            raise EndpointError(f"expected an address such as https://HOST/v1, got {base_url!r} ({error})") from error

    def send(self, request: Request) -> Response:
        """One attempt.

        Raises:
            Failure: if there is no JSON in the end.
        """
        failure = None
        try:
            response = self._client.post(
                _PATHS[request.style], body=request.body(self._model), cast_to=self._httpx.Response
            )
        except self._openai.APIStatusError as error:
            failure = self._of_status(error)
        except self._openai.APITimeoutError as error:
            failure = self._of_connection(error, "no answer in time; raise timeout_s if it is only slow")
        except self._openai.APIConnectionError as error:
            failure = self._of_connection(error, "the connection broke off")
        except self._openai.OpenAIError as error:
            failure = Failure(self._said(error))
        except UnicodeEncodeError:  # before anything is sent
            failure = Failure(
                f"expected text in the prompt, got half a character: {request.prompt!r}", "refused", False
            )
        if failure:  # outside of the handler: the client's error, which may show the key, is not chained to it
            raise failure
        return Response(self._secret.redact_all(self._json(response.content)), self._limits(response.headers))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _json(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError:
            pass
        start = self._secret.redact(content.decode(errors="replace"))[:80]
        raise Failure(f"expected JSON, got {start!r}; is base_url that of an OpenAI-compatible API?")

    def _limits(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {
            name.lower(): self._secret.redact(value)
            for name, value in headers.items()
            if name.lower().startswith("x-ratelimit-") or name.lower().startswith("retry-after")
        }

    def _of_status(self, error: Any) -> Failure:
        status: int = error.status_code
        kind: Kind = "broken"
        if status in (429, 503):
            kind = "busy"
        elif status < 500 and status not in (408, 409):
            kind = "refused"
        if status == 429 and _QUOTA in (error.code, error.type):
            kind = "refused"
        message = f"HTTP {status}: {self._said(error)}{self._advice(status, error)}"
        return Failure(message, kind, status >= 500, _retry_after_s(error.response.headers), status)

    def _of_connection(self, error: Exception, what: str) -> Failure:
        """A connection that was never made cannot have been charged."""
        cause = error.__cause__
        refused = isinstance(cause, self._httpx.ConnectError | self._httpx.ConnectTimeout | self._httpx.PoolTimeout)
        if refused:
            what = "cannot be connected to; is it running, and base_url right?"
        detail = f" ({self._secret.redact(str(cause))})" if cause and str(cause) else ""
        return Failure(f"{what}{detail}", charged=not refused)

    def _said(self, error: Any) -> str:
        """What the server says of its error; bodies are cut short."""
        body = getattr(error, "body", None)
        said = body.get("message") if isinstance(body, dict) else body
        text = self._secret.redact(str(said or error))
        return text if len(text) <= 300 else text[:300] + "..."

    def _advice(self, status: int, error: Any) -> str:
        if status in (401, 403):
            return f"; expected a key that it accepts, check {self._secret.source} (api_key_env)"
        if status == 404:
            return (
                f"; expected a server that knows the model {self._model!r}, at a base_url that ends in /v1 or the like"
            )
        if 300 <= status < 400:
            return (
                f"; set base_url to where it moved: {self._secret.redact(error.response.headers.get('location', ''))}"
            )
        if _QUOTA in (error.code, error.type):
            return "; the account has no credit left, add some and resume"
        return ""


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: milliseconds, seconds, or a date; None where it asks for nothing."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        asked = None if value is None else float(value)
        asked = asked if milliseconds is None else float(milliseconds) / 1000
        return None if asked is None or isnan(asked) else max(asked, 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value or "").timestamp() - time.time(), 0.0)
    except ValueError:
        return None
