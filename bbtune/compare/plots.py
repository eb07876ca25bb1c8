"""Plots of a comparison: what methods reach for what they spend, their test scores, and how often they are best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bbtune.compare.rows import Row
from bbtune.compare.runs import Run
from bbtune.compare.table import Line
from bbtune.figures import as_written, draw_estimates, new_figure

_MARKERS = "osD^vPX<>*"
_GRID = 200  # places at which the curves of all seeds are read
SPENT: dict[str, str] = {"evaluations": "evaluations", "examples": "examples", "seconds": "seconds"}


class _Styles:
    """One colour and marker per method, the same in all plots."""

    def __init__(self, labels: Sequence[str]) -> None:
        from matplotlib import colormaps

        colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
        order = [*range(0, 20, 2), *range(1, 20, 2)]  # the ten strong ones first
        self._styles = {
            label: {"color": colours[order[i % 20]], "marker": _MARKERS[i % len(_MARKERS)]}
            for i, label in enumerate(labels)
        }

    def __getitem__(self, label: str) -> dict[str, Any]:
        return dict(self._styles[label])


@as_written()
def plot_curves(rows: Sequence[Row], labels: Sequence[str], path: Path) -> None:
    """Dev score of what would be handed out, against evaluations, examples and seconds; rows of one task.

    Of several seeds, the median and the quartiles. Methods without a curve are marked where they ended, with a dashed
    line at their height.
    """
    styles, figure = _Styles(labels), new_figure(15, 5.5)
    axes = figure.subplots(1, len(SPENT), sharey=True)
    rows = [row for row in rows if not row.stand_in]
    for axis, (name, shown) in zip(axes, SPENT.items(), strict=True):
        for row in rows:
            draw_curve(axis, row, name, styles[row.label])
        axis.set_xlabel(shown)
        axis.set_xscale("symlog", linthresh=_least_place(rows, name), linscale=0.3)
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"dev {rows[0].runs[0].metric.name}")
    figure.suptitle(f"{rows[0].task}: dev score of what would be handed out")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


def _least_place(rows: Sequence[Row], name: str) -> float:
    """Where the logarithmic part of an axis begins: what is spent first, or 1 if that is less."""
    points = [point for row in rows for run in row.runs for point in (*run.curve, run.cost)]
    return max(1.0, min((place for point in points if (place := float(getattr(point, name))) > 0), default=1.0))


def draw_curve(axis: Any, row: Row, name: str, style: dict[str, Any]) -> None:
    """The dev scores of a method; of one without a curve where it ended.

    Args:
        axis: of matplotlib.
        name: of what is spent, as in SPENT.
        style: colour and marker.
    """
    if any(len(run.curve) < 2 for run in row.runs):
        _draw_end(axis, row, name, style)
        return
    places, heights = aligned(row.runs, lambda point: float(getattr(point, name)))
    middle = np.median(heights, axis=0)
    every = max(1, len(places) // 8)
    axis.step(places, middle, where="post", label=row.label, markevery=every, markersize=4, **style)
    if len(row.runs) > 1:
        low, high = np.quantile(heights, [0.25, 0.75], axis=0)
        axis.fill_between(places, low, high, step="post", color=style["color"], alpha=0.15, linewidth=0)


def _draw_end(axis: Any, row: Row, name: str, style: dict[str, Any]) -> None:
    height, place = row.dev, float(np.mean([getattr(run.cost, name) for run in row.runs]))
    axis.axhline(height, color=style["color"], linestyle="--", linewidth=0.9, alpha=0.6)
    axis.plot([place], [height], linestyle="none", markersize=7, label=row.label, **style)


def aligned(runs: Sequence[Run], spent: Callable[[Any], float]) -> tuple[Any, Any]:
    """Step curves of several seeds on common places.

    Args:
        runs: R, each with a curve.
        spent: what of a point is its place.

    Returns:
        Places (G,) from where all have begun to where the longest curve ends, and heights (R, G): the last at or before
        each place; a curve that has ended stays as high as it ended.
    """
    curves = [[(spent(point), point.dev) for point in run.curve] for run in runs]
    begin = max(curve[0][0] for curve in curves)
    end = max(curve[-1][0] for curve in curves)
    stops = np.unique([begin, *(place for curve in curves for place, _ in curve if place >= begin)])
    places = stops if len(stops) <= _GRID else np.unique([begin, *np.geomspace(max(begin, end / 1e4), end, _GRID)])
    heights = [
        np.array([dev for _, dev in curve])[np.searchsorted([place for place, _ in curve], places, side="right") - 1]
        for curve in curves
    ]
    return places, np.stack(heights)


@as_written()
def plot_tests(lines: Sequence[Line], references: Mapping[str, float], path: Path) -> None:
    """Test scores of one task with their intervals, the best on top; majority and zero-shot as lines."""
    shown = sorted(lines, key=lambda line: line.test.value)
    figure = new_figure(9, 1.8 + 0.32 * len(shown))
    axis = figure.subplots()
    for (label, value), look in zip(references.items(), (":", "--", "-.", (0, (1, 4))), strict=False):
        axis.axvline(value, linestyle=look, color="0.35", linewidth=1.1, label=label)
    seeds = {line.seeds for line in shown}
    names = [line.label if len(seeds) == 1 else f"{line.label}, n = {line.seeds}" for line in shown]
    draw_estimates(axis, names, [line.test for line in shown], ["tab:blue"] * len(shown), "0.55")
    axis.set_xlabel(f"test {shown[0].metric}, 95 % intervals")
    axis.set_title(shown[0].task)
    if references:
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


@as_written()
def plot_profile(taus: Sequence[float], shares: Mapping[str, Sequence[float]], cells: int, path: Path) -> None:
    """Share of cells in which each method is within so many points of the best."""
    styles, figure = _Styles(list(shares)), new_figure(9, 5)
    axis = figure.subplots()
    for label, share in shares.items():
        points = 100 * np.asarray(taus)
        axis.step(points, share, where="post", label=label, markevery=10, markersize=4, **styles[label])
    axis.set_xlabel("within so many points of the best, test")
    axis.set_ylabel(f"share of {cells} cells (task and seeds)")
    axis.set_ylim(-0.03, 1.03)
    axis.set_title("performance profile")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)
