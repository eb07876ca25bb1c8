"""Tables and pages as plain text, Markdown, CSV and HTML; of strings, whatever they say."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

Rows = Sequence[Sequence[str]]

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}.wide{overflow-x:auto}
th,td{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
th.name,td.name{text-align:left}th{border-bottom:2px solid #888}
img{max-width:100%;height:auto}.warning{background:#fff3cd;padding:.5rem 1rem}"""


def text_table(head: Sequence[str], rows: Rows, names: int = 1) -> str:
    """Aligned columns.

    Args:
        head, rows: texts, one per column.
        names: columns at the left that hold words; the others are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = [f"{cell:{'<' if i < names else '>'}{widths[i]}}" for i, cell in enumerate(row)]
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), "  ".join("-" * width for width in widths), *map(line, rows)])


def markdown_table(head: Sequence[str], rows: Rows, names: int = 1) -> str:
    """A table of GitHub's Markdown."""
    rule = ["---" if i < names else "---:" for i in range(len(head))]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *escaped))


def csv_text(head: Sequence[str], rows: Iterable[Sequence[str | int | float]]) -> str:
    """Comma-separated values with a head."""
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(head)
    lines.writerows(rows)
    return file.getvalue()


def html_page(title: str, parts: Iterable[str]) -> str:
    """A page that needs nothing beside it; the parts are HTML already, the title is not."""
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *parts,
            "</body></html>\n",
        ]
    )


def html_table(head: Sequence[str], rows: Rows, names: int = 1) -> str:
    """A table, its texts escaped."""

    def line(row: Sequence[str], tag: str) -> str:
        cells = [f"<{tag}{_name(i < names)}>{escape(cell)}</{tag}>" for i, cell in enumerate(row)]
        return f"<tr>{''.join(cells)}</tr>"

    body = "\n".join([line(head, "th"), *(line(row, "td") for row in rows)])
    return f'<div class="wide"><table>\n{body}\n</table></div>'


def _name(is_name: bool) -> str:
    return ' class="name"' if is_name else ""


def html_list(sentences: Iterable[str]) -> str:
    """A list of sentences, escaped."""
    return "<ul>\n" + "\n".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "\n</ul>"


def html_text(text: str, warning: bool = False) -> str:
    """A paragraph, escaped."""
    kind = ' class="warning"' if warning else ""
    return f"<p{kind}>{escape(text)}</p>"


def html_heading(text: str) -> str:
    """A heading, escaped."""
    return f"<h2>{escape(text)}</h2>"


def html_images(images: Mapping[str, Path]) -> list[str]:
    """PNG files by what they show, taken into the page."""
    found = []
    for shows, path in images.items():
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        found.append(f'<img alt="{escape(shows, quote=True)}" src="data:image/png;base64,{data}">')
    return found
