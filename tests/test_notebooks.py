"""Saved notebooks are fit to be read: executed, small, and free of what belongs to the machine that they ran on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
# Absolute paths, addresses other than the loopback's, and where objects lie in memory.
OF_A_MACHINE = re.compile(
    r"(?<![\w.:/])/(?:tmp|home|root|usr|var|opt|work|mnt|Users)\b|\b(?!127\.)\d{1,3}(?:\.\d{1,3}){3}\b|\bat 0x[0-9a-f]+"
)


def cells(path: Path, kind: str) -> list[Any]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def shown(path: Path) -> str:
    """All text that the outputs of a notebook show."""
    found = []
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            texts = [output.get("text", []), *(v for k, v in output.get("data", {}).items() if k != "image/png")]
            found += [text if isinstance(text, str) else "".join(text) for text in texts]
    return "\n".join(found)


def test_the_notebooks_are_these_and_each_is_on_both_pages():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]
    for page in (HERE / "README.md", HERE.parent / "docs" / "notebooks.md"):
        assert [path.name for path in NOTEBOOKS if path.name not in page.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_executed_from_top_to_bottom_without_errors_and_warnings(path):
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_nothing_of_the_machine_that_it_ran_on(path):
    assert OF_A_MACHINE.findall(shown(path)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small(path):
    assert path.stat().st_size < 400_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_can_be_executed_with_short_settings_and_links_to_what_is_there(path):
    first = "".join(cells(path, "code")[0]["source"])
    assert 'os.environ.get("BBTUNE_NOTEBOOKS") == "short"' in first
    text = "".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    assert [link for link in re.findall(r"\]\((?!http)([^)#]+)\)", text) if not (HERE / link).exists()] == []


def test_continuous_integration_executes_them():
    ci = (HERE.parent / ".ci" / "run").read_text().splitlines()
    assert "BBTUNE_NOTEBOOKS=short pytest --nbmake --nbmake-timeout=300 notebooks" in ci
