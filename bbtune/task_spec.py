"""What a job says of its data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bbtune.methods import Part
from bbtune.source_names import TaskSource, TestSource
from bbtune.text_spec import Word


class ColumnsSpec(Part):
    """Which columns of a table hold what."""

    text: str = "text"
    """The text, or the first of a pair."""
    text_b: str | None = None
    """The second text of a pair."""
    label: str = "label"
    """The label, or the answer in words."""


class TaskSpec(Part):
    """The data and how they are put to the model; what a task card gives is the default."""

    source: TaskSource
    """`folder:DIR`, `file:TABLE`, `hf:NAME[@CONFIG]` or `builtin:support`; `object:NAME` of a task that is given in
    Python."""
    shots: Annotated[int, Field(ge=1)] | None = None
    """Examples per label (without labels: in all) in train and again in dev; else all of the draw in folders, 16 in
    tables and `hf:`."""
    seed: Annotated[int, Field(ge=0)] = 13
    """Of the few-shot draw; names the `seedN` folder of a task folder."""
    template: str | None = None
    """`{text}`, or `{text_a}` and `{text_b}`; `{mask}` where the label word belongs. Else that of the card."""
    label_words: list[Word | list[Word]] | None = None
    """A word or a list of words (summed) per label; descriptions for sentence encoders. Else those of the card, else
    the labels."""
    labels: list[str] | None = None
    """Label names, in the order of label numbers; else as found."""
    metric: Literal["accuracy", "macro_f1", "f1", "matthews", "exact_match", "token_f1", "regex"] | None = None
    """`f1` needs `positive_label`; `exact_match`, `token_f1` and `regex` are of answers in words. Else that of the
    card, else `accuracy`."""
    positive_label: str | None = None
    """The label that `f1` is of."""
    columns: ColumnsSpec = ColumnsSpec()
    test: TestSource | None = None
    """`file:TABLE` with the test split; else a share of each label is held out."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of each label held out as test where no test split is given."""
