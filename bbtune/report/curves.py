"""How the run went: scores and losses against what was spent."""

from __future__ import annotations

from markupsafe import Markup

from bbtune import html
from bbtune.report.charts import curves_chart
from bbtune.report.subject import Subject

_LOSS = " Below it the lowest loss on the train examples so far, which the search minimises."


def curves(subject: Subject) -> list[Markup]:
    """Curves over evaluations and over examples; of a method without steps a sentence."""
    curve = subject.run.curve
    if len(curve) < 2:
        return [html.text("The method has no steps, so there is no curve to show.")]
    losses = any(point.best_loss is not None for point in curve)
    said = f"Dev score of what would have been handed out at each moment.{_LOSS if losses else ''}"
    if subject.beside:
        said += " Dashed lines are at the height at which the other runs ended."
    pictures = [
        html.figure(curves_chart(subject.row, subject.beside, "evaluations"), "Over candidates that were scored."),
        html.figure(curves_chart(subject.row, subject.beside, "examples"), "Over texts that ran through the model."),
    ]
    stop = f"The run was stopped by: {subject.result.stop_reason}."
    return [html.text(said), html.element("div", *pictures, class_="pair"), html.text(stop)]
