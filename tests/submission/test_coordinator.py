"""The driver of a submitted job, run by hand."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from records import lines

from bbtune import api
from bbtune.coordinator import _patiently, coordinate
from bbtune.errors import JobError, ResourcesError
from bbtune.result import TuneResult
from bbtune.spec import BaseJob
from bbtune.storage.place import STORAGE, run_place


@pytest.fixture(autouse=True)
def _cluster_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE, str(tmp_path / "storage"))
    monkeypatch.setenv("BBTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def working_folder(spec: BaseJob, folder: Path) -> Path:
    """As a submission makes one: the job, and its data beside it."""
    source = Path(spec.task.source.removeprefix("folder:"))
    shutil.copytree(source, folder / "data" / source.name)
    moved = spec.model_copy(update={"task": spec.task.model_copy(update={"source": f"folder:data/{source.name}"})})
    (folder / "job.yaml").write_text(moved.to_yaml())
    return folder


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bbtune.coordinator", "job.yaml", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_job_runs_in_the_storage_and_only_once(make_job, tmp_path, monkeypatch, capsys):
    spec = make_job("bert")
    monkeypatch.chdir(working_folder(spec, tmp_path / "first"))
    coordinate(Path("job.yaml"))
    said, place = capsys.readouterr().out, tmp_path / "storage" / f"tiny-bert-{spec.spec_hash[:8]}"
    assert said.startswith(f"run folder: {place}\n")
    assert f"run folder: {place}" in said.splitlines()[-1]
    written = (place / "result.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "first")
    monkeypatch.chdir(working_folder(spec, tmp_path / "second"))
    coordinate(Path("job.yaml"))
    assert capsys.readouterr().out == said
    assert (place / "result.json").stat().st_mtime_ns == written


def test_a_job_cut_off_goes_on_from_another_working_folder(make_job, tmp_path, monkeypatch):
    spec = make_job("bert", budget={"evaluations": 400})
    place = run_place(spec)
    process = start(working_folder(spec, tmp_path / "first"))
    while lines(place) < 10 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    shutil.rmtree(tmp_path / "first")
    assert not (place / "result.json").exists()
    kept = lines(place)
    monkeypatch.chdir(working_folder(spec, tmp_path / "second"))
    coordinate(Path("job.yaml"))
    assert lines(place) > kept
    whole = api.run(spec, tmp_path / "whole")
    assert TuneResult.load(place).as_dict()["learned_sha256"] == whole.as_dict()["learned_sha256"]


def test_a_job_that_is_stopped_says_how_to_go_on(make_job, tmp_path):
    spec = make_job("bert", budget={"evaluations": 100_000})
    process = start(working_folder(spec, tmp_path / "job"))
    while lines(run_place(spec)) < 5 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"interrupted; go on with: bbtune resume {run_place(spec)}" in said
    assert "Traceback" not in said


def test_without_a_storage_nothing_begins(make_job, tmp_path, monkeypatch):
    monkeypatch.delenv(STORAGE)
    folder = working_folder(make_job("bert"), tmp_path / "job")
    with pytest.raises(JobError, match="storage: missing; name a place that all machines see, here or as BBTUNE_STORA"):
        coordinate(folder / "job.yaml")
    process = start(folder)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.startswith("error: 1 fault in the job\n  storage: missing")


@pytest.mark.parametrize("told", ["runs", "./runs"])
def test_a_storage_that_would_lie_in_the_working_folder_is_refused(told, make_job, tmp_path, monkeypatch):
    monkeypatch.setenv(STORAGE, told)
    monkeypatch.chdir(working_folder(make_job("bert"), tmp_path / "job"))
    with pytest.raises(JobError, match=f"BBTUNE_STORAGE: expected an absolute path .*, got {told}: the working folder"):
        coordinate(Path("job.yaml"))
    assert not Path("runs").exists()


def test_without_an_address_mlflow_is_told_nothing_and_that_is_said(make_job, tmp_path, monkeypatch, capsys):
    spec = make_job("bert", tracking={"enabled": True})
    monkeypatch.chdir(working_folder(spec, tmp_path / "job"))
    coordinate(Path("job.yaml"))
    said = capsys.readouterr().out
    assert "MLflow is told nothing: no tracking.uri in the job, and no MLFLOW_TRACKING_URI in the environment" in said
    assert f"send it later: bbtune sync {run_place(spec)}" in said
    assert not (tmp_path / "job" / "mlflow.db").exists()


def test_a_busy_cluster_is_waited_for_and_one_without_room_is_not(monkeypatch):
    said: list[str] = []
    answers = iter([ResourcesError("no room"), "done"])

    def work() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(ResourcesError, match="no room"):
        _patiently(work, said.append)
    answers = iter([ResourcesError("busy"), "done"])
    monkeypatch.setattr("bbtune.evaluation.ray_hosts.BUSY_S", 0.0)
    assert _patiently(work, said.append) == "done"
    assert said == ["busy; this job waits on"]


@pytest.mark.slow
@pytest.mark.ray
def test_seeds_of_a_job_are_a_study_in_the_storage(make_job, tmp_path):
    spec = make_job("bert")
    folder = working_folder(spec, tmp_path / "job")
    process = start(folder, "--seeds", "3,4")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    study = tmp_path / "storage" / f"tiny-bert-{spec.spec_hash[:8]}-seeds"
    assert sorted(path.parent.name for path in study.glob("*/result.json")) == ["seed3", "seed4"]
    shutil.rmtree(folder)
    (study / "seed4" / "result.json").unlink()  # a run that is gone on with finds its data elsewhere
    process = start(working_folder(spec, tmp_path / "again"), "--seeds", "3,4")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "2 runs, 1 of them done already" in said
