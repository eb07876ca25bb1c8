"""Training on Ray Train: the curve of this process, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from processes import ids_of, is_running, until
from records import lines, recorded
from views import Witness, interrupt

from bbtune import api
from bbtune.baselines.ray_train import RayTraining
from bbtune.errors import BackboneError, EvaluationError, ResourcesError
from bbtune.examine import make_plan
from bbtune.loop import Generation
from bbtune.result import TuneResult
from bbtune.spec import BaselineJob

pytestmark = pytest.mark.ray

EPOCHS = 80  # of a training that is disturbed, so that there is a middle
CASES = [(name, family) for name in ("lora", "deep-prompts") for family in ("bert", "gpt2")]

# Workers keep a checkpoint of every step.
PROGRAM = """
from bbtune.baselines import ray_train
from bbtune.cli import main

def work(config):
    from bbtune.baselines import ray_train, training
    training._CHECKPOINT_EVERY_S = -1.0
    ray_train._work(config)

ray_train._work = work
main()
"""

MakeRaw = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def odd_task(tiny_task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven train texts, five of dev: nothing that two workers could halve."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "task.json").write_text((tiny_task / "task.json").read_text())
    for split, count in (("train", 7), ("dev", 5), ("test", 8)):
        lines = (tiny_task / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (folder / f"{split}.jsonl").write_text("".join(lines[:count]))
    return folder


@pytest.fixture(scope="module")
def make_raw(tiny_models: dict[str, Path], odd_task: Path) -> MakeRaw:
    def make(name: str, family: str, count: int, **method: Any) -> dict[str, Any]:
        return {
            "name": f"tiny-{name}",
            "task": {"source": f"folder:{odd_task}"},
            "backbone": {"model": f"path:{tiny_models[family]}"},
            "prompt": {"tokens": 4},
            "method": {"name": name, "epochs": 5, "batch_size": 3, **method},
            "selection": {"patience": 1000},
            "evaluators": {"count": count},
            "tracking": {"enabled": False},
            "seed": 3,
        }

    return make


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers keep a checkpoint of every step."""

    def work(config: dict[str, Any]) -> None:  # crosses to the workers by value
        from bbtune.baselines import ray_train, training

        training._CHECKPOINT_EVERY_S = -1.0
        ray_train._work(config)

    monkeypatch.setattr("bbtune.baselines.ray_train._work", work)


class Auditor(Witness):
    """Reads the steps of the last checkpoint, which is there until the result is."""

    def __init__(self, folder: Path, number: int, then: Callable[[], None]) -> None:
        super().__init__(number, then)
        self._folder = folder
        self.steps: list[dict[str, Any]] = []

    def say(self, text: str) -> None:
        if text.startswith("scoring"):
            kept = max((self._folder / "training" / "ray").glob("checkpoint_*/steps.json"))  # a loss may leave another
            self.steps = json.loads(kept.read_text())["steps"]


def workers(above: psutil.Process | None = None) -> list[int]:
    """Process ids of Ray Train's workers below a process, this one without any."""
    return ids_of("ray::RayTrainWorker", above)


def numbers(events: Sequence[Generation]) -> list[list[float]]:
    """What a curve has at each step, without the clock."""
    rows = []
    for event in events:
        assert event.dev is not None
        row = [event.loss, event.best_loss, event.train_metric, event.dev.loss, event.dev.metric, event.dev_metric]
        rows.append([float(event.number), *(np.nan if value is None else value for value in row)])
    return rows


def assert_alike(folder: Path, got: TuneResult, whole: TuneResult, curve: Sequence[Generation]) -> None:
    """The run of a folder has the curve and the result of another, but for the rounding of sums."""
    np.testing.assert_allclose(numbers(recorded(folder)), numbers(curve), rtol=1e-4, atol=1e-7)
    costs = [replace(event.cost, seconds=0.0) for event in recorded(folder)]
    assert costs == [replace(event.cost, seconds=0.0) for event in curve]
    assert len(got.curve) == len(curve)
    assert (got.stop_reason, got.parameters) == (whole.stop_reason, whole.parameters)
    assert got.learned.keys() == whole.learned.keys()
    for name, weights in got.learned.items():
        np.testing.assert_allclose(weights, whole.learned[name], rtol=1e-3, atol=1e-4)
    for name, labels in got.predicted.items():
        assert (labels == whole.predicted[name]).all()
    assert {name: asdict(scored) for name, scored in got.scores.items()} == {
        name: asdict(scored) for name, scored in whole.scores.items()
    }


def test_a_cluster_without_room_is_told_in_words(make_raw: MakeRaw, tmp_path: Path) -> None:
    from ray.train import ControllerError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    plan, task, _ = make_plan(BaselineJob.model_validate(make_raw("lora", "bert", 2)))
    told = RayTraining(plan, task.metric, tmp_path)._translated(ControllerError(WorkerGroupStartupTimeoutError(2)))
    assert isinstance(told, ResourcesError)
    assert str(told).startswith("expected room for 2 workers of 1 CPUs each, the cluster had none in time; lower eval")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("name", "family", "count"), [*((*case, 2) for case in CASES), ("lora", "bert", 1)])
