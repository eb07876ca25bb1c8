"""The code on the page about Python runs, each section by itself."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import bbtune

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def sections(slow: bool) -> list[str]:
    return [name for name, text in SECTIONS.items() if ("<!-- slow -->" in text) == slow and BLOCK.search(text)]


def follow(section: str, folder: Path) -> None:
    """Run the code of a section, in a folder that has the jobs of the project."""
    shutil.copytree(ROOT / "jobs", folder / "jobs")
    scope: dict[str, Any] = {"__name__": "page"}
    for block in BLOCK.findall(SECTIONS[section]):
        exec(compile(block, f"docs/python.md: {section}", "exec"), scope)


@pytest.mark.parametrize("section", sections(slow=False))
def test_the_code_of_a_section_runs(section, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    follow(section, tmp_path)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("section", sections(slow=True))
def test_the_code_of_a_section_runs_in_minutes(section, tmp_path, monkeypatch, mlflow_database, ray_cluster):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database)
    monkeypatch.chdir(tmp_path)
    follow(section, tmp_path)


def test_every_public_name_is_on_the_page():
    assert [name for name in bbtune.__all__ if name != "__version__" and name not in PAGE] == []


def test_the_page_has_as_many_sections_as_it_had_when_they_were_last_counted():
    assert (len(sections(slow=False)), len(sections(slow=True))) == (3, 1)
