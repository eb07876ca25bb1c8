"""What the run cost."""

from __future__ import annotations

from markupsafe import Markup

from bbtune import html
from bbtune.html import Text
from bbtune.report.subject import Subject

_UNTIL = "Until the search ended; scoring the test split and measuring before it are not counted."
_PAID = "Paid in all, the test split and the probe of the endpoint included."


def cost(subject: Subject) -> list[Markup]:
    """Work, time, memory, and what an API was paid."""
    result = subject.result
    spent = result.cost
    shown = {
        "evaluations": (f"{spent.evaluations:,}", "candidates scored on the train examples"),
        "examples": (f"{spent.examples:,}", "texts run through the model"),
        "backward": (f"{spent.backward_examples:,}", "of them, texts that a gradient was taken of"),
        "layer-forwards": (f"{spent.layer_forwards:,}", "texts times layers of the model that ran"),
        "seconds": (f"{spent.seconds:,.1f}", "of the clock"),
        "peak memory": (f"{result.peak_memory_mib:,.0f} MiB", "of a process that held the model"),
    }
    if not spent.layer_forwards:
        del shown["layer-forwards"]
    parts = [html.table(["what", "how much", ""], _rows(shown), _UNTIL)]
    if result.spec.apis:
        parts.append(html.table(["what", "how much", ""], _rows(_paid(subject)), _PAID))
    return parts


def _paid(subject: Subject) -> dict[str, tuple[str, str]]:
    paid, priced = subject.result.paid, any(api.price for api in subject.result.spec.apis.values())
    return {
        "requests": (f"{paid.requests:,}", "sent, repeated ones included"),
        "from the cache": (f"{paid.cached:,}", "answers that were bought before"),
        "tokens in": (f"{paid.input_tokens:,}", ""),
        "tokens out": (f"{paid.output_tokens:,}", ""),
        "dollars": (
            f"{paid.dollars:.4f}" if priced else "unknown",
            "at the prices of the job" if priced else "no price",
        ),
    }


def _rows(shown: dict[str, tuple[str, str]]) -> list[list[Text]]:
    return [[name, value, html.element("span", said, class_="note")] for name, (value, said) in shown.items()]
