"""The report of the study of searches, on made-up cells."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SEEDS = [13, 21, 42]


@pytest.fixture(scope="module")
def study() -> Any:
    """The script as a module; it finds its neighbours in its own folder."""
    before = sys.path[:]
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import search_quality

        yield search_quality
    finally:
        sys.path[:] = before


def write_cell(
    root: Path, name: str, tests: dict[int | None, str], spent: int = 0, every: int = 10, searched: str | None = None
) -> None:
    """A cell of ``tests``: which examples are right, by calls; found at once, ``every`` layer-forwards a call."""
    folder = root / name
    folder.mkdir(parents=True)
    points = [
        {"calls": calls, "found_at": calls, "layer_forwards": None if calls is None else calls * every}
        | {"dev": 0.5, "test": right.count("1") / len(right), "right": right}
        for calls, right in tests.items()
    ]
    cell = {"name": name, "searched": searched or name, "points": points, "seconds": 1.5}
    (folder / "cell.json").write_text(json.dumps(cell))
    if spent:
        lines = [json.dumps({"event": "start"}), json.dumps({"event": "scores", "layer_forwards": spent}), '{"torn']
        (folder / "journal.jsonl").write_text("\n".join(lines))


def made_up(study: ModuleType, gain: float, method: str) -> dict[tuple[str, int, str], float]:
    """Values of all cells of two methods, the second ahead by about ``gain``."""
    rng = np.random.default_rng(5)
    values = {}
    for task, seed in itertools.product(study.TASKS, SEEDS):
        values[task, seed, "paper-bbtv2"] = 60 + rng.normal()
        values[task, seed, method] = values[task, seed, "paper-bbtv2"] + gain + rng.normal()
    return values


def test_the_area_is_that_under_the_steps_up_to_the_end(study: ModuleType) -> None:
    steps = [(0, 0.5), (100, 0.6), (300, 0.8)]
    assert study.area(steps, 600) == pytest.approx((100 * 0.5 + 200 * 0.6 + 300 * 0.8) / 600)
    assert study.area(steps, 200) == pytest.approx((100 * 0.5 + 100 * 0.6) / 200)
    assert study.area([(0, 0.5), (0, 0.7)], 10) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (1.0, "spsa is better than paper-bbtv2"),
        (-1.0, "spsa is worse than paper-bbtv2"),
        (0.0, "no significant difference between spsa and paper-bbtv2"),
    ],
)
def test_paired_tests_say_what_is_so(study: ModuleType, gain: float, said: str) -> None:
    compared = study.compare(made_up(study, gain, "spsa"), "paper-bbtv2")
    assert list(compared) == ["spsa"]
    assert compared["spsa"][2] == said


def test_only_cells_that_both_methods_have_are_compared(study: ModuleType) -> None:
    values = made_up(study, 1.0, "spsa")
    del values["sst-2", 13, "spsa"], values["mr", 21, "paper-bbtv2"]
    pairs = study.paired(values, "spsa", "paper-bbtv2")
    assert len(pairs) == len(study.TASKS) * len(SEEDS) - 2
    assert study.compare(values, "elitist-cma") == {}


def test_curves_begin_at_zero_shot_and_end_at_the_least_that_was_spent(study: ModuleType, tmp_path: Path) -> None:
    write_cell(tmp_path, "sst-2-13-zero-shot", {None: "1000"})
    write_cell(tmp_path, "sst-2-13-paper-bbtv2", {100: "1100", 300: "1110", 600: "1111"}, spent=6000)
    write_cell(tmp_path, "sst-2-13-spsa", {100: "1100", 300: "1110", 600: "1111"}, spent=12000, every=20)
    write_cell(tmp_path, "sst-2-13-spsa-by-loss", {100: "1100", 300: "1110", 600: "1111"}, 0, 20, "sst-2-13-spsa")
    found = study.quantities(study.load_cells([tmp_path], SEEDS))
    calls, forwards = found["curve against calls"], found["curve against layer-forwards"]
    expected = (100 * 25 + 200 * 50 + 300 * 75) / 600
    methods = ("paper-bbtv2", "spsa", "spsa-by-loss")
    assert calls == pytest.approx({("sst-2", 13, method): expected for method in methods})
    assert forwards["sst-2", 13, "paper-bbtv2"] == pytest.approx(expected)
    assert (
        forwards["sst-2", 13, "spsa-by-loss"]
        == forwards["sst-2", 13, "spsa"]
        == pytest.approx((2000 * 25 + 4000 * 50) / 6000)
    )


def test_a_search_of_another_budget_has_one_point_and_no_curve(study: ModuleType, tmp_path: Path) -> None:
    write_cell(tmp_path, "sst-2-13-zero-shot", {None: "1000"})
    write_cell(tmp_path, "sst-2-13-paper-bbtv2", {100: "1100", 300: "1110", 600: "1111"}, spent=6000)
    write_cell(tmp_path, "sst-2-13-paper-bbtv2-1000", {1000: "1011"}, spent=10000)
    cells = study.load_cells([tmp_path], SEEDS)
    found = study.quantities(cells)
    long = ("sst-2", 13, "paper-bbtv2-1000")
    assert [found[f"test accuracy after {calls} calls"][long] for calls in (100, 300, 600)] == [75.0, 75.0, 75.0]
    assert long not in found["curve against calls"]
    page = study.page(cells, SEEDS, ["paper-bbtv2-1000", "paper-bbtv2"])
    assert "| paper-bbtv2-1000 | 1 of 9 cells |" in page
    assert "| paper-bbtv2-1000 | 1000 | 75.0 (1 of 24 cells) |" in page
    assert page.count("### Test accuracy after 300 calls, ") == 1
    assert "### Test accuracy after 300 calls, paper-bbtv2 after 600" in page
    assert study._sooner(cells, "paper-bbtv2")["test accuracy after 300 calls, paper-bbtv2 after 600"] == {
        ("sst-2", 13, "paper-bbtv2"): 100.0,
        ("sst-2", 13, "zero-shot"): 25.0,
        long: 75.0,
    }


def test_a_report_on_two_cells_says_what_is_missing(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = "10" * 50
    write_cell(tmp_path / "a", "sst-2-13-zero-shot", {None: right})
    write_cell(tmp_path / "b", "sst-2-13-paper-bbtv2", {100: right, 300: right, 600: "11" * 50}, spent=6000)
    asked = ["report", "--out", str(tmp_path / "a"), str(tmp_path / "b"), "--against", "zero-shot"]
    asked += ["--csv", str(tmp_path / "study.csv"), "--page", str(tmp_path / "study.md")]
    monkeypatch.setattr(sys, "argv", ["search_quality.py", *asked])
    study.main()
    with (tmp_path / "study.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["calls"], row["test"]) for row in rows] == [
        ("paper-bbtv2", "100", "0.5"),
        ("paper-bbtv2", "300", "0.5"),
        ("paper-bbtv2", "600", "1.0"),
        ("zero-shot", "", "0.5"),
    ]
    page = (tmp_path / "study.md").read_text()
    assert "| paper-bbtv2 | 1 of 24 cells |" in page
    assert "| spsa | 0 of 24 cells |" in page
    assert "| paper-bbtv2 | 600 | 100.0 (1 of 24 cells) | 100.0 (1 of 12 cells) | none (0 of 12 cells) |" in page
    assert "+50.0 [+40.0, +60.0] better (1 of 3 seeds)" in page
    assert "+0.0 [+0.0, +0.0] not worse than by noise (1 of 3 seeds)" in page
