"""The page of slots, in a real browser, on a live system with real runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.dashboard.browser import Eyes, barriers, overflows
from tests.dashboard.conftest import Live
from tests.dashboard.test_dashboard import POOL, close, dashboard, populated
from tests.valkey_server import running_valkey
from workers.protocol.kinds import RunKind


def test_the_page_changes_by_itself_when_a_run_starts_waits_and_ends(live: Live, eyes: Eyes) -> None:
    workspace = live.workspace("watched", 'resource "terraform_data" "x" {}\n')
    with eyes.at("/slots") as page:
        expect(page.locator("#connection")).to_have_text("live")
        run = live.ada.post("/runs", workspace=workspace, kind="plan_and_apply").json["run_id"]
        slot = page.locator(".slot", has_text=workspace)
        expect(slot).to_contain_text("waits for a person")
        expect(slot).to_contain_text("+1 ~0")
        expect(slot).to_contain_text("ends in 23 h")
        expect(slot.get_by_role("link", name=run[:8])).to_be_visible()
        live.ada.post(f"/runs/{run}/discard")
        expect(slot).to_have_count(0)


def test_everybody_can_use_the_page(live: Live, eyes: Eyes) -> None:
    for width, dark in ((1280, False), (360, True)):
        with eyes.at("/slots", width=width, dark=dark) as page:
            expect(page.get_by_role("region", name="Pool default")).to_be_visible()
            assert barriers(page) == []
            assert not overflows(page)


def test_a_thousand_agents_are_shown_and_filtered_within_two_seconds(tmp_path: Path, browser: Browser) -> None:
    with running_valkey() as redis_url:
        system = populated(tmp_path, redis_url)
        slots = system.slots(POOL)
        for number in range(1_000):
            slots.register(f"many-{number:04}", f"life-{number}")
        for number in range(1_500):
            assert slots.acquire(f"run-of-{number}", RunKind.PLAN, f"token-{number}")
        close(system)
        with dashboard(tmp_path, redis_url) as ask, Eyes(browser, ask.port).at("/runs", None) as page:
            agents = page.get_by_role("region", name=f"Pool {POOL}").locator("tbody tr", has=page.locator(".slot"))
            search = page.get_by_label("Search agents, runs and workspaces")

            def timed(act: Callable[[], object], shown: Callable[[], None]) -> float:
                begun = time.monotonic()
                act()
                shown()
                return time.monotonic() - begun

            def look() -> tuple[float, float]:
                rendered = timed(lambda: page.goto("/slots"), lambda: expect(agents.nth(199)).to_be_attached())
                return rendered, timed(lambda: search.fill("many-0999"), lambda: expect(agents).to_have_count(1))

            # The best of some: other tests share the processor.
            assert any(max(look()) < 2 for _ in range(4))
            search.fill("")
            page.get_by_role("button", name="Show all 751").click()
            expect(agents).to_have_count(751)
            page.get_by_text("250 idle agents").click()
            expect(page.get_by_text("many-0001")).to_be_visible()


def test_a_page_that_loses_its_connection_says_so_and_comes_back(tmp_path: Path, browser: Browser) -> None:
    with running_valkey() as redis_url, ExitStack() as open_page:
        close(populated(tmp_path, redis_url))
        prefixed = {"prefix": "/ops", "FLOWER_URL_PREFIX": "ops"}
        with dashboard(tmp_path, redis_url, **prefixed) as ask:
            lost = ("ERR_", "Failed to load")
            page = open_page.enter_context(Eyes(browser, ask.port).at("/ops/slots", None, faults=lost))
            connection = page.locator("#connection")
            expect(connection).to_have_text("live")
        expect(connection).to_contain_text("The connection is lost")
        expect(page.get_by_role("region", name=f"Pool {POOL}")).to_contain_text("default-1")
        with dashboard(tmp_path, redis_url, port=ask.port, **prefixed):
            expect(connection).to_have_text("live")
            expect(page.locator("#problem")).to_be_hidden()

            page.route("**/changes", lambda _: None)  # a proxy that holds the stream back
            page.reload()
            expect(page.get_by_role("region", name=f"Pool {POOL}")).to_contain_text("default-1")

            page.route("**/api/v1/**", lambda route: route.fulfill(status=401))
            page.reload()
            expect(page.locator("#problem")).to_have_text("You are signed in no longer: load this page again.")
