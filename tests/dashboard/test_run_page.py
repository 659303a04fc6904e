"""The page of a run, in a real browser, on a live system with real runs."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.browser import Eyes, barriers, overflows
from tests.dashboard.conftest import Live
from tests.dashboard.test_dashboard import close, dashboard, populated
from tests.valkey_server import running_valkey
from workers.protocol.states import StateLock
from workers.store import runs, states

MARKUP = "<img src=x onerror=alert(1)>"
CODE = 'resource "terraform_data" "made" {\n  input = "x"\n}\n\noutput "markup" {\n  value = "' + MARKUP + '"\n}\n'


@pytest.fixture(scope="module")
def workspace(live: Live) -> str:
    return live.workspace("decided", CODE)


def planned(live: Live, workspace: str, **options: object) -> str:
    run = live.ada.post("/runs", workspace=workspace, kind="plan_and_apply", **options).json["run_id"]
    live.reaches(run, "apply_pending")
    return str(run)


def decide(page: Page, verb: str) -> None:
    page.get_by_role("button", name=re.compile(f"^{verb}")).click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile(f"^{verb}")).click()


def seen(page: Page, by_somebody: bool) -> None:
    """Hide a page behind another tab, or show it."""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        not by_somebody,
    )


def test_a_confirm_from_the_page_applies_and_a_second_one_is_refused(live: Live, eyes: Eyes, workspace: str) -> None:
    run = planned(live, workspace, message=MARKUP)
    with eyes.at(f"/runs/{run}") as page, eyes.at(f"/runs/{run}", "bob", faults=("409",)) as late:
        expect(page.get_by_role("region", name="What the plan does")).to_contain_text("terraform_data.made")
        late.get_by_role("button", name="Confirm").click()  # its dialog stays open while another confirms
        page.get_by_role("button", name="Confirm").click()
        page.get_by_label("Why (on record with the run)").fill("looked at it")
        page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
        expect(page.locator(".badge-state").first).to_have_text(re.compile("succeeded"))
        late.get_by_role("dialog").get_by_role("button", name="Confirm").click()
        expect(late.get_by_role("dialog").get_by_role("alert")).to_contain_text("can't be confirmed")

        expect(page.locator("#content")).to_contain_text(MARKUP)
        expect(page.get_by_role("region", name="Outputs")).to_contain_text(MARKUP)
        assert page.locator("#content img").count() == 0
        confirmed = page.get_by_role("region", name="Events").get_by_role("row").filter(has_text="looked at it")
        expect(confirmed).to_contain_text("confirmed")
        expect(confirmed).to_contain_text("ada")
        expect(page.get_by_role("region", name="The run")).to_contain_text("Confirmed byada: looked at it")
        expect(page.get_by_role("button", name="Confirm")).to_have_count(0)


def test_what_destroys_is_marked_and_a_discard_ends_it(live: Live, eyes: Eyes, workspace: str) -> None:
    run = planned(live, workspace, destroy=True)
    with eyes.at(f"/runs/{run}") as page:
        expect(page.get_by_role("button", name="Confirm: destroys 1")).to_be_visible()
        expect(page.get_by_role("region", name="What the plan does")).to_contain_text("delete terraform_data.made")
        page.get_by_role("button", name="Extend").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_label("Hours")).to_have_value("4")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("button", name="Extend")).to_be_focused()
        decide(page, "Discard")
        expect(page.locator(".badge-state").first).to_have_text(re.compile("discarded"))


def test_the_log_follows_and_is_searched_and_folded_by_phase(live: Live, eyes: Eyes, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = f"echo before; until [ -e {gate} ]; do sleep 0.1; done; echo after"
    code = f'resource "terraform_data" "slow" {{\n  provisioner "local-exec" {{\n    command = "{wait}"\n  }}\n}}\n'
    slow = live.workspace("slow-log", code)
    run = live.ada.post("/runs", workspace=slow, kind="plan_and_apply", auto_apply=True).json["run_id"]
    with eyes.at(f"/runs/{run}") as page:
        output = page.get_by_role("group", name="Log of apply")
        expect(output).to_contain_text("(local-exec): before")
        assert "(local-exec): after" not in output.inner_text()
        seen(page, False)  # the streams end, and begin anew when somebody looks again
        seen(page, True)
        progress = page.get_by_role("region", name="Progress")
        expect(progress.get_by_role("row").filter(has_text="terraform_data.slow")).to_contain_text("working")
        expect(progress).to_contain_text("0 of 1 done, 1 under way")
        gate.touch()
        expect(output).to_contain_text("(local-exec): after")
        expect(progress).to_contain_text("1 of 1 done")
        page.get_by_label("Search the log").fill("LOCAL-EXEC): AFTER")
        expect(output.locator(".line:visible")).to_have_count(1)
        page.get_by_label("Search the log").fill("LOCAL-EXEC): BEFORE")
        expect(output.locator(".line:visible")).to_have_count(1)
        page.get_by_text("apply", exact=False).locator("xpath=ancestor-or-self::summary").click()
        expect(output).not_to_be_visible()


def test_a_failed_run_says_first_why(live: Live, eyes: Eyes) -> None:
    broken = live.workspace("broken-code", 'resource "terraform_data" "x" {\n  input = var.nobody\n}\n')
    run = live.ada.post("/runs", workspace=broken, kind="plan").json["run_id"]
    live.reaches(run, "failed")
    with live.system.database.begin() as session:
        lock = StateLock(id=str(uuid.uuid4()), who="ada@laptop")
        states.enter_lock(session, runs.get(session, run), lock, None, live.system.now())
    with eyes.at(f"/runs/{run}") as page:
        warning = page.locator(".alert-warning")
        expect(warning).to_contain_text(f"State lock {lock.id}: ")
        expect(warning).to_contain_text("ada@laptop")
        expect(warning).not_to_contain_text("{")
        expect(page.get_by_role("region", name="Why the run failed")).to_contain_text("undeclared input variable")


def test_everybody_can_use_the_page(live: Live, eyes: Eyes, workspace: str) -> None:
    run = planned(live, workspace, destroy=True)
    for width, dark in ((1280, False), (360, True)):
        with eyes.at(f"/runs/{run}", width=width, dark=dark) as page:
            expect(page.get_by_role("group", name="Log of plan")).to_contain_text("terraform plan")
            assert barriers(page) == []
            assert not overflows(page)
            page.get_by_role("button", name="Cancel run").click()
            assert barriers(page) == []
    live.ada.post(f"/runs/{run}/discard")


def test_a_page_of_another_site_decides_nothing(live: Live, eyes: Eyes, workspace: str) -> None:
    run = planned(live, workspace, destroy=True)
    with eyes.at("/slots", faults=("403",)) as page:
        page.goto(f"http://localhost:{eyes.port}/healthcheck")
        with page.expect_response(f"**/runs/{run}/discard") as answer:
            page.evaluate(
                "url => fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}'})",
                f"http://127.0.0.1:{eyes.port}/api/v1/runs/{run}/discard",
            )
        assert answer.value.status == 403
    live.reaches(run, "apply_pending")
    live.ada.post(f"/runs/{run}/discard")


@pytest.mark.parametrize(
    ("options", "variables", "why"),
    [
        ([], {"TERRASLOT_DASHBOARD_READ_ONLY": "true"}, "read-only"),
        (["--address=0.0.0.0"], {}, "configure Flower's authentication"),
    ],
)
def test_who_may_only_look_has_no_buttons_and_is_told_why(
    tmp_path: Path, browser: Browser, options: list[str], variables: dict[str, str], why: str
) -> None:
    with running_valkey() as redis_url:
        close(populated(tmp_path, redis_url))
        with (
            dashboard(tmp_path, redis_url, *options, **variables) as ask,
            Eyes(browser, ask.port).at("/runs/run-2", None, faults=("403",)) as page,
        ):
            decisions = page.get_by_role("region", name="Decisions")
            expect(decisions).to_contain_text(why)
            expect(decisions.get_by_role("button")).to_have_count(0)
            status = page.evaluate(
                "async () => (await fetch('/api/v1/runs/run-2/cancel', {method: 'POST', body: '{}', "
                "headers: {'Content-Type': 'application/json'}})).status"
            )
            assert status == 403
