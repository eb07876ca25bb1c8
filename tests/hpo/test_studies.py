"""Whole studies on Ray: every searcher, early stops, a killed driver, and the command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from spaces import files
from typer.testing import CliRunner
from views import Witness

from bbtune.cli import app
from bbtune.errors import BbtuneError
from bbtune.hpo.record import STOPPED_EARLY
from bbtune.hpo.searchers import SEARCHERS
from bbtune.hpo.study import Options, read_study
from bbtune.hpo.tuning import Tuned, tune
from bbtune.jobfile import load_job
from bbtune.journal import read_journal
from bbtune.result import JOURNAL, RESULT

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def tuned(spec: Any, folder: Path, options: Options, **space: Any) -> tuple[Tuned, list[str]]:
    """The trials of a study, and what was said."""
    job, path = files(spec, folder, **space)
    lines = Witness()
    return tune(read_study(job, path, options), folder / "study", lines), lines.said


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [record for record in read_journal(folder / "hpo.jsonl") if record["event"] == kind]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("searcher", SEARCHERS)
def test_every_searcher_runs_its_trials_in_its_own_sequence(searcher, make_job, tmp_path) -> None:
    def run(name: str) -> list[tuple[Any, float]]:
        (tmp_path / name).mkdir()
        found, _ = tuned(make_job("bert"), tmp_path / name, Options(8, searcher, asha=False, concurrent=1))
        assert not found.faults
        return [(trial.settings, trial.standing.dev_metric) for trial in found.ended]

    first = run("first")
    assert len(first) == 8
    assert first[0][0] == {}
    if searcher in ("optuna", "random"):
        assert run("second") == first


@pytest.mark.usefixtures("ray_cluster")
def test_trials_that_lag_behind_are_stopped_early_and_the_job_as_it_is_never(make_job, tmp_path) -> None:
    spec = make_job("bert", method={"sigma": 1e-4, "alpha": 1e-4})  # which does not get anywhere
    parameters = {"method.sigma": {"float": [1e-4, 1.0], "log": True}, "method.alpha": {"float": [0.01, 1.0]}}
    found, said = tuned(spec, tmp_path, Options(12, "random", concurrent=2), parameters=parameters)
    early = [trial for trial in found.ended if trial.reason == STOPPED_EARLY]
    assert 0 < len(early) < 11
    assert found.first.reason == "budget.evaluations"
    assert all(trial.standing.evaluations < 40 for trial in early)
    for trial in found.ended:  # what was stopped stands in the journal as far as it came, and none saw the test split
        records = read_journal(tmp_path / "study" / trial.folder / JOURNAL)
        assert {record["split"] for record in records if record["event"] == "scores"} == {"train", "dev"}
        assert not (tmp_path / "study" / trial.folder / RESULT).exists()
    assert sum("stopped early at" in line for line in said) == len(early)
    best = (found.best.standing.dev_metric, -found.best.standing.dev_loss)
    assert best == max((trial.standing.dev_metric, -trial.standing.dev_loss) for trial in found.ended)


@pytest.mark.usefixtures("ray_cluster")
def test_settings_that_fit_no_data_fail_alone_and_are_told(make_job, tmp_path) -> None:
    parameters = {
        "method.schedule": {"choice": ["round-robin", "recent-gain"]},  # each alone goes with the job,
        "method.accept": {"choice": ["improves", "best-ever"]},  # two of them not with each other
    }
    spec = make_job("bert", budget={"evaluations": 12})
    found, said = tuned(spec, tmp_path, Options(9, "random", asha=False), parameters=parameters)
    wrong = {"method.schedule": "recent-gain", "method.accept": "best-ever"}
    ((number, fault),) = found.faults.items()
    assert fault.startswith("1 fault in the job\n  method.accept: expected improves, recent-gain needs to know")
    assert any(f"trial {number} failed: 1 fault in the job" in line for line in said)
    assert len(found.ended) == 3
    assert wrong not in [trial.settings for trial in found.ended]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bbtune", "hpo", *arguments]


def test_a_study_whose_driver_was_killed_goes_on_with_what_it_lacks(make_job, tmp_path) -> None:
    """Alone and one at a time, so that the whole sequence is that of a study that was not killed."""
    spec = make_job("bert", budget={"evaluations": 300})
    job, path = files(spec, tmp_path, trials=6, asha={"reduction": 2.0})
    options = ["--space", str(path), "--concurrent", "1", "--retrain-seeds", "1"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    environment.pop("RAY_ADDRESS", None)
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def start(folder: Path) -> subprocess.Popen[str]:
        arguments = command(str(job), *options, "--out", str(folder))
        pipe = subprocess.PIPE
        return subprocess.Popen(arguments, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment)

    uncut = start(whole)
    said, _ = uncut.communicate(timeout=600)
    assert uncut.returncode == 0, said
    process = start(cut)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if (cut / "hpo.jsonl").is_file() and len(events(cut, "trial")) >= 2 and _in_the_middle(cut, 3):
            break
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it was killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {trial["folder"]: (cut / trial["folder"] / JOURNAL).stat().st_mtime_ns for trial in events(cut, "trial")}
    again = start(cut)
    said, _ = again.communicate(timeout=600)
    assert again.returncode == 0, said
    assert f"{len(done)} of them done already" in said
    for folder, touched in done.items():
        assert (cut / folder / JOURNAL).stat().st_mtime_ns == touched, "an ended trial was run again"
    assert [p["settings"] for p in events(cut, "proposal")] == [p["settings"] for p in events(whole, "proposal")]
    assert _told(cut) == _told(whole)
    assert (cut / "best.yaml").read_text() == (whole / "best.yaml").read_text()


def _told(study: Path) -> list[list[Any]]:
    return [[trial[key] for key in ("number", "settings", "folder", "reason")] for trial in events(study, "trial")]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_study_says_how_to_go_on_and_leaves_no_process(sent, make_job, tmp_path) -> None:
    job, path = files(make_job("bert", budget={"evaluations": 5000}), tmp_path, trials=3)
    arguments = command(str(job), "--space", str(path), "--out", str(tmp_path / "study"))
    environment = {**os.environ, "RAY_TMPDIR": f"/tmp/bbi{os.getpid()}"}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None and not _in_the_middle(tmp_path / "study", 1):
        time.sleep(0.05)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert "interrupted; the same command goes on with it" in errors
    assert "Traceback" not in errors
    deadline = time.monotonic() + 60
    while (left := of_folder(environment["RAY_TMPDIR"])) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left
    shutil.rmtree(environment["RAY_TMPDIR"], ignore_errors=True)


def of_folder(folder: str) -> list[str]:
    """Command lines that name a folder of a Ray cluster."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if f"{folder}/" in line:
            found.append(line)
    return found


