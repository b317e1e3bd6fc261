"""Links of a built documentation that lead nowhere, without a network.

::

    python -m tests.lab.links docs/_build

Files and anchors have to be there.  Of what leads out of the documentation
nothing is fetched, but what a page itself would load from elsewhere, such as
scripts and fonts, is not allowed.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
import sys
from typing import Iterator
from typing import Optional
from urllib.parse import unquote
from urllib.parse import urlsplit


class Page(HTMLParser):
    """What a page links to, what it loads, and where it can be linked to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(
        self, tag: str, attrs: list[tuple[str, Optional[str]]]
    ) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(given.get(key, "") for key in ("id", "name"))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and "href" in given:
            self.loads.append(given["href"])
        elif "src" in given:
            self.loads.append(given["src"])


def broken(folder: Path) -> Iterator[str]:
    """Tell of every link on the pages in a folder that leads nowhere."""
    pages = {
        file.resolve(): Page(file) for file in sorted(folder.rglob("*.html"))
    }
    for page in pages.values():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loads and parts.scheme != "data":
                    yield f"{page.file}: loads {link}"
                continue
            target = page.file.resolve()
            if parts.path:
                target = (target.parent / unquote(parts.path)).resolve()
            if not target.is_file():
                yield f"{page.file}: no file for {link}"
            elif parts.fragment and target in pages:
                if unquote(parts.fragment) not in pages[target].anchors:
                    yield f"{page.file}: no anchor for {link}"


if __name__ == "__main__":
    found = list(broken(Path(sys.argv[1])))
    print("\n".join(found) or "all links lead somewhere")
    sys.exit(bool(found))
