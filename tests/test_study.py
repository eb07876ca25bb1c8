"""Many runs under one roof: seeds, suites, what is skipped, what is told, what MLflow gets."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import ids_of
from scripted_upstream import ScriptedUpstream
from text_runs import job_of
from typer.testing import CliRunner
from views import Witness

from bbtune import api
from bbtune.cli import app
from bbtune.errors import BbtuneError, JobError, TrackingError
from bbtune.journal import read_journal
from bbtune.result import JOURNAL, RESULT, SPEC, STUDY, TuneResult
from bbtune.study import Study, held, read_record, record_of, seeded_study, write_record
from bbtune.study_run import compared, record_comparison, run_study, validate_suite, work_on
from bbtune.suite import is_suite, read_suite


@pytest.fixture
def job(tiny_models: dict[str, Path], tiny_task: Path) -> dict[str, Any]:
    """A job without a method, on a tiny sentence encoder."""
    return {
        "task": {"source": f"folder:{tiny_task}", "label_words": ["a bad end", "a great film"]},
        "backbone": {"model": f"path:{tiny_models['encoder']}"},
        "tracking": {"enabled": False},
    }


@pytest.fixture
def suite(tmp_path: Path, job: dict[str, Any]) -> Path:
    """Two jobs and two seeds."""
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    for name in ("majority", "zero-shot"):
        (jobs / f"{name}.yaml").write_text(yaml.safe_dump({**job, "name": name, "method": {"name": name}}))
    path = tmp_path / "suite.yaml"
    path.write_text(
        yaml.safe_dump({"name": "s", "jobs": ["jobs/majority.yaml", "jobs/zero-shot.yaml"], "seeds": [1, 2]})
    )
    return path


@pytest.fixture
def drawn_task(tmp_path: Path, tiny_task: Path) -> Path:
    """The tiny task as one draw, of seed 13."""
    folder = tmp_path / "drawn"
    (folder / "seed13").mkdir(parents=True)
    for path in tiny_task.iterdir():
        shutil.copy(path, folder if path.name in {"task.json", "test.jsonl"} else folder / "seed13")
    return folder


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow cannot be reached."""

    def fail(*_: Any) -> None:
        raise TrackingError("no server")

    monkeypatch.setattr("bbtune.study_run.start_group", fail)
    monkeypatch.setattr("bbtune.study_run.send_comparison", fail)


def changed(path: Path, **parts: Any) -> Path:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **parts}))
    return path


def begun(study: Study) -> Study:
    """A study of which no run has begun yet."""
    study.folder.mkdir(exist_ok=True)
    write_record(study.folder, record_of(study))
    return study


def names(study: Study) -> list[str]:
    return [member.folder.name for member in study.members]


def test_a_suite_is_told_from_a_job_by_its_jobs(suite: Path) -> None:
    assert is_suite(suite)
    assert not is_suite(suite.parent / "jobs" / "majority.yaml")


def test_a_suite_has_every_job_with_every_seed(suite: Path, tmp_path: Path) -> None:
    study = read_suite(suite, [], tmp_path / "out")
    assert names(study) == ["majority-seed1", "majority-seed2", "zero-shot-seed1", "zero-shot-seed2"]
    assert [(m.spec.seed, m.spec.task.seed) for m in study.members] == [(1, 1), (2, 2)] * 2
    assert [group.name for group in study.groups] == ["majority", "zero-shot"]


def test_a_suite_has_every_job_on_every_task(suite: Path, tmp_path: Path, tiny_task: Path) -> None:
    tasks = [{"task": {"source": f"folder:{tiny_task}"}}, {"task": {"source": "builtin:support", "label_words": None}}]
    study = read_suite(changed(suite, tasks=tasks, seeds=[1]), [], tmp_path / "out")
    first, second = tiny_task.name, "support"
    expected = [f"{task}-{job}-seed1" for task in (first, second) for job in ("majority", "zero-shot")]
    assert names(study) == expected
    assert study.members[2].spec.task.source == "builtin:support"


