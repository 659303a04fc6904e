"""The page of a pool, in a real browser, on a live system with real runs."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.dashboard.browser import Eyes, barriers, overflows
from tests.dashboard.conftest import Live

STARTED = "runs wait and there is no agent"


def test_a_pool_says_why_it_has_so_many_agents_and_how_that_came(live: Live, eyes: Eyes) -> None:
    workspace = live.workspace("charted")
    run = live.ada.post("/runs", workspace=workspace, kind="plan").json["run_id"]
    live.reaches(run, "succeeded")
    with eyes.at("/slots") as page:
        page.get_by_role("link", name="default").click()
        expect(page.get_by_role("region", name="The pool")).to_contain_text("no run lacks a slot")
        chart = page.get_by_role("group", name="Agents", exact=True)
        expect(chart.locator("path.line-0")).to_have_attribute("d", re.compile("H"))
        mark = chart.get_by_role("img", name=STARTED)
        mark.first.focus()
        expect(page.locator(".chart-said").first).to_contain_text(STARTED)
        expect(chart.locator('.mark[tabindex="0"]')).to_have_count(1)  # the arrows lead to the others
        decision = page.get_by_role("region", name="Scaling decisions").get_by_role("row").filter(has_text=STARTED).last
        decision.get_by_text("facts").click()
        expect(decision).to_contain_text(re.compile("pending (plans|applies): 1"))
        page.get_by_label("The last").select_option("1 hour")
        expect(page.get_by_role("group", name="Slots and runs")).to_be_visible()


def test_everybody_can_use_the_page(live: Live, eyes: Eyes) -> None:
    for width, dark in ((1280, False), (360, True)):
        with eyes.at("/pools/default", width=width, dark=dark) as page:
            expect(page.locator("#connection")).to_have_text("live")
            assert barriers(page) == []
            assert not overflows(page)
