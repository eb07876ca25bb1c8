"""What bbtune gives to Python: predictions of a result, own tasks, own functions, own optimizers."""

from __future__ import annotations

import gc
import json
import pickle
import re
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from views import Witness, interrupt

import bbtune
from bbtune import BbtuneError, JobError, TaskData, TuneResult, api
from bbtune.errors import JournalError, OptimizerError, TaskError
from bbtune.journal import read_journal
from bbtune.optimizers.base import Upcoming

OF_LABELS = ["bad", "great"]
TEXTS = ["a great film", "terrible noise"]


@pytest.fixture(scope="module")
def finished(make_job, tmp_path_factory):
    """The folder of a short finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    bbtune.run(make_job("bert", budget={"evaluations": 9}), folder)
    return folder


@pytest.fixture
def loads(monkeypatch):
    """The models that are loaded, for as long as somebody else holds them."""
    from bbtune.evaluation import scorer

    loaded = []
    load = scorer.load_model

    def loading(*given: Any) -> Any:
        model = load(*given)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(scorer, "load_model", loading)
    return loaded


def test_a_result_labels_texts_and_loads_its_model_once(finished, loads):
    result = TuneResult.load(finished)
    first = result.predict(TEXTS)
    assert [prediction.label in result.labels for prediction in first] == [True, True]
    assert all(0.5 <= prediction.probability <= 1 for prediction in first)
    (alone,) = result.predict(TEXTS[1:])
    assert alone.label == first[1].label
    assert alone.probability == pytest.approx(first[1].probability, abs=1e-5)
    assert result.predict([]) == []
    assert len(loads) == 1


def test_threads_share_the_model_of_a_result_and_get_what_one_alone_gets(finished, loads):
    result, texts = TuneResult.load(finished), [f"a great film {'x ' * i}" for i in range(8)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(result.predict, [texts] * 4))
    assert len(loads) == 1
    alone = result.predict(texts)
    for some in found:
        assert [one.label for one in some] == [one.label for one in alone]
        assert [one.probability for one in some] == pytest.approx([one.probability for one in alone], abs=1e-5)


def test_a_result_that_has_loaded_its_model_is_pickled_without_it(finished):
    result = TuneResult.load(finished)
    before = pickle.dumps(result)
    expected = result.predict(TEXTS)
    assert len(pickle.dumps(result)) == len(before)
    again = pickle.loads(pickle.dumps(result))
    assert again.as_dict() == result.as_dict()
    assert again.predict(TEXTS) == expected


@pytest.fixture
def uncollected():
    """No garbage is collected meanwhile: what goes, goes because nobody holds it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_the_model_goes_with_the_result(finished, loads, uncollected):
    result = TuneResult.load(finished)
    result.predict(TEXTS)
    assert loads[0]() is not None
    del result
    assert loads[0]() is None


def test_a_run_in_this_process_leaves_no_model_behind(make_job, loads, uncollected, tmp_path):
    bbtune.run(make_job("bert", budget={"evaluations": 9}), tmp_path)
    assert [model() for model in loads] == [None]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("a great film", r"expected a list of texts, got one text; write \['a great film'\]"),
        ([("a", "b")], r"expected one text that is not empty, got \('a', 'b'\)"),
        ([" "], "expected one text that is not empty, got ' '"),
        ([3], "expected one text that is not empty, got 3"),
        (["\ud800"], r"half a character \(a lone surrogate\)"),
        (None, "expected a list of texts, got None"),
    ],
)
def test_what_is_no_list_of_texts_is_said(finished, texts, words):
    with pytest.raises(BbtuneError, match=words):
        TuneResult.load(finished).predict(texts)


def tickets(count: int = 24, name: str = "tickets", **more: Any) -> TaskData:
    """Two kinds of texts in memory."""
    texts = [text for i in range(count) for text in (f"the box was late {i}", f"a great film {i}")]
    return TaskData(name, texts, ["delivery", "film"] * count, **more)


@pytest.fixture(scope="module")
def job(tiny_models):
    """A short job, as a mapping, of no task that is there."""
    return {
        "task": {"source": "folder:none", "shots": 4, "template": "{text} . it was {mask} .", "label_words": OF_LABELS},
        "backbone": {"model": f"path:{tiny_models['bert']}"},
        "prompt": {"tokens": 4, "intrinsic_dim": 6},
        "method": {"optimizer": "cma-diagonal", "population": 4, "blocks": "joint"},
        "budget": {"evaluations": 13},
        "tracking": {"enabled": False},
    }