def test_what_a_suite_sets_lies_over_its_jobs_and_an_override_over_all(suite: Path, tmp_path: Path) -> None:
    entry = {"job": "jobs/zero-shot.yaml", "name": "long", "set": {"backbone": {"max_tokens": 64}}}
    jobs = ["jobs/majority.yaml", entry]
    changed(suite, jobs=jobs, seeds=[1], set={"backbone": {"max_tokens": 32}, "prompt": {"tokens": 3}})
    first, second = read_suite(suite, ["prompt.tokens=4"], tmp_path / "out").members
    assert (first.spec.backbone.max_tokens, second.spec.backbone.max_tokens) == (32, 64)
    assert (first.spec.prompt.tokens, second.spec.prompt.tokens) == (4, 4)
    assert second.folder.name == "long-seed1"


def test_a_fault_of_a_suite_is_told_once_with_the_jobs_that_have_it(suite: Path, tmp_path: Path) -> None:
    short = {"backbone": {"max_tokens": 0}}
    others = [{"job": "jobs/zero-shot.yaml", "name": name, "set": short} for name in ("a", "b")]
    files = ["jobs/majority.yaml", "jobs/majority.yaml", "jobs/none.yaml"]
    changed(suite, jobs=[*files, *others], set={"prompt": {"tokens": 0}}, reference="lora")
    with pytest.raises(JobError, match="4 faults in the suite") as caught:
        read_suite(suite, [], tmp_path / "out")
    twice, missing, *of_jobs = (str(fault) for fault in caught.value.faults)
    assert twice.startswith("majority: expected jobs of different names, got it twice")
    assert missing.endswith("none.yaml: No such file or directory")
    assert of_jobs == [
        "all jobs: prompt.tokens: expected greater than or equal to 1, got 0",
        "a, b: backbone.max_tokens: expected greater than or equal to 8, got 0",
    ]


def test_a_fault_that_one_job_has_twice_is_not_of_all_jobs(suite: Path) -> None:
    words = {"task": {"label_words": ["", ""]}}
    changed(suite, jobs=["jobs/majority.yaml", {"job": "jobs/zero-shot.yaml", "set": words}])
    faults = validate_suite(suite)
    assert faults
    assert all(str(fault).startswith("zero-shot: ") for fault in faults)


