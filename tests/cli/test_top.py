"""``top``, and what is watched: a whole answer on whatever terminal, and an end that leaves no trace on it."""

from __future__ import annotations

import os
import signal
import termios
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.test_following import Terminal
from tests.cli.test_looking import APPLY, finish_plan
from workers.cli import watch
from workers.cli.top import page
from workers.core.lifecycle import RunStatus
from workers.protocol.errors import Unavailable
from workers.protocol.leases import SLOTS_PER_AGENT, SlotState
from workers.protocol.messages import Changes
from workers.services.pools import views as pool_views
from workers.services.pools.views import AgentView, PoolView, SlotView
from workers.store import decisions

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def agent(number: int, *, busy: bool = True, state: str = "available") -> AgentView:
    run = f"{number:08}-0000-4000-8000-000000000000"
    held = SlotView(0, SlotState.RUNNING, run, f"net-{number}", APPLY, NOW, None, RunStatus.APPLYING)
    slots = (held if busy else SlotView(0, SlotState.IDLE), *(SlotView(n, SlotState.IDLE) for n in (1, 2)))
    assert len(slots) == SLOTS_PER_AGENT
    return AgentView(f"default-{number:04}", state, NOW, NOW - timedelta(seconds=20), (), slots)


@pytest.fixture
def pool(control) -> PoolView:
    """A pool in which a run waits, of whose size something was decided."""
    control.workspace()
    control.submit(APPLY, run_id="waiting-run")
    with control.system.database.begin() as session:
        now = control.system.now()
        decisions.record(session, "default", now, current=1, desired=3, reason="runs wait", facts={})
    return pool_views.one(control.system, "default")


def text(pools: list[PoolView], width: int = 60, height: int = 24) -> list[str]:
    made = [line.plain for line in page(pools, NOW, width, height)]
    assert len(made) <= height
    assert max(map(len, made)) <= width
    return made


def test_it_says_what_runs_where_what_waits_and_why_there_are_as_many_agents(control, cli) -> None:
    for name in ("net", "dns", "cdn"):
        control.workspace(name)
    control.agent("default-1a2b3c")
    control.submit(APPLY, "net", run_id="waits-for-a-person")
    finish_plan(control, "waits-for-a-person", changed=True, changes=Changes(add=1))
    control.submit(workspace="dns", run_id="plans")
    control.submit(APPLY, "cdn", run_id="waits-for-a-slot")
    with control.system.database.begin() as session:
        now = control.system.now()
        decisions.record(session, "default", now, current=1, desired=3, reason="more applies wait", facts={})
    shown = cli("top default")
    for words in (
        "1 pool, 1 agent; slots: 1 running, 1 reserved; 1 run waits for a slot",
        "its size: ",
        "1 -> 3 agents ",
        "more applies wait",
        "0  apply_pending",
        "waits-fo net",
        "1  planning",
        "plans    dns",
        "cdn apply",
        "no apply slot is free (first in line)",
    ):
        assert words in shown.out
    assert cli("top").out.splitlines()[1:] == shown.out.splitlines()[1:]
    assert cli("top --json").json[0]["agents"][0]["slots"][0]["status"] == "apply_pending"
    assert "No pool" in cli("top nowhere").err


def test_of_a_thousand_agents_on_60_columns_what_has_no_room_is_counted(pool) -> None:
    many = replace(pool, agents=(*(agent(n) for n in range(700)), *(agent(n, busy=False) for n in range(700, 1000))))
    made = text([many])
    busy = [line for line in made if "applying" in line]
    hidden = 700 - len(busy)
    assert len(made) == 24
    assert f"  … {hidden} agents are not shown" in made
    assert "  300 agents are idle" in made
    assert any("waiting-" in line for line in made)


def test_what_is_wrong_with_an_agent_is_said_and_hostile_text_is_harmless(pool) -> None:
    odd = replace(pool, status_message="[red]\x1b[2J", agents=(agent(1, busy=False, state="silent"), agent(2)))
    made = "\n".join(text([odd]))
    assert "default-0001  silent, heard 20s ago" in made
    assert "[red]\ufffd[2J" in made
    assert "idle" not in made.partition("idle\n")[2]


@pytest.mark.parametrize("height", range(1, 30))
def test_on_a_terminal_of_any_height_no_pool_and_no_run_is_left_out_silently(pool, height) -> None:
    pools = [replace(pool, name=f"pool-{n}", agents=tuple(agent(i) for i in range(5))) for n in range(3)]
    made = text(pools, height=height)
    shown = sum(line.startswith("Pool ") for line in made)
    if shown < len(pools):
        assert f"no room for {len(pools) - shown} more pool" in made[-1]
    for start in (index for index, line in enumerate(made) if line.startswith("Pool ")):
        section = "\n".join(made[start + 1 :]).partition("\nPool ")[0]
        assert section.count("applying") == 5 or "agent" in section.partition("… ")[2]


def test_a_pool_that_cant_be_read_keeps_its_place(pool) -> None:
    unread = replace(pool, type="unreadable", limits=dict.fromkeys(pool.limits), status_message="spec is broken")
    assert "no agents; slots" in "\n".join(text([unread]))


def test_where_a_server_is_away_the_last_view_stays_beside_the_sentence(capsys, monkeypatch) -> None:
    answers = iter(["first", Unavailable("Redis is away."), "back"])
    keys = iter(["", "", "q"])

    def look() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @watch.contextmanager
    def pressed():
        yield lambda: next(keys)

    monkeypatch.setattr(watch, "_keys", pressed)
    updates: list[object] = []
    monkeypatch.setattr(watch.Live, "update", lambda _, view, **__: updates.append(view))
    watch.in_place(look)
    assert (updates[0], updates[2]) == ("first", "back")
    message, view = updates[1].renderables  # type: ignore[attr-defined]
    assert (message.plain, view) == ("Redis is away.", "first")


@pytest.mark.parametrize(
    ("command", "words", "end"),
    [
        ("top", "slots: ", "q"),
        ("slots --watch", "reserved, ", "Ctrl-C"),
        ("runs --watch --text nothing-like-it", "No runs.", "q"),
    ],
)
def test_a_terminal_is_as_before_when_watching_ends(embedded, command, words, end) -> None:
    with closing(Terminal(embedded.program, *command.split())) as terminal:
        before = termios.tcgetattr(terminal.device)
        for _ in range(2):
            terminal.until(words)
            terminal.seen = ""
        if end == "q":
            os.write(terminal.device, b"xq")
        else:
            terminal.process.send_signal(signal.SIGINT)
        terminal.process.wait(timeout=30)
        assert termios.tcgetattr(terminal.device) == before
    assert terminal.process.returncode == 0


def test_runs_are_watched_as_one_document_a_line(embedded) -> None:
    with embedded.program.start("runs", "--watch", "--json", "--kind", "plan") as process:
        for _ in range(2):
            assert process.stdout.readline().startswith("[")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
