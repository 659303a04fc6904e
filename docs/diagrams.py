"""Draws the diagrams of the pages that changed: ``python docs/diagrams.py``, once after a diagram was written anew.

Pages hold diagrams as Mermaid blocks, which a forge renders by itself. The site shows them as the SVG files in
``docs/diagrams``, each named by the digest of its block: to show a page loads no script, and building the site takes
neither a browser nor Mermaid. Only this program does, which takes Mermaid by npm, held to its checksum, and draws in
Chromium.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DRAWN = ROOT / "docs" / "diagrams"
BLOCK = re.compile(r"^```mermaid\n(.*?)^```\n", re.MULTILINE | re.DOTALL)

_VERSION = "11.17.2"
_SHA256 = "581ed7d74bd9048d0e3a91363927d72ef22942d7722546b27f7cc29e35390eb8"
_SCRIPT = "package/dist/mermaid.min.js"
# Labels as SVG text, which pictures may have; ids that are the same each time.
_SETTINGS = {
    "startOnLoad": False, "theme": "neutral", "htmlLabels": False, "flowchart": {"htmlLabels": False},
    "state": {"htmlLabels": False}, "deterministicIds": True, "fontFamily": "sans-serif",
}  # fmt: skip
_DRAW = (
    "async ([name, code, settings]) => { mermaid.initialize(settings); return (await mermaid.render(name, code)).svg }"
)


def name_of(code: str) -> str:
    """Return the name of the file that shows a block."""
    return f"{hashlib.sha256(code.encode()).hexdigest()[:16]}.svg"


def blocks() -> dict[str, str]:
    """Return the blocks of all pages by the names of their files."""
    pages = (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
    return {name_of(code): code for page in pages for code in BLOCK.findall(page.read_text(encoding="utf-8"))}


def draw(codes: dict[str, str]) -> dict[str, str]:
    """Return the SVG of each of these blocks."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - who builds the site does without

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.add_script_tag(content=_mermaid())
        drawn = {name: page.evaluate(_DRAW, [f"d{name[:8]}", code, _SETTINGS]) for name, code in codes.items()}
        browser.close()
    return drawn


def _mermaid() -> str:
    with tempfile.TemporaryDirectory() as directory:
        npm = ["npm", "pack", "--silent", f"mermaid@{_VERSION}"]
        subprocess.run(npm, cwd=directory, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        (package,) = Path(directory).glob("*.tgz")
        with tarfile.open(package) as archive:
            script = archive.extractfile(_SCRIPT)
            content = script.read() if script else b""
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise SystemExit(f"mermaid {_VERSION} is not what it was: its {_SCRIPT} has another checksum.")
    return content.decode()


def main() -> int:
    """Draw what is missing, and remove what no page has any more."""
    wanted = blocks()
    there = {file.name for file in DRAWN.glob("*.svg")}
    for name in there - wanted.keys():
        (DRAWN / name).unlink()
    if missing := {name: code for name, code in wanted.items() if name not in there}:
        for name, svg in draw(missing).items():
            (DRAWN / name).write_text(f"{svg}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
