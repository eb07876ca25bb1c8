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
    for name, value in {"backward": spent.backward_examples, "layer-forwards": spent.layer_forwards}.items():
        if not value:
            del shown[name]
    parts = [_table(shown, _UNTIL)]
    if result.spec.apis:
        parts.append(_table(_paid(subject), _PAID))
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


def _table(shown: dict[str, tuple[str, str]], caption: str) -> Markup:
    rows: list[list[Text]] = [[name, said, value] for name, (value, said) in shown.items()]
    return html.table(["what", "meaning", "how much"], rows, caption, names=2)