def test_texts_in_memory_are_drawn_scored_and_recorded_as_those_of_a_table(job, tmp_path):
    table = tmp_path / "tickets.jsonl"
    table.write_text("".join(json.dumps(row.values) + "\n" for row in tickets().rows))
    result = bbtune.run(job, tmp_path / "memory", task=tickets())
    same = bbtune.run(job | {"task": job["task"] | {"source": f"file:{table}"}}, tmp_path / "file")
    assert result.spec.task.source == "object:tickets"
    assert result.labels == ("delivery", "film")
    assert result.fingerprints == same.fingerprints
    assert (result.learned["z"] == same.learned["z"]).all()
    assert "source: object:tickets" in (tmp_path / "memory" / "spec.yaml").read_text()
    assert TuneResult.load(tmp_path / "memory").predict(["a great film"])[0].label in result.labels


def test_a_run_of_texts_in_memory_goes_on_with_the_same_texts_alone(job, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        bbtune.run(job, tmp_path, Witness(2, interrupt), task=tickets())
    with pytest.raises(JobError, match=r"task.source: expected object:tickets, an object of the program .* got none"):
        bbtune.resume(tmp_path)
    with pytest.raises(JobError, match="got object:others; give it in Python, as task="):
        bbtune.resume(tmp_path, task=tickets(name="others"))
    with pytest.raises(BbtuneError, match="the task data or card has changed since the run began"):
        bbtune.resume(tmp_path, task=tickets(count=25))
    again = bbtune.resume(tmp_path, task=tickets())
    assert (again.learned["z"] == bbtune.run(job, tmp_path / "whole", task=tickets()).learned["z"]).all()


def test_pairs_numpy_labels_and_a_test_split_are_taken_as_they_come(job, tmp_path):
    pairs = [(f"the box was late {i}", f"it was a bad parcel {i % 7}") for i in range(40)]
    test = ([("a great film", "a bad end"), ("dull", "warm")], np.array([0, 1]))
    task = job["task"] | {"template": "{text_a} ? {mask} , {text_b}"}
    data = TaskData("pairs", pairs, np.arange(40) % 2, test=test)
    result = bbtune.run(job | {"task": task}, tmp_path, task=data)
    assert result.labels == ("0", "1")
    assert result.predicted["truth"].tolist() == [0, 1]
    assert result.predict([("a great film", "a bad end")])[0].label in result.labels
    with pytest.raises(BbtuneError, match=r"expected a pair of texts, \(one, other\), that is not empty"):
        result.predict(["a great film"])


def test_a_job_that_is_checked_with_its_data_tells_what_is_wrong_with_them(job):
    assert bbtune.validate(job, task=tickets()) == []
    few = job | {"task": job["task"] | {"shots": 40}}
    assert "lower task.shots" in str(bbtune.validate(few, task=tickets())[0])
    bad = TaskData("tickets", ["fine", "", 3], ["a", "b", "c"])
    (fault,) = bbtune.validate(job, task=bad)
    assert "tickets, text 1: field 'text' is empty" in str(fault)
    assert "tickets, text 2: field 'text': expected text, got 3" in str(fault)


@pytest.mark.parametrize("labels", [[None] * 4, [float("nan")] * 4, np.array(["a", None, "b", "a"])])
def test_labels_that_are_missing_are_named_and_no_label_of_their_own(job, labels):
    (fault,) = bbtune.validate(job, task=TaskData("tickets", ["one", "two", "three", "four"], labels))
    assert "tickets, text 1: field 'label' is missing" in str(fault)


def test_a_job_in_python_is_changed_like_a_file_and_what_is_no_job_is_said(job):
    (fault,) = bbtune.validate(job, ["task.shots=40"], task=tickets())
    assert "lower task.shots" in str(fault)
    (fault,) = bbtune.validate(job, method="lora", task=tickets(), optimizer=Shrinking)
    assert str(fault).startswith("method.optimizer: unknown key")
    with pytest.raises(JobError, match="job: expected a path, a mapping or a job, got None"):
        bbtune.validate(None)
    with pytest.raises(TaskError, match=r"task: expected a bbtune.TaskData, got 'builtin:support'; a source such as"):
        bbtune.run(job, task="builtin:support")


def test_a_file_in_the_place_of_a_run_folder_is_said(job, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BbtuneError, match="file is a file, expected a folder for the run"):
        bbtune.run(job, tmp_path / "file", task=tickets())


def test_results_are_told_apart_and_held_in_sets(finished):
    result = TuneResult.load(finished)
    assert len({result, result, TuneResult.load(finished)}) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("a b", ["x"], ["y"]), "expected a name of letters, digits"),
        (("t", ["x"], ["y", "z"]), "expected as many labels as texts, got 2 for 1 texts"),
        (("t", "x", ["y"]), "expected a list of texts and one of labels"),
        (("t", [("x", "y", "z")], ["y"]), "t, text 0: expected a text, or a pair of texts as a tuple of two"),
        ((3, ["x"], ["y"]), "expected a name of letters, digits"),
        (("t", [], []), "expected at least one text, got none"),
        (("t", None, ["y"]), "expected a list of texts and one of labels, got None"),
        (("t", {"text": "x"}, ["y"]), "expected a list of texts and one of labels"),
        (("t", ["x"], [["y"]]), r"t, text 0: expected a name or a number as its label, got \['y'\]"),
        (("t", ["x"], ["y"], ["z"]), r"t test: expected \(texts, labels\), got \['z'\]"),
    ],
)
def test_texts_that_cannot_be_a_task_are_refused(given, words):
    with pytest.raises(TaskError, match=words):
        TaskData(*given)


