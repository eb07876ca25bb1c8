"""Tables as plain text, Markdown and CSV; of strings, whatever they say."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

Rows = Sequence[Sequence[str]]


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
