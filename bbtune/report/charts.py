"""The pictures of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from bbtune.compare.plots import SPENT, draw_curve
from bbtune.compare.rows import Row
from bbtune.figures import ACCENT, BEFORE, INK, MUTED, SERIES, draw_estimates, page_figure, svg
from bbtune.task.metrics import Estimate

_MARKERS = "sD^vP"
_LONGEST = 30  # characters of a name
_OF_THREE = 21  # of one of three in a line
_WIDTH = 5.0  # inches, so that letters have their size on a phone


def _short(name: str) -> str:
    """A name that leaves room for what it names."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 2]} …"


def estimates_chart(names: Sequence[str], estimates: Sequence[Estimate], this: int, metric: str) -> Markup:
    """Test scores with their intervals.

    Args:
        names, estimates: from top to bottom.
        this: place of the run itself.
    """
    percent = [Estimate(100 * of.value, 100 * of.low, 100 * of.high) for of in estimates]
    colours = [ACCENT if i == this else MUTED for i in range(len(names))]
    said = ", ".join(f"{name} {of.value:.1f}" for name, of in zip(names, percent, strict=True))
    with page_figure(_WIDTH + 1, 0.9 + 0.36 * len(names)) as figure:
        axis = figure.subplots()
        draw_estimates(axis, [_short(name) for name in names[::-1]], percent[::-1], colours[::-1])
        axis.set_xlabel(f"test {metric} on a scale of 100, 95 % intervals")
        return svg(figure, f"Test scores with intervals: {said}")


def curves_chart(row: Row, beside: Sequence[Row], spent: str) -> Markup:
    """Dev score of what would have been handed out, and best train loss where there is one, against what is spent.

    Args:
        spent: ``evaluations`` or ``examples``.
    """
    run = row.runs[0]
    losses = [(getattr(at, spent), at.best_loss) for at in run.curve if at.best_loss is not None]
    with page_figure(_WIDTH, 4.6 if losses else 3.0) as figure:
        axes = figure.subplots(2 if losses else 1, 1, sharex=True, squeeze=False)[:, 0]
        for i, other in enumerate(beside):
            style = {"color": SERIES[i % len(SERIES)], "marker": _MARKERS[i % len(_MARKERS)]}
            draw_curve(axes[0], replace(other, label=_short(other.label)), spent, style)
            axes[0].axhline(other.dev, color=style["color"], linestyle="--", linewidth=0.8, alpha=0.6)
        draw_curve(
            axes[0], replace(row, label=_short(row.label)), spent, {"color": ACCENT, "marker": "o", "linewidth": 2}
        )
        axes[0].set_ylabel(f"dev {run.metric.name}", color=MUTED)
        if losses:
            axes[1].step(*zip(*losses, strict=True), where="post", color=BEFORE, linewidth=2)
            axes[1].set_ylabel("best train loss", color=MUTED)
        for axis in axes:
            axis.grid(alpha=0.3)
        axes[-1].set_xlabel(SPENT[spent])
        axes[-1].set_xlim(left=0)
        axes[-1].xaxis.set_major_formatter("{x:,.0f}")
        if beside:
            columns = 3 if all(len(other.label) <= _OF_THREE for other in (row, *beside)) else 1
            figure.legend(loc="outside upper left", ncols=columns, frameon=False, fontsize="small")
        end = run.curve[-1]
        told = f"Dev {run.metric.name} goes from {run.curve[0].dev:.3f} to {end.dev:.3f}"
        loss = f", best train loss from {losses[0][1]:.3f} to {losses[-1][1]:.3f}" if losses else ""
        return svg(figure, f"{told}{loss}, over {getattr(end, spent):,} {SPENT[spent]}")


def bars_chart(layers: Sequence[int], sizes: Sequence[float], natural: Sequence[float], unit: str) -> Markup:
    """A bar per layer, and a dash at its natural size where that is known."""
    with page_figure(_WIDTH + 1, 3.2) as figure:
        axis = figure.subplots()
        axis.bar(range(len(layers)), sizes, width=0.6, color=ACCENT, label="prompt")
        if natural:
            places = range(len(natural))
            axis.hlines(
                natural, [x - 0.38 for x in places], [x + 0.38 for x in places], color=INK, label="natural size"
            )
            figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize="small")
        every = max(1, len(layers) // 12)
        axis.set_xticks(range(len(layers))[::every], [str(layer) for layer in layers[::every]])
        axis.set_xlabel("layer of the model, 0 at the input")
        axis.set_ylabel(unit, color=MUTED)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
        said = ", ".join(f"layer {layer} {size:.3g}" for layer, size in zip(layers, sizes, strict=True))
        return svg(figure, f"{unit}: {said}")
