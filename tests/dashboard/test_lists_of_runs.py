"""The pages of all runs, of all workspaces and of one, in a real browser, on a live system."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from sqlalchemy import update

from tests.dashboard.browser import Eyes, barriers, overflows
from tests.dashboard.conftest import Live
from workers.core.lifecycle import RunStatus
from workers.dashboard import pages
from workers.store.models import Run

MARKUP = "<b onmouseover=alert(1)>bold</b>"


@pytest.fixture(scope="module")
def runs(live: Live) -> dict[str, str]:
    """A run that has failed, of ada's, and one that has succeeded, of bob's: each of a workspace of its own."""
    failing = live.workspace("failing", 'output "x" {\n  value = var.nobody\n}\n')
    fine = live.workspace("fine")
    failed = live.ada.post("/runs", workspace=failing, kind="plan", message="needle").json["run_id"]
    succeeded = live.bob.post("/runs", workspace=fine, kind="plan_and_apply", auto_apply=True).json["run_id"]
    live.reaches(failed, "failed")
    live.reaches(succeeded, "succeeded")
    return {"failed": failed, "succeeded": succeeded}


def test_runs_are_filtered_and_the_address_says_how(eyes: Eyes, runs: dict[str, str]) -> None:
    failed, succeeded = (runs[status][:8] for status in ("failed", "succeeded"))
    with eyes.at("/runs") as page:
        rows = page.get_by_role("row")
        for row in (failed, succeeded):
            expect(rows.filter(has_text=row)).to_have_count(1)
        page.get_by_label("failed").check()
        expect(rows.filter(has_text=succeeded)).to_have_count(0)
        expect(rows.filter(has_text=failed)).to_contain_text("undeclared input variable")
        page.get_by_label("By").fill("bob")
        page.keyboard.press("Enter")
        expect(page.get_by_text("No run is like that.")).to_be_visible()
        assert page.url.endswith("?actor=bob&status=failed")
    with eyes.at("/runs?text=needle") as page:
        expect(page.get_by_label("Text")).to_have_value("needle")
        expect(page.get_by_role("row").filter(has_text=failed)).to_contain_text("ada")
        expect(page.get_by_role("row")).to_have_count(2)


def test_a_run_that_is_enqueued_appears(live: Live, eyes: Eyes, runs: dict[str, str]) -> None:
    with eyes.at("/runs?workspace=fine") as page:
        expect(page.locator("#connection")).to_have_text("live")
        expect(page.get_by_role("row")).to_have_count(2)
        run = live.ada.post("/runs", workspace="fine", kind="plan").json["run_id"]
        expect(page.get_by_role("row").filter(has_text=run[:8])).to_contain_text("succeeded")


def test_older_runs_are_on_further_pages(live: Live, eyes: Eyes) -> None:
    many = live.workspace("many", pool="default")
    ids = [live.ada.post("/runs", workspace=many, kind="plan").json["run_id"] for _ in range(3)]
    with eyes.at(f"/runs?workspace={many}&before={ids[2]}") as page:
        expect(page.get_by_role("row")).to_have_count(3)
        page.get_by_role("link", name="Newest").click()
        expect(page.get_by_role("row")).to_have_count(4)


def test_a_workspace_shows_what_runs_what_was_applied_last_and_its_history(
    live: Live, eyes: Eyes, runs: dict[str, str]
) -> None:
    with eyes.at("/workspaces") as page:
        page.get_by_label("Search workspaces").fill("fin")
        expect(page.get_by_role("row")).to_have_count(2)
        page.get_by_role("link", name="fine").click()
        expect(page.get_by_role("region", name="History")).to_contain_text(runs["succeeded"][:8])
        expect(page.locator(".facts")).to_contain_text(re.compile(f"Last applied\\s*{runs['succeeded'][:8]}"))
        expect(page.get_by_role("region", name="Now")).to_contain_text("Nothing runs or waits.")


def test_a_workspace_that_is_named_like_markup_stays_text(live: Live, eyes: Eyes, runs: dict[str, str]) -> None:
    """No such name is accepted: this one is written into the database."""
    with live.system.database.begin() as session:
        session.execute(update(Run).where(Run.id == runs["failed"]).values(workspace=MARKUP))
    try:
        with eyes.at("/runs?text=needle") as page:
            expect(page.get_by_role("link", name=MARKUP)).to_be_visible()
            assert page.locator("#content b").count() == 0
    finally:
        with live.system.database.begin() as session:
            session.execute(update(Run).where(Run.id == runs["failed"]).values(workspace="failing"))


@pytest.mark.parametrize("path", ["/runs", "/workspaces", "/workspaces/fine"])
def test_everybody_can_use_the_pages(eyes: Eyes, runs: dict[str, str], path: str) -> None:
    for width, dark in ((1280, False), (360, True)):
        with eyes.at(path, width=width, dark=dark) as page:
            expect(page.locator("#connection")).to_have_text("live")
            assert barriers(page) == []
            assert not overflows(page)


def test_every_status_has_a_sign() -> None:
    words = (pages.ASSETS / "words.js").read_text()
    signs = re.search(r"const SIGNS = {(.*?)};", words, re.DOTALL)
    assert signs is not None
    assert set(re.findall(r"(\w+):", signs[1])) == set(RunStatus)
