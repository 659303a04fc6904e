"""A real browser that looks at the pages, as a person who is signed in, or as nobody."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# A root's Chromium has no sandbox, and none of the rest has anything to ask of the network.
_OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
_SECONDS = 60_000  # milliseconds that a page has for what it is expected to show
expect.set_options(timeout=_SECONDS)
SERIOUS = frozenset({"serious", "critical"})


@dataclass(frozen=True)
class Eyes:
    """Somebody who opens pages of one dashboard."""

    browser: Browser
    port: int

    @contextmanager
    def at(
        self, path: str, person: str | None = "ada", width: int = 1280, dark: bool = False, faults: tuple[str, ...] = ()
    ) -> Iterator[Page]:
        """Open a page. What its scripts or its policy complain of fails the test, except what holds a ``fault``."""
        context = self.browser.new_context(
            base_url=f"http://127.0.0.1:{self.port}",
            http_credentials=None if person is None else {"username": person, "password": "secret"},
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        context.set_default_timeout(_SECONDS)
        complaints: list[str] = []
        try:
            page = context.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
            page.goto(path)
            expect(page.locator("#content")).not_to_have_attribute("aria-busy", "true")
            yield page
        finally:
            context.close()
        assert [words for words in complaints if not any(fault in words for fault in faults)] == []


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the machine's Chromium. Without one the test is skipped, in CI it fails."""
    if PROGRAM is None:
        if os.environ.get("CI"):
            pytest.fail("CI installs Chromium, and there is none.")
        pytest.skip("There is no Chromium on PATH.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=list(_OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


def barriers(page: Page) -> list[str]:
    """Return what keeps people from using a page, as axe finds it: what is serious."""
    found = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {violation['nodes'][0]['html']}" for violation in found if violation["impact"] in SERIOUS
    ]


def overflows(page: Page) -> bool:
    """Whether a page is wider than its window, so that it scrolls sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))
