"""The site of the documentation: what is wrong with a page ends its build, and a browser loads nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTS = {
    "[a page](nowhere.md)": "link to nowhere.md",
    "[a part](reference.md#nowhere)": "does not contain an anchor '#nowhere'",
    "[code](../workers/nowhere.py)": "link to ../workers/nowhere.py",
    "![a picture](https://elsewhere.example/picture.png)": "loads https://elsewhere.example/picture.png",
    '<script src="//elsewhere.example/script.js"></script>': "loads //elsewhere.example/script.js",
    "```mermaid\nflowchart LR\n    new --> diagram\n```": "a diagram that is not drawn",
}


def built(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)], cwd=root, text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    done = built(ROOT, made)
    assert done.returncode == 0, done.stderr
    return made


def test_every_page_and_diagram_is_on_the_site_and_programs_are_not(site: Path) -> None:
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} | {"architecture", "changelog", "chart"}
    assert {page.stem for page in site.glob("*.html")} == pages | {"404"}
    assert list(site.rglob("*.py")) == []
    shown = re.findall(r'src="(diagrams/[^"]+)"', "".join(page.read_text() for page in site.glob("*.html")))
    assert len(shown) == 4
    assert all((site / path).exists() for path in shown)


def test_code_that_a_page_links_to_is_named_and_no_link_leads_out_of_the_site(site: Path) -> None:
    text = (site / "architecture.html").read_text()
    assert "<code>workers/core/lifecycle.py</code>" in text
    assert not re.search(r'href="[^"#]*\.(py|lua)["#]', text)


def test_no_page_holds_what_its_scripts_would_fetch_from_elsewhere(site: Path) -> None:
    assert [page.name for page in site.rglob("*.html") if 'class="mermaid' in page.read_text()] == []


def test_each_fault_of_a_page_ends_the_build_with_its_name(tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(ROOT / "docs", root / "docs")
    for entry in ROOT.iterdir():
        if entry.name not in ("docs", "build", ".git"):
            (root / entry.name).symlink_to(entry)
    with (root / "docs" / "questions.md").open("a") as page:
        page.write("".join(f"\n{fault}\n" for fault in FAULTS))
    with (root / "docs" / "site.css").open("a") as style:
        style.write("@import url(https://elsewhere.example/font.css);")
    done = built(root, tmp_path / "site")
    assert done.returncode == 1
    wanted = (*FAULTS.values(), "site.css loads https://elsewhere.example/font.css")
    assert [words for words in wanted if words not in done.stderr] == []
