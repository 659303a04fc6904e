"""The program that reads reports makes no orders: it has neither the keys for them nor a way to the cluster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from pydantic import SecretStr

from tests.services.conftest import POOL, ControlPlane
from workers import reports as program
from workers.app import build_app
from workers.core.lifecycle import RunStatus
from workers.protocol import names
from workers.protocol.kinds import RunKind
from workers.protocol.sources import SensitiveVariables
from workers.reports import Reader
from workers.services import workspaces
from workers.services.runs import auto_apply, decide, dispatch, outcome, report
from workers.services.secrets import credentials
from workers.services.secrets.variables import Change
from workers.services.system import System, without_pods
from workers.slots.report_queue import Found
from workers.store.models import Run


@pytest.fixture
def reports(control: ControlPlane) -> ControlPlane:
    """What the program sees of a control plane whose orders are encrypted."""
    credentials.ensure_secret_for_pool(control.system, control.spec())
    settings = control.system.settings.model_copy(update={"encryption_keys": SecretStr("")})
    celery = build_app("reports", [names.SUBMIT_QUEUE, names.CONTROL_QUEUE], [], settings)
    return replace(control, system=without_pods(settings, celery))


def secret_workspace(control: ControlPlane, **facts: bool) -> str:
    """Create a workspace whose orders can't be made without the keys."""
    spec = control.system
    name = control.workspace(**facts)
    workspaces.update(spec, workspaces.get(spec, name), Change(SensitiveVariables(variables={"password": "rAbB1t"})))
    return name


def asked(reports: ControlPlane) -> list[tuple[str, str]]:
    """Take what control workers are asked to do, the oldest first."""
    messages = []
    while (message := reports.redis.rpop(names.CONTROL_QUEUE)) is not None:
        headers = json.loads(message)["headers"]
        messages.append((headers["task"], headers["argsrepr"]))
    return messages


def test_it_frees_slots_and_one_message_asks_for_the_next_runs(control: ControlPlane, reports: ControlPlane) -> None:
    net = secret_workspace(control)
    agent = replace(control.agent(), control=reports)
    first = [control.submit(RunKind.PLAN, net).id for _ in range(3)]
    waiting = [control.submit(RunKind.PLAN, net).id for _ in range(2)]
    asked(reports)

    for order in agent.orders():
        assert agent.start(order)
        agent.finish(order, changed=False)

    assert [control.run(run).status for run in first] == [RunStatus.SUCCEEDED] * 3
    assert agent.orders() == []
    assert asked(reports) == [(names.DISPATCH, f"['{POOL}']")]
    assert dispatch.dispatch_requested(control.system, POOL) == 2
    assert {order.run for order in agent.orders()} == set(waiting)


def test_a_slot_that_is_freed_once_the_dispatch_has_begun_is_worth_another_message(
    control: ControlPlane, reports: ControlPlane
) -> None:
    """F14"""
    net = secret_workspace(control)
    agent = replace(control.agent(), control=reports)
    orders = [control.submit(RunKind.PLAN, net) and agent.order() for _ in range(3)]
    for _ in range(2):
        control.submit(RunKind.PLAN, net)
    asked(reports)
    for order in orders[:2]:
        assert agent.start(order)
        agent.finish(order, changed=False)
        assert asked(reports) == [(names.DISPATCH, f"['{POOL}']")]
        assert dispatch.dispatch_requested(control.system, POOL) == 1


def test_nobody_is_asked_for_the_next_runs_where_none_waits(control: ControlPlane, reports: ControlPlane) -> None:
    net = secret_workspace(control)
    agent = replace(control.agent(), control=reports)
    control.submit(RunKind.PLAN, net)
    asked(reports)
    agent.work(changed=False)
    assert asked(reports) == []


def test_a_run_that_comes_before_the_slot_is_free_is_asked_for(
    control: ControlPlane, reports: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = secret_workspace(control)
    agent = replace(control.agent(), control=reports)
    order, *_ = [control.submit(RunKind.PLAN, net) and agent.order() for _ in range(3)]
    assert agent.start(order)
    asked(reports)
    settle = report.settle

    def late(system: System, ended: Sequence[Run]) -> None:
        control.submit(RunKind.PLAN, net)
        settle(system, ended)

    monkeypatch.setattr(report, "settle", late)
    agent.finish(order, changed=False)
    assert agent.orders() == []
    assert (names.DISPATCH, f"['{POOL}']") in asked(reports)
    assert dispatch.dispatch_requested(control.system, POOL) == 1


def test_an_apply_at_once_is_ordered_by_a_control_worker(control: ControlPlane, reports: ControlPlane) -> None:
    net = secret_workspace(control, auto_apply=True)
    agent = replace(control.agent(), control=reports)
    run = control.submit(RunKind.PLAN_AND_APPLY, net).id
    plan = agent.order()
    assert agent.start(plan)
    asked(reports)

    for _ in range(2):  # it is repeated until its slot goes on
        agent.finish(plan, outputs={"greeting": "hello"})
    assert control.run(run).status is RunStatus.PLANNING
    messages = asked(reports)
    assert [task for task, _ in messages] == [names.AUTO_APPLY] * 2
    for _ in messages:
        auto_apply.order_apply(control.system, run, plan.token)

    apply = agent.order()
    assert (apply.phase, apply.encrypted is not None) == ("apply", True)
    assert agent.start(apply)
    agent.finish(apply, outputs={"greeting": "hello"})
    assert outcome.result_of(control.run(run))["changes"] == {"add": 1, "change": 0, "destroy": 0}
    assert control.run(run).status is RunStatus.SUCCEEDED


def test_an_apply_at_once_is_not_ordered_where_its_cancel_came_first(
    control: ControlPlane, reports: ControlPlane
) -> None:
    net = secret_workspace(control, auto_apply=True)
    agent = replace(control.agent(), control=reports)
    run = control.submit(RunKind.PLAN_AND_APPLY, net).id
    plan = agent.order()
    assert agent.start(plan)
    agent.finish(plan)

    decide.cancel(control.system, run)
    auto_apply.order_apply(control.system, run, plan.token)

    assert control.run(run).status is RunStatus.CANCELLED
    assert agent.orders() == []
    assert control.quiet()


def test_a_report_that_meets_a_fault_of_the_program_does_not_end_it(
    reports: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F38: the other pools' reports are read on."""

    def fail(*_: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(program, "receive", fail)
    Reader(reports.system)._receive(Found(POOL, b"{}", 2))
