"""The report of a run: one file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import Markup

from bbtune import html
from bbtune.errors import BbtuneError
from bbtune.files import replaced
from bbtune.html import element
from bbtune.report.changes import changes
from bbtune.report.confusion import answers
from bbtune.report.cost import cost
from bbtune.report.curves import curves
from bbtune.report.making import making, use
from bbtune.report.opening import opening, reading_guide
from bbtune.report.prompt import prompt
from bbtune.report.scores import scores
from bbtune.report.subject import Subject, read_subject
from bbtune.storage.place import Place, place_named
from bbtune.task.data import TaskData

REPORT = "report.html"
_SECTIONS: dict[str, tuple[str, Callable[[Subject], list[Markup]]]] = {
    "scores": ("Scores", scores),
    "course": ("How the run went", curves),
    "answers": ("Right and wrong answers", answers),
    "changes": ("Texts that changed", changes),
    "prompt": ("The prompt", prompt),
    "cost": ("Cost", cost),
    "use": ("Use it", use),
    "making": ("How it was made", making),
}


def write_report(
    run: str | Path, out: str | Path | None = None, beside: Sequence[str | Path] = (), task: TaskData | None = None
) -> Path:
    """Write a page about a finished run.

    Args:
        run: its folder, or its address.
        out: file to write; without it ``report.html`` in the run's folder, of a run at an address
            ``NAME-report.html`` in the working folder.
        beside: finished runs on the same test split, whose scores stand beside it.
        task: its data, where they were given to the run in Python.

    Returns:
        The file.

    Raises:
        BbtuneError: if a place holds no finished run, one beside was scored on another test split, or the file cannot
            be written.
    """
    place = place_named(str(run))
    subject = read_subject(place, [place_named(str(other)) for other in beside], task)
    path = _default(place) if out is None else Path(out)
    page = report_html(subject)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:  # a folder, or a place that is read-only
        raise BbtuneError(f"{path}: the page cannot be written ({error.strerror}); give another file as out") from error
    return path


def _default(place: Place) -> Path:
    return place / REPORT if isinstance(place, Path) else Path(f"{place.rsplit('/', 1)[-1]}-{REPORT}")


def report_html(subject: Subject) -> str:
    """The page."""
    links = (element("a", title, href=f"#{name}") for name, (title, _) in _SECTIONS.items())
    parts = [*opening(subject), reading_guide(subject), element("nav", *links, aria_label="Sections")]
    sections = (html.section(name, title, made(subject)) for name, (title, made) in _SECTIONS.items())
    return html.page(subject.result.spec.name, [*parts, *sections])
