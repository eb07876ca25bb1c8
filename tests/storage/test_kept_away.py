"""Runs that are kept at an address: the same trace, resumed on any machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bbtune import api
from bbtune.errors import BbtuneError, JobError, JournalError
from bbtune.jobfile import parse_job
from bbtune.result import TuneResult
from bbtune.spec import BaseJob
from bbtune.storage.home import fetched, home_of, load_result
from bbtune.storage.place import STORAGE, place_named, run_place, study_folder

PROGRAM = """
import bbtune.prompt_search
from bbtune.backbone.products import TORCH
from bbtune.cli import main

bbtune.prompt_search.fastest_product = lambda *_: TORCH
main()
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BBTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(STORAGE, raising=False)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/run"


def objects(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    return sorted(path.removeprefix(root).lstrip("/") for path in files.find(root))


def timeless(result: TuneResult) -> dict[str, Any]:
    """What two runs of one job share."""
    said = result.as_dict()
    for key in ("stopped_ms", "peak_memory_mib"):
        del said[key]
    for timed in (said["cost"], *said["curve"]):
        del timed["seconds"]
    return said


class Lines:
    def __init__(self) -> None:
        self.said: list[str] = []

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None: ...
    def event(self, event: object) -> None: ...
    def runs(self, done: int, total: int) -> None: ...
    def say(self, text: str) -> None:
        self.said.append(text)


class CutAt(Lines):
    """Ends the process, as it were, at a generation."""

    def __init__(self, generation: int) -> None:
        super().__init__()
        self._generation = generation

    def event(self, event: Any) -> None:
        if event.number == self._generation:
            raise KeyboardInterrupt


def test_a_run_at_an_address_leaves_the_files_of_a_run_and_no_scratch(make_job, url, tmp_path):
    result = api.run(make_job("bert"), url)
    names = ["journal.jsonl", "learned.safetensors", "plot.png", "predicted.safetensors", "result.json", "spec.yaml"]
    assert objects(url) == names
    assert list((tmp_path / "cache" / "scratch").iterdir()) == []
    assert timeless(load_result(url)) == timeless(result) == timeless(api.run(make_job("bert"), tmp_path / "here"))


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moments=st.lists(st.integers(0, 8), min_size=1, max_size=3).map(sorted))
def test_a_run_cut_anywhere_goes_on_from_what_is_at_the_address(make_job, tmp_path, moments):
    spec, url = make_job("bert"), f"memory://{uuid.uuid4().hex}/run"
    for number, moment in enumerate(moments):
        os.environ["BBTUNE_CACHE"] = str(tmp_path / f"machine{number}")  # another machine has none of the scratch files
        with pytest.raises(KeyboardInterrupt):
            api.bring_to_end(spec, url, CutAt(moment), tracked=False)
    assert "result.json" not in objects(url)
    os.environ["BBTUNE_CACHE"] = str(tmp_path / "last")
    assert timeless(api.resume(url)) == timeless(api.run(spec, f"{url}-whole"))


def test_a_finished_run_is_not_run_twice_and_not_written_over(make_job, url):
    spec = make_job("bert")
    first = api.run(spec, url)
    show = Lines()
    assert api.bring_to_end(spec, url, show, tracked=False).stopped_ms == first.stopped_ms
    assert show.said == []
    with pytest.raises(BbtuneError, match=f"^{url} holds a finished run; read it with bbtune show {url}"):
        api.run(spec, url)
    assert api.resume(url).stopped_ms == first.stopped_ms


def test_an_unfinished_run_at_an_address_is_told_by_its_address(make_job, url):
    spec = make_job("bert")
    with pytest.raises(KeyboardInterrupt):
        api.run(spec, url, CutAt(2))
    with pytest.raises(BbtuneError, match=f"^{url} holds an unfinished run; go on with bbtune resume {url}"):
        api.run(spec, url)
    with pytest.raises(BbtuneError, match=f"^{url}: expected a finished run .*; it has not finished: bbtune resume"):
        load_result(url)
    with pytest.raises(JournalError, match=f"^{url}-none: expected a run folder"):
        api.resume(f"{url}-none")


def test_another_job_is_not_mixed_into_a_run(make_job, url):
    with pytest.raises(KeyboardInterrupt):
        api.run(make_job("bert"), url, CutAt(2))
    api.bring_to_end(make_job("bert", name="other"), url, tracked=False)  # the name is not of the trace
    assert load_result(url).spec.name == "tiny-bert"


def test_files_that_are_no_run_are_not_touched(make_job, url):
    files, root = fsspec.core.url_to_fs(url)
    files.pipe_file(f"{root}/photo.jpg", b"x")
    with pytest.raises(JournalError, match=f"^{url} holds files that are no run"):
        api.run(make_job("bert"), url)
    assert objects(url) == ["photo.jpg"]


def test_data_that_lie_elsewhere_now_are_found_and_checked(make_job, tiny_task, url, tmp_path):
    spec = make_job("bert")
    with pytest.raises(KeyboardInterrupt):
        api.run(spec, url, CutAt(2))
    copy = tmp_path / "copy" / tiny_task.name
    copy.parent.mkdir()
    subprocess.run(["cp", "-r", str(tiny_task), str(copy)], check=True)
    moved = spec.model_copy(update={"task": spec.task.model_copy(update={"source": f"folder:{copy}"})})
    assert moved.spec_hash == spec.spec_hash
    (copy / "test.jsonl").write_text((copy / "test.jsonl").read_text().replace("late", "early"))
    with pytest.raises(JournalError, match="the task data or card has changed since the run began"):
        api.bring_to_end(moved, url, tracked=False)
    subprocess.run(["cp", str(tiny_task / "test.jsonl"), str(copy)], check=True)
    show = Lines()
    assert api.bring_to_end(moved, url, show, tracked=False).spec.task.source == f"folder:{copy}"


