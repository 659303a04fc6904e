"""The dashboard as a process, asked over HTTP, on a real Valkey and SQLite."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.dashboard.browser import Eyes
from tests.valkey_server import running_valkey
from tests.waiting import eventually
from workers.app import build_app
from workers.dashboard.server import read_options
from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import RunKind
from workers.protocol.sources import DirectorySource
from workers.services import workspaces
from workers.services.pools import manage as pools
from workers.services.runs import dispatch, submit
from workers.services.runs.submit import RunRequest
from workers.services.system import System, build
from workers.settings import Settings
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store import decisions
from workers.store import pools as stored_pools
from workers.store.models import Pool

POOL = "default"
HOSTILE = "<script>alert('x')</script>"
PERSON = {"Authorization": f"Basic {base64.b64encode(b'me:secret').decode()}"}


@dataclass(frozen=True)
class Page:
    status: int
    text: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Ask:
    """Asks one dashboard for a page."""

    port: int

    def __call__(self, path: str, **headers: str) -> Page:
        return get(self.port, path, **headers)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str, **headers: str) -> Page:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return Page(answer.status, answer.read().decode(), dict(answer.getheaders()))
    finally:
        connection.close()


@contextmanager
def dashboard(
    home: Path, redis_url: str, *options: str, prefix: str = "", port: int | None = None, **variables: str
) -> Iterator[Ask]:
    """Run a dashboard, and yield what asks it for a page; it ends by SIGTERM, at once and without a complaint."""
    port = port or free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TERRASLOT_", "FLOWER_"))}
    settings = {"TERRASLOT_HOME": str(home), "TERRASLOT_REDIS_URL": redis_url} | variables
    program = [sys.executable, "-m", "workers.dashboard", f"--port={port}", *options]
    with subprocess.Popen(program, env=kept | settings, cwd=home, stderr=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: answers(process, port, f"{prefix}/healthcheck"), timeout=120)
            yield Ask(port)
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in said) == (0, False), said


def answers(process: subprocess.Popen[str], port: int, path: str) -> bool:
    assert process.poll() is None, process.stderr.read()
    try:
        return get(port, path).text == "OK"
    except OSError:
        return False


def populated(home: Path, redis_url: str) -> System:
    """Return a system with one agent: a plan runs on it, an apply waits for its workspace's turn and one for a slot.

    A second pool of it can't be read.
    """
    config = Settings(home=home, redis_url=redis_url, database_url="", broker_url="")
    system = build(config, build_app("test", [], [], config))
    system.database.migrate()
    pools.ensure(system, PoolSpec(name=POOL))
    (home / "main.tf").touch()
    for name in ("net", "dns", "web"):
        workspaces.create(system, WorkspaceSpec(name=name, source=DirectorySource(path=str(home))))
    system.slots(POOL).register("default-1", "life-1")
    for number, (name, kind) in enumerate(
        [("net", RunKind.PLAN), ("dns", RunKind.PLAN_AND_APPLY), ("web", RunKind.PLAN_AND_APPLY)]
    ):
        task = {"name": f"terraform.{kind}", "args": [], "kwargs": {}, "options": {"task_id": f"run-{number}"}}
        submit.submit(system, f"run-{number}", kind, RunRequest(workspace=name), task)
    dispatch.dispatch(system, POOL)
    with system.database.begin() as session:
        decisions.record(session, POOL, system.now(), current=1, desired=2, reason=f"reason {HOSTILE}", facts={})
        stored_pools.set_status(session, POOL, f"status {HOSTILE}", system.now())
        stored_pools.save(session, PoolSpec(name="broken"), system.now())
        session.get_one(Pool, "broken").spec = {"name": "broken", "limits": {"max_agents": "lots"}}
    return system


def close(system: System) -> None:
    system.database.dispose()
    system.celery.close()
    system.redis.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """A dashboard with basic authentication, of a populated system."""
    home = tmp_path_factory.mktemp("guarded")
    with running_valkey() as redis_url:
        system = populated(home, redis_url)
        with dashboard(home, redis_url, "--basic-auth=me:secret") as ask:
            yield ask
        close(system)


@pytest.mark.parametrize("path", ["/slots", "/slots.json", "/tasks"])
def test_flowers_authentication_guards_the_slots_like_its_own_pages(guarded, path) -> None:
    assert guarded(path).status == 401
    assert guarded(path, Authorization="Basic bWU6d3Jvbmc=").status == 401
    assert guarded(path, **PERSON).status == 200


def test_the_json_has_the_same_facts_for_programs(guarded) -> None:
    answer = guarded("/slots.json", **PERSON)
    assert answer.headers["Content-Type"].startswith("application/json")
    broken, pool = answer.json["pools"]
    assert (broken["name"], broken["type"], broken["limits"]["max_agents"]) == ("broken", "unreadable", None)
    assert answer.json["error"] is None
    (agent,) = pool["agents"]
    assert [slot["run_id"] for slot in agent["slots"]] == ["run-1", "run-0", None]
    assert pool["pending"] == {"plan": 0, "plan_and_apply": 1}
    assert [run["run_id"] for run in pool["waiting"]] == ["run-2"]


@pytest.mark.parametrize("path", ["/workers", "/tasks", "/broker", "/slots"])
def test_every_page_of_flower_links_to_the_slots(guarded, path) -> None:
    page = guarded(path, **PERSON).text
    assert re.search(r'<a class="nav-link( active)?" href="/slots"', page)


@pytest.mark.parametrize(
    "line",
    [
        "terraslot_up 1.0",
        'terraslot_slots{pool="default",state="running"} 2.0',
        'terraslot_slots{pool="default",state="reserved"} 0.0',
        'terraslot_slots{pool="default",state="idle"} 1.0',
        'terraslot_slots_free{kind="plan",pool="default"} 1.0',
        'terraslot_slots_free{kind="plan_and_apply",pool="default"} 0.0',
        'terraslot_agents{pool="default",state="available"} 1.0',
        'terraslot_agents_limit{limit="max",pool="default"} 3.0',
        'terraslot_runs_pending{kind="plan_and_apply",pool="default"} 1.0',
        'terraslot_runs{pool="default",status="planning"} 2.0',
    ],
)
def test_the_pools_are_among_flowers_metrics(guarded, line) -> None:
    assert line in guarded("/metrics", **PERSON).text.splitlines()


def test_the_page_shows_what_runs_what_waits_and_what_can_not_be_read_and_none_of_it_is_markup(
    guarded: Ask, browser: Browser
) -> None:
    """F36."""
    with Eyes(browser, guarded.port).at("/slots", "me") as page:
        broken, pool = (page.get_by_role("region", name=f"Pool {name}") for name in ("broken", POOL))
        expect(broken).to_contain_text("limits.max_agents: must be a whole number")
        expect(pool).to_contain_text(f"status {HOSTILE}")
        slots = pool.get_by_role("row").filter(has_text="default-1").locator(".slot")
        expect(slots).to_contain_text(["dns plan and apply", "net plan", "idle"])
        expect(pool.get_by_role("row").filter(has_text="run-2")).to_contain_text("web")


def test_an_outage_is_told_on_the_page_which_keeps_what_it_showed_and_comes_back(
    tmp_path: Path, browser: Browser
) -> None:
    """Under a prefix of Flower's, so that the pages are seen to move with it."""
    port = free_port()
    redis_url = f"redis://127.0.0.1:{port}/0"
    with dashboard(tmp_path, redis_url, "--url-prefix=ops", prefix="/ops") as ask, ExitStack() as opened:
        no_tables = ask("/ops/api/v1/pools")
        assert (no_tables.status, "`terraslot up`" in no_tables.text) == (503, True)
        with running_valkey(port):
            close(populated(tmp_path, redis_url))
            eventually(lambda: ask("/ops/api/v1/pools").status == 200)  # what was found is shared for a second
            page = opened.enter_context(Eyes(browser, ask.port).at("/ops/slots", None, faults=("503",)))
            expect(page.locator("#connection")).to_have_text("live")
        no_redis = eventually(lambda: (found := ask("/ops/slots.json")).status != 200 and found)
        assert (no_redis.status, no_redis.json["pools"]) == (503, [])
        assert redis_url in no_redis.json["error"]
        expect(page.locator("#connection")).to_contain_text(redis_url)
        expect(page.get_by_role("region", name="Pool default")).to_contain_text("default-1")
        assert 'href="/ops/slots"' in ask("/ops/workers").text
        assert "terraslot_up 0.0" in ask("/ops/metrics").text
        assert ask("/ops/healthcheck").text == "OK"
        assert ask("/slots").status == 404
        with running_valkey(port):
            expect(page.locator("#connection")).to_have_text("live")
            expect(page.get_by_role("region", name="Pool default")).not_to_contain_text("default-1")


