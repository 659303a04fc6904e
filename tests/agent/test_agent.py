"""Whole agents: ``python -m agent`` as a process, real Celery messages, real Terraform, a real slot map."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.agent.conftest import POOL, AgentProcess, Configuration, Plane
from tests.agent.test_supervisor import ESCAPE, escaped
from tests.valkey_server import running_valkey
from tests.waiting import eventually
from workers.protocol.kinds import RunKind
from workers.protocol.leases import CancelMode, CancelOutcome
from workers.protocol.messages import Order
from workers.protocol.names import orders_queue

StartAgent = Callable[..., AgentProcess]
HOLDING = 'variable "v" { default = 1 }\nresource "terraform_data" "a" { input = var.v }\noutput "o" { value = 1 }\n'


def meeting(configuration: Configuration, place: Path, names: tuple[str, ...]) -> None:
    """Let every apply wait until all of them are under way, so that it ends only if they run at the same time."""
    waits = "; ".join(f"until [ -e {place}/{name} ]; do sleep 0.02; done" for name in names)
    configuration.write(
        f"""
        variable "me" {{}}
        resource "terraform_data" "it" {{
          provisioner "local-exec" {{ command = "touch {place}/${{var.me}}; {waits}" }}
        }}
        """
    )


def planned(plane: Plane, order: Order, agent: str = "agent-1") -> Order:
    """Have a run planned, and return the order of its apply, not yet sent."""
    plane.send(order, agent)
    report = plane.report("phase_finished", token=order.token)
    assert report["outcome"] == "succeeded", report
    return plane.resume(order)


def slow_apply(plane: Plane, configuration: Configuration, command: str = "echo begun; exec sleep 60") -> Order:
    """Have an apply under way that takes long."""
    configuration.runs(command)
    order = plane.send(planned(plane, plane.order("run-1", configuration.source)))
    eventually(lambda: any(line.endswith(": begun") for line in plane.log("run-1")), 20)
    return order


@pytest.mark.usefixtures("agent")
def test_what_a_provisioner_has_hidden_ends_before_its_run_does(
    plane: Plane, configuration: Configuration, tmp_path: Path
) -> None:
    """At the end of an apply; and of a cancelled one, which it holds up by Terraform's own pipes."""
    script, place = tmp_path / "escape.py", tmp_path / "escaped"
    script.write_text(ESCAPE)
    configuration.runs(f"{sys.executable} {script} {place} >/dev/null 2>&1; until [ -e {place} ]; do sleep 0.02; done")
    order = plane.send(planned(plane, plane.order("run-1", configuration.source)))
    assert plane.finished(order)["outcome"] == "succeeded"
    assert place.exists()
    assert not escaped(place)
    place.unlink()
    configuration.runs(f"{sys.executable} {script} {place}; sleep 60")
    held = plane.send(planned(plane, plane.order("run-2", configuration.source, state_path=f"{place}.state")))
    eventually(place.exists, 20)
    plane.slots.cancel("run-2", CancelMode.KILL)
    assert plane.finished(held)["outcome"] == "cancelled"
    assert not escaped(place)


@pytest.mark.parametrize(
    "command",
    [(sys.executable, "-m", "agent"), (str(Path(sys.executable).with_name("celery")), "-A", "agent", "worker")],
    ids=["python -m agent", "celery -A agent worker"],
)
def test_an_agent_registers_works_and_leaves_without_any_flags(
    start_agent: StartAgent, plane: Plane, configuration: Configuration, command: tuple[str, ...]
) -> None:
    agent = start_agent(command=command)
    plane.report("agent_registered", agent="agent-1")
    configuration.write(HOLDING)
    order = plane.send(planned(plane, plane.order("run-1", configuration.source)))
    assert plane.finished(order)["outputs"] == {"o": 1}
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert plane.report("agent_stopped")["incarnation"]
    record = plane.slots.agent("agent-1")
    assert record is not None
    assert record.draining


