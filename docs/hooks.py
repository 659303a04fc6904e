"""What the site needs beyond Markdown: pages from elsewhere in the repository, diagrams, and what it must not load.

The same files are read in the repository, where links lead to code. The site has none: there, such a link becomes the
path that it names. What is wrong, a path that is not there, a diagram that was not drawn, or something that a browser
would load from elsewhere, is logged as a warning, of which the strict build makes an error.
"""

from __future__ import annotations

import importlib.util
import logging
import posixpath
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Pages of the site by where they are in the repository.
ELSEWHERE = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "charts/terraslot/README.md": "chart.md",
}
HOME = {"README.md": "index.md"}

log = logging.getLogger("mkdocs.plugins.terraslot")

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s:#]+)((?:#[^)\s]*)?)\)")
_FENCE = re.compile(r"^(```.*?^```\n)", re.MULTILINE | re.DOTALL)
# What a browser loads by itself, by element and attribute.
_LOADED = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src",
    "object": "data", "link": "href",
}  # fmt: skip
_NOT_LOADED = {"canonical", "prev", "next", "alternate"}  # links of the head that tell a machine something
_OF_STYLES = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are elsewhere in the repository."""
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001 - the hook's signature
    """Let links lead where the site has something, and show diagrams as they were drawn."""
    name = page.file.src_uri
    source = next((source for source, target in ELSEWHERE.items() if target == name), f"docs/{name}")

    def linked(found: re.Match[str]) -> str:
        return _linked(source, *found.groups())

    def drawn(found: re.Match[str]) -> str:
        file = _diagrams().name_of(found[1])
        if not (ROOT / "docs" / "diagrams" / file).exists():
            log.warning("%s has a diagram that is not drawn: run python docs/diagrams.py.", source)
        return f"![{found[1].split()[0]}](diagrams/{file}){{ .diagram }}\n"

    parts = _FENCE.split(_diagrams().BLOCK.sub(drawn, markdown))
    return "".join(part if part.startswith("```") else _LINK.sub(linked, part) for part in parts)


def _linked(source: str, words: str, target: str, anchor: str) -> str:
    """Return a link of the page ``source`` as the site has it."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if not (ROOT / path).exists():
        log.warning("%s has a link to %s, which is not there.", source, target)
    inside = path.removeprefix("docs/") if path.startswith("docs/") else (ELSEWHERE | HOME).get(path)
    if inside is not None:
        return f"[{words}]({inside}{anchor})"
    return f"`{path}`" if words in (target, path) else f"{words} (`{path}`)"


def on_post_build(config: Any) -> None:
    """Look for what a browser would load from elsewhere."""
    site = Path(config["site_dir"])
    for file in site.rglob("*.html"):
        finder = _Loaded()
        finder.feed(file.read_text(encoding="utf-8"))
        for address in finder.foreign:
            log.warning("%s loads %s, which is not on this site.", file.relative_to(site), address)
    for file in site.rglob("*.css"):
        for address in _OF_STYLES.findall(file.read_text(encoding="utf-8")):
            log.warning("%s loads %s, which is not on this site.", file.relative_to(site), address)


class _Loaded(HTMLParser):
    """Collects the addresses on other sites that a page loads something from, as ``foreign``."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element loads."""
        given = dict(attrs)
        address = given.get(_LOADED.get(tag, "")) or ""
        loads = tag != "link" or given.get("rel") not in _NOT_LOADED
        if loads and re.match(r"(?:[a-z]+:)?//", address):
            self.foreign.append(address)


def _diagrams() -> Any:
    """Return the module that draws diagrams; this one is loaded by its path, and knows no other."""
    if "terraslot_diagrams" not in sys.modules:
        spec = importlib.util.spec_from_file_location("terraslot_diagrams", Path(__file__).with_name("diagrams.py"))
        assert spec and spec.loader  # noqa: PT018, S101 - for the reader of types
        sys.modules["terraslot_diagrams"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["terraslot_diagrams"])
    return sys.modules["terraslot_diagrams"]
