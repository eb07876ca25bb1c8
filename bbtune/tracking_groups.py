"""What MLflow holds of several runs: groups, which nest them, and comparisons; and the way back to folders."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from bbtune.errors import TrackingError, did_you_mean
from bbtune.journal import now_ms
from bbtune.mlflow_store import PARENT, PARENT_UID, UID, MetricPoint, Store, translated
from bbtune.result import PREDICTED, RESULT, SPEC, Point, TuneResult
from bbtune.tracked_metrics import result_metrics

KIND = "bbtune.kind"  # tag of what is no run of a job: "group" or "comparison"
_FETCHED = (SPEC, PREDICTED, RESULT)  # the result last: a folder that has one is whole
_PAGE = 500
_SHOWN = 20


@translated
def start_group(uri: str, experiment: str, uid: str, name: str, params: Mapping[str, str]) -> str:
    """Open the run under which others are nested, those with this ``parent_uid`` on their card.

    Args:
        uri: of the server or database.
        uid: of the group; where there is a run with it already, that one goes on.
        name: shown for it.
        params: what its runs have in common.

    Returns:
        MLflow's run id.

    Raises:
        TrackingError: if MLflow cannot be reached, or refuses.
    """
    store = Store(uri)
    experiment_id = store.experiment_id(experiment)
    found = store.find(experiment_id, uid)
    if found is None:
        found = store.client.create_run(experiment_id, tags={UID: uid, KIND: "group"}, run_name=name)
    run_id = str(found.info.run_id)
    store.send_params(run_id, params, known=found.data.params)
    _adopt(store, experiment_id, uid, run_id)
    return run_id


@translated
def finish_group(uri: str, experiment: str, uid: str, results: Sequence[TuneResult]) -> None:
    """Log means and the median curve of a group, and close it; sending the same results twice changes nothing.

    Args:
        uri: of the server or database.
        uid: of the group.
        results: one for each seed.

    Raises:
        TrackingError: if MLflow cannot be reached, or there is no such group.
    """
    if not results:
        raise TrackingError(f"a group ends with the result of at least one run, got none for {uid}; run its jobs first")
    store = Store(uri)
    experiment_id = store.experiment_id(experiment)
    found = store.find(experiment_id, uid)
    if found is None:
        raise TrackingError(f"experiment {experiment} has no group {uid}; open it first, with start_group")
    run_id, end_ms = str(found.info.run_id), max(result.stopped_ms for result in results)
    store.send_metrics(run_id, group_metrics(results))
    _adopt(store, experiment_id, uid, run_id)
    store.client.set_terminated(run_id, "FINISHED", max(end_ms, found.info.start_time))  # it may be opened afterwards


def group_metrics(results: Sequence[TuneResult]) -> list[MetricPoint]:
    """Final metrics of a group under the names that a run has, then its curve.

    Every point has the time at which the last run ended, because the runs of a group have no clock in common.
    """
    end_ms = max(result.stopped_ms for result in results)
    finals = [result_metrics(result) for result in results]
    found = {name: fmean(final[name] for final in finals) for name in finals[0]} | {"n_seeds": float(len(results))}
    if len(results) > 1:
        found["test_tuned_std"] = stdev(final["test_tuned"] for final in finals)
    last = max(result.cost.evaluations for result in results)
    curve = median_curve([result.curve for result in results])
    return [(name, value, end_ms, last) for name, value in found.items()] + [
        (name, value, end_ms, step) for step, values in curve.items() for name, value in values.items()
    ]


def median_curve(curves: Sequence[Sequence[Point]]) -> dict[int, dict[str, float]]:
    """``dev_score`` and ``best_loss`` by evaluations, median over curves; a curve keeps its last value to the end."""
    steps = sorted({point.evaluations for curve in curves for point in curve})
    found: dict[int, dict[str, float]] = {}
    for step in steps:
        here = [point for curve in curves if (point := _at(curve, step)) is not None]
        losses = [point.best_loss for point in here if point.best_loss is not None]
        found[step] = {"dev_score": median(point.dev for point in here)}
        if losses:
            found[step]["best_loss"] = median(losses)
    return found


def _at(curve: Sequence[Point], evaluations: int) -> Point | None:
    """The last point of a curve up to so many evaluations."""
    after = bisect_right(curve, evaluations, key=lambda point: point.evaluations)
    return curve[after - 1] if after else None


def _adopt(store: Store, experiment_id: str, uid: str, run_id: str) -> None:
    """Nest the runs that were sent before their group was there."""
    for run in _runs(store, experiment_id, f"tags.`{PARENT_UID}` = '{uid}'"):
        if run.data.tags.get(PARENT) != run_id:
            store.client.set_tag(run.info.run_id, PARENT, run_id)


@translated
def send_comparison(
    uri: str, experiment: str, name: str, metrics: Mapping[str, float], params: Mapping[str, str], files: Iterable[Path]
) -> str:
    """Log a comparison as a run of its own, a new one each time, with its files.

    Returns:
        MLflow's run id.

    Raises:
        TrackingError: if MLflow cannot be reached, or refuses.
    """
    store = Store(uri)
    run = store.client.create_run(store.experiment_id(experiment), tags={KIND: "comparison"}, run_name=name)
    run_id, now = str(run.info.run_id), now_ms()
    store.send_params(run_id, params)
    store.send_metrics(run_id, [(key, value, now, 0) for key, value in metrics.items()])
    for path in files:
        store.client.log_artifact(run_id, str(path))
    store.client.set_terminated(run_id, "FINISHED")
    return run_id


@translated
def fetch_runs(uri: str, experiment: str, into: Path) -> list[Path]:
    """Download what a comparison needs of every finished run of an experiment, groups and comparisons left out.

    Args:
        uri: of the server or database.
        into: gets a folder for each run, ``into/<MLflow's run id>``.

    Returns:
        The folders, the earliest run first.

    Raises:
        TrackingError: if MLflow cannot be reached, or there is no such experiment.
    """
    store = Store(uri)
    found = store.client.get_experiment_by_name(experiment)
    if found is None or found.lifecycle_stage != "active":
        raise TrackingError(_no_experiment(store, experiment))
    runs = list(_runs(store, found.experiment_id, "attributes.status = 'FINISHED'"))
    ours = [run for run in runs if UID in run.data.tags and KIND not in run.data.tags]
    folders = [_fetch(store, run.info.run_id, into) for run in sorted(ours, key=lambda run: run.info.start_time)]
    return [folder for folder in folders if folder is not None]


def _fetch(store: Store, run_id: str, into: Path) -> Path | None:
    there = {artifact.path for artifact in store.client.list_artifacts(run_id)}
    if not there.issuperset(_FETCHED):
        return None
    if not re.fullmatch(r"\w+", run_id):  # it names a folder here, and a server may say anything
        raise TrackingError(f"MLflow's run id should be letters and digits, got {run_id!r}; is that an MLflow server?")
    folder = into / run_id
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FETCHED:
        store.client.download_artifacts(run_id, name, str(folder))
    return folder


def _no_experiment(store: Store, name: str) -> str:
    names = sorted(experiment.name for experiment in store.client.search_experiments())
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    there = f"has {shown}" if names else "has none"
    return f'expected one of MLflow\'s experiments, got "{name}"; it {there}{did_you_mean(name, names)}'


def _runs(store: Store, experiment_id: str, where: str) -> Iterator[Any]:
    """All runs that a filter finds, page by page."""
    token = None
    while True:
        page = store.client.search_runs([experiment_id], where, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
