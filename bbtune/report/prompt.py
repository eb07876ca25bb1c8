"""What was found: a prompt in words as it is, of anything else the sizes of its layers."""

from __future__ import annotations

from markupsafe import Markup

from bbtune import html
from bbtune.errors import BackboneError
from bbtune.html import Text, element
from bbtune.report.charts import bars_chart
from bbtune.report.norms import Norms, searched_norms, trained_norms
from bbtune.report.subject import Subject
from bbtune.spec import JobSpec, TextJob

_SEARCHED = (
    "How large the prompt is at each tuned layer: the length of the vector that is added for one prompt token, on "
    "average. The dash is the natural size that was measured before the search: how far hidden states that enter this "
    "layer typically lie from their mean. Where a bar is near 0, the layer is almost as it was."
)
_TRAINED = "How large what was trained is at each layer: the Frobenius norm of all its numbers."


def prompt(subject: Subject) -> list[Markup]:
    """The prompt, and how texts are put to the model."""
    if isinstance(subject.result.spec, TextJob):
        return _words(subject)
    return [*_sizes(subject), *_frame(subject)]


def _words(subject: Subject) -> list[Markup]:
    spec, reading = subject.result.spec, subject.result.reading
    parts = [
        html.text("The prompt that was found; {text} stands for a text, {mask} for the place of the answer:"),
        element("pre", f"{reading.preamble}{reading.template}"),
    ]
    if spec.prompt.text:
        parts += [html.text("The instruction that the search began with:"), element("pre", spec.prompt.text)]
    return [*parts, *_label_words(subject)]


def _frame(subject: Subject) -> list[Markup]:
    """Instruction and template, which tuning left as they were."""
    spec, reading = subject.result.spec, subject.result.reading
    parts = [html.text("Around it, texts are put to the model like this, before and after:")]
    instruction = f"{spec.prompt.text}\n" if spec.prompt.text and spec.prompt.place == "before" else ""
    behind = f"\n{spec.prompt.text}" if spec.prompt.text and spec.prompt.place == "after" else ""
    return [*parts, element("pre", f"{instruction}{reading.template}{behind}"), *_label_words(subject)]


def _label_words(subject: Subject) -> list[Markup]:
    result = subject.result
    rows: list[list[Text]] = [
        [label, ", ".join(words)] for label, words in zip(result.labels, result.reading.label_words, strict=False)
    ]
    if all(words == label for label, words in rows):
        return []
    return [html.table(["label", "the model's words for it"], rows, "Words that stand for labels", names=2)]


def _sizes(subject: Subject) -> list[Markup]:
    if not isinstance(subject.result.spec, JobSpec):
        norms = trained_norms(subject.result)
        return [] if norms is None else _chart(norms, _TRAINED, "Frobenius norm")
    try:
        norms = searched_norms(subject.result)
    except BackboneError as error:
        return [html.text(f"The sizes of the prompt's layers are left out: {error}.", "warning")]
    return _chart(norms, _SEARCHED, "size per token")


def _chart(norms: Norms, said: str, unit: str) -> list[Markup]:
    chart = bars_chart(norms.layers, norms.sizes, norms.natural, unit)
    head = ["layer", unit, *(["natural size", "ratio"] if norms.natural else [])]
    rows: list[list[Text]] = [
        [str(layer), f"{size:.3g}"] for layer, size in zip(norms.layers, norms.sizes, strict=True)
    ]
    for row, size, natural in zip(rows, norms.sizes, norms.natural, strict=False):
        row += [f"{natural:.3g}", f"{size / natural:.2f}" if natural else ""]
    doubt = [html.text(norms.doubt, "note")] if norms.doubt else []
    return [
        html.figure(chart, said),
        *doubt,
        html.folded("The same as a table", html.table(head, rows, "Sizes by layer")),
    ]
