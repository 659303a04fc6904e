"""The page of slots, in a real browser, on a live system with real runs."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.dashboard.browser import Eyes, barriers, overflows
from tests.dashboard.conftest import Live


def test_the_page_changes_by_itself_when_a_run_starts_waits_and_ends(live: Live, eyes: Eyes) -> None:
    workspace = live.workspace("watched", 'resource "terraform_data" "x" {}\n')
    with eyes.at("/slots") as page:
        expect(page.locator("#connection")).to_have_text("live")
        run = live.ada.post("/runs", workspace=workspace, kind="plan_and_apply").json["run_id"]
        slot = page.locator(".slot", has_text=workspace)
        expect(slot).to_contain_text("reserved")
        expect(slot.get_by_role("link", name=run[:8])).to_be_visible()
        live.ada.post(f"/runs/{run}/discard")
        expect(slot).to_have_count(0)


def test_everybody_can_use_the_page(live: Live, eyes: Eyes) -> None:
    for width, dark in ((1280, False), (360, True)):
        with eyes.at("/slots", width=width, dark=dark) as page:
            expect(page.get_by_role("region", name="Pool default")).to_be_visible()
            assert barriers(page) == []
            assert not overflows(page)
