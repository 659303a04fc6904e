"""How far an apply has come: counted from Terraform's own messages, bounded, told while it executes."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from agent.apply_messages import ApplyMessages
from agent.execution import PhaseFailed
from agent.progress import PhaseProgress, ProgressTeller
from tests.agent.conftest import POOL, Bench, Configuration, InnerAgent, Plane, of_apply
from tests.waiting import eventually
from workers.protocol.messages import Order, PhaseFinished
from workers.protocol.progress import LONGEST_ADDRESS, MAX_LIVE_BYTES, MAX_PROGRESS_BYTES, Progress
from workers.slots import acl
from workers.slots.live_progress import LiveProgress

MakeOrder = Callable[..., Order]
PARTLY = """
resource "terraform_data" "good" { count = 2 }
resource "terraform_data" "bad" {
  depends_on = [terraform_data.good]
  provisioner "local-exec" { command = "exit 3" }
}
data "terraform_remote_state" "read" {
  backend    = "local"
  config     = { path = "other.json" }
  depends_on = [terraform_data.good]
}
"""
OTHER = '{"version": 4, "serial": 1, "lineage": "x", "terraform_version": "1.5.0", "outputs": {}, "resources": []}'


def said(kind: str, address: str, action: str = "create", at: int = 0) -> dict[str, Any]:
    hook = {"resource": {"addr": address}, "action": action}
    return {"type": kind, "@message": "", "@timestamp": f"2026-01-01T00:{at // 60:02}:{at % 60:02}Z", "hook": hook}


def told(*messages: dict[str, Any]) -> PhaseProgress:
    progress = PhaseProgress(0)
    for message in messages:
        progress.take(message)
    return progress


def brief(progress: Progress | None) -> list[tuple[str, float | None, bool]]:
    return [(each.address, each.seconds, each.failed) for each in progress.resources] if progress else []


def test_an_apply_that_fails_reports_what_it_has_done(
    bench: Bench, make_order: MakeOrder, configuration: Configuration
) -> None:
    configuration.write(PARTLY).write(OTHER, "other.json")
    order = make_order(configuration.source)
    assert bench.execute(order).progress is None
    apply = bench.execution(of_apply(order))
    with pytest.raises(PhaseFailed):
        bench.execute(apply.order, apply)
    progress = apply.report(PhaseFinished, outcome="failed").progress
    assert progress is not None
    assert (progress.done, progress.failed, progress.working) == (2, 1, 0)
    first, *others = progress.resources
    assert (first.address, first.failed) == ("terraform_data.bad", True)
    assert {each.address for each in others} == {"terraform_data.good[0]", "terraform_data.good[1]"}
    configuration.write(PARTLY.replace("exit 3", "true"))
    order = make_order(configuration.source, run="run-2", options={"replace": ["terraform_data.good[0]"]})
    planned = bench.execute(order)
    applied = bench.execute(of_apply(order)).progress
    assert (applied.done, applied.failed) == (planned.changes.add + planned.changes.destroy, 0)


def test_what_is_under_way_comes_first_then_what_failed_then_the_latest_or_the_slowest() -> None:
    progress = told(
        said("apply_start", "quick", at=0), said("apply_start", "slow", at=0), said("apply_start", "bad", at=0),
        said("apply_start", "later", at=9), said("apply_start", "first", at=1), said("apply_complete", "slow", at=8),
        said("apply_complete", "quick", at=9), said("apply_errored", "bad", at=9),
        said("apply_start", "read", "read"), said("apply_complete", "read", "read"),
    )  # fmt: skip
    working, failed = [("first", None, False), ("later", None, False)], [("bad", 9.0, True)]
    quick, slow = ("quick", 9.0, False), ("slow", 8.0, False)
    assert brief(progress.live()) == [*working, *failed, quick, slow]
    progress.take(said("apply_complete", "later", at=10))
    assert brief(progress.final()) == [working[0], *failed, quick, slow, ("later", 1.0, False)]


def test_the_end_counts_also_what_an_earlier_process_has_read() -> None:
    summary = {"type": "change_summary", "changes": {"add": 400, "change": 1, "remove": 1, "operation": "apply"}}
    end = told(said("apply_start", "a"), said("apply_complete", "a"), summary).final()
    assert end is not None
    assert (end.done, len(end.resources)) == (402, 1)


MESSAGES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["addr", "action", "resource"]), inner),
)
KINDS = st.sampled_from(["apply_start", "apply_complete", "apply_errored", "change_summary", "version", None])
TIMES = st.sampled_from(["2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-01-01T00:00:00Z", "x", None])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.fixed_dictionaries({"type": KINDS, "@timestamp": TIMES, "hook": MESSAGES, "changes": MESSAGES}), max_size=5
    )
)
def test_whatever_is_printed_is_a_progress_that_can_be_sent(messages: list[dict[str, Any]]) -> None:
    progress = told(*messages, said("apply_start", "a"))
    assert progress.live().working == 1
    assert progress.final() is not None


def test_no_number_and_no_character_of_a_message_ends_an_apply_or_a_heartbeat() -> None:
    counted = {"add": 1e300, "change": 0, "remove": 0, "operation": "apply"}
    half = said("apply_start", "half \ud800 and \x1b[31mred\x1b[0m")
    progress = told(half, said("apply_start", "x" * 1_000_000), {"type": "change_summary", "changes": counted})
    assert brief(progress.live()) == brief(progress.final()) == [("half  and red", None, False)]
    assert sum(len(address) for address, _ in progress._working) < 2 * LONGEST_ADDRESS


def test_any_number_of_resources_and_long_addresses_is_bounded() -> None:
    progress = PhaseProgress(0)
    messages = ApplyMessages(progress)
    feed = messages.shown_by(lambda _: None, lambda _: None)
    for number in range(3_000):
        for kind in ("apply_start", "apply_complete" if number % 3 else "apply_errored"):
            if number % 3 != 1 or kind == "apply_start":
                feed(json.dumps(said(kind, f"{number}" + "ä" * (990 if number < 2_000 else 1_001))).encode() + b"\n")
    live, end = progress.live(), progress.final()
    assert end is not None
    assert len(live.model_dump_json()) <= MAX_LIVE_BYTES
    assert len(end.model_dump_json()) <= MAX_PROGRESS_BYTES
    assert (end.done, end.failed, end.working, bool(end.resources)) == (1_000, 1_000, 1_000, True)


def test_who_watches_reads_what_is_under_way_and_no_secret(
    plane: Plane, inner_agent: Callable[..., InnerAgent], configuration: Configuration
) -> None:
    inner = inner_agent()
    configuration.runs("exec sleep 60")
    order = plane.order("run-1", configuration.source)
    inner.execute(order)
    inner.finished(order)
    apply = plane.resume(order)
    inner.execute(apply)

    def working() -> Progress | None:
        live = LiveProgress(plane.redis, POOL, "run-1").read(apply.token)
        return live if live and live.working else None

    live = eventually(working)
    assert (live.step, brief(live)) == ("apply", [("terraform_data.it", None, False)])
    assert abs(time.time() - live.resources[0].since) < 60
    assert LiveProgress(plane.redis, POOL, "run-1").read(order.token) is None
    execution = inner.agent.slots.find(apply.token)
    assert execution is not None
    execution.log.mask = lambda text: text.replace("terraform_data", "(sensitive)")  # type: ignore[assignment]
    assert brief(execution.progress.live()) == [("(sensitive).it", None, False)]
    inner.agent.cancel({"run": "run-1", "token": apply.token, "mode": "interrupt"})
    end = inner.finished(apply).progress
    assert end is not None
    assert (end.done, end.failed + end.working) == (0, 1)


def test_a_phase_is_told_of_once_a_second_at_most_and_only_news(
    plane: Plane, bench: Bench, make_order: MakeOrder, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = bench.execution(make_order(configuration.source))
    teller, key = ProgressTeller(plane.redis, POOL), f"ts:{{{POOL}}}:progress:run-1"
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def is_told_after(seconds: float) -> bool:
        nonlocal now
        now += seconds
        plane.redis.delete(key)
        teller.tell([execution])
        return bool(plane.redis.exists(key))

    assert [is_told_after(seconds) for seconds in (0, 0.9, 0.2)] == [False, False, True]
    assert not is_told_after(5)
    execution.progress.begin("plan")
    assert is_told_after(0)
    execution.progress.begin("show")
    assert [is_told_after(seconds) for seconds in (0.9, 0.2, 599, 2)] == [False, True, False, True]


def test_where_it_is_not_allowed_nothing_is_told_and_nothing_else_changes(
    plane: Plane, bench: Bench, make_order: MakeOrder, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [rule for rule in acl.acl_rules(POOL) if "progress" not in rule]  # a control plane before 0.2
    acl.Users(plane.redis).put("older", "password", rules)
    address = plane.redis.connection_pool.connection_kwargs
    older = redis.Redis(host=address["host"], port=address["port"], username="older", password="password")
    teller = ProgressTeller(older, POOL)
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    execution = bench.execution(make_order(configuration.source))
    teller.tell([execution])
    now += 2
    teller.tell([execution])
    older.close()
    acl.Users(plane.redis).remove("older")
    execution.progress.begin("plan")
    now += 2
    teller.tell([execution])  # it does not ask again: the connection is closed, and its user gone
    assert not plane.redis.exists(f"ts:{{{POOL}}}:progress:run-1")
    acl.Users(plane.redis).put("older", "password", acl.acl_rules(POOL))  # that control plane was upgraded
    now += 600
    teller.tell([execution])
    acl.Users(plane.redis).remove("older")
    assert plane.redis.exists(f"ts:{{{POOL}}}:progress:run-1")


def test_a_server_that_hangs_is_waited_for_once_however_many_phases_execute(
    bench: Bench, make_order: MakeOrder, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    executing = [bench.execution(make_order(configuration.source, run=f"run-{number}")) for number in range(3)]
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        hanging.setblocking(False)
        client = redis.Redis(port=hanging.getsockname()[1], socket_timeout=0.1, retry=Retry(NoBackoff(), 0))
        teller = ProgressTeller(client, POOL)
        teller.tell(executing)
        now += 2
        teller.tell(executing)
        connections = []
        with suppress(BlockingIOError):
            while True:
                connections.append(hanging.accept()[0])
    for connection in connections:
        connection.close()
    assert len(connections) == 1
