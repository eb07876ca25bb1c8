"""Parts of pages that need nothing beside them; whatever is not :class:`markupsafe.Markup` is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

Text = str | Markup
# Nothing is loaded and nothing runs, whatever a text that was escaped wrongly might say.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def element(name: str, *inside: Text, **attributes: str) -> Markup:
    """An element.

    Args:
        name: of the tag.
        inside: its content, in order.
        attributes: by name; one that Python keeps for itself has a ``_`` at its end, and ``_`` stands for ``-``.
    """
    found = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), found, Markup("").join(inside))


def lines(parts: Iterable[Text]) -> Markup:
    """Parts one after the other."""
    return Markup("\n").join(parts)


def page(title: str, parts: Iterable[Text]) -> str:
    """A whole page: its title is the first heading."""
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    head = [
        Markup('<meta charset="utf-8">'),
        Markup('<meta http-equiv="Content-Security-Policy" content="{}">').format(_POLICY),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        element("title", title),
        element("style", Markup(style)),
    ]
    body = element("body", element("main", lines([element("h1", title), *parts])))
    return f"<!doctype html>\n{element('html', element('head', lines(head)), body, lang='en')}\n"


def section(name: str, title: str, parts: Iterable[Text]) -> Markup:
    """A part of a page under its heading.

    Args:
        name: that links inside the page lead to.
    """
    return element("section", lines([element("h2", title, id=name), *parts]), aria_labelledby=name)


def table(head: Sequence[Text], rows: Iterable[Sequence[Text]], caption: Text = "", names: int = 1) -> Markup:
    """A table that can be wider than the page.

    Args:
        head, rows: one per column.
        names: columns at the left that hold words; the others are aligned to the right. The first names its row.
    """

    def cell(i: int, text: Text) -> Markup:
        kind = {"class_": "name"} if i < names else {}
        return element("td", text, **kind) if i else element("th", text, scope="row", **kind)

    top = [element("th", text, scope="col", **({"class_": "name"} if i < names else {})) for i, text in enumerate(head)]
    body = lines(element("tr", *(cell(i, text) for i, text in enumerate(row))) for row in rows)
    said = element("caption", caption) if caption else Markup("")
    inside = lines([said, element("thead", element("tr", *top)), element("tbody", body)])
    return element("div", element("table", inside), class_="wide")


def items(sentences: Iterable[Text]) -> Markup:
    """A list."""
    return element("ul", lines(element("li", sentence) for sentence in sentences))


def text(said: Text, kind: str = "") -> Markup:
    """A paragraph; ``kind`` such as ``warning`` or ``note`` decides its look."""
    return element("p", said, **({"class_": kind} if kind else {}))


def figure(content: Text, caption: Text) -> Markup:
    """A picture with what is to be seen in it."""
    return element("figure", content, element("figcaption", caption))


def png(path: Path, shows: str) -> Markup:
    """A PNG file, taken into the page."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(shows, data)


def folded(summary: Text, content: Text, **attributes: str) -> Markup:
    """What is shown when its summary is clicked; with ``open=""`` until then."""
    return element("details", element("summary", summary), content, **attributes)