def test_three_runs_at_once(agent: AgentProcess, plane: Plane, configuration: Configuration, tmp_path: Path) -> None:
    """A plan of each kind of slot waits for a pipe; all wait at the same time, and each ends when its pipe is fed."""
    configuration.write(
        f"""
        variable "me" {{}}
        data "terraform_remote_state" "gate" {{
          backend = "local"
          config  = {{ path = "{tmp_path}/${{var.me}}" }}
        }}
        output "o" {{ value = data.terraform_remote_state.gate.outputs.o }}
        """
    )
    names = ("run-1", "run-2", "run-3")
    for name in names:
        os.mkfifo(tmp_path / name)
        kind = RunKind.PLAN_AND_APPLY if name == "run-1" else RunKind.PLAN
        plane.send(plane.order(name, configuration.source, kind=kind, variables={"me": name}))
    for name in names:
        eventually(lambda name=name: "$ terraform plan" in plane.log(name))  # type: ignore[misc]
    assert len(list((agent.work_dir / "children").iterdir())) == 3
    for name in names:
        state = {"version": 4, "serial": 1, "lineage": name, "outputs": {"o": {"value": name, "type": "string"}}}
        (tmp_path / name).write_text(json.dumps(state))
        assert plane.report("phase_finished", run=name)["outputs"] == {"o": name}


def test_two_agents_share_a_pool(
    start_agent: StartAgent, plane: Plane, configuration: Configuration, tmp_path: Path
) -> None:
    for name in ("agent-1", "agent-2"):
        start_agent(name)
    eventually(lambda: plane.slots.stats().agents == 2, 20)
    place = tmp_path / "place"
    place.mkdir()
    names = ("run-1", "run-2")
    meeting(configuration, place, names)
    orders = {}
    for name in names:
        state = str(tmp_path / name / "terraform.tfstate")
        order = plane.order(name, configuration.source, variables={"me": name}, state_path=state)
        agent = plane.slots.find(name)
        assert agent is not None
        orders[agent.agent] = planned(plane, order, agent.agent)
    assert set(orders) == {"agent-1", "agent-2"}
    for agent_name, order in orders.items():
        plane.send(order, agent_name)
    for order in orders.values():
        assert plane.finished(order)["outcome"] == "succeeded"


