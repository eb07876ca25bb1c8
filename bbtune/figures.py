"""Figures of matplotlib, without its global state: in files, or as SVG that takes the colours of the page it is in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any

import numpy as np
from markupsafe import Markup

# Stand-ins for the colours of bbtune/html.css, which differ between light and dark.
INK, MUTED, LINE, ACCENT, BEFORE = (f"#0000f{i}" for i in range(1, 6))
SERIES = tuple(f"#0000e{i}" for i in range(1, 6))
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", BEFORE: "before"}
VARIABLES |= {colour: f"series-{i}" for i, colour in enumerate(SERIES, 1)}
_LOOK: Any = {
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": LINE,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "svg.fonttype": "none",
    "text.parse_math": False,
}


def new_figure(width: float, height: float) -> Any:
    """An empty figure, sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def as_written() -> Iterator[None]:
    """Texts of figures that are drawn and written in this context, or function, are no formulas, ``$`` or not."""
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False}):
        yield


@contextmanager
def page_figure(width: float, height: float) -> Iterator[Any]:
    """An empty figure for :func:`svg`; everything is drawn and written in this context, whose look it has."""
    from matplotlib import rc_context

    with rc_context(_LOOK):
        yield new_figure(width, height)


def svg(figure: Any, shows: str) -> Markup:
    """A figure as an element of a page.

    Args:
        figure: of :func:`page_figure`.
        shows: what is to be seen, for those who cannot.
    """
    from matplotlib import rc_context

    file = StringIO()
    with rc_context({"svg.hashsalt": shows}):  # the same file every time, ids of its own in a page of several
        figure.savefig(file, format="svg", metadata={"Date": None})
    whole = file.getvalue()
    box = re.search(r'viewBox="([^"]*)"', whole)
    inside = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", whole[whole.index("<svg") :], flags=re.DOTALL)
    inside = re.sub(r'(<g) id="[^"]*"', r"\1", inside[inside.index(">") + 1 :])
    for colour, name in VARIABLES.items():
        inside = inside.replace(colour, f"var(--{name})")
    start = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(box[1] if box else "", shows)
    return start + Markup(inside.strip())


def draw_estimates(
    axis: Any, names: Sequence[str], estimates: Sequence[Any], colours: Sequence[str], whiskers: str | None = None
) -> None:
    """Points with their intervals, the first at the bottom.

    Args:
        axis: of matplotlib.
        estimates: with ``value``, ``low`` and ``high``.
        colours: of the points.
        whiskers: colour of all intervals; None for that of their points.
    """
    for place, (estimate, colour) in enumerate(zip(estimates, colours, strict=True)):
        value, ends = estimate.value, np.array([[estimate.low], [estimate.high]])
        spread = np.maximum(np.abs(ends - value), 0)
        axis.errorbar([value], [place], xerr=spread, fmt="o", color=colour, ecolor=whiskers or colour, capsize=3)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.grid(axis="x", alpha=0.3)
