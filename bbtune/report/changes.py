"""The test texts whose answer changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from bbtune import html
from bbtune.html import Text, element, lines
from bbtune.report.numbers import count, points
from bbtune.report.subject import Subject
from bbtune.task.metrics import UNDECIDED, Labels
from bbtune.task.task import Example

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
    columns = _columns(subject)
    top = element("tr", *(element("th", name, scope="col") for name in ("row", *columns)))
    rows = [
        element("tr", element("th", str(at + 1), scope="row"), *(make(int(at)) for make in columns.values()))
        for at in change.shown
    ]
    inside = lines([element("caption", caption), element("thead", top), element("tbody", lines(rows))])
    title = f"{change.title[0].upper()}{change.title[1:]}"
    kind = "texts" if subject.texts is not None else "texts numbers"
    return [element("h3", title), element("div", element("table", inside), class_=kind)]


def _columns(subject: Subject) -> dict[str, Callable[[int], Markup]]:
    """How the cells of each column are made; what needs the task's data is left out without them."""
    run, texts, labels = subject.run, subject.texts, subject.result.labels
    found: dict[str, Callable[[int], Markup]] = {}
    if texts is not None:
        found["text"] = lambda at: element("td", _text(texts[at]), class_="text")
    if not subject.words:
        found["true"] = lambda at: element("td", labels[int(run.truth[at])], data_of="true")
    elif texts is not None:
        found["true"] = lambda at: element("td", _cut(texts[at].answer or ""), data_of="true")
    found["before"] = partial(_answer, subject, "before", run.zero_shot)
    found["after"] = partial(_answer, subject, "after", run.tuned)
    return found


def _answer(subject: Subject, when: str, given: Labels, at: int) -> Markup:
    """An answer, and whether it is right; of an answer in words its score."""
    value, right = given[at], bool(given[at] == subject.run.truth[at])
    kind = "yes" if right else "no"
    if subject.words:
        return element("td", points(float(value)), data_of=when, class_=kind)
    name = "(no label)" if value == UNDECIDED else subject.result.labels[int(value)]
    return element("td", f"{'✓' if right else '✗'}\u00a0{name}", data_of=when, class_=kind)


def _text(example: Example) -> Text:
    fields = example.fields()
    if len(fields) == 1:
        return _cut(example.text)
    return Markup("<br>").join(element("b", f"{name}: ") + _cut(said) for name, said in fields.items())


def _cut(said: str) -> str:
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST].rstrip()} …"
