"""What a job says of an endpoint: where it is, what it costs, and how fast it may be asked."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bbtune.errors import hide_credentials
from bbtune.methods import Part

ANSWER_TOKENS = 16  # most of an answer that is given in words, where a job does not say it


def _address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("expected http://HOST/v1 or https://HOST/v1")
    if hide_credentials(url) != url:
        raise ValueError("expected no user, password or key in it; name a variable of the environment in api_key_env")
    return url.rstrip("/")


# Keys that could be names of variables: those of some providers, and any long one of small letters and digits.
_KEY = re.compile(r"(?:gsk|hf|sk|pk|r8|csk|xai|nvapi)_\w{16,}|(?=\w*[a-z])(?=\w*\d)\w{24,}")


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or _KEY.fullmatch(name):
        raise ValueError("expected a name such as EXAMPLE_API_KEY")
    return name


class PriceSpec(Part):
    """Dollars for a million tokens."""

    input: Annotated[float, Field(ge=0)]
    """Of prompts."""
    output: Annotated[float, Field(ge=0)]
    """Of answers."""


class ApiSpec(Part):
    """A model behind an OpenAI-compatible API, or one that is served here for the length of a run."""

    base_url: Annotated[str, AfterValidator(_address)] | None = None
    """The endpoint, with `/v1` or the like."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """The model's name there."""
    api_key_env: Annotated[str, AfterValidator(_variable)] | None = None
    """The variable of the environment that holds the key, never the key itself."""
    serve: Annotated[str, Field(pattern=r"^(cache|path):.+")] | None = None
    """In place of `base_url` and `model`: `cache:NAME` or `path:FILE.gguf`, served on 127.0.0.1 while the run lasts."""
    style: Literal["auto", "chat", "completion"] = "auto"
    """How it is asked."""
    read: Literal["auto", "label-logprobs", "prompt-logprobs", "generated"] = "auto"
    """How labels are scored; `auto` takes the best that the server can do."""
    price: PriceSpec | None = None
    """`{input, output}`, dollars for a million tokens; `budget.dollars` needs it."""
    concurrency: Annotated[int, Field(ge=1)] = 8
    """Requests in flight at once, at most."""
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Kept in any 60 seconds, over all threads of a run; runs of a study that ask one endpoint take turns."""
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    """As `requests_per_minute`."""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds without a sign of life after which an attempt is given up."""
    attempts: Annotated[int, Field(ge=1)] = 6
    """At one request that breaks (408, 409, 5xx, time-outs, cut or garbled answers); being told to wait (429, 503,
    `Retry-After`) is no attempt."""
    patience_s: Annotated[float, Field(gt=0)] = 120.0
    """Seconds without any success after which the endpoint counts as down, and the run stops so that it can be
    resumed."""
    cache: bool = True
    """Answers are kept in `~/.cache/bbtune/answers.sqlite` (`$BBTUNE_CACHE`), by a hash of place, model and request."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.base_url is None) == (self.serve is None):
            raise ValueError(
                "expected base_url (an endpoint that is there) or serve (a model to serve here), one of them"
            )
        if self.base_url is not None and self.model is None:
            raise ValueError("expected model, the name under which the endpoint knows it")
        if self.serve is not None and self.api_key_env is not None:
            raise ValueError("expected no api_key_env with serve: the server that is started has a key of its own")
        return self

    @property
    def place(self) -> str:
        """What names the model in caches and messages; of a server that is started here the model, not the port."""
        return f"{self.base_url} {self.model}" if self.base_url else f"{self.serve}"


# What changes how fast or how dear a run is, and not what it finds.
NOT_OF_THE_TRACE = {
    "api_key_env",
    "price",
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout_s",
    "attempts",
    "patience_s",
    "cache",
}