def test_validate_of_a_suite_judges_its_jobs_against_data_and_model_and_writes_nothing(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert validate_suite(suite) == []
    before = sorted(tmp_path.rglob("*"))
    changed(suite, reference="majorty", set={"backbone": {"model": "path:nowhere"}})
    monkeypatch.chdir(tmp_path)
    for command in ("validate", "run"):
        told = CliRunner().invoke(app, [command, str(suite)]).exception
        assert isinstance(told, JobError)
        reference, model = (str(fault) for fault in told.faults)
        assert 'did you mean "majority"' in reference
        assert model.startswith("all jobs: backbone.model: ")
        assert "nowhere" in model
    changed(suite, reference=None)
    told = CliRunner().invoke(app, ["run", str(suite)]).exception
    assert isinstance(told, JobError)
    assert str(told).startswith("1 fault in the suite\n  all jobs: backbone.model: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_every_seed_of_a_suite_is_judged_and_no_other(suite: Path, tmp_path: Path, drawn_task: Path) -> None:
    over = {"task": {"source": f"folder:{drawn_task}", "seed": 7}}
    assert validate_suite(changed(suite, seeds=[13], set=over)) == []
    (fault,) = validate_suite(changed(suite, seeds=[13, 14]))
    assert str(fault).startswith("all jobs: ")
    assert "seed 14" in str(fault)
    with pytest.raises(JobError, match="seed 14"):
        run_study(read_suite(suite, [], tmp_path / "out"), Witness())


@pytest.mark.usefixtures("no_server")
def test_what_a_study_has_is_shown_and_sent_while_data_or_model_of_a_job_are_at_fault(
    suite: Path, tmp_path: Path
) -> None:
    study = begun(read_suite(suite, [], tmp_path / "out"))
    for member in study.groups[0].members:
        work_on(member.spec, member.folder)
    there = {"backbone": {"model": "path:nowhere"}}
    changed(suite, jobs=["jobs/majority.yaml", {"job": "jobs/zero-shot.yaml", "set": there}])
    command = ["run", str(suite), "--out", str(study.folder), "--set", "tracking.enabled=true"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, JobError)
    assert "MLflow lacks part of the study (no server)" in result.output
    assert str(result.exception).startswith("1 fault in the suite\n  zero-shot: backbone.model: ")  # not of all jobs
    assert "study folder: " in result.output
    assert not any(member.folder.exists() for member in study.groups[1].members)


@pytest.mark.parametrize("option", [["--method", "spsa"], ["--seeds", "1,2"]])
def test_options_of_a_single_job_are_refused_for_a_suite(option: list[str], suite: Path) -> None:
    told = CliRunner().invoke(app, ["run", str(suite), *option]).exception
    assert f"expected a suite without {option[0]}: " in str(told)


@pytest.mark.parametrize("command", ["resume", "show", "sync", "predict"])
def test_a_study_given_for_a_run_is_told(command: str, suite: Path, tmp_path: Path) -> None:
    study = begun(read_suite(suite, [], tmp_path / "out"))
    arguments = [command, str(study.folder), *(["a text"] if command == "predict" else [])]
    told = str(CliRunner().invoke(app, arguments).exception)
    assert "found none; it holds a study: what it lacks, the bbtune run that began it runs and sends" in told
    second = study.members[1]
    work_on(second.spec, second.folder)
    told = str(CliRunner().invoke(app, arguments).exception)
    assert f"it holds a study: name one of its runs, such as {second.folder}, or bbtune compare {study.folder}" in told
    over = CliRunner().invoke(app, ["run", str(tmp_path / "jobs" / "majority.yaml"), "--out", str(study.folder)])
    assert "holds a study, expected a folder for one run" in str(over.exception)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"seeds": []}, r"  seeds: expected at least 1 item, got \[\] \(suite .*suite.yaml\)"),
        ({"seeds": 13}, r"  seeds: expected a valid list, got 13"),
        ({"jobs": []}, r"  jobs: expected at least 1 item, got \[\]"),
        ({"jobs": "jobs/majority.yaml"}, r"  jobs: expected a valid list, got \"jobs/majority.yaml\""),
        ({"jobs": [7]}, r"  jobs\[0\]: expected a mapping of job, name, set, got 7"),
        ({"jobs": [{"name": "x"}]}, r"  jobs\[0\]\.job: missing; this key is required"),
        ({"jobs": [{"jbo": "jobs/majority.yaml"}]}, r'  jobs\[0\]\.jbo: unknown key; did you mean "job"'),
        ({"set": [7]}, r"  set: expected a mapping, got \[7\]"),
        ({"sedes": [1]}, r'  sedes: unknown key; did you mean "seeds"'),
        ({"seeds": [-1]}, r"  seeds\[0\]: expected greater than or equal to 0, got -1"),
        ({"seeds": [1, 1]}, r"seeds: expected each seed once, got \[1, 1\] \(suite"),
        ({"reference": "auto"}, "reference: expected a method or a job of the suite .*, got 'auto'"),
        ({"reference": "majorty"}, 'reference: expected a method or a job of the suite .*did you mean "majority"'),
        ({"jobs": ["jobs/none.yaml"]}, "none.yaml: No such file"),
    ],
)
def test_a_faulty_suite_is_told(suite: Path, tmp_path: Path, parts: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        read_suite(changed(suite, **parts), [], tmp_path / "out")


@pytest.mark.parametrize("key", ["on", "7", "2024-01-01"])
def test_a_key_of_a_suite_that_yaml_takes_for_something_else_is_told_as_it_is_written(suite: Path, key: str) -> None:
    text = suite.read_text()
    suite.write_text(f"{text}{key}: 1\n")
    with pytest.raises(JobError, match=f"  {key}: unknown key"):
        read_suite(suite, [], None)
    suite.write_text(f"{text}set: {{{key}: 1}}\n")
    with pytest.raises(JobError, match=f"  all jobs: {key}: unknown key"):
        read_suite(suite, [], None)


def test_a_seed_that_is_given_twice_is_told(suite: Path, tmp_path: Path) -> None:
    spec = read_suite(suite, [], tmp_path / "out").members[0].spec
    with pytest.raises(JobError, match=r"--seeds: expected seeds from 0 on, each once, got \[3, 3\]"):
        seeded_study(spec, [3, 3], tmp_path / "seeds")


def test_two_jobs_of_one_name_in_a_suite_are_told(suite: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="majority"):
        read_suite(changed(suite, jobs=["jobs/majority.yaml", "jobs/majority.yaml"]), [], tmp_path / "out")


def test_a_study_keeps_the_ids_of_its_groups_and_refuses_other_jobs(suite: Path, tmp_path: Path) -> None:
    def ids(study: Study) -> list[str]:
        return [of["uid"] for of in record_of(study).values()]

    first = begun(read_suite(suite, [], tmp_path / "out"))
    begun_with = ids(first)
    again = read_suite(changed(suite, seeds=[1, 2, 3]), [], tmp_path / "out")
    assert ids(again) == begun_with
    other = read_suite(suite, ["backbone.max_tokens=64"], tmp_path / "out")
    assert ids(other) == begun_with  # nothing has run yet
    begun(other)
    run = first.members[0].folder
    run.mkdir()
    (run / SPEC).write_text(again.members[0].spec.to_yaml())
    with pytest.raises(
        BbtuneError, match=f"holds a study whose jobs were others when they began .{run.name}.; restore them"
    ):
        run_study(again, Witness())


def test_a_job_of_a_suite_has_the_name_that_it_gets_there(suite: Path, tmp_path: Path) -> None:
    again = {"job": "jobs/majority.yaml", "name": "constant"}
    study = read_suite(changed(suite, jobs=["jobs/majority.yaml", again], reference="constant"), [], tmp_path / "out")
    assert [group.name for group in study.groups] == ["majority", "constant"]
    assert [group.members[0].spec.name for group in study.groups][1] == "constant"


def test_tasks_of_one_name_get_numbers(suite: Path, tmp_path: Path, tiny_task: Path) -> None:
    tasks = [{"task": {"source": f"folder:{tiny_task}", "shots": shots}} for shots in (2, 4)]
    study = read_suite(changed(suite, tasks=tasks), [], tmp_path / "out")
    assert {group.name for group in study.groups} == {
        f"{tiny_task.name}{number}-{job}" for number in (1, 2) for job in ("majority", "zero-shot")
    }


@pytest.mark.parametrize("reference", ["zero-shot", "majority", "majority on x", "zero-shot #2", "majority (a 1)"])
def test_a_reference_that_a_row_may_have_is_taken(suite: Path, tmp_path: Path, reference: str) -> None:
    study = read_suite(changed(suite, reference=reference, jobs=["jobs/majority.yaml"]), [], tmp_path / "out")
    assert study.reference == reference


def test_two_processes_cannot_run_one_study(suite: Path, tmp_path: Path) -> None:
    study = read_suite(suite, [], tmp_path / "out")
    told = pytest.raises(BbtuneError, match="another process is running this study; wait for it, or end it")
    with held(study.folder), told:
        run_study(study, Witness())


def test_a_folder_that_holds_a_run_or_a_damaged_record_is_told(suite: Path, tmp_path: Path) -> None:
    for name, said in (
        (JOURNAL, "holds a run, expected a folder for several"),
        (STUDY, "expected the record of a stu"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text('{"majority"')
        with pytest.raises(BbtuneError, match=said):
            run_study(read_suite(suite, [], tmp_path / name), Witness())


@pytest.mark.ray
def test_a_study_runs_what_it_lacks_and_nothing_twice(
    suite: Path, tmp_path: Path, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, first, second = read_suite(suite, [], tmp_path / "out"), Witness(), Witness()
    assert run_study(study, first) == []
    assert first.said[0] == "study s: 4 runs, 0 of them done already"
    assert all(member.is_done for member in study.members)
    written = {member.folder: (member.folder / RESULT).stat().st_mtime_ns for member in study.members}
    for path in (study.members[1].folder).iterdir():
        path.unlink()
    study.members[1].folder.rmdir()
    assert run_study(study, second) == []
    assert second.said[0] == "study s: 4 runs, 3 of them done already"
    kept = {folder: (folder / RESULT).stat().st_mtime_ns for folder in written}
    assert [folder for folder in written if kept[folder] != written[folder]] == [study.members[1].folder]
    table = compared([str(study.folder)], "zero-shot", tmp_path / "compared", None)
    assert {row.method for row in table.rows} == {"majority", "zero-shot"}
    assert (tmp_path / "compared" / "page.html").is_file()


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_that_fails_stops_no_other_and_is_told(suite: Path, tmp_path: Path, ray_cluster: Any) -> None:
    study, lines = read_suite(suite, [], tmp_path / "out"), Witness()
    bad = study.members[0].folder
    bad.mkdir(parents=True)
    (bad / "notes.txt").write_text("mine")
    (fault,) = run_study(study, lines)
    assert str(bad) in fault
    assert "holds files that are no run" in fault
    assert [member.is_done for member in study.members] == [False, True, True, True]


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_whose_process_is_killed_goes_on_in_another(make_job: Any, tmp_path: Path, ray_cluster: Any) -> None:
    spec = make_job("bert", budget={"evaluations": 2001})
    study = seeded_study(spec, [1], tmp_path / "out")
    (member,) = study.members
    killed: list[int] = []

    def kill() -> None:
        while not (member.folder / JOURNAL).is_file() or len(read_journal(member.folder / JOURNAL)) < 50:
            time.sleep(0.05)
        killed.extend(ids_of("ray::_run"))
        os.kill(killed[0], signal.SIGKILL)

    saboteur = threading.Thread(target=kill)
    saboteur.start()
    assert run_study(study, Witness()) == []
    saboteur.join()
    assert len(killed) == 1
    api.run(spec.with_seed(1), tmp_path / "alone")
    alone, cut = (TuneResult.load(folder) for folder in (tmp_path / "alone", member.folder))
    assert cut.learned["z"].tobytes() == alone.learned["z"].tobytes()


@pytest.mark.ray
@pytest.mark.slow
def test_runs_of_a_study_share_the_answers_of_the_untouched_model(
    suite: Path, tmp_path: Path, ray_cluster: Any
) -> None:
    study = read_suite(suite, [], tmp_path / "out")
    run_study(study, Witness())
    (kept,) = study.folder.glob("zero-shot-*.safetensors")  # the splits of this task are the same for every seed
    results = [TuneResult.load(member.folder) for member in study.members]
    assert len({result.predicted["zero_shot"].tobytes() for result in results}) == 1
    assert (results[2].predicted["tuned"] == results[2].predicted["zero_shot"]).all()
    assert kept.stat().st_size > 0


@pytest.mark.usefixtures("no_server")
def test_a_study_that_is_done_is_compared_whatever_becomes_of_reference_and_mlflow(suite: Path, tmp_path: Path) -> None:
    study = read_suite(changed(suite, reference="majority (x 1)"), [], tmp_path / "out")
    for member in study.members:
        work_on(member.spec, member.folder)
    command = ["run", str(suite), "--out", str(tmp_path / "out"), "--set", "tracking.enabled=true"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert "got 'majority (x 1)', which is none" in result.output
    assert "the reference is zero-shot" in result.output
    assert "MLflow lacks the comparison (no server); the same command sends it" in result.output


def test_seeds_of_a_job_have_a_folder_of_their_own(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders: list[Path] = []

    def run(study: Study, _: Any) -> list[str]:
        folders.append(study.folder)
        return ["runs/x: it failed"]

    monkeypatch.setattr("bbtune.study_run.run_study", run)
    result = CliRunner().invoke(app, ["run", "jobs/majority.yaml", "--seeds", "1,2"])
    assert str(result.exception) == "1 of 2 runs failed\n  runs/x: it failed"
    (folder,) = folders
    assert folder.name.startswith("majority-")
    assert folder.name.endswith("-seeds")


def test_what_mlflow_missed_is_sent_by_the_next_command(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ["tracking.enabled=true", f"tracking.uri=sqlite:///{tmp_path / 'm.db'}"]
    study = read_suite(changed(suite, jobs=["jobs/majority.yaml"], seeds=[1]), changes, tmp_path / "out")
    work_on(study.members[0].spec, study.members[0].folder)
    sent: list[str] = []
    failures = ["no server"]

    def finish(uri: str, experiment: str, uid: str, results: list[TuneResult]) -> None:
        if failures:
            raise TrackingError(failures.pop())
        sent.append(uid)

    monkeypatch.setattr("bbtune.study_run.start_group", lambda *_: "run")
    monkeypatch.setattr("bbtune.study_run.send_all", lambda *_: sent.append("run"))
    monkeypatch.setattr("bbtune.study_run.was_sent", lambda *_: "run" in sent)
    monkeypatch.setattr("bbtune.study_run.finish_group", finish)
    lines, after = Witness(), Witness()
    run_study(study, lines)
    assert "MLflow lacks part of the study (no server); the same command" in lines.said[-1]
    assert sent == ["run"]
    run_study(study, after)
    run_study(study, after)
    assert sent == ["run", read_record(study.folder)["majority"]["uid"]]
    assert not any("MLflow lacks" in said for said in after.said)


@pytest.mark.ray
@pytest.mark.slow
def test_a_study_is_in_mlflow_with_its_seeds_nested(
    suite: Path, tmp_path: Path, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'm.db'}"
    changes = ["tracking.enabled=true", f"tracking.uri={uri}", "tracking.experiment=e"]
    study = read_suite(suite, changes, tmp_path / "out")
    assert run_study(study, Witness()) == []
    found = compared([str(study.folder)], None, tmp_path / "compared", uri)
    record_comparison(found, [str(study.folder)], uri, "e")
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("e")
    runs = client.search_runs([experiment.experiment_id])
    parents = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    by_name = {run.info.run_name: run.info.run_id for run in runs if parents[run.info.run_id] is None}
    assert {"majority", "zero-shot"} < set(by_name)
    assert len(by_name) == 3  # and the comparison
    assert sorted(parents[run] for run in parents if parents[run]) == sorted(
        [by_name["majority"], by_name["zero-shot"]] * 2
    )
    assert json.loads((study.folder / STUDY).read_text()).keys() == {"majority", "zero-shot"}


def test_reading_a_suite_runs_and_writes_nothing(suite: Path, tmp_path: Path) -> None:
    study = read_suite(suite, [], tmp_path / "out")
    assert not any(member.is_done for member in study.members)
    assert not study.folder.exists()


@pytest.mark.ray
def test_runs_that_ask_the_same_endpoint_take_turns(tmp_path: Path, tiny_task: Path, ray_cluster: Any) -> None:
    with ScriptedUpstream() as upstream:
        spec = job_of(tiny_task, upstream.url, backbone={"api": {"cache": False}}, evaluators={"count": 0})
        study = seeded_study(spec, [1, 2, 3], tmp_path / "out")
        assert run_study(study, Witness()) == []
    times = []
    for member in study.members:
        start, *_, stop = read_journal(member.folder / JOURNAL)
        times.append((start["unix_ms"], stop["unix_ms"]))
    times.sort()
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times))


@pytest.mark.slow
@pytest.mark.ray
def test_runs_of_a_study_share_a_pool_and_leave_the_traces_that_they_leave_alone(
    make_job: Any, tmp_path: Path, ray_cluster: Any
) -> None:
    found = {}
    for pool in ("private", "shared"):
        spec = make_job("bert", evaluators={"count": 1, "pool": pool, "idle_s": 5.0})
        study = seeded_study(spec, [1, 2, 3], tmp_path / pool)
        assert run_study(study, Witness()) == []
        lines = [read_journal(member.folder / JOURNAL) for member in study.members]
        found[pool] = [[r["loss"] for r in records if r["event"] == "scores"] for records in lines]
    assert found["private"] == found["shared"]