def test_a_line_is_in_the_log_while_the_command_still_runs(
    agent: AgentProcess, plane: Plane, configuration: Configuration, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    slow_apply(plane, configuration, f"echo begun; until [ -e {gate} ]; do sleep 0.02; done; echo ended")
    assert not any(line.endswith(": ended") for line in plane.log("run-1"))
    gate.touch()
    assert plane.report("phase_finished", run="run-1", phase="apply")["outcome"] == "succeeded"
    assert any(line.endswith(": ended") for line in plane.log("run-1"))


def test_thirty_thousand_hostile_lines_cost_no_more_than_their_time(
    agent: AgentProcess, plane: Plane, configuration: Configuration
) -> None:
    configuration.runs(r"seq 30000 | sed 's/$/\x1b[31m\x07/'; echo last")
    order = plane.send(planned(plane, plane.order("run-1", configuration.source)))
    assert plane.finished(order, 60)["outcome"] == "succeeded"
    log = plane.log("run-1")
    assert 15_000 < len(log) < 30_000  # bounded in bytes, and the newest
    assert any(line.endswith(": last") for line in log)
    assert any(line.endswith(": 30000") for line in log)


def test_a_cancel_whose_message_was_lost_comes_with_the_heartbeat_within_two_seconds(
    agent: AgentProcess, plane: Plane, configuration: Configuration
) -> None:
    order = slow_apply(plane, configuration)
    began = time.monotonic()
    assert plane.slots.cancel("run-1", CancelMode.INTERRUPT) is CancelOutcome.REQUESTED
    report = plane.finished(order)
    assert (report["outcome"], time.monotonic() - began < 3) == ("cancelled", True)


def test_a_cancel_is_taken_while_all_slots_are_busy(
    agent: AgentProcess, plane: Plane, configuration: Configuration, tmp_path: Path
) -> None:
    order = slow_apply(plane, configuration)
    pipe = tmp_path / "plans"
    pipe.mkdir()
    busy = Configuration(pipe).write('output "o" { value = 1 }')
    for name in ("run-2", "run-3"):
        plane.send(plane.order(name, busy.source, kind=RunKind.PLAN))
    plane.cancel(order)
    assert plane.finished(order)["outcome"] == "cancelled"


def test_sigterm_however_often_waits_for_the_apply(
    agent: AgentProcess, plane: Plane, configuration: Configuration, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    order = slow_apply(plane, configuration, f"echo begun; until [ -e {gate} ]; do sleep 0.02; done")
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        agent.signal(number)
    eventually(lambda: (record := plane.slots.agent("agent-1")) is not None and record.draining)
    assert plane.slots.acquire("run-2", RunKind.PLAN, "token-of-run-2-xx") is None
    assert agent.process.poll() is None
    gate.touch()
    assert plane.finished(order)["outcome"] == "succeeded"
    assert agent.exit_code() == 0
    assert plane.report("agent_stopped")
    assert "Interrupt received" not in "\n".join(plane.log("run-1"))


def test_an_agent_listens_to_no_remote_control(agent: AgentProcess, plane: Plane) -> None:
    """F34: whoever could publish would stop every agent."""
    plane.celery.control.shutdown()
    assert plane.celery.control.inspect(timeout=0.5).ping() is None
    assert plane.redis.pubsub_numpat() == 0
    assert plane.redis.pubsub_channels() == []
    assert agent.process.poll() is None


def test_sigterm_after_a_cancel_is_no_second_interrupt(
    agent: AgentProcess, plane: Plane, configuration: Configuration
) -> None:
    """F18."""
    order = slow_apply(plane, configuration)
    plane.cancel(order)
    agent.signal()
    assert plane.finished(order)["outcome"] == "cancelled"
    assert agent.exit_code() == 0
    assert "Two interrupts" not in "\n".join(plane.log("run-1"))


def test_an_agent_waits_for_redis_and_outlives_its_restart(
    start_agent: StartAgent, configuration: Configuration, make_order: Callable[..., Order]
) -> None:
    """F8: it is no crash loop, neither at its start nor later."""
    with running_valkey() as url:
        port = int(url.split(":")[2].split("/")[0])
    agent = start_agent(url=f"redis://127.0.0.1:{port}/0", TERRASLOT_GRACE_SECONDS="8")
    eventually(lambda: "Cannot connect" in agent.log, 20)
    for _ in range(2):
        with running_valkey(port) as url:
            plane = Plane(url, make_order)
            eventually(lambda: plane.slots.agent("agent-1"), 30)  # noqa: B023 - called at once
            plane.report("agent_registered", 30)
            configuration.write(HOLDING)
            order = plane.send(plane.order("run-1", configuration.source, kind=RunKind.PLAN))
            assert plane.finished(order)["outcome"] == "succeeded"
            plane.close()
    assert agent.process.poll() is None
    agent.signal()
    assert agent.exit_code(30) == 0  # also with nobody there to say goodbye to


def test_variables_show_in_no_log(start_agent: StartAgent, plane: Plane, configuration: Configuration) -> None:
    agent = start_agent(TERRASLOT_LOG_LEVEL="DEBUG", TERRASLOT_LOG_FORMAT="json")
    eventually(lambda: plane.slots.agent("agent-1"), 20)
    configuration.runs("echo begun; sleep 60").write('variable "password" {}', "variables.tf")
    order = plane.order("run-1", configuration.source, variables={"password": "hunter2"})
    order = plane.send(planned(plane, order))
    eventually(lambda: any(line.endswith(": begun") for line in plane.log("run-1")), 20)
    plane.cancel(order, CancelMode.KILL)
    plane.finished(order)
    assert "hunter2" not in agent.log
    assert "hunter2" not in "\n".join(plane.log("run-1"))
    lines = [json.loads(line) for line in agent.log.splitlines() if line.startswith("{")]
    assert {"pool": POOL, "agent": "agent-1", "run": "run-1", "slot": 0, "event": "started"}.items() <= next(
        line for line in lines if line["event"] == "started"
    ).items()


def test_an_agent_leaves_no_keys_of_its_queue_behind(agent: AgentProcess, plane: Plane, valkey: redis.Redis) -> None:
    agent.signal()
    assert agent.exit_code() == 0
    plane.report("agent_stopped")
    keys = {key.decode() for key in valkey.keys("*")}
    assert not [key for key in keys if "unacked" in key or orders_queue(POOL, "agent-1") in key]
