"""The command line as a user meets it: real commands, real exit codes, no tracebacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from bbtune import cli
from bbtune.errors import BbtuneError

JOBS = sorted((Path(__file__).parents[1] / "jobs").glob("*.yaml"))


def invoke(
    capsys: pytest.CaptureFixture[str], *arguments: object, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``bbtune ARGUMENTS``, through the real entry point."""
    monkeypatch.setattr("sys.argv", ["bbtune", *map(str, arguments)])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    captured = capsys.readouterr()
    return int(ending.value.code or 0), captured.out, captured.err


@pytest.fixture
def bbtune(capsys, monkeypatch):
    return lambda *arguments: invoke(capsys, *arguments, monkeypatch=monkeypatch)


@pytest.fixture
def job(make_job, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(make_job("bert").to_yaml())
    return path


@pytest.fixture(scope="module")
def finished(make_job, tmp_path_factory):
    """A finished run."""
    from bbtune import api

    folder = tmp_path_factory.mktemp("finished") / "run"
    api.run(make_job("bert"), folder)
    return folder


def test_run_prints_the_result_in_words_and_leaves_the_files(bbtune, job, tmp_path):
    code, out, err = bbtune("run", job, "--out", tmp_path / "run", "--set", "budget.evaluations=13")
    assert code == 0, err
    for words in (
        "95 % intervals",
        "majority",
        "zero-shot",
        "tuned",
        "gain",
        "13 evaluations",
        "stopped by budget.evaluations",
    ):
        assert words in out
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {
        "spec.yaml",
        "journal.jsonl",
        "result.json",
        "learned.safetensors",
        "predicted.safetensors",
        "plot.png",
    }
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert set(result) >= {"spec_hash", "stop_reason", "cost", "scores", "gain", "versions", "seeds"}
    paid = {"requests", "cached", "input_tokens", "output_tokens", "dollars"}
    counted = {"evaluations", "examples", "layer_forwards", "seconds", "backward_examples"}
    assert set(result["cost"]) == counted | paid
    assert set(result["scores"]) == {"majority", "zero_shot", "tuned"}
    for scored in result["scores"].values():
        for split in ("dev", "test"):
            assert scored[split]["low"] <= scored[split]["value"] <= scored[split]["high"]
    assert result["gain"]["low"] <= result["gain"]["value"] <= result["gain"]["high"]
    assert (tmp_path / "run" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_is_repeatable(bbtune, job, tmp_path):
    for name in ("one", "two"):
        assert bbtune("run", job, "--out", tmp_path / name)[0] == 0
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    for result in (one, two):
        del result["cost"]["seconds"], result["stopped_ms"], result["peak_memory_mib"]
        for point in result["curve"]:
            del point["seconds"]
    assert one == two


@pytest.mark.parametrize("preset", ["default", "paper-bbtv2"])
def test_another_method_replaces_the_search_of_the_job_and_says_what_it_picked(bbtune, make_job, tmp_path, preset):
    path = tmp_path / "job.yaml"
    method = {"preset": preset, "loss": "hinge"}
    path.write_text(make_job("bert", method=method, budget={"evaluations": 40}).to_yaml())
    code, out, err = bbtune("run", path, "--out", tmp_path / "run", "--method", "auto")
    assert code == 0, err
    assert "method auto: gauss-newton with 5 probes a round" in err
    kept = yaml.safe_load((tmp_path / "run" / "spec.yaml").read_text())["method"]
    assert (kept["optimizer"], kept["blocks"], kept["population"]) == ("gauss-newton", "joint", 5)
    assert (kept["loss"], kept["preset"]) == ("hinge", "default")
    prompt = yaml.safe_load((tmp_path / "run" / "spec.yaml").read_text())["prompt"]
    assert prompt["kind"] == ("offset" if preset == "paper-bbtv2" else "prefix")
    assert "stopped by budget.evaluations" in out


def test_a_method_that_does_not_exist_is_told_in_words(bbtune, job):
    code, _, err = bbtune("validate", job, "--method", "gaus-newton")
    assert code == 2
    assert "gauss-newton" in err
    assert "did you mean" in err


def test_a_misspelt_baseline_is_told(bbtune, job):
    code, _, err = bbtune("run", job, "--method", "lorra")
    assert code == 2
    assert 'did you mean "lora"' in err


def test_a_folder_that_holds_a_run_is_not_overwritten(bbtune, job, finished):
    before = (finished / "journal.jsonl").read_bytes()
    code, _, err = bbtune("run", job, "--out", finished)
    assert code == 1
    assert "holds a finished run" in err
    assert (finished / "journal.jsonl").read_bytes() == before


def test_validate_lists_every_fault_of_a_job(bbtune, tmp_path, tiny_models, tiny_task):
    path = tmp_path / "bad.yaml"
    path.write_text(
        f"""
task:
  source: folder:{tiny_task}
  template: "{{text}} it was"
  label_words: [bad, extraordinarily]
backbone:
  model: path:{tiny_models["bert"]}
prompt:
  tokens: 4
  layers: [0, 7]
  intrinsic_dimm: 10
method:
  optimizer: cma
  population: 20
budget:
  evaluations: 10
"""
    )
    code, _, err = bbtune("validate", path)
    assert code == 2
    assert "5 faults in the job" in err
    for words in (
        'prompt.intrinsic_dimm: unknown key; did you mean "intrinsic_dim"?',
        "budget.evaluations: expected at least one generation, 21 evaluations",
        "task.template: expected {mask} where the label word belongs",
        "prompt.layers: expected layers 0 to 2 of the model, got [7]",
        "task.label_words: expected a word that is one token of the model's vocabulary, got 'extraordinarily'",
    ):
        assert words in err


def test_validate_reads_no_weights(bbtune, job, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel.from_pretrained", refuse)
    assert bbtune("validate", job)[0] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("method.optimizer=cmaa", 'did you mean "cma"?'),
        ("task.template={text} {mas}", "unknown field {mas}"),
        ("task.source=folder:/nowhere", "expected a task folder with task.json, found none"),
        ("backbone.model=path:/nowhere", "found nothing at /nowhere"),
        ("backbone.kind=causal-lm", "expected causal-lm, but"),
        ("prompt.text=a great film and a warm story", "expected at least the 7 tokens"),
        ("task.shots=9", "expected 9 examples of label"),
    ],
)
def test_mistakes_are_told_in_words(bbtune, job, tmp_path, change, words):
    code, _, err = bbtune("run", job, "--out", tmp_path / "run", "--set", change)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_run_tells_the_faults_of_text_data_and_model_together(bbtune, job, tmp_path):
    changes = (
        "promt.kind=prefix",
        "method.optimizer=cmaa",
        "backbone.model=path:/nowhere",
        "task.template={text} {mas}",
    )
    code, _, err = bbtune("run", job, *[part for change in changes for part in ("--set", change)])
    assert code == 2
    assert "4 faults in the job" in err
    for words in ('did you mean "prompt"?', 'did you mean "cma"?', "found nothing at /nowhere", "unknown field {mas}"):
        assert words in err


def test_a_missing_job_file_is_told_in_words(bbtune, tmp_path):
    code, _, err = bbtune("run", tmp_path / "none.yaml")
    assert code == 2
    assert "cannot read the job file" in err


def test_predict_labels_texts_and_lines_of_standard_input(bbtune, finished, monkeypatch):
    import io

    code, out, _ = bbtune("predict", finished, "a great film", "dull story")
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[2] for row in rows] == ["a great film", "dull story"]
    assert {row[0] for row in rows} <= {"negative", "positive"}
    assert all(0.5 <= float(row[1]) <= 1 for row in rows)
    monkeypatch.setattr("sys.stdin", io.StringIO("a great film\n\ndull story\n"))
    first, second = out.splitlines()
    assert bbtune("predict", finished, "-")[1] == f"{first}\n\n{second}\n"


