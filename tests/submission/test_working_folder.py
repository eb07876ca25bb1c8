"""What travels with a submitted job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bbtune.errors import BbtuneError, JobError
from bbtune.jobfile import load_job, parse_job
from bbtune.spec import BaseJob
from bbtune.submission.folder import fill_folder
from bbtune.submission.work import Work, read_work
from bbtune.suite import read_suite


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def filled(work: Work, folder: Path) -> Path:
    folder.mkdir()
    fill_folder(work, folder)
    return folder


def work_of(spec: BaseJob) -> Work:
    return Work(spec.name, spec.spec_hash, {"job": spec})


def loaded_there(folder: Path, monkeypatch: pytest.MonkeyPatch, file: str = "job.yaml") -> BaseJob:
    """As the coordinator reads it, in the working folder."""
    monkeypatch.chdir(folder)
    return load_job(file)


@pytest.fixture
def job_file(make_job: Any, tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(make_job("bert").to_yaml())
    return path


def test_a_job_travels_with_its_task_folder_and_stays_the_same_job(make_job, tiny_task, tmp_path, monkeypatch):
    (tiny_task / "notes.bin").write_bytes(b"not of the task")
    try:
        folder = filled(work_of(make_job("bert")), tmp_path / "there")
    finally:
        (tiny_task / "notes.bin").unlink()
    splits = [f"data/{tiny_task.name}/{name}" for name in ("dev.jsonl", "task.json", "test.jsonl", "train.jsonl")]
    assert files(folder) == [*splits, "job.yaml"]
    there = loaded_there(folder, monkeypatch)
    assert there.spec_hash == make_job("bert").spec_hash
    assert there.task.source == f"folder:{folder}/data/{tiny_task.name}"
    assert str(tiny_task) not in (folder / "job.yaml").read_text()


def test_draws_of_a_task_folder_travel(make_job, tiny_task, tmp_path):
    task = tmp_path / "drawn"
    for seed in (1, 2):
        (task / f"seed{seed}").mkdir(parents=True)
        (task / f"seed{seed}" / "train.jsonl").write_text("{}\n")
    (task / "task.json").write_text("{}")
    spec = make_job("bert")
    spec = spec.model_copy(update={"task": spec.task.model_copy(update={"source": f"folder:{task}"})})
    folder = filled(work_of(spec), tmp_path / "there")
    assert files(folder) == [
        "data/drawn/seed1/train.jsonl",
        "data/drawn/seed2/train.jsonl",
        "data/drawn/task.json",
        "job.yaml",
    ]


def tables(folder: Path, **parts: Any) -> BaseJob:
    """A job on a table and a test table of the same name."""
    for place in ("a", "b"):
        (folder / place).mkdir(exist_ok=True)
        (folder / place / "rows.csv").write_text(f"text,label\n{place},x\n")
    task = {"source": f"file:{folder}/a/rows.csv", "test": f"file:{folder}/b/rows.csv"}
    raw = {"task": task, "backbone": {"model": "package:none"}, "budget": {"evaluations": 10}, **parts}
    spec, faults, _ = parse_job(raw)
    assert spec is not None, faults
    return spec


def test_tables_of_one_name_from_two_folders_do_not_meet(tmp_path, monkeypatch):
    spec = tables(tmp_path)
    folder = filled(work_of(spec), tmp_path / "there")
    assert files(folder) == ["data/2/rows.csv", "data/rows.csv", "job.yaml"]
    there = loaded_there(folder, monkeypatch)
    assert there.spec_hash == spec.spec_hash
    for source, text in ((there.task.source, "a,x"), (there.task.test, "b,x")):
        assert text in Path(str(source).removeprefix("file:")).read_text()


def test_data_that_a_job_server_would_not_take_are_told_with_their_size(tmp_path):
    spec = tables(tmp_path)
    with (tmp_path / "a" / "rows.csv").open("r+b") as file:
        file.truncate(150 * 2**20)  # a hole, no bytes on the disk
    with pytest.raises(BbtuneError, match=r"expected at most 99 MiB .* got 150 MiB \(most of it data/rows.csv\); give"):
        filled(work_of(spec), tmp_path / "there")


def test_overrides_and_method_travel_inside_the_job(job_file, tmp_path, monkeypatch):
    work, _ = read_work(job_file, ["budget.evaluations=80", "name=other"], "random")
    there = loaded_there(filled(work, tmp_path / "there"), monkeypatch)
    assert (there.name, there.budget.evaluations, there.method_name) == ("other", 80, "random")
    assert work.id == f"other-{there.spec_hash[:8]}"
    assert work.entrypoint == "exec python -m bbtune.coordinator job.yaml"


def test_seeds_travel_on_the_command_line(job_file):
    work, _ = read_work(job_file, seeds="1,2")
    assert work.entrypoint == "exec python -m bbtune.coordinator job.yaml --seeds 1,2"
    assert work.id.endswith("-seeds")
    with pytest.raises(BbtuneError, match="--seeds: expected numbers with commas between them, got '1;rm'"):
        read_work(job_file, seeds="1;rm")


def test_a_suite_travels_as_its_jobs_and_stays_the_same_study(make_job, tiny_task, tmp_path, monkeypatch):
    (tmp_path / "one.yaml").write_text(make_job("bert").to_yaml())
    (tmp_path / "two.v2.yaml").write_text(make_job("bert", method={"optimizer": "random"}).to_yaml())
    suite = {"name": "both", "jobs": ["one.yaml", "two.v2.yaml"], "seeds": [3, 4], "reference": "random"}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite | {"set": {"prompt": {"tokens": 3}}}))
    work, _ = read_work(tmp_path / "suite.yaml")
    folder = filled(work, tmp_path / "there")
    data = [f"data/{tiny_task.name}/{name}" for name in ("dev.jsonl", "task.json", "test.jsonl", "train.jsonl")]
    assert files(folder) == [*data, "jobs/one.yaml", "jobs/two.v2.yaml", "suite.yaml"]
    here = read_suite(tmp_path / "suite.yaml", [], tmp_path / "out")
    monkeypatch.chdir(folder)
    there = read_suite(folder / "suite.yaml", [], tmp_path / "out")
    assert [(m.folder, m.spec.spec_hash) for m in there.members] == [(m.folder, m.spec.spec_hash) for m in here.members]
    assert (there.name, there.reference) == (here.name, here.reference)
    assert work.entrypoint.endswith("suite.yaml")
    assert work.folder == "both"


def test_every_fault_that_can_be_seen_here_is_told_at_once(job_file, tiny_task):
    with pytest.raises(JobError) as caught:
        read_work(job_file, ["budget.evaluations=none", f"task.source=folder:{tiny_task}-gone", "evaluators.cont=1"])
    said = str(caught.value)
    assert "3 faults in the job" in said
    assert 'evaluators.cont: unknown key; did you mean "count"?' in said
    assert f"{tiny_task}-gone" in said


def test_a_model_that_is_not_here_may_be_there(job_file):
    work, notes = read_work(job_file, ["backbone.model=path:/models/of/the/cluster"])
    assert len(notes) == 2
    assert notes[0].startswith("not judged here, the cluster may have it: ")
    assert notes[1] == "/models/of/the/cluster does not travel: expected at this path on every machine of the cluster"
    assert work.jobs["job"].backbone.model == "path:/models/of/the/cluster"


@pytest.mark.parametrize(
    ("parts", "room"),
    [
        ({}, {"entrypoint_num_cpus": 1}),
        ({"evaluators": {"cpus": 3}}, {"entrypoint_num_cpus": 3}),
        ({"backbone": {"device": "cuda"}}, {"entrypoint_num_cpus": 1, "entrypoint_num_gpus": 1.0}),
        ({"evaluators": {"count": 8}}, {"entrypoint_memory": 2**30}),
    ],
)
def test_a_driver_takes_what_it_uses_so_that_a_queue_is_one(make_job, parts, room):
    assert work_of(make_job("bert", **parts)).room == room


def test_nothing_secret_can_be_in_a_job(job_file):
    for override in ("tracking.uri=http://user:hush@host", "storage=s3://key:hush@bucket/x"):
        with pytest.raises(JobError) as caught:
            read_work(job_file, [override])
        assert "hush" not in str(caught.value)
