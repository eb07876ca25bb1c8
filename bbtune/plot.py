"""The plot of a run: best loss and dev score against evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bbtune.figures import new_figure
from bbtune.loop import Generation


def plot_run(events: Sequence[Generation], metric: str, title: str, path: Path) -> None:
    """Write a PNG with the best train loss, and the dev scores of incumbents and of the selected one."""
    figure = new_figure(7, 4.5)
    left = figure.subplots()
    right = left.twinx()
    losses = [(event.cost.evaluations, event.best_loss) for event in events if event.best_loss is not None]
    judged = [(event.cost.evaluations, event.dev.metric) for event in events if event.dev]
    selected = [(event.cost.evaluations, event.dev_metric) for event in events]
    left.step(*_columns(losses), where="post", color="tab:blue", label="best train loss")
    right.plot(*_columns(judged), ".", color="tab:orange", alpha=0.4, label=f"dev {metric}, incumbents")
    right.step(*_columns(selected), where="post", color="tab:orange", label=f"dev {metric}, selected")
    left.set_xlabel("evaluations")
    left.set_ylabel("train loss")
    right.set_ylabel(f"dev {metric}")
    left.set_title(title)
    handles, labels = left.get_legend_handles_labels()
    more_handles, more_labels = right.get_legend_handles_labels()
    figure.legend(handles + more_handles, labels + more_labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
