"""Trials: on train and dev alone, gone on with from their journals, and the folder that Ray Tune's pickles lie in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from spaces import space_of

from bbtune.errors import BbtuneError, JobError
from bbtune.hpo.private import private_folder
from bbtune.hpo.record import Standing
from bbtune.hpo.trial import Trials, run_trial, shared_evaluators
from bbtune.jobfile import parse_job
from bbtune.journal import read_journal
from bbtune.result import JOURNAL


def steps(spec: Any, folder: Path) -> list[tuple[Standing, str]]:
    return list(run_trial(spec, folder))


def alike(found: list[tuple[Standing, str]]) -> list[Any]:
    """Without the clock."""
    return [(s.dev_metric, s.dev_loss, s.train_loss, s.evaluations, s.examples, why) for s, why in found]


def test_a_trial_says_where_it_stands_after_each_generation_and_why_it_stopped(make_job, tmp_path) -> None:
    found = steps(make_job("bert"), tmp_path / "trial")
    assert [why for _, why in found] == [""] * (len(found) - 1) + ["budget.evaluations"]
    standings = [standing for standing, _ in found]
    assert standings[-1] == standings[-2]
    assert standings[-1].evaluations <= 40
    best = [(standing.dev_metric, -standing.dev_loss) for standing in standings]
    assert best == sorted(best)
    scores = [standing.score for standing in standings]
    assert scores == sorted(scores)


def test_a_trial_whose_budget_ends_before_its_first_generation_says_so(make_job, tmp_path) -> None:
    with pytest.raises(BbtuneError, match=r"it ended before its first generation \(budget.seconds\); raise the budget"):
        steps(make_job("bert", budget={"evaluations": None, "seconds": 1e-9}), tmp_path / "trial")


def test_a_trial_scores_train_and_dev_and_never_test(make_job, tiny_task, tmp_path) -> None:
    other = tmp_path / "poisoned"
    shutil.copytree(tiny_task, other)
    rows = [json.loads(line) for line in (other / "test.jsonl").read_text().splitlines()]
    wrong = [json.dumps({"text": "dull " * 5, "label": 1 - row["label"]}) for row in rows]
    (other / "test.jsonl").write_text("\n".join(wrong) + "\n")
    folders = {name: tmp_path / name for name in ("clean", "other")}
    clean = steps(make_job("bert"), folders["clean"])
    assert alike(steps(make_job("bert", task={"source": f"folder:{other}"}), folders["other"])) == alike(clean)
    for folder in folders.values():
        splits = {record["split"] for record in read_journal(folder / JOURNAL) if record["event"] == "scores"}
        assert splits == {"train", "dev"}
        assert not (folder / "result.json").exists()


def test_a_trial_that_was_cut_off_goes_on_by_replay(make_job, tmp_path) -> None:
    whole = steps(make_job("bert"), tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    lines = (tmp_path / "whole" / JOURNAL).read_bytes().splitlines(keepends=True)
    shutil.copy(tmp_path / "whole" / "spec.yaml", tmp_path / "cut")
    (tmp_path / "cut" / JOURNAL).write_bytes(b"".join(lines[:7]) + lines[7][:20])
    again = steps(make_job("bert"), tmp_path / "cut")
    assert alike(again) == alike(whole)
    assert [s.unix_ms for s, _ in again[:3]] == [s.unix_ms for s, _ in whole[:3]]


def test_a_trial_that_was_closed_early_leaves_its_journal(make_job, tmp_path) -> None:
    trial = run_trial(make_job("bert"), tmp_path / "trial")
    next(trial)
    next(trial)
    trial.close()
    assert len(steps(make_job("bert"), tmp_path / "trial")) > 3


def test_settings_that_do_not_fit_the_data_are_a_fault_and_no_score(make_job, tmp_path) -> None:
    spec = make_job("bert", task={"label_words": ["bad"]})
    with pytest.raises(JobError, match=r"task\.label_words"):
        steps(spec, tmp_path / "trial")


def test_a_trial_has_the_same_folder_whenever_it_is_begun(make_job, tmp_path) -> None:
    trials = Trials(space_of(make_job("bert")), str(tmp_path))
    first = trials.place(3, {"method.sigma": 0.5})
    assert first == trials.place(3, {"method.sigma": 0.5})
    assert first.name.startswith("trial03-")
    assert first != trials.place(3, {"method.sigma": 0.6})


def test_searches_share_evaluators_and_others_do_not(make_job, tiny_models, tiny_task) -> None:
    search = shared_evaluators(make_job("bert"))
    assert (search.evaluators.count, search.evaluators.pool) == (1, "shared")
    assert search.spec_hash == make_job("bert").spec_hash
    many = shared_evaluators(make_job("bert", evaluators={"count": 3}))
    assert many.evaluators.count == 3
    base = {"task": {"source": f"folder:{tiny_task}"}, "backbone": {"model": f"path:{tiny_models['bert']}"}}
    for given, expected in ((0, 0), (1, 0), (2, 2)):
        raw = {**base, "method": {"name": "lora"}, "evaluators": {"count": given}}
        found = shared_evaluators(parse_job(raw)[0])
        assert (found.evaluators.count, found.evaluators.pool) == (expected, "private")


def test_pickles_are_read_from_a_folder_of_ones_own_alone(tmp_path) -> None:
    folder = tmp_path / "tune"
    private_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    private_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    for mode in (0o770, 0o777, 0o702):
        folder.chmod(mode)
        with pytest.raises(BbtuneError, match="no one else can write"):
            private_folder(folder)


def test_a_link_or_somebody_elses_folder_is_refused(tmp_path, monkeypatch) -> None:
    private_folder(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(BbtuneError, match="a folder of your own"):
        private_folder(tmp_path / "link")
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(BbtuneError, match="a folder of your own"):
        private_folder(tmp_path / "real")
