"""What a worker does when memory ends, and what it says of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bbtune.errors import EvaluationError
from bbtune.evaluation.worker import Worker
from bbtune.examine import make_plan


class Cramped:
    """A path with room for so many candidates."""

    def __init__(self, path: Any, room: int) -> None:
        self._path, self._room = path, room
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path, name)

    def read(self, texts: Any, prompts: Any, layer: int) -> Any:
        self.sizes.append(len(prompts))
        if len(prompts) > self._room:
            raise torch.OutOfMemoryError("no room")
        return self._path.read(texts, prompts, layer)

    def read_once(self, *_: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


@pytest.fixture
def worker(make_job):
    return Worker(make_plan(make_job("bert"))[0])


def test_a_forward_that_finds_no_room_is_halved_and_that_is_remembered(worker):
    z = np.random.default_rng(0).standard_normal((4, 3, 6))
    expected = worker.candidates(z, "train", 0)
    worker._most = 4  # as on a GPU
    worker._path = path = Cramped(worker._path, 1)
    assert np.abs(worker.candidates(z, "train", 0) - expected).max() < 1e-5
    assert path.sizes == [4, 2, 1, 1, 1, 1]
    path.sizes.clear()
    worker.candidates(z, "train", 0)
    assert path.sizes == [1, 1, 1, 1]


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_a_part_of_a_split_is_scored_as_in_the_whole_and_whatever_was_asked_before(family, make_job):
    plan, _, _ = make_plan(make_job(family))
    worker, z = Worker(plan), np.random.default_rng(0).standard_normal((3, 3, 6))
    z[:, 0] = z[0, 0]
    whole = worker.candidates(z, "train", 1)
    expected = {}
    for subset in [(0, 3, 6), (1, 2), (7,)]:
        expected[subset] = Worker(plan).candidates(z, "train", 1, subset)
        assert np.abs(expected[subset] - whole[:, list(subset)]).max() < 1e-5
    for subset in [*expected, *reversed(expected)]:
        assert worker.candidates(z, "train", 1, subset).tobytes() == expected[subset].tobytes()
        assert worker.candidates(z, "train", 1).tobytes() == whole.tobytes()


def test_memory_for_not_even_one_candidate_is_said_in_words(worker):
    worker._path, worker._most = Cramped(worker._path, 0), 4
    with pytest.raises(EvaluationError, match="memory does not hold one candidate"):
        worker.candidates(np.zeros((4, 3, 6)), "train", 0)
    with pytest.raises(EvaluationError, match="memory does not hold one candidate"):
        worker.label_logits(None, worker._plan.train)


def test_other_errors_go_on_their_way(worker, monkeypatch):
    monkeypatch.setattr(worker._path, "read", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        worker.candidates(np.zeros((2, 3, 6)), "train", 0)


@pytest.mark.parametrize(("family", "words"), [("bert", "packed encoder"), ("gpt2", "recorded and replayed")])
def test_a_worker_says_its_path_and_its_memory(family, words, make_job):
    said = Worker(make_plan(make_job(family))[0]).describe()
    assert words in said
    assert all(part in said for part in ("model", "kept states", "working space", "MiB"))


def test_a_run_that_began_with_a_product_that_is_not_here_is_told(make_job, monkeypatch):
    from dataclasses import replace

    monkeypatch.setattr("bbtune.evaluation.scorer.onednn_works", lambda _: False)
    plan = replace(make_plan(make_job("bert"))[0], product="oneDNN")
    with pytest.raises(EvaluationError, match="matrix product that the run began with"):
        Worker(plan)
