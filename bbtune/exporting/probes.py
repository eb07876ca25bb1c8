"""What an export is checked on before it is called done: made-up texts, and how near two ways must come."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from bbtune.backbone.encoding import Encoder
from bbtune.errors import ExportError
from bbtune.task.task import Example
from bbtune.tuned import Tuned

_COUNT = 50
_SENTENCE = (
    "the parcel came two days late and the box was open but the film in it turned out to be a warm and funny story "
    "about a bank that wins every match while prices rise and my bill for the new phone still shows a wrong amount"
)
_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}  # of label logits: bfloat16 has three digits


def probes(kind: str, count: int = _COUNT) -> list[Example]:
    """Texts of 1 to 23 words, no two alike; the data of the task are not needed.

    Args:
        kind: ``"single"`` or ``"pair"``.
    """
    words = _SENTENCE.split()
    texts = [" ".join(words[i % 11 : i % 11 + 1 + i * 7 % 23]) for i in range(count)]
    others = texts[1:] + texts[:1]
    return [Example(a, b if kind == "pair" else None, 0) for a, b in zip(texts, others, strict=True)]


def uncut(found: Tuned) -> list[Example]:
    """Those of the texts that fit ``backbone.max_tokens`` whole: stock libraries cut none.

    Raises:
        ExportError: if none of them does.
    """
    encoder = found.encoder
    endless = Encoder(found.model.card, found.plan.template, encoder.prompt, sys.maxsize)
    fitting = [text for text in probes(found.plan.kind) if len(endless.row(text).ids) <= encoder.max_tokens]
    if not fitting:
        expected = "backbone.max_tokens: expected room for a few words beside prompt and template, to compare with"
        raise ExportError(f"{expected}, got {encoder.max_tokens}; use --format safetensors")
    return fitting


def largest_difference(expected: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    """Between label logits (N, C)."""
    return float(np.abs(expected.astype(np.float64) - got).max())


def check_same(expected: NDArray[np.float32], got: NDArray[np.float32], dtype: str, what: str) -> float:
    """The largest difference of label logits (N, C).

    Args:
        dtype: of the weights; it decides how near is near.
        what: was exported, such as ``"the adapter"``.

    Raises:
        ExportError: if they differ by more than rounding.
    """
    difference, most = largest_difference(expected, got), _TOLERANCE[dtype]
    if not difference <= most:  # NaN, too
        raise ExportError(
            f"expected {what}, read back, to give the label logits of the run within {most:g} on {len(got)} texts, "
            f"they differ by {difference:.2g}; it was not kept: use another --format"
        )
    return difference
