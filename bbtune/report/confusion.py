"""Where the answers are right and wrong: confusion matrices and recall, of answers in words their scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from bbtune import html
from bbtune.html import element
from bbtune.report.numbers import points
from bbtune.report.subject import Subject
from bbtune.task.metrics import UNDECIDED, Labels

_MOST_LABELS = 20  # of a matrix that is shown as such
_MOST_BESIDE = 8  # of two matrices side by side
_MOST_PAIRS = 15
_NONE = "(no label)"
Counts = NDArray[np.int64]


def answers(subject: Subject) -> list[Markup]:
    """Matrices before and after, and recall per label; of answers in words how their scores lie."""
    run = subject.run
    if subject.words:
        return _in_words(run.zero_shot, run.tuned)
    before, after = (confusion(run.truth, given, len(run.labels)) for given in (run.zero_shot, run.tuned))
    return _of_labels(run.labels, before, after)


def confusion(truth: Labels, predicted: Labels, classes: int) -> Counts:
    """How often each label (rows) was given each label, or none, in the last column: (C, C + 1)."""
    counts = np.zeros((classes, classes + 1), dtype=np.int64)
    given = np.where(predicted == UNDECIDED, classes, predicted)
    np.add.at(counts, (truth.astype(np.int64), given.astype(np.int64)), 1)
    return counts


def _of_labels(labels: Sequence[str], before: Counts, after: Counts) -> list[Markup]:
    said = "A row holds the test texts of one true label, a column those that were given a label. Right answers are on "
    said += "the diagonal; the stronger the colour, the larger the share of its row."
    recalls = _recall_table(labels, before, after)
    if len(labels) > _MOST_LABELS:
        lists = [_pairs_table(labels, before, "before (zero-shot)"), _pairs_table(labels, after, "after (tuned)")]
        return [html.text("The labels are too many for a matrix: the most frequent mistakes."), *lists, recalls]
    pair = [_matrix(labels, before, "Before (zero-shot)"), _matrix(labels, after, "After (tuned)")]
    beside = element("div", *pair, class_="pair") if len(labels) <= _MOST_BESIDE else html.lines(pair)
    return [html.text(said), beside, recalls]


def _matrix(labels: Sequence[str], counts: Counts, title: str) -> Markup:
    columns = [*labels, _NONE] if counts[:, -1].any() else list(labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def cell(i: int, j: int) -> Markup:
        kind = "none" if not counts[i, j] else "right" if i == j else "wrong"
        return element("td", str(counts[i, j]), class_=kind, style=f"--share:{0.08 + 0.62 * shares[i, j]:.2f}")

    head = [element("th", "true ↓ given →", scope="col", class_="name")]
    head += [element("th", column, scope="col", class_="given") for column in columns]
    rows = [
        element("tr", element("th", label, scope="row", class_="name"), *(cell(i, j) for j in range(len(columns))))
        for i, label in enumerate(labels)
    ]
    caption = element("caption", f"{title}: counts of test texts")
    inside = html.lines([caption, element("thead", element("tr", *head)), element("tbody", html.lines(rows))])
    return element(
        "div", element("table", inside), class_="wide heat" if len(labels) <= _MOST_BESIDE else "wide heat many"
    )


def _pairs_table(labels: Sequence[str], counts: Counts, when: str) -> Markup:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    names = [*labels, _NONE]
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    places = [divmod(int(at), wrong.shape[1]) for at in order]
    rows = [[labels[i], names[j], str(wrong[i, j]), str(counts[i].sum())] for i, j in places if wrong[i, j]]
    return html.table(["true", "given", "texts", "of"], rows, f"Most frequent mistakes {when}", names=2)


def _recall_table(labels: Sequence[str], before: Counts, after: Counts) -> Markup:
    rows = []
    for i, label in enumerate(labels):
        size = int(after[i].sum())
        if not size:
            rows.append([label, "0", "", "", ""])
            continue
        old, new = before[i, i] / size, after[i, i] / size
        rows.append([label, str(size), _bar(old, "before"), _bar(new), points(new - old, signed=True)])
    head = ["label", "test texts", "before", "after", "change, points"]
    return html.table(head, rows, "Recall: of the test texts of a label, the share that was given it, in percent")


def _bar(share: float, kind: str = "") -> Markup:
    inside = element("i", "", style=f"width:{100 * share:.0f}%")
    return Markup(points(share)) + element("span", inside, class_=f"bar {kind}".strip(), aria_hidden="true")


def _in_words(before: Labels, after: Labels) -> list[Markup]:
    edges = {"0": (-1.0, 0.0), "up to 25": (0.0, 0.25), "up to 50": (0.25, 0.5), "up to 75": (0.5, 0.75)}
    edges |= {"below 100": (0.75, 1.0 - 1e-9), "100": (1.0 - 1e-9, 2.0)}
    rows = []
    for name, (low, high) in edges.items():
        old, new = (np.mean((of > low) & (of <= high)) for of in (before, after))
        rows.append([name, _bar(float(old), "before"), _bar(float(new))])
    said = "Answers are words, so there are no labels to confuse. Every answer has a score of its own, from 0 to 100."
    return [html.text(said), html.table(["score", "before", "after"], rows, "Share of test texts by score, in percent")]
