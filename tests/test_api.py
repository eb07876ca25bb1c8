"""Whole jobs, small: every optimizer, kind of prompt, kind of model and data type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from views import Witness

import bbtune
from bbtune import api
from bbtune.errors import BbtuneError, EvaluationError, JobError
from bbtune.jobfile import load_job
from bbtune.journal import read_journal
from bbtune.optimizers import OPTIMIZERS
from bbtune.predictor import Predictor
from bbtune.result import TuneResult

DESCRIBED = {"label_words": [["a bad end", "a dull story"], "a great film"]}


LAYERWISE = set(OPTIMIZERS) - {"gauss-newton"}


@pytest.mark.parametrize(
    ("optimizer", "blocks"),
    [
        *((name, "layerwise") for name in sorted(LAYERWISE)),
        *((name, "joint") for name in [*OPTIMIZERS, "nevergrad:DE"]),
    ],
)
def test_every_optimizer_runs_a_job(optimizer, blocks, make_job, tmp_path):
    job = make_job("bert", method={"optimizer": optimizer, "blocks": blocks}, budget={"evaluations": 60})
    result = api.run(job, tmp_path / "run")
    assert 50 <= result.cost.evaluations <= 60
    assert result.stop_reason == "budget.evaluations"
    assert result.learned["z"].shape == (3, 6)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama", "encoder"])
@pytest.mark.parametrize("kind", ["offset", "prefix"])
def test_every_kind_of_model_takes_every_kind_of_prompt(family, kind, make_job, tmp_path):
    task = DESCRIBED if family == "encoder" else {}
    api.run(make_job(family, prompt={"kind": kind}, task=task, budget={"evaluations": 13}), tmp_path / "run")
    calls = [
        r for r in read_journal(tmp_path / "run" / "journal.jsonl") if r["event"] == "scores" and r["split"] == "train"
    ]
    assert [len(call["loss"]) for call in calls] == [1, 4, 4, 4]
    assert all(len(set(call["loss"])) == len(call["loss"]) for call in calls)  # every candidate matters


def test_tuning_lowers_the_train_loss(make_job, tmp_path):
    job = make_job("bert", budget={"evaluations": 200})
    witness = Witness()
    api.run(job, tmp_path / "run", witness)
    assert witness.events[-1].best_loss < 0.8 * witness.events[1].best_loss


@pytest.mark.parametrize("preset", ["paper-bbt", "paper-bbtv2"])
def test_the_paper_presets_run_whole_sweeps(preset, make_job, tmp_path):
    layers = 1 if preset == "paper-bbt" else 3
    job = make_job("bert", method={"preset": preset, "population": 4}, budget={"evaluations": 31})
    result = api.run(job, tmp_path / "run")
    assert result.learned["z"].shape == (layers, 6)
    assert result.cost.evaluations == 31 // (4 * layers) * 4 * layers
    assert result.stop_reason == "sweeps"


def test_bfloat16_stays_close_to_float32(make_job):
    from bbtune.evaluation.worker import Worker
    from bbtune.examine import make_plan

    logits = []
    for dtype in ("float32", "bfloat16"):
        plan, _, _ = make_plan(make_job("bert", backbone={"dtype": dtype}))
        logits.append(Worker(plan).candidates(0.2 * np.ones((1, 3, 6)), "train", 0)[0])
    assert not np.array_equal(*logits)
    assert np.corrcoef(logits[0].ravel(), logits[1].ravel())[0, 1] > 0.99


def test_a_budget_of_seconds_ends_a_run(make_job, tmp_path):
    job = make_job("bert", budget={"evaluations": None, "seconds": 3.0})
    result = api.run(job, tmp_path / "run")
    assert result.stop_reason == "budget.seconds"
    assert result.cost.seconds <= 3.0
    events = read_journal(tmp_path / "run" / "journal.jsonl")
    assert sum(len(r["loss"]) for r in events if r["event"] == "scores" and r["split"] == "train") > 8
    (tmp_path / "run" / "result.json").unlink()
    again = api.resume(tmp_path / "run")
    assert np.array_equal(again.learned["z"], result.learned["z"])
    assert again.cost == result.cost


def test_budgets_of_examples_hold(make_job, tmp_path):
    result = api.run(make_job("bert", budget={"evaluations": None, "examples": 500}), tmp_path / "run")
    assert result.stop_reason == "budget.examples"
    assert 400 < result.cost.examples <= 500


def test_overflowing_states_are_an_error_not_a_bad_prompt(make_job, tmp_path):
    with pytest.raises(EvaluationError, match=r"lower method.alpha"):
        api.run(make_job("gpt2", method={"alpha": 1e38}), tmp_path / "run")


def test_a_loaded_result_predicts_what_was_scored(make_job, tmp_path):
    from bbtune.examine import make_plan

    job = make_job("roberta", budget={"evaluations": 60})
    scored = bbtune.run(job, tmp_path / "run").scores["tuned"].test.value
    loaded = TuneResult.load(tmp_path / "run")
    task = make_plan(loaded.spec)[1]
    predicted = [p.label for p in Predictor(loaded).predict([example.text for example in task.test])]
    right = [task.labels[example.label] for example in task.test]
    assert np.mean([p == r for p, r in zip(predicted, right, strict=True)]) == scored


def test_a_job_may_be_a_mapping_and_its_faults_come_together():
    with pytest.raises(JobError) as caught:
        bbtune.run({"task": {"source": "builtin:suport"}, "backbone": {"model": "hff:x"}, "budget": {}})
    assert {fault.path for fault in caught.value.faults} >= {"backbone.model", "budget"}


def test_an_unfinished_run_is_not_begun_again(make_job, tmp_path):
    (tmp_path / "journal.jsonl").write_text("{}\n")
    with pytest.raises(BbtuneError, match="bbtune resume"):
        api.run(make_job("bert"), tmp_path)


@pytest.mark.parametrize("with_spec", [True, False])
def test_a_run_killed_before_its_first_line_can_be_begun_again(with_spec, make_job, tmp_path):
    job = make_job("bert", budget={"evaluations": 9})
    (tmp_path / "journal.jsonl").write_text("")
    if with_spec:
        (tmp_path / "spec.yaml").write_text(job.to_yaml())
    assert api.run(job, tmp_path).cost.evaluations == 9


def test_a_folder_with_other_files_is_left_alone(make_job, tmp_path):
    (tmp_path / "plot.png").write_text("mine")
    with pytest.raises(BbtuneError, match="holds files that are no run"):
        api.run(make_job("bert"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


def test_weights_changed_in_place_are_noticed_on_resume(make_job, tiny_models, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_models["bert"], tmp_path / "model")
    api.run(make_job("bert", backbone={"model": f"path:{folder}"}, budget={"evaluations": 9}), tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    weights = {name: tensor * 0.5 for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BbtuneError, match="the model has changed since the run began"):
        api.resume(tmp_path / "run")


def test_a_result_predicts_without_its_data(make_job, tiny_task, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_task, tmp_path / "task")
    result = api.run(make_job("bert", task={"source": f"folder:{folder}"}), tmp_path / "run")
    before = Predictor(result).predict(["a great film"])
    shutil.rmtree(folder)
    assert Predictor(TuneResult.load(tmp_path / "run")).predict(["a great film"]) == before


def test_pairs_of_texts_run_and_predict(make_job, tmp_path):
    rows = ["text_a\ttext_b\tlabel"]
    for i in range(30):
        rows.append(f"the box was late {i}\tit was a bad parcel {i}\tsame")
        rows.append(f"a great film {i}\tmy kettle makes a noise {i}\tother")
    table = tmp_path / "pairs.tsv"
    table.write_text("\n".join(rows))
    task = {
        "source": f"file:{table}",
        "shots": 4,
        "columns": {"text": "text_a", "text_b": "text_b"},
        "template": "{text_a} ? {mask} , {text_b}",
        "label_words": ["bad", "good"],
    }
    result = api.run(make_job("bert", task=task, budget={"evaluations": 9}), tmp_path / "run")
    assert result.labels == ("other", "same")
    predictor = Predictor(result)
    assert predictor.predict([("a box", "a parcel")])[0].label in result.labels
    with pytest.raises(BbtuneError, match="expected a pair of texts"):
        predictor.predict(["a box"])


def test_a_job_that_goes_on_has_pace_price_and_models_place_as_they_are_said_now():
    pace = ["backbone.api.concurrency=3", "backbone.api.price={input: 1, output: 2}", "budget.dollars=4"]
    api_of_writer = "{base_url: http://127.0.0.1:1/v1, model: a, price: {input: 1, output: 1}}"
    writer = [f"method.writer={{api: {api_of_writer}}}"]
    path = Path(__file__).parents[1] / "jobs" / "api_quickstart.yaml"
    begun, now = load_job(path, writer), load_job(path, [*writer, *pace, "method.writer.api.concurrency=2"])
    moved = api._moved(begun, now)
    assert moved == now
    assert moved.spec_hash == begun.spec_hash
    path = path.with_name("quickstart.yaml")
    begun, now = (
        load_job(path, ["backbone.model=path:/here/model"]),
        load_job(path, ["backbone.model=path:/there/model"]),
    )
    assert api._moved(begun, now) == now
