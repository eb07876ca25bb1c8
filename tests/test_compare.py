"""Comparisons of made-up runs whose truth and predictions are known."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bbtune.compare import Comparison, compare, load_runs
from bbtune.compare.pairs import Pair
from bbtune.compare.plain import text_table
from bbtune.compare.plots import aligned
from bbtune.compare.table import CSV, PAIRS_CSV, short
from bbtune.errors import BbtuneError
from bbtune.jobfile import parse_job
from bbtune.loop import Cost
from bbtune.plan import Reading
from bbtune.result import PREDICTED, RESULT, SPEC, Point, Scored, TuneResult
from bbtune.statistics import Effect
from bbtune.task.metrics import Estimate, Labels, Metric, gain_with_interval, score_with_interval

N = 400
SEARCH: dict[str, Any] = {"optimizer": "gauss-newton"}
PROBE: dict[str, Any] = {"name": "logistic-regression"}
ZERO_SHOT: dict[str, Any] = {"name": "zero-shot"}


def truth_of(task: str, n: int = N) -> Labels:
    """Balanced labels, the same whenever the task is asked for."""
    seed = int(hashlib.sha256(task.encode()).hexdigest()[:8], 16)
    return np.random.default_rng(seed).permutation(np.arange(n) % 2)


def labelled(truth: Labels, right: float, seed: int) -> Labels:
    """Labels of which a share is right, exactly."""
    wrong = np.random.default_rng(seed).permutation(len(truth)) >= round(right * len(truth))
    return np.where(wrong, 1 - truth, truth)


def write_run(
    folder: Path,
    method: dict[str, Any],
    right: float | Labels,
    *,
    seed: int = 0,
    task: str = "toy",
    dev: float | None = None,
    zero_shot: float = 0.55,
    truth: Labels | None = None,
    curve: int = 5,
    metric: str = "accuracy",
    **parts: Any,
) -> Path:
    """A finished run; ``right`` is its test accuracy, or what it answers."""
    raw: dict[str, Any] = {
        "name": parts.pop("name", f"job-{seed}"),
        "task": {"source": f"file:/data/{task}.csv", "metric": metric} | parts.pop("task_spec", {}),
        "backbone": {"model": parts.pop("model", "package:minilm")},
        "method": method,
        "seed": seed,
        "tracking": {"enabled": False},
        **({} if "name" in method else {"budget": {"evaluations": 600}}),
        **parts,
    }
    spec, faults, _ = parse_job(raw)
    assert spec is not None, faults
    assert not faults, faults
    truth = truth_of(task) if truth is None else truth
    tuned = labelled(truth, right, 100 + seed) if isinstance(right, float) else right
    of = Metric(metric, 2, 1 if metric == "f1" else None)
    untouched = labelled(truth, zero_shot, 7)
    predicted = {"truth": truth, "zero_shot": untouched, "tuned": tuned}
    rng = np.random.default_rng(0)
    scores = {"majority": np.zeros_like(truth), "zero_shot": untouched, "tuned": tuned}
    on_test = {name: score_with_interval(of, truth, answers, rng) for name, answers in scores.items()}
    on_dev = on_test["tuned"] if dev is None else Estimate(dev, dev, dev)
    points = [Point(10 * i, 100 * i, 1200 * i, 0, 1.5 * i, 0.7, 0.5 + 0.05 * i) for i in range(1, curve + 1)]
    result = TuneResult(
        spec=spec,
        labels=("bad", "good"),
        metric=metric,
        learned={"z": np.zeros((1, 2))},
        parameters=400,
        stop_reason="budget.evaluations",
        cost=Cost(50, 5000, 60000, 7.5, 0),
        scores={name: Scored(on_dev if name == "tuned" else of_test, of_test) for name, of_test in on_test.items()},
        gain=gain_with_interval(of, truth, untouched, tuned, rng),
        predicted=predicted,
        curve=tuple(points),
        seeds={"job": seed, "task": spec.task.seed},
        versions={},
        fingerprints={"task": f"{task}-{seed}", "test": hashlib.sha256(truth.tobytes()).hexdigest(), "model": "m"},
        task=task,
        reading=Reading("prefix", "{text}", (("bad",), ("good",))),
        peak_memory_mib=512.0,
        stopped_ms=seed,
    )
    folder.mkdir(parents=True)
    (folder / SPEC).write_text(spec.to_yaml())
    result.save(folder)
    (folder / "learned.safetensors").unlink()  # a comparison does without
    return folder


def sentence(comparison: Comparison, label: str, scope: str = "toy") -> str:
    return next(pair.sentence() for pair in comparison.pairs if (pair.label, pair.scope) == (label, scope))


def labels(comparison: Comparison) -> set[str]:
    return {row.label for row in comparison.rows if not row.stand_in}


def test_two_runs_that_differ_by_seed_are_compared_and_do_not_differ(tmp_path: Path) -> None:
    write_run(tmp_path / "a", SEARCH, 0.80, seed=0)
    write_run(tmp_path / "b", SEARCH, 0.81, seed=1)
    comparison = compare([tmp_path / "a", tmp_path / "b"])
    assert labels(comparison) == {"gauss-newton (seed 0)", "gauss-newton (seed 1)"}
    assert comparison.reference == "gauss-newton (seed 1)"
    said = sentence(comparison, "gauss-newton (seed 0)")
    assert said.startswith("no significant difference between gauss-newton (seed 0) and gauss-newton (seed 1) on toy: ")
    assert said.endswith("one seed each, so this compares two prompts, not two methods")


def test_the_seeds_of_a_folder_are_one_method_beside_zero_shot(tmp_path: Path) -> None:
    write_run(tmp_path / "a", SEARCH, 0.80, seed=0)
    write_run(tmp_path / "b", SEARCH, 0.81, seed=1)
    comparison = compare([tmp_path])
    assert labels(comparison) == {"gauss-newton"}
    assert sentence(comparison, "zero-shot").startswith("zero-shot is worse than gauss-newton on toy: -25.5 points [-")


def test_a_search_is_better_than_constant_answers_and_worse_than_a_good_probe(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"s{seed}", SEARCH, 0.79 + 0.01 * seed, seed=seed)
        write_run(tmp_path / f"p{seed}", PROBE, 0.93 + 0.01 * seed, seed=seed, curve=1)
        write_run(tmp_path / f"z{seed}", ZERO_SHOT, np.ones(N, dtype=np.int64), seed=seed, curve=1)
    comparison = compare([tmp_path])
    assert comparison.reference == "gauss-newton"
    assert "the reference is gauss-newton, the only search" in comparison.notes
    assert re.match(
        r"logistic-regression is better than gauss-newton on toy: \+14\.0 points \[\+.*\], p .*, over 3 seeds",
        sentence(comparison, "logistic-regression"),
    )
    assert sentence(comparison, "zero-shot").startswith("zero-shot is worse than gauss-newton on toy: -30.0 points [-")
    assert sentence(comparison, "majority").startswith("majority is worse than gauss-newton on toy")
    by_label = {line.label: line for line in comparison.lines}
    assert by_label["gauss-newton"].seeds == 3
    assert by_label["gauss-newton"].test.value == pytest.approx(0.80)
    assert comparison.lines[0].label == "logistic-regression"
    assert not comparison.warnings


def test_one_seed_each_has_the_runs_own_intervals_and_compares_prompts(tmp_path: Path) -> None:
    write_run(tmp_path / "s", SEARCH, 0.70)
    write_run(tmp_path / "p", PROBE, 0.95)
    comparison = compare([tmp_path])
    said = sentence(comparison, "logistic-regression")
    assert "logistic-regression is better than gauss-newton on toy: +25.0 points" in said
    assert said.endswith("p < 0.001, one seed each, so this compares two prompts, not two methods")
    run = next(run for run in load_runs([tmp_path / "p"])[0])
    line = next(line for line in comparison.lines if line.label == "logistic-regression")
    assert (line.test, line.gain) == (run.test, run.gain)
    assert run.gain.value == pytest.approx(0.40)


def test_majority_and_zero_shot_come_from_the_runs_where_they_are_not_given(tmp_path: Path) -> None:
    write_run(tmp_path / "s", SEARCH, 0.70)
    comparison = compare([tmp_path])
    stand_ins = {row.label: row.runs[0].test.value for row in comparison.rows if row.stand_in}
    assert stand_ins == {"majority": 0.5, "zero-shot": pytest.approx(0.55)}
    assert any(
        note.startswith("from the other runs, which have it beside their results: majority and zero-shot;")
        for note in comparison.notes
    )
    write_run(tmp_path / "z", ZERO_SHOT, 0.55)
    assert {row.label for row in compare([tmp_path]).rows if row.stand_in} == {"majority"}


def test_where_nobody_beats_the_majority_class_a_warning_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "s", SEARCH, 0.52, zero_shot=0.5)
    write_run(tmp_path / "p", PROBE, 0.49, zero_shot=0.5)
    comparison = compare([tmp_path], out=tmp_path / "out")
    assert comparison.warnings[0].startswith("on toy every method is within chance of the majority class (50.0 %)")
    assert "warning: on toy every method is within chance" in comparison.text()
    assert "within chance" in (tmp_path / "out" / "page.html").read_text()


def test_different_test_splits_are_refused_in_words(tmp_path: Path) -> None:
    write_run(tmp_path / "s", SEARCH, 0.7)
    write_run(tmp_path / "p", PROBE, 0.9, truth=truth_of("other"))
    said = sentence(compare([tmp_path]), "logistic-regression")
    assert said.startswith("logistic-regression and gauss-newton cannot be compared on toy: their test splits differ (")
    assert "run both with the same task data and task.seed" in said


def test_other_seeds_and_other_metrics_are_refused_in_words(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"s{seed}", SEARCH, 0.7, seed=seed)
        write_run(tmp_path / f"p{seed}", PROBE, 0.9, seed=seed + 5)
    assert "run both with the same seeds" in sentence(compare([tmp_path]), "logistic-regression")
    write_run(tmp_path / "one" / "s", SEARCH, 0.7)
    write_run(tmp_path / "one" / "p", PROBE, 0.9, metric="macro_f1")
    assert "their metrics differ (accuracy, macro_f1)" in sentence(compare([tmp_path / "one"]), "logistic-regression")


def test_only_cells_that_both_have_count(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"s{seed}", SEARCH, 0.7, seed=seed)
    for seed in (1, 2):
        write_run(tmp_path / f"p{seed}", PROBE, 0.9, seed=seed)
    assert sentence(compare([tmp_path]), "logistic-regression").endswith("over 2 seeds")


def test_runs_of_one_draw_belong_together_where_only_their_other_seeds_differ(tmp_path: Path) -> None:
    for draw in (13, 21):
        write_run(tmp_path / f"s{draw}", SEARCH, 0.7, seed=draw, task_spec={"seed": draw})
        write_run(tmp_path / f"p{draw}", PROBE, 0.9, seed=0, task_spec={"seed": draw})
    assert sentence(compare([tmp_path]), "logistic-regression").endswith("over 2 seeds")


def test_methods_of_one_name_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    for tokens in (10, 20):
        for seed in range(2):
            write_run(tmp_path / f"{tokens}-{seed}", SEARCH, 0.7, seed=seed, prompt={"tokens": tokens})
    write_run(tmp_path / "other", SEARCH, 0.7, task="second", prompt={"tokens": 10}, task_spec={"seed": 21})
    expected = {"gauss-newton (prompt.tokens 10)", "gauss-newton (prompt.tokens 20)"}
    comparison = compare([tmp_path])
    assert labels(comparison) == expected
    assert {line.label for line in comparison.lines if line.task == "all 2 tasks"} == {
        "gauss-newton (prompt.tokens 10)",
        "majority",
        "zero-shot",
    }
    assert {pair.scope for pair in comparison.pairs} >= {"toy", "second"}


def test_dollars_in_labels_and_tasks_are_no_formulas(tmp_path: Path) -> None:
    write_run(tmp_path / "a", SEARCH, 0.7, task=r"a $\foo$", prompt={"text": r"costs $\frac$ or less"})
    write_run(tmp_path / "b", SEARCH, 0.8, task=r"a $\foo$", prompt={"text": "costs $5"})
    comparison = compare([tmp_path], out=tmp_path / "out")
    assert r"gauss-newton (prompt.text costs $\frac$ or less)" in {row.label for row in comparison.rows}


def test_methods_that_differ_in_much_are_told_apart_by_their_job(tmp_path: Path) -> None:
    write_run(tmp_path / "a", SEARCH, 0.7, name="small", prompt={"tokens": 10, "intrinsic_dim": 50, "place": "after"})
    write_run(tmp_path / "b", SEARCH, 0.7, name="large", prompt={"tokens": 20, "intrinsic_dim": 90})
    write_run(tmp_path / "c", PROBE, 0.7, model="package:other")
    found = labels(compare([tmp_path]))
    assert found == {
        "gauss-newton (small) on minilm",
        "gauss-newton (large) on minilm",
        "logistic-regression on other",
    }


def test_settings_of_one_label_have_the_same_number_on_every_task(tmp_path: Path) -> None:
    prompts = ({"tokens": 10, "intrinsic_dim": 50, "place": "after"}, {"tokens": 20, "intrinsic_dim": 90})
    for seed, task in enumerate(("toy", "second")):  # the later run of the one task is the earlier one of the other
        for prompt in prompts if seed else reversed(prompts):
            name = f"{task}-{prompt['tokens']}"
            write_run(tmp_path / name, SEARCH, 0.7, name="both", task=task, prompt=prompt)
    rows = [row for row in compare([tmp_path]).rows if not row.stand_in]
    tokens: dict[str, set[int]] = {}
    for row in rows:
        tokens.setdefault(row.label, set()).update(run.spec.prompt.tokens for run in row.runs)
    assert sorted(tokens) == ["gauss-newton (both)", "gauss-newton (both) #2"]
    assert sorted(map(len, tokens.values())) == [1, 1]


def test_settings_that_a_task_decides_do_not_split_a_method(tmp_path: Path) -> None:
    prompts = {
        "small": {"tokens": 10, "intrinsic_dim": 50, "place": "after"},
        "large": {"tokens": 20, "intrinsic_dim": 90},
    }
    for temperature, task in ((0.1, "toy"), (0.2, "second")):
        for name, prompt in prompts.items():
            backbone = {"model": "package:minilm", "temperature": temperature + (name == "large")}
            write_run(tmp_path / f"{task}-{name}", SEARCH, 0.7, name=name, task=task, prompt=prompt, backbone=backbone)
    assert labels(compare([tmp_path])) == {"gauss-newton (small)", "gauss-newton (large)"}


def test_two_models_of_one_short_name_have_a_row_each(tmp_path: Path) -> None:
    for parent in ("base", "tuned"):
        write_run(tmp_path / parent, SEARCH, 0.7, model=f"path:/models/{parent}/final")
    assert labels(compare([tmp_path])) == {"gauss-newton on final", "gauss-newton on final #2"}


def test_a_reference_is_never_the_run_that_a_stand_in_is_taken_from(tmp_path: Path) -> None:
    write_run(tmp_path / "a", PROBE, 0.7, name="probe-a")
    write_run(tmp_path / "b", {**PROBE, "strengths": [0.1]}, 0.7, name="probe-b")
    for name in ("probe-a", "probe-b"):
        assert compare([tmp_path], name).reference.startswith("logistic-regression (")


def test_seeds_of_one_draw_are_told(tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = write_run(tmp_path / str(seed), PROBE, 0.7, task_spec={"seed": seed}, seed=seed)
        result = json.loads((folder / RESULT).read_text())
        (folder / RESULT).write_text(json.dumps({**result, "fingerprints": {**result["fingerprints"], "task": "one"}}))
    comparison = compare([tmp_path])
    assert "toy has the same examples for every task.seed: seeds tell nothing of other draws there" in comparison.notes
    assert not any("the reference is" in note for note in comparison.notes)  # there is one method


def test_line_breaks_of_a_template_stay_out_of_labels(tmp_path: Path) -> None:
    for name in ("a\nb", "c\nd"):
        write_run(tmp_path / name[0], SEARCH, 0.7, task_spec={"template": f"{name} {{text}}"})
    assert labels(compare([tmp_path])) == {
        "gauss-newton (task.template a b {text})",
        "gauss-newton (task.template c d {text})",
    }


def test_an_interval_around_nothing_is_no_difference() -> None:
    effect = Effect(value=0.283, low=-0.0000096, high=0.483, p=0.029)
    pair = Pair("toy", "lora", "mlp", 1, effect, corrected=0.029)
    assert pair.verdict == "no significant difference"
    assert pair.sentence().startswith(
        "no significant difference between lora and mlp on toy: +28.3 points [-0.0, +48.3]"
    )
    assert replace(pair, effect=replace(effect, low=0.001)).verdict == "better"


def test_the_reference_is_asked_for_or_chosen_on_dev_and_never_on_test(tmp_path: Path) -> None:
    write_run(tmp_path / "a", SEARCH, 0.95, dev=0.6)
    write_run(tmp_path / "b", {"optimizer": "spsa"}, 0.60, dev=0.9, name="mine")
    comparison = compare([tmp_path])
    assert comparison.reference == "spsa"
    assert "the reference is spsa, the best on dev" in comparison.notes
    assert compare([tmp_path], "gauss-newton").reference == "gauss-newton"
    assert compare([tmp_path], "mine").reference == "spsa"
    assert compare([tmp_path], "majority").reference == "majority"
    with pytest.raises(BbtuneError, match=r"reference: expected one of .*, got 'spsaa', which is none; did you mean"):
        compare([tmp_path], "spsaa")


def test_several_tasks_have_a_mean_and_tests_of_it(tmp_path: Path) -> None:
    for task in ("one", "two", "three"):
        for seed in range(3):
            write_run(tmp_path / f"{task}-s{seed}", SEARCH, 0.70 + 0.01 * seed, seed=seed, task=task)
            write_run(tmp_path / f"{task}-p{seed}", PROBE, 0.90 - 0.01 * seed, seed=seed, task=task)
    comparison = compare([tmp_path])
    pair = next(pair for pair in comparison.pairs if (pair.label, pair.scope) == ("logistic-regression", "all 3 tasks"))
    assert pair.cells == 9
    assert pair.ranks is not None
    assert pair.flips is not None
    assert pair.corrected >= max(pair.ranks, pair.flips)
    assert pair.verdict == "better"
    assert pair.sentence().endswith("over 9 cells (task and seeds)")
    assert [line.task for line in comparison.lines][-1] == "all 3 tasks"
    assert comparison.profile_cells == 9
    assert comparison.profile["logistic-regression"][0] == 1.0
    assert comparison.profile["gauss-newton"][0] == 0.0
    assert comparison.profile["gauss-newton"][-1] == 1.0


def test_what_is_written_can_be_read_again(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / "runs" / f"s{seed}", SEARCH, 0.7, seed=seed)
        write_run(tmp_path / "runs" / f"p{seed}", PROBE, 0.9, seed=seed, curve=0)
    comparison = compare([tmp_path / "runs"], out=tmp_path / "out")
    names = ["table.csv", "pairs.csv", "summary.md", "page.html", "curves-toy.png", "tests-toy.png", "profile.png"]
    assert [path.name for path in comparison.files] == names
    for name, columns, count in (("table.csv", CSV, 4), ("pairs.csv", PAIRS_CSV, 3)):
        with (tmp_path / "out" / name).open() as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == columns
        assert len(rows) == count
    assert {row["method"]: row["verdict"] for row in rows}["majority"] in {"worse", "no significant difference"}
    page = (tmp_path / "out" / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page.replace("http-equiv", "")
    assert (tmp_path / "out" / "curves-toy.png").read_bytes()[:4] == b"\x89PNG"
    assert "| logistic-regression | 2 | 90.0 [" in (tmp_path / "out" / "summary.md").read_text()


def test_costs_are_in_the_table_and_stand_ins_have_none(tmp_path: Path) -> None:
    write_run(tmp_path / "s", SEARCH, 0.7)
    rows = {line.label: dict(zip(CSV, line.csv(), strict=True)) for line in compare([tmp_path]).lines}
    names = ("parameters", "evaluations", "examples", "backward_examples", "seconds", "peak_memory_mib")
    assert [rows["gauss-newton"][name] for name in names] == [400, 50, 5000, 0, 7.5, 512]
    assert {rows["zero-shot"][name] for name in names} == {""}


def test_texts_of_a_job_are_escaped_in_the_page(tmp_path: Path) -> None:
    write_run(tmp_path / "s", SEARCH, 0.7, task="<script>alert(1)</script>", task_spec={"source": "file:/data/x.csv"})
    comparison = compare([tmp_path / "s"], out=tmp_path / "out")
    page = (tmp_path / "out" / "page.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert all(path.parent == tmp_path / "out" for path in comparison.files)


def test_metrics_have_names_that_mlflow_takes(tmp_path: Path) -> None:
    for tokens in (10, 20):
        write_run(tmp_path / str(tokens), SEARCH, 0.7, prompt={"tokens": tokens})
    metrics = compare([tmp_path]).metrics()
    assert metrics["test_mean.toy.gauss-newton_prompt.tokens_10"] == pytest.approx(0.7)
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-/ ]+", name) for name in metrics)
    assert all(isinstance(value, float | int) for value in metrics.values())


def test_the_text_fits_a_terminal(tmp_path: Path) -> None:
    write_run(tmp_path / "s", SEARCH, 0.7)
    write_run(tmp_path / "p", PROBE, 0.9)
    text = compare([tmp_path]).text()
    assert len([line for line in text.splitlines() if line.startswith(("method", "gauss-newton ", "logistic"))]) == 3
    assert max(map(len, text.splitlines())) <= 120


def test_folders_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "good", SEARCH, 0.7)
    write_run(tmp_path / "torn", SEARCH, 0.7, seed=1)
    (tmp_path / "torn" / RESULT).write_text('{"name": ')
    write_run(tmp_path / "deep" / "bare", SEARCH, 0.7, seed=2)
    (tmp_path / "deep" / "bare" / PREDICTED).unlink()
    (tmp_path / "going").mkdir()
    (tmp_path / "going" / "journal.jsonl").write_text("{}\n")
    runs, left_out = load_runs([tmp_path, tmp_path / "good"])
    assert [run.folder.name for run in runs] == ["good"]
    assert len(left_out) == 3
    assert any("has not finished; bbtune resume" in said for said in left_out)
    assert any("torn is left out: its result cannot be read (JSONDecodeError" in said for said in left_out)
    assert set(left_out) <= set(compare([tmp_path]).notes)


def test_nothing_to_compare_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(BbtuneError, match=r"expected finished runs .* found none"):
        load_runs([tmp_path])
    with pytest.raises(BbtuneError, match="expected a run folder or a folder of runs, found nothing"):
        load_runs([tmp_path / "nowhere"])


def test_f1_finds_its_label_by_the_scores(tmp_path: Path) -> None:
    write_run(tmp_path / "s", SEARCH, 0.7, metric="f1")
    assert load_runs([tmp_path])[0][0].metric == Metric("f1", 2, 1)


def test_the_same_job_and_seeds_twice_count_once(tmp_path: Path) -> None:
    write_run(tmp_path / "a", SEARCH, 0.7)
    write_run(tmp_path / "b", SEARCH, 0.7)
    assert labels(compare([tmp_path / "a", tmp_path / "b"])) == {"gauss-newton (a)", "gauss-newton (b)"}
    write_run(tmp_path / "p", PROBE, 0.9)
    comparison = compare([tmp_path])
    assert labels(comparison) == {"gauss-newton", "logistic-regression"}
    assert any("the latest counts" in note for note in comparison.notes)


def test_curves_of_seeds_are_read_at_common_places(tmp_path: Path) -> None:
    write_run(tmp_path / "s", SEARCH, 0.7)
    run = load_runs([tmp_path])[0][0]
    first = [Point(10, 0, 0, 0, 0.0, None, 0.5), Point(30, 0, 0, 0, 0.0, None, 0.8)]
    second = [Point(20, 0, 0, 0, 0.0, None, 0.6), Point(40, 0, 0, 0, 0.0, None, 0.9)]
    runs = [replace(run, curve=tuple(points)) for points in (first, second)]
    places, heights = aligned(runs, lambda point: float(point.evaluations))
    assert places.tolist() == [20, 30, 40]
    np.testing.assert_array_equal(heights, [[0.5, 0.8, 0.8], [0.6, 0.6, 0.9]])


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (7.54, "7.5"), (400, "400"), (9999, "9999"), (12345, "12.3k"), (567890, "568k"), (22.7e6, "22.7M")],
)
def test_large_numbers_are_short(number: float, shown: str) -> None:
    assert short(number) == shown


def test_columns_of_a_text_table_are_aligned() -> None:
    table = text_table(["name", "n"], [["a", "1"], ["long name", "10"]])
    assert table.splitlines() == ["name        n", "---------  --", "a           1", "long name  10"]
