"""Scores of the run beside majority, zero-shot and other runs."""

from __future__ import annotations

from markupsafe import Markup

from bbtune import html
from bbtune.compare.pairs import against, sample
from bbtune.compare.rows import MAJORITY, ZERO_SHOT, Row
from bbtune.html import Text
from bbtune.report.charts import estimates_chart
from bbtune.report.numbers import count, with_interval
from bbtune.report.subject import Subject
from bbtune.result import Scored

_HEAD = ["what", "test", "dev", "gain over zero-shot", "numbers learned"]
_ON = "On the same test texts, pair by pair"
_RULES = (
    "Differences are in points with 95 % intervals, from resampling the test texts for both at once; p-values are "
    "corrected for the number of comparisons (Holm). “No significant difference” means that the test texts cannot "
    "tell the two apart, not that they are equal."
)


def scores(subject: Subject) -> list[Markup]:
    """Picture, table, and what the paired tests say of other runs."""
    mine, known = subject.row, subject.result.scores
    shown: list[tuple[str, Scored, Row | None]] = [(f"tuned: {mine.label}", known["tuned"], mine)]
    shown += [(row.label, row.runs[0].scores["tuned"], row) for row in subject.beside]
    shown += [("zero-shot (before)", known["zero_shot"], None), (MAJORITY, known["majority"], None)]
    if mine.method in (ZERO_SHOT, MAJORITY):
        shown = [item for item in shown if item[2] is not None or not item[0].startswith(mine.method)]
    rows: list[list[Text]] = []
    for name, scored, row in shown:
        run = row.runs[0] if row else None
        more = [with_interval(run.gain, signed=True), f"{run.parameters:,}"] if run else ["", ""]
        rows.append([name, with_interval(scored.test), with_interval(scored.dev), *more])
    metric = subject.result.metric
    chart = estimates_chart([name for name, _, _ in shown], [scored.test for _, scored, _ in shown], 0, metric)
    tested = count(len(subject.run.truth), "test text")
    parts = [
        html.figure(chart, f"Test scores with 95 % intervals, over {tested}."),
        html.table(_HEAD, rows, f"Scores ({metric}, on a scale of 100) with 95 % intervals"),
    ]
    if subject.beside:
        parts += [html.text(f"{_ON}:"), html.items(_sentences(subject)), html.text(_RULES, "note")]
    return parts


def _sentences(subject: Subject) -> list[str]:
    """What the paired tests say."""
    rows = [subject.row, *subject.beside]
    tuned, _ = sample([run for row in rows for run in row.runs])
    return [pair.sentence() for pair in against(rows, subject.row.label, tuned)]
