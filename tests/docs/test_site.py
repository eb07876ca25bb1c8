"""The documentation builds as a site, without a dead link, and loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a browser would fetch by itself: scripts, pictures, style sheets, frames; not links that a reader may follow.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon))[^>]*\bhref=["']?(?:https?:)?//"""
)
STYLED = re.compile(r"@import\s|url\(\s*[\"']?(?:https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = ["mkdocs", "build", "--strict", "-f", str(ROOT / "docs/site/mkdocs.yml"), "-d", str(folder)]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_every_page_and_what_pages_link_to(site: Path) -> None:
    pages = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    assert len(pages) > 15
    assert [page for page in pages if not (site / page).is_file()] == []
    assert (site / "project" / "CHANGELOG.html").is_file()
    assert (site / "project" / "jobs" / "cluster" / "kuberay.yaml").is_file()
    assert (site / "reference" / "job.schema.json").is_file()


@pytest.mark.slow
def test_no_page_and_no_style_loads_anything_from_elsewhere(site: Path) -> None:
    assert [path.name for path in site.rglob("*.html") if FETCHED.search(path.read_text(encoding="utf-8"))] == []
    assert [path.name for path in site.rglob("*.css") if STYLED.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.slow
def test_the_index_of_the_search_is_part_of_the_site(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert "method.probe_examples" in index
