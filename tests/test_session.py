"""A run in its folder on a pool that needs no model: what is measured once, and what is counted."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import pytest
from views import Witness, interrupt

from bbtune import api
from bbtune.journal import Record, read_journal
from bbtune.result import TuneResult
from bbtune.session import recorded_events, run_card

DEPTH = 3


class FakePool:
    """Logits that are a function of z, and a list of what was asked."""

    together = 3
    asked: ClassVar[list[str]] = []
    groups: ClassVar[list[tuple[int, str, int]]] = []

    def __init__(self, plan: Any) -> None:
        self._sizes = {"train": len(plan.train), "dev": len(plan.dev)}
        self._layers = len(plan.layers)

    def run(self, method: str, calls: Any, deadline: float | None = None) -> list[Any]:
        self.asked.extend(method for _ in calls)
        return [getattr(self, f"_{method}")(*call) for call in calls]

    def each(self, method: str) -> list[Any]:
        return [getattr(self, f"_{method}")()]

    def close(self) -> None: ...

    def _calibrate(self) -> Any:
        return np.ones(self._layers)

    def _together(self) -> int:
        return self.together

    def _describe(self) -> str:
        return "a path, and its memory"

    def _peak_memory_mib(self) -> float:
        return 100.0

    def _candidates(self, z: Any, split: str, first: int, subset: Any) -> Any:
        self.groups.append((len(z), split, first))
        places = np.arange(self._sizes[split]) if subset is None else np.array(subset)
        return (np.sin(places[None, :, None] + z.sum(axis=(1, 2))[:, None, None]) * np.array([1.0, -1.0])).astype(
            np.float32
        )

    def _label_logits(self, z: Any, examples: Any) -> Any:
        return np.zeros((len(examples), 2), dtype=np.float32)


@pytest.fixture(autouse=True)
def pool(monkeypatch):
    """Every run of a test is on the fake."""
    monkeypatch.setattr("bbtune.prompt_search.LocalPool", FakePool)
    monkeypatch.setattr("bbtune.session.plot_run", lambda *_: None)
    monkeypatch.setattr(FakePool, "asked", [])
    monkeypatch.setattr(FakePool, "groups", [])
    return FakePool


def scores(folder: Any) -> list[Record]:
    return [record for record in read_journal(folder / "journal.jsonl") if record["event"] == "scores"]


def test_candidates_per_call_are_asked_once_in_the_life_of_a_run(make_job, tmp_path, pool, monkeypatch):
    job = make_job("bert", method={"population": 7})
    api.run(job, tmp_path / "whole")
    whole = list(pool.groups)
    with pytest.raises(KeyboardInterrupt):
        api.run(job, tmp_path / "cut", Witness(3, interrupt))
    first = len(pool.groups) - len(whole)
    monkeypatch.setattr(FakePool, "together", 5)  # as another machine would have it
    monkeypatch.setattr(FakePool, "asked", [])
    api.resume(tmp_path / "cut")
    assert not {"together", "calibrate"} & set(pool.asked)
    calibration = next(r for r in read_journal(tmp_path / "cut" / "journal.jsonl") if r["event"] == "calibration")
    assert calibration["together"] == 3
    assert pool.groups[len(whole) :] == whole  # the same groups, with the same first
    assert 0 < first < len(whole)
    assert {size for size, split, _ in whole if split == "train"} == {1, 3}


@pytest.mark.parametrize("blocks", ["layerwise", "joint"])
def test_layer_forwards_are_in_the_journal_the_result_and_the_replay(blocks, make_job, tmp_path):
    job = make_job("bert", method={"blocks": blocks}, budget={"evaluations": None, "layer_forwards": 2000})
    result = api.run(job, tmp_path / "run")
    records = read_journal(tmp_path / "run" / "journal.jsonl")
    assert result.stop_reason == "budget.layer_forwards"
    assert result.cost.layer_forwards == sum(record["layer_forwards"] for record in scores(tmp_path / "run"))
    assert 2000 - DEPTH * 8 * (4 + 1) < result.cost.layer_forwards <= 2000
    raw = json.loads((tmp_path / "run" / "result.json").read_text())
    assert raw["cost"]["layer_forwards"] == result.cost.layer_forwards
    assert TuneResult.load(tmp_path / "run").cost == result.cost
    assert f"{result.cost.layer_forwards} layer-forwards" in result.summary()
    assert recorded_events(job, records)[-1].cost == result.cost


def test_a_layerwise_search_has_more_evaluations_for_the_same_layer_forwards(make_job, tmp_path):
    costs = {}
    for blocks in ("layerwise", "joint"):
        job = make_job("bert", method={"blocks": blocks}, budget={"evaluations": None, "layer_forwards": 5000})
        costs[blocks] = api.run(job, tmp_path / blocks).cost
    assert costs["joint"].layer_forwards == DEPTH * costs["joint"].examples
    assert costs["layerwise"].layer_forwards < DEPTH * costs["layerwise"].examples
    assert costs["layerwise"].evaluations > costs["joint"].evaluations


def test_whole_sweeps_count_the_generations_of_a_visit(make_job, tmp_path):
    method = {"schedule": "whole-sweeps", "accept": "best-ever", "generations_per_visit": 2}
    result = api.run(make_job("bert", method=method, budget={"evaluations": 60}), tmp_path / "run")
    assert result.stop_reason == "sweeps"
    assert result.cost.evaluations == 2 * (4 * 2 * 3)  # 60 would hold two and a half


def test_whole_sweeps_that_need_the_starting_point_leave_room_for_it(make_job, tmp_path):
    method = {"schedule": "whole-sweeps", "accept": "improves"}
    result = api.run(make_job("bert", method=method, budget={"evaluations": 24}), tmp_path / "run")
    assert result.stop_reason == "sweeps"
    assert result.cost.evaluations == 1 + 4 * 3  # 24 would hold two sweeps, but not the starting point besides


NEW_SEARCHES = {
    "gauss-newton": {"optimizer": "gauss-newton", "blocks": "joint", "population": 9},
    "on a part of the examples": {"optimizer": "gauss-newton", "population": 9, "probe_examples": 2, "blocks": "joint"},
    "with restarts": {"optimizer": "gauss-newton", "blocks": "joint", "restarts": 2},
    "recent-gain": {"schedule": "recent-gain", "generations_per_visit": 2},
    "one-plus-lambda": {"optimizer": "one-plus-lambda"},
    "cma-vkd": {"optimizer": "cma-vkd", "blocks": "joint"},
}


@pytest.mark.parametrize("method", NEW_SEARCHES.values(), ids=NEW_SEARCHES)
@pytest.mark.parametrize("cut", [1, 4, 9])
def test_a_run_cut_and_resumed_asks_what_an_uninterrupted_one_asks(method, cut, make_job, tmp_path):
    job = make_job("bert", method=method, budget={"evaluations": 80})
    whole = api.run(job, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        api.run(job, tmp_path / "cut", Witness(cut, interrupt))
    resumed = api.resume(tmp_path / "cut")
    assert resumed.learned["z"].tobytes() == whole.learned["z"].tobytes()
    assert resumed.stop_reason == whole.stop_reason
    asked, expected = ([r["z_sha256"] for r in scores(tmp_path / name)] for name in ("cut", "whole"))
    assert asked == expected
    events = recorded_events(job, read_journal(tmp_path / "cut" / "journal.jsonl"))
    assert events[-1].cost.evaluations == whole.cost.evaluations


@pytest.mark.parametrize(("name", "kept"), [("gauss-newton", True), ("with restarts", True), ("recent-gain", False)])
def test_label_logits_are_in_the_journal_where_the_search_reads_them(name, kept, make_job, tmp_path):
    api.run(make_job("bert", method=NEW_SEARCHES[name], budget={"evaluations": 30}), tmp_path / "run")
    start = read_journal(tmp_path / "run" / "journal.jsonl")[0]
    assert start["train_labels"] == [1, 0, 0, 1, 0, 1, 0, 1]
    for record in scores(tmp_path / "run"):
        shape = record["logits"] and record["logits"]["shape"]
        assert shape == ([len(record["loss"]), 8, 2] if kept and record["split"] == "train" else None)


def test_what_auto_chose_and_why_is_in_the_record_and_a_resumed_run_keeps_it(make_job, tmp_path):
    job = make_job("bert", method={"optimizer": "auto", "blocks": "joint"}, budget={"evaluations": 60})
    with pytest.raises(KeyboardInterrupt):
        api.run(job, tmp_path / "run", Witness(2, interrupt))
    api.resume(tmp_path / "run")
    start = read_journal(tmp_path / "run" / "journal.jsonl")[0]
    assert start["chosen"].startswith("gauss-newton with 4 probes")
    assert run_card(job, start).tags["bbtune.auto"] == start["chosen"]
    assert "bbtune.auto" not in run_card(job, {**start, "chosen": ""}).tags


def test_an_optimizer_that_ends_is_made_anew_and_the_run_ends_with_the_last(make_job, tmp_path):
    found = {}
    for restarts in (0, 1, 3):
        method = {"optimizer": "gauss-newton", "blocks": "joint", "restarts": restarts}
        result = api.run(make_job("bert", method=method, budget={"evaluations": 5000}), tmp_path / f"{restarts}")
        assert result.stop_reason == "converged"
        found[restarts] = [record["z_sha256"] for record in scores(tmp_path / f"{restarts}")]
    assert len(found[0]) < len(found[1]) < len(found[3])
    assert found[3][: len(found[1])] == found[1]  # a restart does not change what was before
    assert found[1][: len(found[0])] == found[0]
