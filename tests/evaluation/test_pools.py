"""Same z, same losses: in this process, on actors, on any number of them, with actors killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from processes import ids_of, until
from views import Witness

from bbtune import api
from bbtune.backbone.products import TORCH
from bbtune.errors import DeadlineReached, EvaluationError, ResourcesError
from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.evaluation.local import LocalPool
from bbtune.evaluation.ray_pool import RayPool
from bbtune.examine import make_plan
from bbtune.journal import read_journal
from bbtune.task.task import label_array

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def trace(folder: Any) -> list[dict[str, Any]]:
    """A run's scores without the clock."""
    kept = ("split", "z_sha256", "loss", "metric", "examples", "layer_forwards")
    return [{key: r[key] for key in kept} for r in read_journal(folder / "journal.jsonl") if r["event"] == "scores"]


def hosts() -> list[int]:
    """Process ids of the evaluator actors that this process started."""
    return ids_of("ray::ModelHost")


class Saboteur(Witness):
    """A view of a run that kills evaluators with -9 at given generations."""

    def __init__(self, *generations: int) -> None:
        super().__init__()
        self._generations = generations
        self._others = set(hosts())  # of the pool before, which may be ending still
        self.killed: list[int] = []

    def event(self, event: Any) -> None:
        if event.number in self._generations:
            victim = next(host for host in hosts() if host not in self._others)
            os.kill(victim, signal.SIGKILL)
            self.killed.append(victim)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, make_job):
    """Trace and result of the same job in this process."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    result = api.run(make_job("bert"), folder)
    return trace(folder), result


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_trace_is_the_same_for_any_number_of_actors(count, reference, make_job, tmp_path):
    result = api.run(make_job("bert", evaluators={"count": count}), tmp_path / "run")
    assert trace(tmp_path / "run") == reference[0]
    assert np.array_equal(result.learned["z"], reference[1].learned["z"])
    assert result.scores == reference[1].scores
    assert result.spec.spec_hash == reference[1].spec.spec_hash


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_the_trace_is_the_same_when_actors_are_killed(count, reference, make_job, tmp_path):
    saboteur = Saboteur(2, 5)
    result = api.run(make_job("bert", evaluators={"count": count}), tmp_path / "run", saboteur)
    assert len(set(saboteur.killed)) == 2
    assert trace(tmp_path / "run") == reference[0]
    assert result.scores == reference[1].scores


def test_probes_on_a_part_of_the_examples_leave_the_same_trace_on_actors_that_are_killed(make_job, tmp_path):
    method = {"optimizer": "gauss-newton", "blocks": "joint", "population": 9, "probe_examples": 2}
    found = []
    for count in (0, 2):
        job = make_job("bert", method=method, evaluators={"count": count}, budget={"evaluations": 60})
        saboteur = Saboteur(2, 5)
        api.run(job, tmp_path / f"{count}", saboteur if count else None)
        found.append(trace(tmp_path / f"{count}"))
    assert len(saboteur.killed) == 2
    assert found[0] == found[1]
    assert any(record["subset"] for record in read_journal(tmp_path / "0" / "journal.jsonl") if "subset" in record)


class _Deadly:
    """Candidates that kill a process when they are handed out for the first time."""

    def __init__(self, z: Any, victim: int) -> None:
        self.z = z
        self.victim: int | None = victim

    def __reduce__(self) -> Any:
        if self.victim is not None:
            os.kill(self.victim, signal.SIGKILL)
            self.victim = None
        return np.array, (self.z,)


def test_an_actor_killed_inside_a_generation_loses_nothing(make_job):
    plan = replace(make_plan(make_job("llama", evaluators={"count": 2}))[0], product=TORCH)
    z = np.random.default_rng(0).standard_normal((60, 3, 6))
    calls: list[tuple[Any, ...]] = [(group, "train", 0) for group in z[:, None]]
    expected = LocalPool(plan).run("candidates", calls)
    pool = RayPool(plan)
    try:
        victim = pool.process_ids()[1]
        deadly = _Deadly(calls[30][0], victim)
        got = pool.run("candidates", [*calls[:30], (deadly, "train", 0), *calls[31:]])
        assert deadly.victim is None
        assert victim not in pool.process_ids()
    finally:
        pool.close()
    assert np.array_equal(np.stack(got), np.stack(expected))


@pytest.mark.slow
def test_actors_that_die_again_and_again_end_the_run_in_words(make_job):
    plan, _, _ = make_plan(make_job("bert", evaluators={"count": 1}))
    pool = RayPool(plan)
    try:
        with pytest.raises(EvaluationError, match=r"3 evaluators died over the same call .*bbtune resume"):
            pool.run("__class__", [(_Bomb(),)])
    finally:
        pool.close()


@pytest.mark.slow
def test_evaluators_that_died_while_nobody_asked_are_not_held_against_the_next_call(make_job):
    plan = replace(make_plan(make_job("bert", evaluators={"count": 3}))[0], product=TORCH)
    said: list[str] = []
    pool = RayPool(plan, said.append)
    try:
        for victim in pool.process_ids():
            os.kill(victim, signal.SIGKILL)
        assert len(pool.run("describe", [()])) == 1
    finally:
        pool.close()
    assert any(line.startswith("an evaluator was lost") for line in said)


class _Bomb:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


def test_a_search_begins_with_the_evaluators_that_have_room_and_says_how_many_lack_it(make_job, monkeypatch):
    monkeypatch.setattr("bbtune.evaluation.ray_hosts._GATHER_S", 2.0)
    said: list[str] = []
    pool = RayPool(make_plan(make_job("bert", evaluators={"count": 9}))[0], said.append)
    try:
        assert 1 <= len(pool.process_ids()) <= 3
        assert len(pool.run("describe", [()])) == 1
    finally:
        pool.close()
    assert any("of 9 evaluators are there; the others join when the cluster has room" in line for line in said)


def test_what_no_machine_could_hold_is_told_after_a_wait_for_one_that_could(make_job, monkeypatch):
    monkeypatch.setattr("bbtune.evaluation.ray_hosts.NO_ROOM_S", 2.0)
    ending = hosts()  # Ray takes up to a second to end the actors of a pool that was closed
    for evaluators, backbone in (({"count": 1, "cpus": 64}, {}), ({"count": 1, "gpus": 1}, {"device": "cuda"})):
        plan, _, _ = make_plan(make_job("bert", evaluators=evaluators, backbone=backbone))
        with pytest.raises(ResourcesError, match=r"expected room for an evaluator .* of 3 CPUs, 0 of 0 GPUs; lower"):
            RayPool(plan)
    assert set(hosts()) <= set(ending)


@pytest.mark.slow
def test_what_a_cluster_of_this_process_cannot_hold_is_told_at_once():
    program = """