def test_a_second_process_of_this_machine_waits_for_the_first(url):
    with home_of(url), pytest.raises(JournalError, match="another process is running this job"), home_of(url):
        pass


def test_a_writer_on_another_machine_ends_the_one_that_it_takes_over_from(make_job, url, tmp_path):
    spec = make_job("bert")

    class TakenOver(Lines):
        def event(self, event: Any) -> None:
            if event.number == 2 and not taken:
                taken.append(True)
                os.environ["BBTUNE_CACHE"] = str(tmp_path / "other")
                api.resume(url)

    taken: list[bool] = []
    with pytest.raises(JournalError, match=f"another process has finished this run meanwhile; .* show {url}"):
        api.run(spec, url, TakenOver())
    assert "result.json" in objects(url)
    assert not [name for name in objects(url) if "/" in name]
    assert timeless(load_result(url)) == timeless(api.run(spec, f"{url}-whole"))


def test_a_baseline_at_an_address_leaves_its_weights(make_job, url):
    spec, _, _ = parse_job(make_job("bert").model_dump(mode="json") | {"method": {"name": "majority"}, "budget": {}})
    assert spec is not None
    api.run(spec, url)
    assert "learned.safetensors" in objects(url)
    with fetched(url) as folder:
        assert TuneResult.load(folder).spec.method_name == "majority"


# Places.


def test_storage_is_the_jobs_else_the_environments_else_runs(make_job, monkeypatch, tmp_path):
    spec = make_job("bert")
    name = f"tiny-bert-{spec.spec_hash[:8]}"
    assert run_place(spec) == Path("runs") / name
    monkeypatch.setenv(STORAGE, str(tmp_path))
    assert run_place(spec) == tmp_path / name
    monkeypatch.setenv(STORAGE, "s3://bucket/runs/")
    assert run_place(spec) == f"s3://bucket/runs/{name}"
    said = make_job("bert", storage=str(tmp_path / "job"))
    assert run_place(said) == tmp_path / "job" / name
    assert said.spec_hash == spec.spec_hash


def test_credentials_in_an_address_are_refused_and_not_repeated(monkeypatch, make_job):
    monkeypatch.setenv(STORAGE, "s3://key:hush@host/runs")
    with pytest.raises(BbtuneError, match="expected no user, password or key") as caught:
        run_place(make_job("bert"))
    assert "hush" not in str(caught.value)


def test_a_study_needs_one_path(make_job, monkeypatch, tmp_path):
    spec = make_job("bert", storage="s3://bucket/runs")
    with pytest.raises(JobError, match=r"expected a path for a study, .*; got s3://bucket/runs; name a folder"):
        study_folder([spec], "study")
    with pytest.raises(JobError, match="expected one for all jobs of a study"):
        study_folder([spec, make_job("bert", storage=str(tmp_path))], "study")
    assert study_folder([make_job("bert", storage=str(tmp_path))], "study") == tmp_path / "study"


API_JOB: dict[str, Any] = {
    "task": {"source": "builtin:support"},
    "backbone": {"api": {"base_url": "http://host/v1", "model": "m"}},
    "prompt": {"kind": "text"},
    "budget": {"requests": 10},
}


def test_a_job_that_asks_an_api_cannot_be_kept_at_an_address(monkeypatch):
    _, faults, _ = parse_job(API_JOB | {"storage": "s3://bucket/runs"})
    assert [str(fault) for fault in faults] == [
        "storage: expected a path with a job that asks an API, what is paid is written there before every request, "
        "which needs a file system; got s3://bucket/runs"
    ]
    spec, faults, _ = parse_job(API_JOB)
    assert isinstance(spec, BaseJob)
    monkeypatch.setenv(STORAGE, "gs://bucket/runs")
    with pytest.raises(JobError, match=f"{STORAGE}: expected a path with a job that asks an API"):
        run_place(spec)


# Real processes.


def test_a_process_killed_in_the_middle_is_gone_on_with_by_another_machine(make_job, tmp_path):
    spec = make_job("bert", budget={"evaluations": 400}, storage=f"file://{tmp_path}/store")
    (tmp_path / "job.yaml").write_text(spec.to_yaml())
    place = str(run_place(spec))

    def run(cache: str, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "BBTUNE_CACHE": str(tmp_path / cache)}
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    process = run("first", "run", str(tmp_path / "job.yaml"))
    deadline = time.monotonic() + 120
    try:
        while len(objects(place)) < 25 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert "result.json" not in objects(place)
    for arguments in (("resume", place), ("show", place)):
        process = run("second", *arguments)
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
        assert "spec " in said
    whole = api.run(spec, tmp_path / "whole")
    found = json.loads((Path(place.removeprefix("file://")) / "result.json").read_text())
    assert found["learned_sha256"] == whole.as_dict()["learned_sha256"]
    assert place_named(place) == place