GOAL = np.linspace(-1, 1, 12).reshape(3, 4)


def bowl(z: Any) -> Any:
    """The squared distance of points (P, 3, 4) from a goal."""
    return ((z - GOAL) ** 2).sum(axis=(1, 2))


class Shrinking(bbtune.AskTell):
    """The mean of the best three moves on, and the step shrinks."""

    def __init__(self, dim: int, population_size: int, sigma: float, rng: np.random.Generator) -> None:
        super().__init__(dim, population_size, sigma, rng)
        self.centre = np.zeros(dim)

    def _ask(self) -> Any:
        return self.centre + self.sigma * self._rng.standard_normal((self.population_size, self.dim))

    def _tell(self, asked: Any, scores: Any, loss: Any) -> None:
        self.centre = asked[loss.argsort()[:3]].mean(axis=0)
        self.sigma *= 0.95


class Bare:
    """An optimizer that has what the protocol asks for, and no base class; two candidates at a time."""

    uses_logits = False
    upcoming = Upcoming(2)

    def __init__(self, dim: int, population_size: int, sigma: float, rng: np.random.Generator) -> None:
        self.best, self._rng, self._sigma = np.zeros(dim), rng, sigma

    def ask(self) -> Any:
        self._asked = self.best + self._sigma * self._rng.standard_normal((2, len(self.best)))
        return self._asked

    def tell(self, scores: Any) -> None:
        self.best = self._asked[scores.loss.argmin()]

    def stop_reasons(self) -> dict[str, object]:
        return {}


@pytest.mark.parametrize("optimizer", ["cma-diagonal", "one-plus-lambda", "spsa", "random", Shrinking, Bare])
@pytest.mark.parametrize("blocks", ["layerwise", "joint"])
def test_a_function_is_minimised_within_its_evaluations(optimizer, blocks):
    asked = []

    def counted(z: Any) -> Any:
        asked.append(len(z))
        return bowl(z)

    found = bbtune.minimize(counted, dim=4, layers=3, evaluations=300, optimizer=optimizer, blocks=blocks, seed=1)
    assert found.z.shape == (3, 4)
    assert found.loss == bowl(found.z[None])[0] == found.history[-1][1] < bowl(np.zeros((1, 3, 4)))[0]
    assert found.history[0] == (1, bowl(np.zeros((1, 3, 4)))[0])
    assert [loss for _, loss in found.history] == sorted((loss for _, loss in found.history), reverse=True)
    assert sum(asked) <= found.evaluations == found.history[-1][0] <= 300
    assert found.stop_reason == "budget.evaluations"
    again = bbtune.minimize(bowl, dim=4, layers=3, evaluations=300, optimizer=optimizer, blocks=blocks, seed=1)
    assert again.history == found.history
    assert (again.z == found.z).all()


