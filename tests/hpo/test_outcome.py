"""The end of a study: the best as a job, fresh seeds, and what is said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from spaces import ended, files

from bbtune.hpo.outcome import Seeds, fresh_seeds, gap_sentences, trained_again, tuned_sentences, write_best
from bbtune.hpo.record import STOPPED_EARLY
from bbtune.hpo.study import HpoStudy, Options, read_study
from bbtune.hpo.tuning import Tuned
from bbtune.jobfile import load_job
from bbtune.study_run import work_on

SETTINGS = {"method.sigma": 0.5, "method.population": 7, "method.accept": "improves"}


@pytest.fixture
def study(make_job: Any, tmp_path: Path) -> HpoStudy:
    job, path = files(make_job("bert", name="tiny"), tmp_path)
    return read_study(job, path, Options())


def tuned(*trials: Any, **parts: Any) -> Tuned:
    best = max(trials, key=lambda trial: (trial.standing.dev_metric, -trial.number))
    return Tuned(best, trials[0], trials, parts.get("faults", {}), "uid")


BETTER = (ended(0, 0.5), ended(1, 0.75, settings=SETTINGS), ended(2, 0.25, reason=STOPPED_EARLY))
SAME = (ended(0, 0.75), ended(1, 0.75, settings=SETTINGS))


def drawn(task: Path, folder: Path, *seeds: int) -> str:
    for seed in seeds:
        (folder / f"seed{seed}").mkdir(parents=True)
        for path in task.iterdir():
            shutil.copy(path, folder if path.name in {"task.json", "test.jsonl"} else folder / f"seed{seed}")
    return f"folder:{folder}"


def test_fresh_seeds_are_draws_that_the_search_has_not_used(make_job, tiny_task, tmp_path) -> None:
    source = drawn(tiny_task, tmp_path / "drawn", 13, 21, 42, 87)
    spec = make_job("bert", task={"source": source}, seed=42)
    assert fresh_seeds(spec, 2) == Seeds((21, 87), "")
    many = fresh_seeds(spec, 5)
    assert many.fresh == (21, 87)
    assert many.note == "the task has 2 draws that the search has not used, 5 were asked for"
    job = many.job(spec, 21)
    assert (job.task.seed, job.seed) == (21, 21)


def test_without_a_fresh_draw_only_the_seed_of_everything_random_is_another(make_job, tiny_task, tmp_path) -> None:
    for source in (drawn(tiny_task, tmp_path / "drawn", 13), f"folder:{tiny_task}", "builtin:support"):
        spec = make_job("bert", task={"source": source})  # task.seed 13, seed 3
        seeds = fresh_seeds(spec, 3)
        assert seeds.fresh == (1, 2, 4)
        assert "no draw that the search has not used" in seeds.note
        assert (seeds.job(spec, 1).task.seed, seeds.job(spec, 1).seed) == (13, 1)


def test_a_table_is_drawn_from_with_any_seed(make_job) -> None:
    spec = make_job("bert", task={"source": "file:/some/table.csv", "seed": 2, "shots": 4}, seed=1)
    assert fresh_seeds(spec, 3) == Seeds((3, 4, 5), "")


def test_the_best_settings_are_written_as_a_job_that_can_be_run(study, tmp_path) -> None:
    path = write_best(study, tuned(*BETTER), tmp_path)
    text = path.read_text()
    assert text.startswith(
        "# Found by bbtune hpo: trial 1 of 3, dev 0.750 (selected, so optimistic); the job as it was"
    )
    assert "# method.sigma 0.5, method.population 7, method.accept improves\n" in text
    job = load_job(path)
    assert job == study.space.spec(SETTINGS)
    assert (job.evaluators, job.tracking) == (study.spec.evaluators, study.spec.tracking)


def test_a_best_text_of_several_lines_leaves_a_job_that_can_be_run(make_job, tmp_path) -> None:
    lines = "It was\n{text} and {mask}"
    parameters = {"task.template": {"choice": [lines, "{text} was {mask}"]}}
    study = read_study(*files(make_job("bert"), tmp_path, parameters=parameters), Options())
    found = tuned(ended(0, 0.5), ended(1, 0.75, settings={"task.template": lines}))
    assert load_job(write_best(study, found, tmp_path)).task.template == lines


def test_the_best_and_the_job_as_it_was_are_trained_with_the_same_seeds(study, tmp_path) -> None:
    again = trained_again(study, tuned(*BETTER), tmp_path, Seeds((21, 42), ""))
    assert [member.folder.name for member in again.members] == [
        "tiny-seed21",
        "tiny-seed42",
        "tiny-best-seed21",
        "tiny-best-seed42",
    ]
    assert [m.spec.method.sigma for m in again.members] == [0.2, 0.2, 0.5, 0.5]
    assert [m.spec.task.seed for m in again.members] == [21, 42, 21, 42]
    assert again.reference == "tiny"
    assert {m.spec.evaluators.pool for m in again.members} == {"shared"}


def test_a_job_that_nothing_beats_is_trained_alone_and_said_to_be_the_best(study, tmp_path) -> None:
    found = tuned(*SAME)
    again = trained_again(study, found, tmp_path, Seeds((21,), ""))
    assert [member.folder.name for member in again.members] == ["tiny-seed21"]
    assert again.reference is None
    lines = tuned_sentences(study, found, tmp_path / "best.yaml")
    assert "no settings did better on dev than the job as it was: dev 0.750 (loss 0.500)" in lines
    assert "there is nothing to compare" in gap_sentences(study, found, again, Seeds((21,), ""))[-1]


def test_what_the_trials_have_shown_is_said(study, tmp_path) -> None:
    lines = tuned_sentences(study, tuned(*BETTER, faults={3: "it broke"}), tmp_path / "best.yaml")
    assert lines == [
        "hpo of tiny: 3 trials by optuna, 1 stopped early, 1 without a result, 60 evaluations in all",
        "  trial 3 failed: it broke",
        "best on dev: trial 1, dev 0.750 (loss 0.500); the job as it was: dev 0.500 (loss 0.500)",
        "  method.sigma 0.5, method.population 7, method.accept improves",
        f"the best job: {tmp_path / 'best.yaml'}",
    ]


def test_the_gap_between_selected_and_fresh_scores_is_said(study, tmp_path) -> None:
    found, seeds = tuned(*BETTER), Seeds((21,), "a note")
    again = trained_again(study, found, tmp_path, seeds)
    for member in again.members:
        alone = member.spec.model_copy(update={"evaluators": study.spec.evaluators})
        work_on(alone, member.folder)
    note, best, gap, was = gap_sentences(study, found, again, seeds)
    assert note == "a note"
    assert best.startswith("the best settings, trained again with one fresh seed: dev ")
    assert gap.startswith("  the study saw dev 0.750, selected of 3 trials, so optimistic: 0.")
    assert " test of the fresh seeds" in gap
    assert was.startswith("the job as it was, trained again with one fresh seed: dev ")
