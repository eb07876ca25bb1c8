"""MLflow, the only file that imports it. The journal is the spool: whatever MLflow misses can be sent again.

Everything sent carries the time it had in the journal, so sending it twice changes nothing.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbtune.errors import TrackingError, hide_credentials
from bbtune.loop import Generation
from bbtune.result import JOURNAL, PLOT, PROMPT, RESULT, SPEC, TuneResult
from bbtune.spec import JobSpec

STATE = "tracking.json"
_FLUSH_S = 1.0
_RETRY_S = 10.0
_PATIENCE_S = 30.0  # at the end of a run, for a server that has answered so far
_PATIENCE_LOST_S = 3.0  # for one that has not
_BATCH = 900  # MLflow takes at most 1,000 metrics at once
# A server that is down blocks the client for four minutes unless told otherwise.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True)
class RunCard:
    """What identifies and describes a run before its first generation.

    Attributes:
        uid: of the run folder; the MLflow run carries it as a tag, so that it is found again.
        dataset: name, digest and source of the task.
    """

    uid: str
    spec: JobSpec
    tags: dict[str, str]
    dataset: dict[str, str]
    start_ms: int


def tracking_uri(spec: JobSpec) -> str:
    """Where MLflow is: the job's word, else the environment's, else a database in the working folder."""
    return spec.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


class Connection:
    """An MLflow run that is made when it is not there yet.

    Args:
        uri: of the server or database.
        card: of the run.

    Raises:
        TrackingError: if MLflow cannot be reached.
    """

    def __init__(self, uri: str, card: RunCard) -> None:
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        import mlflow

        for name in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._entities = mlflow.entities
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        self._card = card
        self.run_id: str = _translate(self._open)

    def send_events(self, events: Sequence[Generation]) -> None:
        """Log generations as metrics with evaluations as the step."""
        metrics = [
            self._entities.Metric(name, value, event.unix_ms, event.cost.evaluations)
            for event in events
            for name, value in event_metrics(event).items()
        ]
        for start in range(0, len(metrics), _BATCH):
            batch = metrics[start : start + _BATCH]
            _translate(lambda batch=batch: self._client.log_batch(self.run_id, metrics=batch, synchronous=True))

    def send_result(self, folder: Path, result: TuneResult) -> None:
        """Log final scores and artifacts, and close the run."""
        end_ms = result.stopped_ms
        metrics = [
            self._entities.Metric(name, value, end_ms, result.cost.evaluations)
            for name, value in result_metrics(result).items()
        ]
        _translate(lambda: self._client.log_batch(self.run_id, metrics=metrics, synchronous=True))
        _translate(lambda: self._client.set_tag(self.run_id, "bbtune.stop_reason", result.stop_reason))
        for name in (SPEC, JOURNAL, RESULT, PROMPT, PLOT):
            if (folder / name).is_file():
                path = str(folder / name)
                _translate(lambda path=path: self._client.log_artifact(self.run_id, path))
        _translate(lambda: self._client.set_terminated(self.run_id, "FINISHED", end_ms))

    def _open(self) -> str:
        card, client = self._card, self._client
        experiment = client.get_experiment_by_name(card.spec.tracking.experiment)
        experiment_id = (
            experiment.experiment_id if experiment else client.create_experiment(card.spec.tracking.experiment)
        )
        found = client.search_runs([experiment_id], f"tags.`bbtune.uid` = '{card.uid}'", max_results=1)
        run_id = str(found[0].info.run_id) if found else self._create(experiment_id)
        known = found[0].data.params if found else {}  # MLflow refuses to change one: resumed on more evaluators, say
        said = flat(card.spec.model_dump(mode="json")).items()
        params = [self._entities.Param(name, value) for name, value in said if name not in known]
        client.log_batch(run_id, params=params, synchronous=True)
        dataset = self._entities.Dataset(source_type="bbtune", **card.dataset)
        client.log_inputs(run_id, [self._entities.DatasetInput(dataset, [])])
        return run_id

    def _create(self, experiment_id: str) -> str:
        card = self._card
        tags = {"bbtune.uid": card.uid, "bbtune.spec_hash": card.spec.spec_hash, **card.tags}
        run = self._client.create_run(experiment_id, start_time=card.start_ms, tags=tags, run_name=card.spec.name)
        return str(run.info.run_id)


class Tracker:
    """Sends a run to MLflow from a thread of its own; nothing that MLflow does or fails to do reaches the run."""

    def __init__(self, folder: Path, card: RunCard) -> None:
        self._folder = folder
        self._card = card
        self._uri = _read_state(folder) or tracking_uri(card.spec)
        self._events: queue.SimpleQueue[Generation] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._result: TuneResult | None = None
        self._connection: Connection | None = None
        self._pending: list[Generation] = []
        self.problem: str | None = None
        _write_state(folder, self._uri)
        self._thread = threading.Thread(target=self._work, name="bbtune-mlflow", daemon=True)
        self._thread.start()

    def take(self, event: Generation) -> None:
        """Queue one event; returns at once."""
        self._events.put(event)

    def close(self, result: TuneResult | None) -> bool:
        """End the record, waiting a while; whether MLflow has all of it. None leaves the run open."""
        patience_s = _PATIENCE_S if self.problem is None else _PATIENCE_LOST_S
        self._result = result
        self._ending.set()
        self._thread.join(patience_s)
        if self._thread.is_alive():
            self.problem = f"no answer within {patience_s:.0f} s"
        return self.problem is None

    def _work(self) -> None:
        next_try = 0.0
        while not self._ending.wait(_FLUSH_S):
            if time.monotonic() >= next_try and not self._try():
                next_try = time.monotonic() + _RETRY_S
        self._try()

    def _try(self) -> bool:
        try:
            self._connection = self._connection or Connection(self._uri, self._card)
            while not self._events.empty():
                self._pending.append(self._events.get())
            self._connection.send_events(self._pending)
            self._pending = []
            if self._result is not None:
                self._connection.send_result(self._folder, self._result)
        except Exception as error:  # a tracking fault, of whatever kind, must not end a run
            self.problem = _reason(error)
            return False
        self.problem = None
        return True


def send_all(
    folder: Path, card: RunCard, events: Sequence[Generation], result: TuneResult | None, uri: str | None
) -> str:
    """Send a whole run at once; what MLflow has already is not doubled.

    Returns:
        MLflow's run id.

    Raises:
        TrackingError: if MLflow cannot be reached, or refuses.
    """
    uri = uri or _read_state(folder) or tracking_uri(card.spec)
    connection = Connection(uri, card)
    connection.send_events(events)
    if result is not None:
        connection.send_result(folder, result)
    _write_state(folder, uri)
    return connection.run_id


def event_metrics(event: Generation) -> dict[str, float]:
    """Metrics of one generation."""
    cost = event.cost
    found: dict[str, float | None] = {
        "loss": event.loss,
        "best_loss": event.best_loss,
        "train_score": event.train_metric,
        "dev_score": event.dev_metric,
        "dev_score_incumbent": event.dev.metric if event.dev else None,
        "dev_loss_incumbent": event.dev.loss if event.dev else None,
        "layer": event.layers[0] if len(event.layers) == 1 else None,
        "examples": cost.examples,
        "layer_forwards": cost.layer_forwards,
        "evaluations_per_s": cost.evaluations / cost.seconds if cost.seconds else None,
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def result_metrics(result: TuneResult) -> dict[str, float]:
    """Final scores by name: ``test_tuned``, ``test_tuned_low``, ..., ``gain``, cost."""
    found = {"gain": result.gain.value, "gain_low": result.gain.low, "gain_high": result.gain.high}
    for name, scored in result.scores.items():
        for split, estimate in (("dev", scored.dev), ("test", scored.test)):
            found |= {
                f"{split}_{name}": estimate.value,
                f"{split}_{name}_low": estimate.low,
                f"{split}_{name}_high": estimate.high,
            }
    return found | {"evaluations": float(result.cost.evaluations), "seconds": result.cost.seconds}


def flat(tree: dict[str, Any], path: str = "") -> dict[str, str]:
    """``{"task.shots": "16", ...}`` of a nested mapping, None left out."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{path}{key}.")
        elif value is not None:
            found[f"{path}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return found


def _translate(call: Any) -> Any:
    try:
        return call()
    except Exception as error:  # MLflow, requests, urllib3 and SQLAlchemy each raise their own
        raise TrackingError(f"MLflow failed ({type(error).__name__}: {_reason(error)}); is its server up?") from error


def _reason(error: Exception) -> str:
    """The error in one line, without the credentials that an address may hold."""
    return hide_credentials(" ".join(str(error).split()))[:200] or type(error).__name__


def _write_state(folder: Path, uri: str) -> None:
    """Remember where the record is; an address with credentials in it stays in the environment."""
    kept = uri if hide_credentials(uri) == uri else None
    (folder / STATE).write_text(json.dumps({"uri": kept}) + "\n", encoding="utf-8")


def _read_state(folder: Path) -> str | None:
    path = folder / STATE
    state: dict[str, str | None] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return state.get("uri")
