"""The test texts whose answer changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from bbtune import html
from bbtune.html import Text, element, lines
from bbtune.report.numbers import count, points
from bbtune.report.subject import Subject
from bbtune.task.metrics import UNDECIDED

MOST = 25  # of a kind of change
_LONGEST = 400  # characters of a text
_SHARED = "The page quotes texts of the test split: share it as you would share those."


@dataclass(frozen=True)
class Change:
    """One kind of change.

    Attributes:
        rows: indices into the test split, in its order.
    """

    title: str
    rows: NDArray[np.intp]

    @property
    def shown(self) -> NDArray[np.intp]:
        """At most MOST of them, evenly spread."""
        if len(self.rows) <= MOST:
            return self.rows
        places = np.linspace(0, len(self.rows) - 1, MOST).round().astype(int)
        return np.asarray(self.rows[places])


def changes(subject: Subject) -> list[Markup]:
    """Texts that went from wrong to right, from right to wrong, and from one mistake to another."""
    found = _changes(subject)
    sizes = ", ".join(f"{len(change.rows)} {change.title}" for change in found)
    parts = [html.text(f"Of {count(len(subject.run.truth), 'test text')}: {sizes}; the others did not change.")]
    if subject.texts is None:
        parts.append(html.text(f"Only the row numbers of the test split are shown: {subject.no_texts}.", "warning"))
    else:
        parts.append(html.text(_SHARED, "note"))
    return [*parts, *(part for change in found if len(change.rows) for part in _table(subject, change))]


def _changes(subject: Subject) -> list[Change]:
    truth, before, after = subject.run.truth, subject.run.zero_shot, subject.run.tuned
    if subject.words:
        kinds = {"answered better": after > before, "answered worse": after < before}
    else:
        was, now = before == truth, after == truth
        kinds = {"went from wrong to right": ~was & now, "went from right to wrong": was & ~now}
        kinds |= {"went from one wrong label to another": ~was & ~now & (before != after)}
    return [Change(title, np.flatnonzero(which)) for title, which in kinds.items()]


def _table(subject: Subject, change: Change) -> list[Markup]:
    capped = f"{len(change.shown)} of {len(change.rows)}, evenly spread over the test split"
    caption = capped if len(change.rows) > MOST else count(len(change.rows), "text")
    head = ["row", "text", "true", "before", "after"]
    columns = [i for i, name in enumerate(head) if _has(subject, name)]
    rows = lines(_row(subject, int(at), [head[i] for i in columns]) for at in change.shown)
    top = element("tr", *(element("th", head[i], scope="col") for i in columns))
    inside = lines([element("caption", caption), element("thead", top), element("tbody", rows)])
    title = f"{change.title[0].upper()}{change.title[1:]}"
    kind = "texts" if subject.texts is not None else "wide"
    return [element("h3", title), element("div", element("table", inside), class_=kind)]


def _has(subject: Subject, column: str) -> bool:
    """Whether a column is known: of answers in words, the true ones are in the task's data alone."""
    return subject.texts is not None or (column != "text" and not (column == "true" and subject.words))


def _row(subject: Subject, at: int, columns: list[str]) -> Markup:
    cells = {"text": lambda: _text(subject, at), "true": lambda: _truth(subject, at)}
    run = subject.run
    made = [element("th", str(at + 1), scope="row")]
    for name in columns[1:]:
        if name in cells:
            made.append(element("td", cells[name](), **({"data_of": name} if name == "true" else {})))
            continue
        value = (run.zero_shot if name == "before" else run.tuned)[at]
        right = value == run.truth[at]
        mark = "" if subject.words else "✓ " if right else "✗ "
        made.append(element("td", mark + _answer(subject, value), data_of=name, class_="yes" if right else "no"))
    return element("tr", *made)


def _answer(subject: Subject, value: float) -> str:
    if subject.words:
        return points(float(value))
    return "(no label)" if value == UNDECIDED else subject.result.labels[int(value)]


def _text(subject: Subject, at: int) -> Text:
    if subject.texts is None:
        return ""
    fields = subject.texts[at].fields()
    if len(fields) == 1:
        return _cut(next(iter(fields.values())))
    return Markup("<br>").join(element("b", f"{name}: ") + _cut(said) for name, said in fields.items())


def _truth(subject: Subject, at: int) -> str:
    if subject.words:
        return _cut(subject.texts[at].answer or "") if subject.texts else ""
    return subject.result.labels[int(subject.run.truth[at])]


def _cut(said: str) -> str:
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST].rstrip()} …"
