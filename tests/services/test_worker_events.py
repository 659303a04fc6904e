"""Agents are workers to monitors of Celery: as the slot map sees them, told by the control plane."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.services.conftest import POOL, ControlPlane
from tests.services.monitor import Monitor
from workers.protocol import names
from workers.protocol.errors import Unavailable
from workers.protocol.kinds import RunKind
from workers.protocol.messages import AgentRegistered, AgentStopped
from workers.protocol.version import PROTOCOL
from workers.services.runs import report
from workers.services.scaling.cycle import cycle

NAME = names.node_name(POOL, "default-1")


def test_a_cycle_tells_of_each_agent_with_its_pool_its_slots_and_its_version(
    control: ControlPlane, monitor: Monitor
) -> None:
    control.workspace()
    agent = control.agent()
    for kind in RunKind:
        control.submit(kind)
    (applying,) = [order for order in agent.orders() if order.slot == 0]
    assert agent.start(applying)
    agent.finish(applying)
    assert cycle(control.system, POOL)
    worker = monitor.worker(NAME, pool=POOL, active=1, reserved=1, slots=3, draining=False)
    assert (worker.sw_ident, worker.sw_ver) == ("terraslot-agent", f"protocol {PROTOCOL}")
    assert worker.freq == 2 * control.system.settings.cycle_seconds


def test_an_agent_is_online_from_its_registration_until_it_stops(control: ControlPlane, monitor: Monitor) -> None:
    agent = control.agent()
    about = {"pool": POOL, "agent": agent.name, "instance_id": agent.instance_id}
    report.take(control.system, AgentRegistered(**about))
    monitor.worker(NAME, active=0)
    report.take(control.system, AgentStopped(**about))
    monitor.worker(NAME, alive=False)


def test_a_silent_agent_is_offline_until_it_is_heard_again(
    control: ControlPlane, monitor: Monitor, clock_ahead: Callable[[float], None]
) -> None:
    control.agent()
    assert cycle(control.system, POOL)
    monitor.worker(NAME)
    clock_ahead(control.spec().timeouts.silent + 1)
    assert cycle(control.system, POOL)
    monitor.worker(NAME, alive=False)


def test_agents_are_seen_though_their_cluster_does_not_answer(control: ControlPlane, monitor: Monitor) -> None:
    control.agent()
    control.pods.broken = True
    with pytest.raises(Unavailable):
        cycle(control.system, POOL)
    monitor.worker(NAME)
