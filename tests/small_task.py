"""Eight short texts of two labels, and plans of baselines on them that need no folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bbtune.loop import Generation
from bbtune.method import Baseline, Fitted
from bbtune.plan import Plan
from bbtune.spec import BaselineJob
from bbtune.task.metrics import Metric
from bbtune.task.task import Example
from bbtune.task.template import Template

TEXTS = [
    ("a warm and great film", 1),
    ("dull story , bad end", 0),
    ("the box was late", 0),
    ("good picture and truly wonderful sound with a warm end", 1),
    ("terrible noise", 0),
    ("wonderful", 1),
    ("it was a bad parcel and a wrong bill", 0),
    ("great story", 1),
]
CARD = {
    "name": "tiny",
    "kind": "single",
    "labels": ["negative", "positive"],
    "template": "{text} . it was {mask}",
    "label_words": ["bad", "great"],
    "metric": "accuracy",
}
TRAIN = tuple(Example(text, None, label) for text, label in TEXTS)
DEV = tuple(Example(f"{text} and late", None, label) for text, label in TEXTS)
TEMPLATE = "{text} . it was {mask} ."
ACCURACY = Metric("accuracy", 2)


def plan_of(
    model: str | Path,
    method: dict[str, Any],
    template: str = TEMPLATE,
    train: tuple[Example, ...] = TRAIN,
    dev: tuple[Example, ...] = DEV,
    **parts: Any,
) -> Plan:
    """The plan of a baseline on the texts, for a folder or any other model source."""
    raw: dict[str, Any] = {
        "task": {"source": "folder:unused"},
        "backbone": {"model": model if isinstance(model, str) else f"path:{model}"},
        "method": method,
        "seed": 3,
    }
    for part, values in parts.items():
        raw[part] = {**raw.get(part, {}), **values} if isinstance(values, dict) else values
    return Plan(
        spec=BaselineJob.model_validate(raw),
        kind="single",
        template=Template(template),
        label_words=(("bad",), ("great",)) if "{mask}" in template else (("a bad end",), ("a great film",)),
        train=train,
        dev=dev,
    )


def fitted(method: Baseline) -> tuple[list[Generation], Fitted]:
    """Steps and end of a fit."""
    *steps, end = method.fit()
    assert isinstance(end, Fitted)
    return [step for step in steps if isinstance(step, Generation)], end


def save_task(folder: Path) -> Path:
    """A task folder with the eight texts in every split, a little longer each time."""
    (folder / "task.json").write_text(json.dumps(CARD))
    for shift, split in enumerate(("train", "dev", "test")):
        rows = [{"text": f"{text} {'and ' * shift}late", "label": label} for text, label in TEXTS]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