import sys
from bbtune.evaluation.ray_cluster import check_cluster, import_ray, joined_cluster
from bbtune.errors import ResourcesError
from bbtune.run_spec import EvaluatorsSpec

ray = import_ray()
with joined_cluster(ray) as owned:
    assert owned
    try:
        check_cluster(ray, EvaluatorsSpec(count=9, cpus=64))
    except ResourcesError as error:
        print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "evaluators: 9 of 64 CPUs each need 576 CPUs, the cluster has" in said


@pytest.mark.slow
def test_room_taken_by_others_is_waited_for_then_told(make_job, monkeypatch):
    plan, _, _ = make_plan(make_job("bert", evaluators={"count": 3}))
    first = RayPool(plan)
    monkeypatch.setattr("bbtune.evaluation.ray_hosts.BUSY_S", 3.0)
    try:
        with pytest.raises(ResourcesError, match=r"there was none for 3 s; free now: 0 of 3 CPUs"):
            RayPool(plan)
    finally:
        first.close()


@pytest.mark.slow
def test_evaluators_join_a_search_when_room_becomes_free(make_job, monkeypatch):
    monkeypatch.setattr("bbtune.evaluation.ray_hosts._GATHER_S", 1.0)
    plan, _, _ = make_plan(make_job("bert", evaluators={"count": 2}))
    first, late = RayPool(plan), None
    try:
        late = RayPool(plan)
        assert len(late.process_ids()) == 1
        first.close()
        assert until(lambda: len(late.process_ids()) == 2, 60)
    finally:
        first.close()
        if late is not None:
            late.close()


