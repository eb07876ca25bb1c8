"""What a job says of how it is run: what is handed out, its limits, where it is scored and recorded."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bbtune.errors import hide_credentials
from bbtune.methods import Part


def _without_credentials(uri: str) -> str:
    if hide_credentials(uri) != uri:
        raise ValueError(
            "expected no user or password in it, a job is kept and shown; set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD in the environment, or for a database the whole MLFLOW_TRACKING_URI"
        )
    return uri


class SelectionSpec(Part):
    """Which prompt of a search is handed out, judged on dev; what is not set goes by the optimizer."""

    by: Literal["metric", "loss", "last"] | None = None
    """Of the prompts that dev judges: the best metric (of equals the lower loss), the lowest dev loss, or the latest.
    Else `loss` with `auto`, `metric` with others."""
    average: Annotated[int, Field(ge=1)] | None = None
    """Number of last accepted prompts whose mean is judged; else 3 with `auto`, 1 with others."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Judgements without a better one after which the search stops."""


class BudgetSpec(Part):
    """Hard limits; at least one. Those on money hold over the whole run, the others over the search."""

    evaluations: Annotated[int, Field(ge=1)] | None = None
    """Candidates, each on the whole train split (probes on a part of it count like the others)."""
    examples: Annotated[int, Field(ge=1)] | None = None
    """Texts run through the model, train and dev."""
    layer_forwards: Annotated[int, Field(ge=1)] | None = None
    """Texts times layers that ran, train and dev."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Of the search."""
    requests: Annotated[int, Field(ge=1)] | None = None
    """Paid to an API, probe and test split included."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """Paid to an API, of prompts and answers."""
    dollars: Annotated[float, Field(gt=0)] | None = None
    """Paid to an API, by the prices that the job names."""


MONEY = {"requests", "tokens", "dollars"}  # caps on what an API is paid, the test split included


class EvaluatorsSpec(Part):
    """Where candidates are scored: ``count`` 0 in this process, else on up to that many Ray actors.

    A ``shared`` pool serves all searches on the cluster that ask for the same model in the same way, and ends when
    none has asked for ``idle_s``.
    """

    count: Annotated[int, Field(ge=0)] = 0
    """Ray actors at most; 0 is this process."""
    pool: Literal["private", "shared"] = "private"
    """`shared`: one pool for all searches on the cluster that ask for the same model."""
    idle_s: Annotated[float, Field(gt=0)] = 120.0
    """Seconds after which a shared pool that nobody uses ends."""
    cpus: Annotated[float, Field(gt=0)] = 1
    """Of each evaluator, fractions allowed; rounded up it is its number of threads, with `count: 0` too."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """Of each evaluator, fractions allowed."""

    @property
    def threads(self) -> int:
        """Threads of one evaluator; part of the numerics, whatever the number of evaluators."""
        return max(1, ceil(self.cpus))


class TrackingSpec(Part):
    """Where MLflow records the run; without ``uri`` the environment decides, then a local database."""

    enabled: bool = True
    """Whether MLflow records the run."""
    uri: Annotated[str, AfterValidator(_without_credentials)] | None = None
    """A server or a database; else `MLFLOW_TRACKING_URI`, else `sqlite:///mlflow.db`. Credentials only by
    `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`."""
    experiment: Annotated[str, Field(min_length=1)] = "bbtune"
    """That gets the run."""
