"""Baselines as runs: journal, result, prediction, resume, and what is refused in words."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from records import recorded
from views import Witness, interrupt

from bbtune import api
from bbtune.baselines import training
from bbtune.errors import BackboneError, BbtuneError, Fault, JobError
from bbtune.jobfile import load_job, parse_job
from bbtune.journal import read_journal
from bbtune.loop import Generation
from bbtune.methods import BASELINES
from bbtune.predictor import Predictor
from bbtune.result import TuneResult
from bbtune.spec import BaselineJob

FAMILY = {"in-context": "gpt2", "bitfit": "bert", "ia3": "llama", "setfit": "encoder"}
SETTINGS: dict[str, dict[str, Any]] = {
    "template-ensemble": {"templates": ["{text} . it was {mask}", "{text} , so {mask}"]},
    "in-context": {"demonstrations": 2, "orders": 2},
    "setfit": {"pairs_per_example": 2},
}
TRAINED = ("prompt-tuning", "deep-prompts", "prefix-tuning", "bitfit", "ia3", "fine-tuning", "lora")
TRAINED += ("low-rank-prompt", "dept", "adapter", "mlp", "bilstm")

# Every epoch has a checkpoint.
PROGRAM = """
from bbtune.baselines import training
from bbtune.cli import main

training._CHECKPOINT_EVERY_S = -1.0
main()
"""

MakeRaw = Callable[..., dict[str, Any]]


class Cut(Witness):
    """Ends the process before the test split."""

    def say(self, text: str) -> None:
        if text.startswith("scoring"):
            interrupt()


Ran = tuple[Path, TuneResult, Witness]


@pytest.fixture(scope="module")
def make_raw(tiny_models: dict[str, Path], tiny_task: Path) -> MakeRaw:
    """Jobs as a user writes them: ``make_raw("lora", "bert", budget={...})``."""

    def make(
        name: str, family: str | None = None, method: dict[str, Any] | None = None, **parts: Any
    ) -> dict[str, Any]:
        family = family or FAMILY.get(name, "bert")
        few = {"epochs": 3, "batch_size": 3} if name in TRAINED else {}
        raw: dict[str, Any] = {
            "name": f"tiny-{name}",
            "task": {"source": f"folder:{tiny_task}"},
            "backbone": {"model": f"path:{tiny_models[family]}"},
            "prompt": {"text": "is this good or bad ?"},
            "method": {"name": name, **few, **SETTINGS.get(name, {}), **(method or {})},
            "tracking": {"enabled": False},
            "seed": 3,
        }
        if family.endswith("encoder"):
            raw["task"]["label_words"] = ["a bad end", "a great film"]
        for part, values in parts.items():
            raw[part] = {**raw.get(part, {}), **values} if isinstance(values, dict) else values
        return raw

    return make


@pytest.fixture(scope="module")
def ran(make_raw: MakeRaw, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ran]:
    """Folder, result and events of a baseline, run once."""

    @cache
    def run(name: str) -> Ran:
        folder, witness = tmp_path_factory.mktemp("runs") / name, Witness()
        return folder, api.run(make_raw(name), folder, witness), witness

    return run


def without_clock(result: TuneResult) -> dict[str, Any]:
    """All of a result but its clocks and its memory."""
    kept = result.as_dict()
    for point in (kept["cost"], *kept["curve"]):
        del point["seconds"]
    del kept["stopped_ms"], kept["peak_memory_mib"]
    return kept


def timeless(events: list[Generation]) -> list[Generation]:
    return [replace(event, unix_ms=0, cost=replace(event.cost, seconds=0.0)) for event in events]


def assert_same(one: TuneResult, other: TuneResult) -> None:
    assert without_clock(one) == without_clock(other)
    for arrays in ("learned", "predicted"):
        first, second = getattr(one, arrays), getattr(other, arrays)
        assert first.keys() == second.keys()
        assert all((first[key] == second[key]).all() for key in first)


def kinds(folder: Path) -> list[str]:
    return [record["event"] for record in read_journal(folder / "journal.jsonl")]


def faults_of(raw: dict[str, Any]) -> list[Fault]:
    return api.validate(raw)


def told(raw: dict[str, Any]) -> dict[str, str]:
    """Faults by path."""
    found = faults_of(raw)
    assert len({fault.path for fault in found}) == len(found)
    return {fault.path: fault.message for fault in found}


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_leaves_a_result_that_can_be_read_again(ran: Any, name: str) -> None:
    folder, result, _ = ran(name)
    assert isinstance(result.spec, BaselineJob)
    for scored in result.scores.values():
        assert np.isfinite([*asdict(scored.dev).values(), *asdict(scored.test).values()]).all()
    assert np.isfinite(result.gain.value)
    assert all(np.isfinite(weights).all() for weights in result.learned.values())
    assert result.parameters >= 0
    assert (result.parameters > 0) == (name in (*TRAINED, "setfit", "logistic-regression"))
    again = TuneResult.load(folder)
    assert again.as_dict() == result.as_dict()
    assert json.loads(json.dumps(result.as_dict())) == json.loads((folder / "result.json").read_text())
    assert_same(again, result)
    assert (folder / "plot.png").is_file()
    assert name in result.as_dict()["method"]
    assert "dev (selected on)" in result.summary()


@pytest.mark.parametrize("name", BASELINES)
def test_what_is_handed_out_scores_on_dev_as_the_best_of_the_curve(ran: Any, name: str) -> None:
    _, result, witness = ran(name)
    assert result.scores["tuned"].dev.value == max(event.dev.metric for event in witness.events)
    assert result.scores["tuned"].dev.value == result.curve[-1].dev
    assert result.cost.examples == result.curve[-1].examples


@pytest.mark.parametrize("name", BASELINES)
def test_a_predictor_says_what_the_run_said(ran: Any, tiny_task: Path, name: str) -> None:
    folder, result, _ = ran(name)
    texts = [json.loads(line)["text"] for line in (tiny_task / "test.jsonl").read_text().splitlines()]
    found = Predictor(TuneResult.load(folder)).predict(texts)
    assert [result.labels.index(one.label) for one in found] == result.predicted["tuned"].tolist()
    assert all(0.5 <= one.probability <= 1.0 for one in found)


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_job_gives_the_same_result_again(ran: Any, make_raw: MakeRaw, tmp_path: Path, name: str) -> None:
    _, result, witness = ran(name)
    second = Witness()
    assert_same(api.run(make_raw(name), tmp_path / "again", second), result)
    assert timeless(second.events) == timeless(witness.events)


@pytest.mark.parametrize("name", BASELINES)
def test_the_journal_has_every_step_once(ran: Any, name: str) -> None:
    folder, result, witness = ran(name)
    assert kinds(folder) == ["start", *["step"] * len(witness.events), "stop"]
    assert [event.number for event in witness.events] == list(range(len(witness.events)))
    assert recorded(folder) == witness.events
    assert [asdict(point) for point in result.curve] == [
        {**asdict(event.cost), "best_loss": event.best_loss, "dev": event.dev_metric} for event in witness.events
    ]
    assert api.resume(folder).as_dict() == result.as_dict()
    assert len(kinds(folder)) == len(witness.events) + 2


@pytest.mark.parametrize("every_s", [-1.0, 1e9])
@pytest.mark.parametrize("cut_at", [0, 1, 3, None])
def test_a_training_that_was_cut_off_resumes_to_the_result_of_one_that_was_not(
    ran: Any, make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_at: int | None, every_s: float
) -> None:
    _, whole, events = ran("lora")
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY_S", every_s)
    with pytest.raises(KeyboardInterrupt):
        api.run(make_raw("lora"), tmp_path / "run", Cut(cut_at, interrupt))
    before = recorded(tmp_path / "run")
    assert len(before) == (len(events.events) if cut_at is None else cut_at + 1)
    second = Witness()
    assert_same(api.resume(tmp_path / "run", show=second), whole)
    assert timeless(second.events) == timeless(events.events)
    assert recorded(tmp_path / "run")[: len(before)] == before
    assert recorded(tmp_path / "run") == second.events
    assert kinds(tmp_path / "run") == ["start", *["step"] * len(events.events), "stop"]


@pytest.mark.parametrize("name", ["majority", "in-context", "logistic-regression"])
def test_methods_without_checkpoints_resume_from_the_start(
    ran: Any, make_raw: MakeRaw, tmp_path: Path, name: str
) -> None:
    _, whole, events = ran(name)
    for cut in (Witness(0, interrupt), Cut()):
        folder = tmp_path / f"{id(cut)}"
        with pytest.raises(KeyboardInterrupt):
            api.run(make_raw(name), folder, cut)
        assert_same(api.resume(folder), whole)
        assert kinds(folder) == ["start", *["step"] * len(events.events), "stop"]


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_result_of_one_that_was_not(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw = make_raw("lora", method={"epochs": 60}, selection={"patience": 60})
    whole = api.run(raw, tmp_path / "whole")
    job, cut = tmp_path / "job.yaml", tmp_path / "cut"
    job.write_text(yaml.safe_dump(raw))
    moment = random.Random(5).randrange(5, 40)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", str(job), "--out", str(cut)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < deadline:
            if (cut / "journal.jsonl").is_file() and (cut / "journal.jsonl").read_bytes().count(b"\n") >= moment:
                break
            time.sleep(0.002)
        assert process.poll() is None, "the run ended before it was killed"
    finally:
        process.kill()
        process.wait()
    before = recorded(cut)
    assert 0 < len(before) < 61
    arguments = [sys.executable, "-c", PROGRAM, "resume", str(cut)]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same(TuneResult.load(cut), whole)
    assert recorded(cut)[: len(before)] == before
    assert kinds(cut) == ["start", *["step"] * 61, "stop"]


def test_budget_and_patience_end_a_run_with_their_names(make_raw: MakeRaw, tmp_path: Path) -> None:
    ends = {
        "budget.evaluations": {"budget": {"evaluations": 2}},
        "budget.examples": {"budget": {"examples": 8 + 2 * 16}},
        "budget.layer_forwards": {"budget": {"layer_forwards": 3 * (8 + 2 * 16) + 1}},
        "selection.patience": {"selection": {"patience": 1}, "method": {"learning_rate": 1e-30}},
        "method.epochs": {},
    }
    for reason, parts in ends.items():
        result = api.run(make_raw("lora", **parts), tmp_path / reason)
        assert result.stop_reason == reason
        assert len(result.curve) == {"method.epochs": 4, "selection.patience": 2}.get(reason, 3)
        assert read_journal(tmp_path / reason / "journal.jsonl")[-1]["reason"] == reason


def test_a_step_that_loss_selects_is_handed_out(make_raw: MakeRaw, tmp_path: Path) -> None:
    for by in ("loss", "last"):
        witness = Witness()
        result = api.run(make_raw("deep-prompts", selection={"by": by}), tmp_path / by, witness)
        chosen = [event.dev for event in witness.events if event.dev and event.dev.selected][-1]
        assert result.scores["tuned"].dev.value == chosen.metric
        best = min(event.dev.loss for event in witness.events if event.dev)
        assert chosen.loss == (best if by == "loss" else witness.events[-1].dev.loss)


def test_an_unknown_method_is_named_with_one_that_is_meant(make_raw: MakeRaw) -> None:
    found = told(make_raw("lara"))
    assert list(found) == ["method.name"]
    assert found["method.name"].startswith("expected one of majority, zero-shot")
    assert found["method.name"].endswith('got "lara"; did you mean "lora"?')


def test_an_optimizer_is_no_name_of_a_method(make_raw: MakeRaw) -> None:
    found = told(make_raw("cma-diagonal"))
    assert found["method.name"].endswith("; the optimizer of a search is given as method.optimizer")


@pytest.mark.parametrize(
    ("name", "settings", "path", "words"),
    [
        ("lora", {"rnak": 4}, "method.rnak", 'unknown key; did you mean "rank"?'),
        ("prompt-tuning", {"rank": 4}, "method.rank", "unknown key"),
        ("zero-shot", {"epochs": 3}, "method.epochs", "unknown key"),
        ("lora", {"learning_rate": -1.0}, "method.learning_rate", "greater than 0, got -1.0"),
        ("lora", {"epochs": 2.5}, "method.epochs", "integer, got 2.5"),
        ("template-ensemble", {"templates": ["{text} {mask}"]}, "method.templates", "at least 2 items"),
        ("logistic-regression", {"strengths": []}, "method.strengths", "at least 1 item"),
        ("in-context", {"demonstrations": 9}, "method.demonstrations", "expected at most the 8 train examples, got 9"),
    ],
)
def test_faults_of_a_methods_own_keys_have_their_paths(
    make_raw: MakeRaw, name: str, settings: dict[str, Any], path: str, words: str
) -> None:
    found = told(make_raw(name, method=settings))
    assert list(found) == [path]
    assert words in found[path]


@pytest.mark.parametrize(
    ("name", "library"), [("lora", "peft"), ("setfit", "setfit"), ("logistic-regression", "sklearn")]
)
def test_a_missing_library_is_told_before_the_run(
    make_raw: MakeRaw, monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    monkeypatch.setattr("bbtune.baselines.faults.find_spec", lambda asked: None)
    expected = f"expected the library {library} for {name}, it is not installed; pip install 'bbtune[baselines]'"
    assert told(make_raw(name)) == {"method.name": expected}
    assert not told(make_raw("fine-tuning"))


def test_a_mean_of_steps_is_no_baseline(make_raw: MakeRaw) -> None:
    found = told(make_raw("lora", selection={"average": 4}))
    assert found == {"selection.average": "expected none, a baseline hands out one step, no mean, got 4"}
    assert not told(make_raw("lora", selection={"average": 1}))


@pytest.mark.parametrize(
    ("name", "family", "words"),
    [
        ("in-context", "encoder", "expected a language model with in-context, a sentence encoder compares whole texts"),
        ("setfit", "bert", "expected a sentence encoder with setfit, path:"),
    ],
)
def test_a_method_that_does_not_fit_the_model_is_refused_before_weights_are_read(
    make_raw: MakeRaw, name: str, family: str, words: str
) -> None:
    found = told(make_raw(name, family))
    assert list(found) == ["method.name"]
    assert words in found["method.name"]


def test_bitfit_on_a_model_without_biases_is_refused_in_words(make_raw: MakeRaw, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="bitfit expected a model whose layers have biases, got llama; use lora"):
        api.run(make_raw("bitfit", "llama"), tmp_path / "run")


@pytest.mark.parametrize(
    ("workers", "method", "most"), [(4, {}, 3), (9, {"batch_size": 16}, 8)], ids=["of a batch", "of dev"]
)
def test_workers_that_would_have_nothing_to_do_are_refused(
    make_raw: MakeRaw, workers: int, method: dict[str, Any], most: int
) -> None:
    found = told(make_raw("lora", method=method, evaluators={"count": workers}))
    assert list(found) == ["evaluators.count"]
    assert f"expected at most {most}" in found["evaluators.count"]
    assert f"got {workers}" in found["evaluators.count"]
    assert not told(make_raw("lora", method=method, evaluators={"count": most}))
    assert not told(make_raw("zero-shot", evaluators={"count": 40}))


@pytest.mark.parametrize("name", BASELINES)
def test_a_budget_below_what_a_fit_takes_is_refused_before_weights_are_read(
    ran: Any, make_raw: MakeRaw, tmp_path: Path, name: str
) -> None:
    _, result, witness = ran(name)
    cost = witness.events[1].cost if name in TRAINED else result.cost
    price = result.spec.method.price(8, 8)
    assert price == (cost.evaluations, cost.examples)
    for limit in ("evaluations", "examples", "layer_forwards"):
        least = getattr(cost, limit)
        if least > 1:
            raw = make_raw(name, budget={limit: least - 1})
            assert list(found := told(raw)) == [f"budget.{limit}"]
            assert f"expected at least {least}, what the method takes, got {least - 1}" in found[f"budget.{limit}"]
            with pytest.raises(JobError):
                api.run(raw, tmp_path / "run")
        assert not told(make_raw(name, budget={limit: max(1, least)}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["logistic-regression", "setfit"])
def test_train_examples_of_one_label_are_no_data_for_a_classifier(
    make_raw: MakeRaw, tiny_task: Path, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(tiny_task, tmp_path / "task")
    rows = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    label = json.loads(rows[0])["label"]
    (folder / "train.jsonl").write_text("".join(row for row in rows if json.loads(row)["label"] == label))
    found = told(make_raw(name, task={"source": f"folder:{folder}"}))
    assert list(found) == ["task.source"]
    assert "expected train examples of two labels or more, got those of 1; add examples" in found["task.source"]


def test_a_prompt_behind_the_text_is_judged_as_that_of_a_search(make_raw: MakeRaw) -> None:
    after = {"place": "after"}
    for name in ("zero-shot", "lora", "prompt-tuning"):
        found = told(make_raw(name, "bert", prompt=after))
        assert list(found) == ["prompt.place"]
        assert "expected before for a masked-lm" in found["prompt.place"]
    bare = {"template": "{text} {mask}"}
    assert list(told(make_raw("deep-prompts", "gpt2", prompt=after, task=bare))) == ["task.template"]
    assert not told(make_raw("lora", "gpt2", prompt=after, task=bare))
    assert not told(make_raw("deep-prompts", "gpt2", prompt=after))


@pytest.mark.parametrize("name", ["bitfit", "fine-tuning"])
def test_weights_of_the_model_itself_are_trained_in_float32(make_raw: MakeRaw, name: str) -> None:
    found = told(make_raw(name, "bert", backbone={"dtype": "bfloat16"}))
    assert list(found) == ["backbone.dtype"]
    assert f"expected float32 for {name}, which trains the model's own weights, got bfloat16" in found["backbone.dtype"]
    assert not told(make_raw("lora", "bert", backbone={"dtype": "bfloat16"}))


def test_every_template_of_an_ensemble_must_leave_room(make_raw: MakeRaw) -> None:
    templates = ["{text} . it was {mask}", f"{'late and ' * 200} {{text}} {{mask}}"]
    found = told(make_raw("template-ensemble", method={"templates": templates}))
    assert list(found) == ["method.templates[1]"]


def test_several_faults_are_told_together(make_raw: MakeRaw) -> None:
    raw = make_raw("lora", method={"rnak": 4}, prompt={"tokns": 3}, selection={"average": 4})
    assert set(told(raw)) == {"method.rnak", "prompt.tokns", "selection.average"}


def test_a_search_job_with_another_method_keeps_the_rest(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw = make_raw("lora", budget={"evaluations": 40}, prompt={"tokens": 4}, selection={"by": "loss"})
    raw["method"] = {"optimizer": "cma-diagonal", "population": 4, "loss": "hinge"}
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(raw))
    search, found = load_job(path), load_job(path, method="lora")
    assert isinstance(found, BaselineJob)
    assert found.method == parse_job({**raw, "method": {"name": "lora"}})[0].method  # type: ignore[union-attr]
    kept = ("name", "task", "backbone", "prompt", "selection", "budget", "evaluators", "tracking", "seed")
    assert {part: getattr(found, part) for part in kept} == {part: getattr(search, part) for part in kept}
    assert found.spec_hash != search.spec_hash
    back = load_job(path, method="spsa")
    assert (back.method_name, back.method.loss) == ("spsa", "hinge")  # type: ignore[attr-defined]


def test_a_preset_keeps_its_prompt_and_budget_under_another_method(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw = make_raw("lora")
    raw["method"] = {"preset": "paper-bbtv2"}
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(raw))
    search, found = load_job(path), load_job(path, method="deep-prompts")
    assert (found.prompt, found.budget) == (search.prompt, search.budget)
    assert found.budget.evaluations == 8000


def test_another_job_is_not_resumed(make_raw: MakeRaw, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        api.run(make_raw("lora"), tmp_path / "run", Witness(1, interrupt))
    with pytest.raises(BbtuneError, match="holds an unfinished run; go on with bbtune resume"):
        api.run(make_raw("lora"), tmp_path / "run")
    spec = yaml.safe_load((tmp_path / "run" / "spec.yaml").read_text())
    spec["method"]["rank"] = 2
    (tmp_path / "run" / "spec.yaml").write_text(yaml.safe_dump(spec))
    with pytest.raises(BbtuneError, match="the job has changed since the run began"):
        api.resume(tmp_path / "run")