def _in_the_middle(study: Path, number: int) -> bool:
    """Whether a trial has begun and scored something."""
    return any(path.read_bytes().count(b"\n") > 4 for path in study.glob(f"trial{number - 1:02d}-*/{JOURNAL}"))


@pytest.mark.usefixtures("ray_cluster")
def test_the_command_tells_the_best_job_the_test_and_the_gap(make_job, tmp_path) -> None:
    spec = make_job("bert", name="tiny", budget={"evaluations": 30})
    job, path = files(spec, tmp_path, trials=4)
    out = tmp_path / "study"
    arguments = [
        "hpo",
        str(job),
        "--space",
        str(path),
        "--out",
        str(out),
        "--retrain-seeds",
        "2",
        "--searcher",
        "random",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None, result.output
    said = result.stdout
    assert "hpo of tiny: 4 trials by random" in said
    assert f"the best job: {out / 'best.yaml'}" in said
    assert "trained again with 2 fresh seeds: dev " in said
    assert "selected of 4 trials, so optimistic" in said
    best = load_job(out / "best.yaml")
    run = CliRunner().invoke(app, ["run", str(out / "best.yaml"), "--out", str(tmp_path / "run")])
    assert run.exception is None, run.output
    assert load_job(tmp_path / "run" / "spec.yaml").method == best.method
    again = CliRunner().invoke(app, arguments)
    assert again.exception is None
    assert again.stdout == said
    other = CliRunner().invoke(app, [*arguments, "--trials", "5"])
    assert isinstance(other.exception, BbtuneError)
    assert "holds a study that began otherwise (trials 4 then, 5 now); give another --out" in str(other.exception)


@pytest.mark.usefixtures("ray_cluster")
def test_a_gradient_baseline_is_searched_too(make_job, tmp_path) -> None:
    raw = yaml.safe_load(make_job("bert").to_yaml())
    raw |= {"method": {"name": "prompt-tuning", "epochs": 3}, "budget": {}, "evaluators": {"count": 1}}
    job, path = tmp_path / "job.yaml", tmp_path / "space.yaml"
    job.write_text(yaml.safe_dump(raw))
    path.write_text(yaml.safe_dump({"parameters": {"method.learning_rate": {"float": [0.001, 0.3], "log": True}}}))
    lines = Witness()
    found = tune(read_study(job, path, Options(3, "optuna")), tmp_path / "study", lines)
    assert len(found.ended) == 3
    assert not found.faults
    assert "none stopped early: the job has no budget" in lines.said[0]


def test_a_folder_that_holds_something_else_is_refused(make_job, tmp_path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "notes.txt").write_text("mine")
    with pytest.raises(BbtuneError, match="expected a folder for a study; give another --out"):
        tuned(make_job("bert"), tmp_path, Options(2))


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_without_tunes_own_state_the_study_is_the_same_and_nothing_runs_twice(damage, make_job, tmp_path) -> None:
    options = Options(4, "optuna", concurrent=1)
    whole, _ = tuned(make_job("bert"), tmp_path, options)
    study = tmp_path / "study"
    record = study / "hpo.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join(lines[:-2]))  # as if it had been killed before the last trial ended
    touched = {trial.folder: (study / trial.folder / JOURNAL).stat().st_mtime_ns for trial in whole.ended[:3]}
    if damage == "gone":
        shutil.rmtree(study / "tune")
    else:
        for path in (study / "tune").glob("experiment_state-*.json"):
            path.write_bytes(path.read_bytes()[:100])
    again, said = tuned(make_job("bert"), tmp_path, options)
    assert "3 of them done already" in said[0]
    assert [(t.settings, t.folder, t.reason) for t in again.ended] == [
        (t.settings, t.folder, t.reason) for t in whole.ended
    ]
    for folder, when in touched.items():
        assert (study / folder / JOURNAL).stat().st_mtime_ns == when
