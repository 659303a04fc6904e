"""Parts that die while runs are under way: agents, the server of the slot map, workers. Real processes, killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from celery.result import AsyncResult

from tests.system.conftest import HELD, Cloud
from tests.waiting import eventually
from workers.cluster.local import LocalPods
from workers.core.errors import RunFailed
from workers.core.lifecycle import RunStatus
from workers.embedded import state
from workers.slots.log_stream import RunLog


def agent_pid(cloud: Cloud, pool: str, name: str) -> int:
    (pod,) = [pod for pod in cloud.system.backends["local"].list(pool) if pod.name == name]
    return int(pod.uid.partition(":")[0])


def held_apply(cloud: Cloud, pool: str, gate: Path) -> tuple[str, AsyncResult, str]:
    """Begin an apply that ends once there is a gate; return its workspace, its result and its agent."""
    workspace = cloud.workspace(HELD, pool=pool, environment={"GATE": str(gate)}, auto_apply=True)
    result = cloud.reach(cloud.apply(workspace), "APPLYING")
    agent = cloud.started(result).agent
    assert agent is not None
    return workspace, result, agent


def assert_stored_and_unlocked(cloud: Cloud, workspace: str) -> None:
    state_file = cloud.system.settings.home / "state" / workspace / "terraform.tfstate"
    assert json.loads(state_file.read_text())["resources"]
    assert not list(state_file.parent.glob("*.lock.info"))


def test_a_killed_agents_plan_is_made_anew_elsewhere(cloud: Cloud) -> None:
    """F7."""
    pool, gate = cloud.pool(), cloud.gate()
    result = cloud.apply(cloud.workspace(pool=pool, environment={"HOLD_PLAN": str(gate)}))
    first = cloud.started(result).agent
    assert first is not None
    os.kill(agent_pid(cloud, pool, first), signal.SIGKILL)
    eventually(lambda: cloud.run(result).attempt == 2)
    gate.touch()
    cloud.reach(result, "APPLY_PENDING")
    assert result.info["agent"] != first
    cloud.tell("discard", result)
    eventually(lambda: cloud.quiet(pool))


def test_an_apply_outlives_its_agent_whose_pod_reports_it(cloud: Cloud) -> None:
    """F40: it has ended before the agent is back; state is written, and no lock left."""
    pool, gate = cloud.pool(), cloud.gate()
    workspace, result, agent = held_apply(cloud, pool, gate)
    before = (instance := cloud.slots(pool).agent(agent)) and instance.instance_id
    os.kill(agent_pid(cloud, pool, agent), signal.SIGKILL)
    eventually(lambda: (now := cloud.slots(pool).agent(agent)) and now.instance_id != before)
    gate.touch()
    assert result.get(timeout=60)["status"] == "succeeded"
    assert cloud.run(result).agent == agent
    assert cloud.run(result).attempt == 1
    assert_stored_and_unlocked(cloud, workspace)
    eventually(lambda: cloud.quiet(pool))


def test_an_apply_of_a_frozen_agent_whose_grace_is_over_stores_its_state(cloud: Cloud) -> None:
    """F18, F19, F40: as `terraslot down` ends it when it is asked a second time."""
    pool = cloud.pool()
    workspace, result, agent = held_apply(cloud, pool, cloud.gate())
    log = RunLog(cloud.system.redis, pool, result.id)
    eventually(lambda: any("local-exec" in line.text for line in log.read()))
    pods = cloud.system.backends["local"]
    assert isinstance(pods, LocalPods)
    (pod,) = [pod for pod in pods.list(pool) if pod.name == agent]  # a slow machine may have started another
    (worker,) = psutil.Process(agent_pid(cloud, pool, agent)).children()
    worker.send_signal(signal.SIGSTOP)
    pods.expire_grace(pod)
    with pytest.raises(RunFailed, match="agent_lost"):
        result.get(timeout=60)
    assert_stored_and_unlocked(cloud, workspace)


def test_an_apply_that_is_killed_with_its_agent_fails_and_is_never_repeated(cloud: Cloud) -> None:
    """F9, F12."""
    pool, gate = cloud.pool(), cloud.gate()
    _, result, agent = held_apply(cloud, pool, gate)
    children = cloud.system.settings.home / "pods" / pool / agent / "work" / "children"
    (terraform,) = eventually(lambda: len(found := list(children.iterdir())) == 1 and found)  # `show` has ended
    pid = agent_pid(cloud, pool, agent)
    (worker,) = psutil.Process(pid).children()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not worker.is_running())  # it would report how Terraform ended
    os.killpg(int(terraform.name), signal.SIGKILL)
    with pytest.raises(RunFailed, match="agent_lost"):
        result.get(timeout=60)
    gate.touch()
    assert cloud.run(result).attempt == 1
    eventually(lambda: cloud.quiet(pool))


def test_a_stopped_agent_hands_its_waiting_plan_over(cloud: Cloud) -> None:
    pool = cloud.pool()
    result = cloud.reach(cloud.apply(cloud.workspace(pool=pool)), "APPLY_PENDING")
    first = result.info["agent"]
    os.kill(agent_pid(cloud, pool, first), signal.SIGTERM)

    def planned_elsewhere() -> bool:
        run = cloud.run(result)  # one look: it may go from one agent to the other between two
        return run.status is RunStatus.APPLY_PENDING and run.agent != first

    eventually(planned_elsewhere)
    cloud.tell("confirm", result)
    assert result.get(timeout=120)["status"] == "succeeded"


def test_a_server_that_is_killed_and_comes_back_costs_no_run(cloud: Cloud) -> None:
    """F8: nobody is judged dead, and what is under way ends as if nothing had been."""
    pool, gate = cloud.pool(), cloud.gate()
    result = cloud.apply(cloud.workspace(pool=pool, environment={"HOLD_PLAN": str(gate)}))
    before = cloud.started(result)
    running = state.running(cloud.system.settings.home)
    assert running is not None
    running.children["valkey"].send(signal.SIGKILL)
    eventually(lambda: _answers(cloud))
    eventually(lambda: cloud.slots(pool).find(result.id))
    gate.touch()
    cloud.reach(result, "APPLY_PENDING", seconds=60)
    after = cloud.run(result)
    assert (after.agent, after.attempt) == (before.agent, 1)
    cloud.tell("discard", result)
    eventually(lambda: cloud.quiet(pool))


def _answers(cloud: Cloud) -> bool:
    try:
        return bool(cloud.system.redis.ping())
    except Exception:  # noqa: BLE001 - any kind of not being there
        return False


def test_a_control_worker_that_is_killed_is_replaced_and_loses_no_run(cloud: Cloud) -> None:
    """F25."""
    gate = cloud.gate()
    result = cloud.apply(cloud.workspace(environment={"HOLD_PLAN": str(gate)}))
    cloud.started(result)
    running = state.running(cloud.system.settings.home)
    assert running is not None
    for name in ("control", "reports"):
        running.children[name].send(signal.SIGKILL)
    gate.touch()
    cloud.reach(result, "APPLY_PENDING", seconds=60)
    cloud.tell("confirm", result)
    assert result.get(timeout=120)["status"] == "succeeded"
    eventually(cloud.quiet)