def test_a_search_that_learns_gets_further_than_one_that_does_not():
    learnt, drawn = (
        bbtune.minimize(bowl, dim=4, layers=3, evaluations=600, optimizer=optimizer, seed=2, sigma=0.5).loss
        for optimizer in ("cma-diagonal", "random")
    )
    assert learnt < drawn / 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "gauss-newton"}, "expected an optimizer that needs losses alone"),
        ({"optimizer": "cma-diagnal"}, 'did you mean "cma-diagonal"'),
        ({"popultion": 3}, 'did you mean "population"'),
        ({"population": 1}, "population: expected greater than or equal to 2"),
        ({"evaluations": 20}, "evaluations: expected at least a start and a generation, 21, got 20"),
        ({"dim": 0}, "dim: expected a whole number, at least 1, got 0"),
        ({"dim": 4.0}, "dim: expected a whole number, at least 1, got 4.0"),
        ({"seed": None}, "seed: expected a whole number, at least 0, got None"),
        ({"function": 3}, r"expected a function of points \(P, L, D\), got 3"),
        ({"function": lambda _: [[1], [1, 2]]}, r"expected losses \(P,\) = \(1,\) .* got \[\[1\], \[1, 2\]\]"),
        ({"optimizer": lambda *_: None}, "expected a class, or a function with a name"),
        ({"optimizer": dict}, r"own:dict: expected a class, or a function, that takes \(dim, population, sigma, rng\)"),
        ({"function": lambda z: z}, r"expected losses \(P,\) = \(1,\) of points \(P, L, D\) = \(1, 3, 4\)"),
        ({"function": lambda z: np.full(len(z), np.nan)}, "all finite numbers"),
    ],
)
def test_what_cannot_be_minimised_is_said(changes, words):
    with pytest.raises(OptimizerError, match=words):
        bbtune.minimize(**{"function": bowl, "dim": 4, "layers": 3, "evaluations": 100, **changes})


def short(dim: int, population: int, sigma: float, rng: np.random.Generator) -> Any:
    """An optimizer that asks fewer than it says."""
    made = Bare(dim, population, sigma, rng)
    made.upcoming = Upcoming(3)
    return made


class Changed(Bare):
    """A member of it is another than it must be."""

    member: tuple[str, Any] = ("", None)

    def __init__(self, dim: int, population_size: int, sigma: float, rng: np.random.Generator) -> None:
        super().__init__(dim, population_size, sigma, rng)
        setattr(self, *self.member)


def changed(name: str, value: Any) -> type:
    """An optimizer with one member in the place of what it must be."""
    return type("Changed", (Changed,), {"member": (name, value)})


class Overwriting(Shrinking):
    """An optimizer that would change the losses it is told."""

    def _tell(self, asked: Any, scores: Any, loss: Any) -> None:
        loss[:] = 0


def bare(dim: int, population: int, sigma: float, rng: np.random.Generator) -> Any:
    """No optimizer at all."""
    return rng


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (short, r"Bare: expected ask\(\) to give finite candidates \(P, D\) = \(3, 4\), got shape \(2, 4\)"),
        (changed("ask", lambda: np.full((2, 4), np.nan)), "got some that are infinite or not a number"),
        (changed("ask", lambda: [[1], [1, 2]]), r"Changed: expected ask\(\) to give candidates \(P, D\), got \[\[1\]"),
        (changed("upcoming", 3), r"own:Changed: expected upcoming to be an Upcoming\(P\) .*, got 3"),
        (changed("best", None), r"own:Changed: expected best \(D,\) = \(4,\), got None"),
        (changed("uses_logits", True), "own:Changed: expected an optimizer that needs losses alone"),
        (changed("stop_reasons", lambda: {"done": 1}), "own:Changed: expected a generation, got a reason to stop"),
        (bare, r"own:bare: expected uses_logits, upcoming, best, ask, tell, stop_reasons, got none of \['uses_logits'"),
    ],
)
def test_an_optimizer_that_is_none_is_told_what_it_lacks(optimizer, words):
    with pytest.raises(OptimizerError, match=words):
        bbtune.minimize(bowl, dim=4, layers=3, evaluations=100, optimizer=optimizer)