def test_workers_of_ray_train_have_the_curve_of_this_process(
    make_raw: MakeRaw, tmp_path: Path, name: str, family: str, count: int
) -> None:
    here, there = Witness(), Witness()
    whole = api.run(make_raw(name, family, 0), tmp_path / "here", here)
    result = api.run(make_raw(name, family, count), tmp_path / "there", there)
    assert_alike(tmp_path / "there", result, whole, here.events)
    assert there.events == recorded(tmp_path / "there")
    assert result.spec.spec_hash == whole.spec.spec_hash
    assert result.peak_memory_mib > 0


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster", "checkpoints")
def test_a_killed_worker_costs_nothing_but_time(make_raw: MakeRaw, tmp_path: Path) -> None:
    here, killed = Witness(), []

    def kill() -> None:
        killed.append(workers()[0])  # it keeps the checkpoints
        os.kill(killed[0], signal.SIGKILL)

    there = Auditor(tmp_path / "there", 20, kill)
    whole = api.run(make_raw("lora", "bert", 0, epochs=EPOCHS), tmp_path / "here", here)
    result = api.run(make_raw("lora", "bert", 2, epochs=EPOCHS), tmp_path / "there", there)
    assert killed
    assert_alike(tmp_path / "there", result, whole, here.events)
    assert [event.number for event in there.events] == list(range(EPOCHS + 1))
    assert there.steps[5]["unix_ms"] == there.events[5].unix_ms  # not trained again: it went on from a checkpoint
    assert there.steps[-1]["number"] == EPOCHS
    assert not (tmp_path / "there" / "training").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_killed_before_the_first_checkpoint_starts_again(make_raw: MakeRaw, tmp_path: Path) -> None:
    here = Witness()
    there = Witness(3, lambda: os.kill(workers()[0], signal.SIGKILL))
    whole = api.run(make_raw("deep-prompts", "gpt2", 0, epochs=EPOCHS), tmp_path / "here", here)
    result = api.run(make_raw("deep-prompts", "gpt2", 2, epochs=EPOCHS), tmp_path / "there", there)
    assert_alike(tmp_path / "there", result, whole, here.events)
    assert [event.number for event in there.events] == list(range(EPOCHS + 1))


@pytest.mark.slow
def test_a_killed_driver_resumes_to_the_result_of_a_run_that_was_not(make_raw: MakeRaw, tmp_path: Path) -> None:
    here, cut = Witness(), tmp_path / "cut"
    whole = api.run(make_raw("lora", "bert", 0, epochs=EPOCHS), tmp_path / "here", here)
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(make_raw("lora", "bert", 2, epochs=EPOCHS)))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    arguments = [sys.executable, "-c", PROGRAM, "run", str(job), "--out", str(cut)]
    process = subprocess.Popen(
        arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        assert until(lambda: lines(cut) > 20 or process.poll() is not None, 200)
        assert process.poll() is None, "the run ended before it was killed"
        below = psutil.Process(process.pid)
        training, others = workers(below), below.children(recursive=True)
    finally:
        process.kill()
        process.wait()
    before = recorded(cut)
    assert 0 < len(before) <= EPOCHS
    assert len(training) == 2
    assert until(lambda: not any(is_running(number) for number in training), 200)
    for left in psutil.wait_procs(others, timeout=5)[1]:  # Ray's own agents take their time
        with suppress(psutil.NoSuchProcess):
            left.kill()
    arguments = [sys.executable, "-c", PROGRAM, "resume", str(cut)]
    done = subprocess.run(arguments, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_alike(cut, TuneResult.load(cut), whole, here.events)
    assert recorded(cut)[: len(before)] == before


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_an_interrupted_run_leaves_no_worker_behind_on_a_cluster_that_lasts(make_raw: MakeRaw, tmp_path: Path) -> None:
    endless = make_raw("lora", "bert", 2, epochs=1_000_000)
    with pytest.raises(KeyboardInterrupt):
        api.run(endless, tmp_path / "cut", Witness(3, interrupt))
    assert until(lambda: not workers(), 200)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("evaluators", [0, 2])
def test_an_interrupted_run_goes_on_where_it_was(make_raw: MakeRaw, tmp_path: Path, evaluators: int) -> None:
    here = Witness()
    whole = api.run(make_raw("lora", "bert", 0, epochs=EPOCHS), tmp_path / "here", here)
    with pytest.raises(KeyboardInterrupt):
        api.run(make_raw("lora", "bert", 2, epochs=EPOCHS), tmp_path / "cut", Witness(3, interrupt))
    assert len(recorded(tmp_path / "cut")) == 4
    result = api.resume(tmp_path / "cut", [f"evaluators.count={evaluators}"])
    assert_alike(tmp_path / "cut", result, whole, here.events)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_what_a_worker_raises_on_purpose_arrives_as_it_was(make_raw: MakeRaw, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="bitfit expected a model whose layers have biases, got llama; use lora"):
        api.run(make_raw("bitfit", "llama", 2), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_what_goes_wrong_in_a_worker_ends_the_run_in_words(
    make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(config: dict[str, Any]) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("bbtune.baselines.ray_train._work", work)
    monkeypatch.setattr("bbtune.baselines.ray_train._TRIES", 0)
    with pytest.raises(EvaluationError, match="the training failed: the disk is full; nothing is lost"):
        api.run(make_raw("lora", "bert", 2), tmp_path / "run")


@pytest.mark.usefixtures("ray_cluster")
def test_what_the_cluster_lacks_is_told_at_once(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw = make_raw("lora", "bert", 2) | {"evaluators": {"count": 2, "cpus": 4}}
    words = r"2 of 4 CPUs each need 8 CPUs, the cluster has 3; lower evaluators\.count"
    with pytest.raises(ResourcesError, match=words):
        api.run(raw, tmp_path / "run")
