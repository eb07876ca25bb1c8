"""What is on a page: its texts, and whether anything of it is loaded or runs."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

_EMPTY = {"meta", "img", "br", "path", "use", "rect"}
_LOADS = {"script", "link", "iframe", "object", "embed", "base", "form", "audio", "video", "source"}


class Page(HTMLParser):
    """A page that was read.

    Attributes:
        tags: in order; texts: between them, without styles.
        addresses: of all attributes that can load something.
    """

    def __init__(self, file: Path | str) -> None:
        super().__init__()
        self.whole = file.read_text(encoding="utf-8") if isinstance(file, Path) else file
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.alone: list[str] = []
        self._open: list[str] = []
        self.feed(self.whole)
        assert not self._open, f"never closed: {self._open}"

    @property
    def text(self) -> str:
        """All that is to be read, with single spaces."""
        return " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _EMPTY:
            self._open.append(tag)
        for name, value in attrs:
            self.addresses += [value or ""] if name in ("src", "href", "xlink:href", "srcset", "action") else []
            self.addresses += re.findall(r"url\(([^)]*)\)", value or "")
            self.ids += [value or ""] if name == "id" else []
            assert not name.startswith("on"), f"{tag} has {name}"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _EMPTY:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in _EMPTY:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.texts.append(data)

    def check_alone(self) -> None:
        """Nothing is loaded from anywhere, and nothing runs."""
        assert set(self.tags) & _LOADS == set()
        outside = [address for address in self.addresses if not address.startswith(("#", "data:image/png"))]
        assert outside == []
        assert [address[1:] for address in self.addresses if address[:1] == "#" and address[1:] not in self.ids] == []
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', self.whole)
        assert policy is not None
        assert policy[1].startswith("default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;; img-src data:")
        style = self.whole[self.whole.index("<style>") : self.whole.index("</style>")]
        assert "url(" not in style
        assert "@import" not in style
