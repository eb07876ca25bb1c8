"""Links of the site: pages link into the whole project, which on a forge just works.

Whatever a page links to outside of docs/ becomes a part of the site, at project/PATH; and the link is put right.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(\]\()([^)#:\s]+)(?=[)#\s])")  # the address of a link or picture, without its anchor; not https:
_OUTSIDE = "project/"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside of docs/ that pages link to, and those that these link to."""
    waiting = [file for file in files if file.src_uri.endswith(".md") and not file.inclusion.is_excluded()]
    while waiting:
        page = waiting.pop()
        for target in _LINK.findall(Path(str(page.abs_src_path)).read_text(encoding="utf-8")):
            place = _site_place(page.src_uri, target[1])
            source = ROOT / place.removeprefix(_OUTSIDE)
            if place.startswith(_OUTSIDE) and source.is_file() and files.get_file_from_path(place) is None:
                added = File.generated(config, place, abs_src_path=str(source))
                files.append(added)
                waiting += [added] if place.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page, right in the project, into links that are right in the site."""
    here = page.file.src_uri
    if page.parent is None:  # alone below its tab; said here, as a forge would show it as a part of the page
        page.meta["hide"] = ["navigation", "toc"] if page.is_homepage else ["navigation"]

    def put_right(link: re.Match[str]) -> str:
        place = _site_place(here, link[2])
        if not place.startswith(_OUTSIDE) and not here.startswith(_OUTSIDE):
            return link[0]
        return link[1] + posixpath.relpath(place, posixpath.dirname(here) or ".")

    return _LINK.sub(put_right, markdown)


def _site_place(page: str, target: str) -> str:
    """Where in the site a file is that a page links to.

    Args:
        page: place of the page in the site.
        target: as the page writes it, relative to its own file in the project.
    """
    file = page.removeprefix(_OUTSIDE) if page.startswith(_OUTSIDE) else f"docs/{page}"
    found = posixpath.normpath(posixpath.join(posixpath.dirname(file), target))
    return found.removeprefix("docs/") if found.startswith("docs/") else _OUTSIDE + found
