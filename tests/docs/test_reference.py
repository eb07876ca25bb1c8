"""The generated pages are those of the present code, and no method is left out of the page of methods."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bbtune.cli import app
from bbtune.methods import BASELINES
from bbtune.optimizers import OPTIMIZERS
from bbtune.presets import PRESETS
from bbtune.text_search import TEXT_SEARCHES

ROOT = Path(__file__).parents[2]
METHODS = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """What the script writes; it finds its neighbours in its own folder."""
    before = sys.path[:]
    sys.path.insert(0, str(ROOT / "docs" / "site"))
    try:
        import reference

        return dict(reference.pages())
    finally:
        sys.path[:] = before


@pytest.mark.parametrize("name", ["job.schema.json", "job.md", "commands.md"])
def test_a_generated_page_is_that_of_the_present_code(name: str, pages: dict[str, str]) -> None:
    there = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert there == pages[name], "python docs/site/reference.py"


def test_the_command_prints_the_schema_that_is_there() -> None:
    printed = CliRunner().invoke(app, ["schema"])
    assert printed.output == (ROOT / "docs" / "reference" / "job.schema.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["auto", *OPTIMIZERS, *TEXT_SEARCHES, *BASELINES, *(set(PRESETS) - {"default"})])
def test_the_page_of_methods_has_a_row_for_every_method(name: str) -> None:
    assert f"`{name}`" in METHODS


def test_the_page_of_methods_names_every_paper_that_the_code_of_a_method_names() -> None:
    package = ROOT / "bbtune"
    sources = [path for part in ("optimizers", "text_search", "baselines") for path in (package / part).glob("*.py")]
    sources += [package / name for name in ("methods.py", "presets.py", "prompts/space.py", "evaluation/race.py")]
    named = {number for path in sources for number in ARXIV.findall(path.read_text(encoding="utf-8"))}
    assert len(named) > 20
    assert sorted(named - set(ARXIV.findall(METHODS))) == []


def test_the_page_of_methods_names_files_that_are_there() -> None:
    files = re.findall(r"`([\w/]+\.py)`", METHODS)
    assert len(files) > 20
    assert [file for file in files if not (ROOT / "bbtune" / file).is_file()] == []
