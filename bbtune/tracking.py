"""What MLflow is told of a run, from a thread of its own.

The journal is the spool: whatever MLflow misses can be sent again.

What is of several runs, groups and comparisons, is in :mod:`bbtune.tracking_groups`.

Everything sent carries the time it had in the journal, so sending it twice changes nothing.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbtune.errors import hide_credentials
from bbtune.loop import Generation
from bbtune.mlflow_store import PARENT, PARENT_UID, UID, Store, reason, tracking_uri, translated
from bbtune.prompt_registry import register, tuned_prompt
from bbtune.result import JOURNAL, LEARNED, PLOT, PREDICTED, RESULT, SPEC, TuneResult
from bbtune.spec import BaseJob, TextJob, flattened
from bbtune.tracked_metrics import event_metrics, money_metrics, result_metrics

STATE = "tracking.json"
_FLUSH_S = 1.0
_RETRY_S = 10.0
_PATIENCE_S = 30.0  # at the end of a run, for a server that has answered so far
_PATIENCE_LOST_S = 3.0  # for one that has not
_LARGEST = 64 * 2**20  # bytes of an artifact; what is larger, such as a whole fine-tuned model, stays in its folder


@dataclass(frozen=True)
class RunCard:
    """What identifies and describes a run before its first generation.

    Attributes:
        uid: of the run folder; the MLflow run carries it as a tag, so that it is found again.
        dataset: name, digest and source of the task.
        parent_uid: of the group that the run belongs to; see :func:`bbtune.tracking_groups.start_group`.
    """

    uid: str
    spec: BaseJob
    tags: dict[str, str]
    dataset: dict[str, str]
    start_ms: int
    parent_uid: str | None = None


class Connection:
    """An MLflow run that is made when it is not there yet.

    Args:
        uri: of the server or database.
        card: of the run.

    Raises:
        TrackingError: if MLflow cannot be reached.
    """

    def __init__(self, uri: str, card: RunCard) -> None:
        self._store = Store(uri)
        self._card = card
        self.run_id: str = self._open()

    def send_events(self, events: Sequence[Generation]) -> None:
        """Log generations as metrics with evaluations as the step."""
        self._store.send_metrics(
            self.run_id,
            [
                (name, value, event.unix_ms, event.cost.evaluations)
                for event in events
                for name, value in (event_metrics(event) | money_metrics(event.cost, self._card.spec)).items()
            ],
        )

    @translated
    def send_result(self, folder: Path, result: TuneResult) -> None:
        """Log final scores and artifacts, close the run, and register a prompt in words."""
        end_ms, step, client = result.stopped_ms, result.cost.evaluations, self._store.client
        finals = result_metrics(result).items()
        self._store.send_metrics(self.run_id, [(name, value, end_ms, step) for name, value in finals])
        client.set_tag(self.run_id, "bbtune.stop_reason", result.stop_reason)
        for name in (SPEC, JOURNAL, RESULT, PREDICTED, LEARNED, PLOT):
            if (folder / name).is_file() and (folder / name).stat().st_size <= _LARGEST:
                client.log_artifact(self.run_id, str(folder / name))
        client.set_terminated(self.run_id, "FINISHED", end_ms)
        if isinstance(result.spec, TextJob):
            register(self._store, self.run_id, tuned_prompt(result, self._card.uid))

    @translated
    def _open(self) -> str:
        card, store = self._card, self._store
        experiment_id = store.experiment_id(card.spec.tracking.experiment)
        found = store.find(experiment_id, card.uid)
        run_id = str(found.info.run_id) if found else self._create(experiment_id)
        # Known ones stay: a job that is resumed on more evaluators, say.
        store.send_params(run_id, card_params(card), known=found.data.params if found else {})
        store.send_dataset(run_id, card.dataset)
        if card.parent_uid is not None:
            store.client.set_tag(run_id, PARENT_UID, card.parent_uid)  # a group that is opened later finds it by that
            if parent := store.find(experiment_id, card.parent_uid):
                store.client.set_tag(run_id, PARENT, parent.info.run_id)
        return run_id

    def _create(self, experiment_id: str) -> str:
        card = self._card
        tags = {UID: card.uid, "bbtune.spec_hash": card.spec.spec_hash, **card.tags}
        run = self._store.client.create_run(experiment_id, start_time=card.start_ms, tags=tags, run_name=card.spec.name)
        return str(run.info.run_id)


class Tracker:
    """Sends a run to MLflow from a thread of its own; nothing that MLflow does or fails to do reaches the run."""

    def __init__(self, folder: Path, card: RunCard) -> None:
        self._folder = folder
        self._card = card
        self._uri = record_uri(folder, card.spec)
        self._events: queue.SimpleQueue[Generation] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._result: TuneResult | None = None
        self._connection: Connection | None = None
        self._pending: list[Generation] = []
        self.problem: str | None = None
        _write_state(folder, self._uri, card.parent_uid)
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
            self.problem = reason(error)
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
    uri = uri or record_uri(folder, card.spec)
    connection = Connection(uri, card)
    connection.send_events(events)
    if result is not None:
        connection.send_result(folder, result)
    _write_state(folder, uri, card.parent_uid)
    return connection.run_id


def record_uri(folder: Path, spec: BaseJob) -> str:
    """Where MLflow has the record of a run: where it was last sent, else as the job says."""
    return _read_state(folder).get("uri") or tracking_uri(spec.tracking.uri)


def card_params(card: RunCard) -> dict[str, str]:
    """The whole job, and beside it ``method`` and ``task``, which every method has under the same name."""
    named: dict[str, str | None] = {"method": card.spec.method_name, "task": card.dataset.get("name")}
    return flat(card.spec.model_dump(mode="json")) | flat(named)


def flat(tree: Mapping[str, Any]) -> dict[str, str]:
    """``{"task.shots": "16", ...}`` of a nested mapping, None left out."""
    given = {name: value for name, value in flattened(tree).items() if value is not None}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}


def was_sent(folder: Path, parent_uid: str) -> bool:
    """Whether a run's whole record was sent last as one of a group; a tracker sends it as a run of its own."""
    return _read_state(folder).get("parent") == parent_uid


def _write_state(folder: Path, uri: str, parent_uid: str | None) -> None:
    """Remember where the record is; an address with credentials in it stays in the environment."""
    kept = uri if hide_credentials(uri) == uri else None
    (folder / STATE).write_text(json.dumps({"uri": kept, "parent": parent_uid}) + "\n", encoding="utf-8")


def _read_state(folder: Path) -> dict[str, str | None]:
    path = folder / STATE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
