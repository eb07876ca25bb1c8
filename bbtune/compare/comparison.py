"""The comparison of runs: ``bbtune compare``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import TextWrapper, fill

from bbtune import html
from bbtune.compare import plain, plots
from bbtune.compare.pairs import RULE, TAUS, Pair, against, choose_reference, profile, sample
from bbtune.compare.rows import MAJORITY, ZERO_SHOT, Row, make_rows
from bbtune.compare.runs import is_run, load_runs, model_name
from bbtune.compare.table import CSV, HEAD, PAID, PAIRS_CSV, Line, make_lines, pair_csv

TABLE, PAIRS, SUMMARY, PAGE = "table.csv", "pairs.csv", "summary.md", "page.html"
_INTERVALS = (
    "Intervals are of 95 %: of one run over the test examples, of several seeds over examples and seeds. So few seeds "
    "as two or three say little of the next, and widen an interval a lot. Costs are means over the seeds, before the "
    "test split was touched; memory is the highest."
)
_HOLM = "p-values are corrected for the number of rows (Holm), intervals are not"
_WIDTH = 120
_NUMBERS = range(4, len(HEAD))  # columns of HEAD that every text table shows


@dataclass(frozen=True)
class Comparison:
    """Methods side by side.

    Attributes:
        rows: methods by task; lines: what the table shows of them, and their means over tasks.
        reference: label of the row that all others are tested against; pairs: those tests.
        warnings: what makes the comparison worth little; notes: how to read it, and what was left out.
        profile: share of cells within TAUS of the best, by label; profile_cells: their number.
        files: written by :meth:`write`, in its order.
    """

    rows: tuple[Row, ...]
    lines: tuple[Line, ...]
    reference: str
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    profile: dict[str, list[float]]
    profile_cells: int
    files: tuple[Path, ...] = field(default=())

    @property
    def tasks(self) -> list[str]:
        """Names, sorted; after them the mean over tasks, where there is one."""
        return list(dict.fromkeys(line.task for line in self.lines))

    def sentences(self, task: str) -> list[str]:
        """What the tests say on a task, or on all."""
        return [pair.sentence() for pair in self.pairs if pair.scope == task]

    def scopes(self) -> list[str]:
        """Tasks, then each number of tasks that pairs share."""
        return list(dict.fromkeys([*self.tasks, *(pair.scope for pair in self.pairs)]))

    def text(self) -> str:
        """Tables and sentences for a terminal."""
        parts = []
        for scope in self.scopes():
            head, rows = self._table(scope)
            table = [plain.text_table(head, rows)] if rows else []
            parts.append("\n".join([scope, *table, *map(_wrapped, self.sentences(scope))]))
        parts += [fill(f"warning: {warning}", _WIDTH) for warning in self.warnings]
        return "\n\n".join([*parts, "\n".join(map(_wrapped, self.notes))]) + "\n"

    def markdown(self) -> str:
        """The same for a file."""
        parts = ["# Comparison", *(f"**{warning}**" for warning in self.warnings)]
        for scope in self.scopes():
            head, rows = self._table(scope)
            table = [plain.markdown_table(head, rows)] if rows else []
            parts += [f"## {scope}", *table, _list(self.sentences(scope))]
        return "\n\n".join([*filter(None, parts), "## Notes", _list(self.notes), RULE, _INTERVALS]) + "\n"

    def _table(self, task: str) -> tuple[list[str], list[list[str]]]:
        """Head and rows of a task; the backbone only if there are several, what was paid only if something was."""
        several = len({line.model for line in self.lines} - {""}) > 1
        paid = any(line.cost.get("requests") for line in self.lines)
        columns = [0, *([1] if several else []), 3, *(i for i in _NUMBERS if paid or i not in PAID)]
        rows = [line.shown() for line in self.lines if line.task == task]
        return [HEAD[i] for i in columns], [[row[i] for i in columns] for row in rows]

    def metrics(self) -> dict[str, float]:
        """Plain numbers by name, in characters that MLflow takes: ``test_mean.TASK.METHOD`` and the like."""
        found: dict[str, float] = {}
        for line in self.lines:
            of = f"{_safe(line.task)}.{_safe(line.label)}"
            found |= {f"test_mean.{of}": line.test.value, f"test_low.{of}": line.test.low}
            found |= {f"test_high.{of}": line.test.high, f"gain.{of}": line.gain.value, f"dev_mean.{of}": line.dev}
            found |= {f"{name}.{of}": value for name, value in line.cost.items()}
        for pair in self.pairs:
            if pair.effect is not None:
                of = f"{_safe(pair.scope)}.{_safe(pair.label)}"
                found |= {f"difference.{of}": pair.effect.value, f"p_holm.{of}": pair.corrected}
        return found

    def write(self, folder: str | Path) -> Comparison:
        """Write tables, summary, plots and page; returns the comparison with its files."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        images = self._plots(folder)
        texts = {
            TABLE: plain.csv_text(CSV, (line.csv() for line in self.lines)),
            PAIRS: plain.csv_text(PAIRS_CSV, (pair_csv(pair) for pair in self.pairs)),
            SUMMARY: self.markdown(),
            PAGE: self._html(images),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        files = [*(folder / name for name in texts), *(path for _, _, path in images)]
        return replace(self, files=tuple(files))

    def _plots(self, folder: Path) -> list[tuple[str, str, Path]]:
        """Scope, what is shown, and file of each plot."""
        labels = list(dict.fromkeys(row.label for row in self.rows))
        found = []
        for task in sorted({row.task for row in self.rows}):
            curves, tests = (folder / f"{kind}-{_safe(task)}.png" for kind in ("curves", "tests"))
            plots.plot_curves([row for row in self.rows if row.task == task], labels, curves)
            lines = [line for line in self.lines if line.task == task]
            untuned = [row for row in self.rows if row.task == task and row.method in (MAJORITY, ZERO_SHOT)]
            means = {line.label: line.test.value for line in lines}
            plots.plot_tests(lines, {row.label: means[row.label] for row in untuned}, tests)
            found += [(task, f"dev curves on {task}", curves), (task, f"test scores on {task}", tests)]
        if self.profile_cells > 1:
            path = folder / "profile.png"
            plots.plot_profile(list(TAUS), self.profile, self.profile_cells, path)
            found.append(("", "performance profile", path))
        return found

    def _html(self, images: Sequence[tuple[str, str, Path]]) -> str:
        parts = [html.text(warning, "warning") for warning in self.warnings]
        for number, scope in enumerate([*self.scopes(), ""]):
            head, rows = self._table(scope)
            inside = [html.table(head, rows, f"Methods on {scope}")] if rows else []
            inside += [html.items(said)] if (said := self.sentences(scope)) else []
            inside += [html.figure(html.png(path, shows), shows) for of, shows, path in images if of == scope]
            title = scope or "Over all cells"
            parts += [html.section(f"part-{number}", title, inside)] if inside else []
        notes = [html.items(self.notes), html.text(RULE), html.text(_INTERVALS)]
        return html.page("Comparison", [*parts, html.section("notes", "Notes", notes)])


def compare(paths: Iterable[str | Path], reference: str | None = None, out: str | Path | None = None) -> Comparison:
    """Compare finished runs.

    Args:
        paths: run folders, or folders that hold some at any depth. Runs of one method that are named one by one are
            compared with each other; those of a folder are the method over its seeds.
        reference: label, method or job name of the row that the others are tested against; without one, the only
            search, else the best on dev.
        out: folder to write to.

    Raises:
        BbtuneError: if there is nothing to compare, or no such reference.
    """
    asked = list(paths)
    runs, left_out = load_runs(asked)
    rows, notes = make_rows(runs, apart=all(is_run(path) for path in asked))
    chosen, why = choose_reference(rows, reference)
    tuned, zero_shot = sample([run for row in rows for run in row.runs])
    lines = make_lines(rows, tuned, zero_shot)
    shares, cells = profile(rows)
    models = sorted({run.model for run in runs})
    backbone = [f"backbone {model_name(models[0])}"] if len(models) == 1 else []
    comparison = Comparison(
        rows=tuple(rows),
        lines=tuple(lines),
        reference=chosen,
        pairs=tuple(against(rows, chosen, tuned)),
        warnings=tuple(_at_chance(rows, lines)),
        notes=(*filter(None, [why]), _HOLM, *backbone, *notes, *left_out),
        profile=shares,
        profile_cells=cells,
    )
    return comparison if out is None else comparison.write(out)


def _at_chance(rows: Sequence[Row], lines: Sequence[Line]) -> list[str]:
    """A sentence on every task of which no method knows anything.

    A method of several seeds is above the majority class if its interval is, or if that of each of its runs is.
    """
    lows = {(line.task, line.label): line.test.low for line in lines}
    found = []
    for task in sorted({row.task for row in rows}):
        here = [row for row in rows if row.task == task and row.method != MAJORITY]
        majority = max(run.scores["majority"].test.value for row in here for run in row.runs)
        above = [row for row in here if max(lows[task, row.label], min(run.test.low for run in row.runs)) > majority]
        if here and not above:
            found.append(
                f"on {task} every method is within chance of the majority class ({100 * majority:.1f} %): no interval "
                "lies above it, so differences between them say nothing; take another backbone, template or label words"
            )
    return found


def _wrapped(sentence: str) -> str:
    """An item of a list in a terminal; paths are left whole."""
    wrapper = TextWrapper(_WIDTH, "- ", "  ", break_long_words=False, break_on_hyphens=False)
    return wrapper.fill(sentence)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.\-]+", "_", name).strip("_")


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"* {sentence}" for sentence in sentences)
