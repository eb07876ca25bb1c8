"""MLflow as a record of runs: a client that is patient for seconds, and whose faults are in words."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from bbtune.errors import BbtuneError, TrackingError, hide_credentials

_METRICS, _PARAMS = 900, 100  # MLflow takes at most 1,000 metrics and 100 params at once
_LONGEST = 6000  # characters of a param that MLflow takes
# A server that is down blocks the client for four minutes unless told otherwise.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
UID, PARENT_UID, PARENT = "bbtune.uid", "bbtune.parent_uid", "mlflow.parentRunId"  # tags; MLflow's own nests a run
MetricPoint = tuple[str, float, int, int]  # name, value, time (ms since 1970), step

_Args = ParamSpec("_Args")
_Returned = TypeVar("_Returned")


def tracking_uri(uri: str | None) -> str:
    """Where MLflow is: as said, else the environment's word, else a database in the working folder."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def translated(call: Callable[_Args, _Returned]) -> Callable[_Args, _Returned]:
    """The function, with a TrackingError for whatever MLflow, requests, urllib3 and SQLAlchemy raise."""

    @wraps(call)
    def translating(*args: _Args.args, **kwargs: _Args.kwargs) -> _Returned:
        try:
            return call(*args, **kwargs)
        except BbtuneError:
            raise
        except Exception as error:
            raise TrackingError(
                f"MLflow failed ({type(error).__name__}: {reason(error)}); is its server up?"
            ) from error

    return translating


def patient_mlflow() -> Any:
    """The library, which neither waits for minutes nor chats."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return mlflow


class Store:
    """MLflow with our limits: a client that does not wait for minutes, and runs that are found by their uid.

    Args:
        uri: of the server or database.

    Raises:
        TrackingError: if MLflow cannot be reached, or refuses, here and in every method.
    """

    @translated
    def __init__(self, uri: str) -> None:
        mlflow = patient_mlflow()
        self._entities = mlflow.entities
        self.client = mlflow.MlflowClient(tracking_uri=uri)

    @translated
    def experiment_id(self, name: str) -> str:
        """Of an experiment, which is made when it is not there yet."""
        experiment = self.client.get_experiment_by_name(name)
        return str(experiment.experiment_id if experiment else self.client.create_experiment(name))

    @translated
    def find(self, experiment_id: str, uid: str) -> Any:
        """The MLflow run of a uid, or None."""
        found = self.client.search_runs([experiment_id], f"tags.`{UID}` = '{uid}'", max_results=1)
        return found[0] if found else None

    @translated
    def send_params(self, run_id: str, params: Mapping[str, str], known: Mapping[str, str] | None = None) -> None:
        """Log params but those known, which MLflow refuses to change; a value that is too long loses its end."""
        new = [(name, value) for name, value in params.items() if name not in (known or {})]
        cut = [(name, value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…") for name, value in new]
        sent = [self._entities.Param(name, value) for name, value in cut]
        for start in range(0, len(sent), _PARAMS):
            self.client.log_batch(run_id, params=sent[start : start + _PARAMS], synchronous=True)

    @translated
    def send_metrics(self, run_id: str, points: Iterable[MetricPoint]) -> None:
        """Log metrics; a point that MLflow has already is not doubled."""
        sent = [self._entities.Metric(*point) for point in points]
        for start in range(0, len(sent), _METRICS):
            self.client.log_batch(run_id, metrics=sent[start : start + _METRICS], synchronous=True)

    @translated
    def send_dataset(self, run_id: str, dataset: Mapping[str, str]) -> None:
        """Log the data of a run."""
        entity = self._entities.Dataset(source_type="bbtune", **dataset)
        self.client.log_inputs(run_id, [self._entities.DatasetInput(entity, [])])


def reason(error: Exception) -> str:
    """The error in one line, without the credentials that an address may hold."""
    return hide_credentials(" ".join(str(error).split()))[:200] or type(error).__name__
