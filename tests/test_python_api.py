"""What bbtune gives to Python: predictions of a result, own tasks, own functions, own optimizers."""

from __future__ import annotations

import gc
import pickle

import pytest

import bbtune
from bbtune import BbtuneError, TuneResult

TEXTS = ["a great film", "terrible noise"]


@pytest.fixture(scope="module")
def finished(make_job, tmp_path_factory):
    """The folder of a short finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    bbtune.run(make_job("bert", budget={"evaluations": 9}), folder)
    return folder


@pytest.fixture
def loads(monkeypatch):
    """Counts the models that are loaded."""
    from bbtune.evaluation import scorer

    counted = []
    load = scorer.load_model
    monkeypatch.setattr(scorer, "load_model", lambda *given: counted.append(1) or load(*given))
    return counted


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


def test_a_result_that_has_loaded_its_model_is_pickled_without_it(finished):
    result = TuneResult.load(finished)
    before = pickle.dumps(result)
    expected = result.predict(TEXTS)
    assert len(pickle.dumps(result)) == len(before)
    again = pickle.loads(pickle.dumps(result))
    assert again.as_dict() == result.as_dict()
    assert again.predict(TEXTS) == expected


def test_the_model_goes_with_the_result(finished, monkeypatch):
    closed = []
    monkeypatch.setattr("bbtune.predictor.Predictor.close", lambda _: closed.append(1))
    result = TuneResult.load(finished)
    result.predict(TEXTS)
    assert closed == []
    del result
    gc.collect()
    assert closed == [1]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("a great film", r"expected a list of texts, got one text; write \['a great film'\]"),
        ([("a", "b")], r"expected one text that is not empty, got \('a', 'b'\)"),
        ([" "], "expected one text that is not empty, got ' '"),
        ([3], "expected one text that is not empty, got 3"),
    ],
)
def test_what_is_no_list_of_texts_is_said(finished, texts, words):
    with pytest.raises(BbtuneError, match=words):
        TuneResult.load(finished).predict(texts)
