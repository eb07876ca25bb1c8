"""What MLflow is told of an hpo study: a run for the study, one nested under it for each trial.

All is sent from the driver, by a thread, out of what is on disk when a trial has ended; sent twice, it changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from bbtune.hpo.record import STOPPED_EARLY, Ended, StudyRecord
from bbtune.jobfile import load_job
from bbtune.journal import read_journal
from bbtune.mlflow_store import MetricPoint, Store, reason, tracking_uri
from bbtune.result import JOURNAL, SPEC
from bbtune.run_spec import TrackingSpec
from bbtune.session import recorded_events, run_card
from bbtune.spec import BaseJob
from bbtune.tracking import Connection, flat
from bbtune.tracking_groups import start_group

SENT = "tracking.json"
_PATIENCE_S = 30.0


class StudyTracker:
    """Sends what has ended and was not sent, whenever it is woken; no fault of MLflow reaches the study."""

    def __init__(self, folder: Path, spec: BaseJob, record: StudyRecord) -> None:
        self._folder = folder
        self._spec = spec
        self._record = record
        self._uri = tracking_uri(spec.tracking.uri)
        self._work = threading.Event()
        self._ending = False
        self._parent: str | None = None
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._loop, name="bbtune-mlflow", daemon=True)

    def __enter__(self) -> Self:
        self._work.set()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Send the rest, waiting a while."""
        self._ending = True
        self._work.set()
        self._thread.join(_PATIENCE_S)
        if self._thread.is_alive():
            self.problem = f"no answer within {_PATIENCE_S:.0f} s"

    def wake(self) -> None:
        """A trial has ended."""
        self._work.set()

    def _loop(self) -> None:
        last = False
        while not last:
            self._work.wait()
            self._work.clear()
            last = self._ending
            try:
                self._send()
                self.problem = None
            except Exception as error:  # a tracking fault, of whatever kind, must not end a study
                self.problem = reason(error)

    def _send(self) -> None:
        uri, experiment, record = self._uri, self._spec.tracking.experiment, self._record
        if self._parent is None:
            params = {"method": self._spec.method_name, **flat(self._spec.model_dump(mode="json"))}
            self._parent = start_group(uri, experiment, record.uid, f"hpo of {self._spec.name}", params)
        where, ended = hashlib.sha256(uri.encode()).hexdigest(), list(record.ended.values())
        sent = _sent(self._folder, where)
        for trial in [trial for trial in ended if trial.folder not in sent]:
            send_trial(uri, self._folder, trial, record.uid)
            sent.append(trial.folder)
            (self._folder / SENT).write_text(json.dumps({where: sent}) + "\n", encoding="utf-8")
        if ended:  # whether or not a trial is new: an earlier process may have been killed before this
            Store(uri).send_metrics(self._parent, best_curve(ended))


def _sent(folder: Path, where: str) -> list[str]:
    """Folders of the trials that MLflow has, at an address of which the hash is kept: it may hold a password."""
    path = folder / SENT
    return list(json.loads(path.read_text(encoding="utf-8")).get(where, [])) if path.is_file() else []


def send_trial(uri: str, study: Path, trial: Ended, parent_uid: str) -> None:
    """A trial as a run of its own, from its journal.

    Args:
        uri: of MLflow.
        study: folder of the study.
        parent_uid: of the study.

    Raises:
        TrackingError: if MLflow cannot be reached, or refuses.
    """
    folder = study / trial.folder
    spec, records = load_job(folder / SPEC), read_journal(folder / JOURNAL)
    named = spec.model_copy(update={"name": f"trial-{trial.number:02d}"})
    connection = Connection(uri, run_card(named, records[0], parent_uid))
    connection.send_events(recorded_events(spec, records))
    store, standing = Store(uri), trial.standing
    finals = {"dev_tuned": standing.dev_metric, "dev_loss_tuned": standing.dev_loss}
    store.send_metrics(
        connection.run_id, [(key, value, standing.unix_ms, standing.evaluations) for key, value in finals.items()]
    )
    store.client.set_tag(connection.run_id, "bbtune.stop_reason", trial.reason)
    store.client.set_terminated(connection.run_id, "FINISHED", trial.unix_ms)


def best_curve(trials: list[Ended]) -> list[MetricPoint]:
    """``best_dev_score`` over the trials that have ended, in that order, and how many were stopped early."""
    found: list[MetricPoint] = []
    best, stopped = 0.0, 0
    for step, trial in enumerate(trials, 1):
        best = max(best, trial.standing.dev_metric) if step > 1 else trial.standing.dev_metric
        stopped += trial.reason == STOPPED_EARLY
        values = {"best_dev_score": best, "dev_score": trial.standing.dev_metric, "stopped_early": float(stopped)}
        found += [(name, value, trial.unix_ms, step) for name, value in values.items()]
    return found


def finish_study(tracking: TrackingSpec, uid: str, best: Ended, files: list[Path]) -> None:
    """What a study has chosen, and its files; closes its run.

    Args:
        tracking: of the job.
        uid: of the study.

    Raises:
        TrackingError: if MLflow cannot be reached, or refuses.
    """
    store = Store(tracking_uri(tracking.uri))
    found = store.find(store.experiment_id(tracking.experiment), uid)
    if found is None:  # it could not be reached while the trials ran
        return
    run_id, chosen = found.info.run_id, {f"best.{path}": value for path, value in best.settings.items()}
    store.send_params(run_id, {"best.trial": str(best.number), **flat(chosen)}, known=found.data.params)
    for path in files:
        store.client.log_artifact(run_id, str(path))
    store.client.set_terminated(run_id, "FINISHED")