def test_nothing_but_what_this_server_sends_gets_into_a_page(guarded: Ask) -> None:
    answer = guarded("/slots", **PERSON)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    inline = r"<script(?![^>]* src=)|\son\w+=|<style| style="
    foreign = r"<(?:script|link|img)[^>]*(?:src|href)=\"(?:https?:)?//"
    assert re.findall(f"{inline}|{foreign}", answer.text) == []


def refusal(home: Path, *options: str, **variables: str) -> str:
    """Return what a dashboard says that does not start."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TERRASLOT_", "FLOWER_"))}
    program = [sys.executable, "-m", "workers.dashboard", *options]
    environment = kept | {"TERRASLOT_HOME": str(home)} | variables
    done = subprocess.run(program, env=environment, cwd=home, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in refusal(tmp_path, f"--port={port}")


def test_a_setting_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    assert "TERRASLOT_LOG_LEVEL" in refusal(tmp_path, TERRASLOT_LOG_LEVEL="LOUD")


def test_an_option_that_flower_does_not_have_is_refused(monkeypatch) -> None:
    with pytest.raises(InvalidRequest, match="--prot=1"):
        read_options(["--prot=1"])
    monkeypatch.setenv("FLOWER_PORT", "many")
    with pytest.raises(InvalidRequest, match="many"):
        read_options([])