def test_predict_refuses_what_does_not_fit(bbtune, finished, tmp_path):
    code, _, err = bbtune("predict", finished, " ")
    assert (code, err) == (0, "")
    code, _, err = bbtune("predict", tmp_path, "text")
    assert code == 1
    assert "expected a finished run" in err


def test_show_and_resume_of_a_finished_run_print_its_result(bbtune, finished):
    shown = bbtune("show", finished)
    resumed = bbtune("resume", finished)
    assert shown[0] == resumed[0] == 0
    assert "tuned" in shown[1]
    assert shown[1] in resumed[1]


def test_resume_refuses_changed_data(bbtune, make_job, tmp_path, tiny_task):
    import shutil

    copy = tmp_path / "task"
    shutil.copytree(tiny_task, copy)
    job = tmp_path / "job.yaml"
    job.write_text(make_job("bert", task={"source": f"folder:{copy}"}).to_yaml())
    assert bbtune("run", job, "--out", tmp_path / "run")[0] == 0
    (tmp_path / "run" / "result.json").unlink()
    rows = (copy / "train.jsonl").read_text().replace("warm", "cold")
    (copy / "train.jsonl").write_text(rows)
    code, _, err = bbtune("resume", tmp_path / "run")
    assert code == 1
    assert "the task data or card has changed since the run began" in err


def test_a_folder_without_a_run_cannot_be_resumed_or_synced(bbtune, tmp_path):
    assert "found none" in bbtune("resume", tmp_path)[2]
    assert "found none" in bbtune("sync", tmp_path)[2]


def test_models_that_nobody_published_are_refused(bbtune):
    code, _, err = bbtune("models", "get", "smollm2-135")
    assert code == 1
    assert 'did you mean "smollm2-135m"?' in err
    assert "smollm2-135m" in bbtune("models", "list")[1]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_job_file_is_a_job(path, monkeypatch):
    from bbtune.jobfile import load_job

    monkeypatch.setenv("BBTUNE_DATA", "/data")
    assert load_job(path).name


def test_help_shows_every_command():
    out = CliRunner().invoke(cli.app, ["--help"]).output
    for command in ("run", "resume", "show", "validate", "predict", "sync", "models"):
        assert command in out


def test_an_error_of_bbtune_is_one_text_and_exit_1(bbtune, job, monkeypatch):
    def fail(*_: object) -> None:
        raise BbtuneError("the disk is full")

    monkeypatch.setattr("bbtune.api.run", fail)
    code, _, err = bbtune("run", job)
    assert (code, err) == (1, "error: the disk is full\n")