def test_an_optimizer_cannot_change_the_losses_that_it_is_told():
    with pytest.raises(ValueError, match="read-only"):
        bbtune.minimize(bowl, dim=4, layers=3, evaluations=100, optimizer=Overwriting)


@pytest.mark.parametrize("optimizer", [Shrinking, Bare])
def test_a_run_with_an_own_optimizer_is_cut_off_and_goes_on_as_if_it_had_not_been(optimizer, job, tmp_path):
    whole = bbtune.run(job, tmp_path / "whole", task=tickets(), optimizer=optimizer)
    assert whole.spec.method.optimizer == f"own:{optimizer.__name__}"
    assert whole.spec.method.population == 4
    with pytest.raises(KeyboardInterrupt):
        bbtune.run(job, tmp_path / "cut", Witness(2, interrupt), task=tickets(), optimizer=optimizer)
    with pytest.raises(JobError, match=r"method.optimizer: expected own:\w+, an object of the program .*, got none"):
        bbtune.resume(tmp_path / "cut", task=tickets())
    again = bbtune.resume(tmp_path / "cut", task=tickets(), optimizer=optimizer)
    assert asked_of(tmp_path / "cut") == asked_of(tmp_path / "whole")
    assert (again.learned["z"] == whole.learned["z"]).all()
    assert TuneResult.load(tmp_path / "cut").summary().splitlines()[:6] == whole.summary().splitlines()[:6]


def asked_of(folder: Path) -> list[str]:
    return [line["z_sha256"] for line in read_journal(folder / "journal.jsonl") if line["event"] == "scores"]


def test_an_own_optimizer_whose_code_has_changed_is_noticed(job, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        bbtune.run(job, tmp_path, Witness(3, interrupt), task=tickets(), optimizer=Shrinking)
    changed = type("Shrinking", (Shrinking,), {"_ask": lambda self: Shrinking._ask(self) * 2})
    with pytest.raises(JournalError, match="replay asks for train scores of z"):
        bbtune.resume(tmp_path, task=tickets(), optimizer=changed)


def test_an_own_optimizer_is_refused_where_there_is_no_search_for_one(job):
    lora = {key: value for key, value in job.items() if key != "method"} | {"method": {"name": "lora"}}
    (fault,) = bbtune.validate(lora, task=tickets(), optimizer=Shrinking)
    assert str(fault).startswith("method.optimizer: unknown key")
    named = job | {"method": {"optimizer": "own:Shrinking", "population": 4}}
    assert [fault.path for fault in bbtune.validate(named, task=tickets())] == ["method.optimizer"]
    assert bbtune.validate(named, task=tickets(), optimizer=Shrinking) == []


def test_what_mlflow_lacks_of_an_own_optimizers_run_is_sent_with_the_optimizer(job, tmp_path, mlflow_database):
    bbtune.run(job, tmp_path, task=tickets(), optimizer=Shrinking)
    with pytest.raises(OptimizerError, match="own:Shrinking is an object of a program"):
        api.sync(tmp_path, mlflow_database)
    assert api.sync(tmp_path, mlflow_database, Shrinking)


def test_a_dry_run_counts_the_texts_in_memory(job):
    api_of = {"base_url": "http://127.0.0.1:9/v1", "model": "none", "price": {"input": 1, "output": 1}}
    prompt = {"kind": "text", "text": "Sort the message."}
    asks = {"task": job["task"], "backbone": {"api": api_of}, "prompt": prompt, "budget": {"evaluations": 40}}
    few, more = (api.dry_run(asks, task=tickets(count)) for count in (24, 48))
    texts = [int(re.search(r"test, tuned\s+(\d+)", told).group(1)) for told in (few, more)]
    assert texts == [24, 48]


def test_a_run_that_was_given_nothing_goes_on_with_nothing_else(make_job, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        bbtune.run(make_job("bert"), tmp_path, Witness(1, interrupt))
    with pytest.raises(JobError, match=r"task.source: expected a job that names what is given, object:tickets"):
        bbtune.resume(tmp_path, task=tickets())
    with pytest.raises(JobError, match=r"method.optimizer: expected a job that names what is given, own:Shrinking"):
        bbtune.resume(tmp_path, optimizer=Shrinking)
