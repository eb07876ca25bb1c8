"""A finished run, and copies of it that say something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bbtune import api
from bbtune.result import JOURNAL, SPEC, TuneResult

Copy = Callable[..., Path]


@pytest.fixture(scope="session")
def tickets(tmp_path_factory: pytest.TempPathFactory, tiny_task: Path) -> Path:
    """A copy of the task that may be changed, with a text and a label that would be markup."""
    folder = tmp_path_factory.mktemp("tickets") / "task"
    shutil.copytree(tiny_task, folder)
    card = json.loads((folder / "task.json").read_text())
    (folder / "task.json").write_text(json.dumps({**card, "labels": ["<b>negative</b>", "positive & more"]}))
    rows = (folder / "test.jsonl").read_text().splitlines()
    rows[0] = json.dumps({"text": "a <script>alert('$x$')</script> & warm film", "label": 1})
    (folder / "test.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def finished(make_job: Any, tickets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of a prefix at two of three layers."""
    folder = tmp_path_factory.mktemp("reported") / "run"
    spec = make_job("bert", task={"source": f"folder:{tickets}"}, prompt={"layers": [0, 2], "text": "a great film"})
    api.run(spec, folder)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Copy:
    """Copies of the run: ``copy("name", predicted={...})``; ``spec`` is the whole job."""

    def make(name: str, **changes: Any) -> Path:
        result = replace(TuneResult.load(finished), **changes)
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(finished / JOURNAL, folder)
        (folder / SPEC).write_text(result.spec.to_yaml(), encoding="utf-8")
        result.save(folder)
        return folder

    return make
