"""What is said of an exported prompt, for programs (``card.json``) and for people (``README.md``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bbtune.result import TuneResult
from bbtune.versions import versions

CARD, README = "card.json", "README.md"


def card_of(result: TuneResult, **more: Any) -> dict[str, Any]:
    """What every export says: model, task, how texts are put, scores, and where all of it comes from.

    Args:
        more: what one format has to say beside that.
    """
    raw, backbone = result.as_dict(), result.spec.backbone
    reading = {key: value for key, value in raw["reading"].items() if key != "abilities"}
    return {
        "name": result.spec.name,
        "made_with": {"bbtune": versions().get("bbtune"), "run": result.versions},
        "model": {
            "source": backbone.named,
            "revision": backbone.revision,
            "dtype": backbone.dtype,
            "max_tokens": backbone.max_tokens,
            "fingerprint": result.fingerprints["model"],
        },
        "task": {
            "name": result.task,
            "source": result.spec.task.source,
            "labels": list(result.labels),
            "metric": result.metric,
            "fingerprint": result.fingerprints["task"],
        },
        "reading": reading,
        "scores": raw["scores"],
        "gain": raw["gain"],
        "method": raw["method"],
        "cost": raw["cost"],
        "seeds": raw["seeds"],
        "spec_hash": raw["spec_hash"],
        "spec": result.spec.model_dump(mode="json"),
    } | more


def write_card(folder: Path, card: dict[str, Any], usage: str) -> None:
    """Write both.

    Args:
        usage: how the export is used, in Markdown.
    """
    (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / README).write_text(_readme(card, usage), encoding="utf-8")


def _readme(card: dict[str, Any], usage: str) -> str:
    model, task, reading = card["model"], card["task"], card["reading"]
    rows = [
        f"| {name.replace('_', '-')} | {_estimate(score['dev'])} | {_estimate(score['test'])} |"
        for name, score in card["scores"].items()
    ]
    revision = f", revision {model['revision']}" if model["revision"] else ""
    labels = [
        f"* {label}: {', '.join(words)}" for label, words in zip(task["labels"], reading["label_words"], strict=True)
    ]
    template = "\n".join(f"    {line}" for line in f"{reading['preamble']}{reading['template']}".splitlines())
    return "\n".join(
        [
            f"# {card['name']}\n",
            f"A prompt for the frozen model `{model['source']}`{revision}, found by bbtune ({card['method']}).",
            f"Task: {task['name']}. {usage}\n",
            "## How texts are put\n",
            f"{template}\n",
            *(["The labels and their words:\n", *labels, ""] if labels else []),
            f"## Scores ({task['metric']}, 95 % intervals)\n",
            "| | dev (selected on) | test |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"`{CARD}` has the same for programs, with the whole job. spec {card['spec_hash'][:12]}.\n",
        ]
    )


def _estimate(of: dict[str, float]) -> str:
    return f"{of['value']:.3f} [{of['low']:.3f}, {of['high']:.3f}]"