def test_an_error_inside_an_actor_comes_out_as_it_was(make_job):
    plan, _, _ = make_plan(make_job("bert", evaluators={"count": 1}))
    pool = RayPool(plan)
    try:
        with pytest.raises(EvaluationError, match="an evaluator failed"):
            pool.run("candidates", [("not an array", "train", 0)])
    finally:
        pool.close()


@pytest.mark.parametrize("make_pool", [LocalPool, RayPool])
def test_every_pool_keeps_the_order_of_calls_and_the_deadline(make_pool, make_job):
    plan, task, _ = make_plan(make_job("gpt2", evaluators={"count": 2}))
    plan = replace(plan, product=TORCH)
    z = np.random.default_rng(0).standard_normal((7, 3, 6))
    pool = make_pool(plan)
    try:
        evaluator = PromptEvaluator(pool, plan, task.metric, np.ones(3), together=1)
        scores = evaluator.evaluate(z, "train")
        assert scores.loss.shape == scores.metric.shape == (7,)
        assert scores.logits is not None
        assert scores.logits.shape == (7, 8, 2)
        assert (scores.examples, scores.layer_forwards) == (56, 3 * 56)
        backwards = evaluator.evaluate(z[::-1], "train")
        assert np.array_equal(backwards.loss[::-1], scores.loss)
        with pytest.raises(DeadlineReached):
            evaluator.evaluate(z, "train", deadline=time.monotonic() - 1)
        assert np.array_equal(evaluator.evaluate(z, "train").loss, scores.loss)
        with pytest.raises(EvaluationError, match=r"z must have shape \(P, L, D\) with L = 3"):
            evaluator.evaluate(z[:, :2], "train")
        logits = evaluator.label_logits(z[0], task.train)
        assert np.allclose(logits, scores.logits[0], atol=1e-5)
        assert len(label_array(task.train)) == len(logits)
    finally:
        pool.close()


def test_ray_does_not_wonder_at_the_processes_of_a_study():
    program = """
from bbtune.evaluation.ray_cluster import import_ray

import_ray()
from ray._private.worker import print_to_stdstream

for said in ("WARNING: 8 PYTHON worker processes have been started on node", "WARNING: the disk is full"):
    print_to_stdstream({"lines": [said], "pid": "raylet", "is_err": False, "ip": "here"}, ignore_prefix=False)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "the disk is full" in said
    assert "worker processes" not in said


@pytest.mark.slow
@pytest.mark.parametrize("asked", [None, "7"])
def test_workers_of_an_own_cluster_are_as_urgent_as_this_process_unless_told_otherwise(asked):
    program = """
import os

from bbtune.evaluation.ray_cluster import import_ray, joined_cluster

ray = import_ray()
with joined_cluster(ray):
    print(ray.get(ray.remote(lambda: os.nice(0)).remote()) - os.nice(0))
"""
    told = {"RAY_worker_niceness": asked} if asked else {}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_worker")} | told
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split()[-1] == (asked or "0")


def test_a_cluster_that_does_not_answer_is_told_in_words(monkeypatch):
    import ray

    from bbtune.evaluation.ray_cluster import start_cluster

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ResourcesError, match=r"no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1 .*refused"):
        start_cluster(ray)
