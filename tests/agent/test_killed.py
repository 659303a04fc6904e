"""Agents that are killed while Terraform works: it goes on, stores its state, and what it did is reported."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.apply_messages import LONGEST
from agent.children import process_started
from tests.agent.conftest import AgentProcess, Configuration, Plane
from tests.agent.test_agent import planned
from tests.packaging.dockerfile import stages
from tests.waiting import eventually
from workers.protocol.leases import CancelMode
from workers.protocol.messages import Order

StartAgent = Callable[..., AgentProcess]
# The first process of a container has the number 1 in a world of its own; where that is not permitted, it has another.
CONTAINER = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")
IN_CONTAINER = (
    CONTAINER if subprocess.run([*CONTAINER, "true"], check=False, capture_output=True).returncode == 0 else ()
)
ENTRY_POINT = tuple(json.loads(stages()["agent"].last("CMD")))


def first_of(agent: AgentProcess) -> psutil.Process:
    """Return the first process of an agent's container."""
    process = psutil.Process(agent.process.pid)
    return process.children()[0] if process.name() == "unshare" else process


def worker_of(agent: AgentProcess) -> psutil.Process:
    """Return the process that works, as seen from here: the child of the first that has a spawner."""

    def found() -> psutil.Process | None:
        with suppress(psutil.Error):  # one of them ends at this moment
            return next((each for each in first_of(agent).children() if each.children()), None)
        return None

    return eventually(found)


class Apply:
    """An apply under way, which lasts until it is let go and says a lot then."""

    def __init__(self, plane: Plane, configuration: Configuration, tmp_path: Path, code: int) -> None:
        self.plane, self.gate = plane, tmp_path / "gate"
        self.state = tmp_path / "state" / "terraform.tfstate"
        configuration.runs(f"echo begun; until [ -e {self.gate} ]; do sleep 0.02; done; seq 3000; exit {code}")
        configuration.write('output "o" { value = 1 }', "outputs.tf")
        self.order: Order = plane.send(planned(plane, plane.order("run-1", configuration.source)))
        eventually(lambda: self.logged("begun"), 20)

    def logged(self, end: str) -> bool:
        return any(line.endswith(f": {end}") for line in self.plane.log("run-1"))

    def child(self, agent: AgentProcess) -> int:
        (record,) = (agent.work_dir / "children").iterdir()
        return int(record.name)

    def go_on(self) -> None:
        self.gate.touch()

    def end(self) -> dict[str, Any]:
        """Wait for the report; the lock is gone by then, and the log is whole."""
        report = self.plane.finished(self.order)
        assert not list(self.state.parent.glob("*.lock.info"))
        log = self.plane.log("run-1")
        assert len([line for line in log if line.endswith(": begun")]) == 1
        assert not [line for line in log if "nterrupt" in line]
        return report

    @property
    def resources(self) -> list[Any]:
        return [each["type"] for each in json.loads(self.state.read_text())["resources"]]


Begin = Callable[..., Apply]


@pytest.fixture
def begin(plane: Plane, configuration: Configuration, tmp_path: Path) -> Begin:
    """Return a function that begins an apply, which ends with an exit code."""
    return lambda code=0: Apply(plane, configuration, tmp_path, code)


def test_an_apply_outlives_the_worker_and_is_reported_by_the_next(
    start_agent: StartAgent, plane: Plane, begin: Begin
) -> None:
    """F9, F40: with its exit code, which the supervisor has seen; and an order that comes once more starts nothing."""
    agent = start_agent(command=(*IN_CONTAINER, sys.executable, *ENTRY_POINT[1:]))
    plane.report("agent_registered", agent="agent-1")
    apply = begin()
    before = worker_of(agent)
    instance = plane.slots.agent("agent-1").instance_id  # type: ignore[union-attr]
    before.send_signal(signal.SIGKILL)
    plane.send(apply.order)
    eventually(lambda: plane.slots.agent("agent-1").instance_id != instance)  # type: ignore[union-attr]
    assert worker_of(agent).pid != before.pid
    assert agent.process.poll() is None
    apply.go_on()
    assert apply.end()["outputs"] == {"o": 1}
    assert apply.resources == ["terraform_data"]
    assert apply.logged("3000")
    first_of(agent).send_signal(signal.SIGTERM)
    assert agent.exit_code() == 0


def test_an_apply_is_not_repeated_where_it_had_ended_and_its_outputs_were_still_read(
    start_agent: StartAgent, plane: Plane, begin: Begin, configuration: Configuration, tmp_path: Path
) -> None:
    """F9, F41: how the apply ended is on disk; only its outputs are asked for again, too long ones for its messages."""
    configuration.write(f'output "huge" {{ value = "{"x" * LONGEST}" }}', "huge.tf")
    terraform, asked = tmp_path / "terraform", tmp_path / "asked"
    first = f"[ -e {asked} ] || {{ touch {asked}; exec sleep 60; }}"
    terraform.write_text(f'#!/bin/sh\n[ "$1" != output ] || {first}\nexec {shutil.which("terraform")} "$@"\n')
    terraform.chmod(0o755)
    agent = start_agent(TERRASLOT_TERRAFORM=str(terraform))
    plane.report("agent_registered", agent="agent-1")
    apply = begin()
    apply.go_on()
    eventually(asked.exists)
    worker_of(agent).send_signal(signal.SIGKILL)
    report = apply.end()
    assert (report["outcome"], report["outputs"]) == ("succeeded", {"o": 1})
    assert json.loads(apply.state.read_text())["serial"] == 1
    assert list((agent.work_dir / "children").iterdir()) == []


@pytest.mark.parametrize("code", [0, 3])
def test_an_apply_that_ends_while_no_agent_lives_is_reported_by_the_next(
    agent: AgentProcess,
    start_agent: StartAgent,
    begin: Begin,
    code: int,
) -> None:
    """F40: as Terraform's own last words have it."""
    apply = begin(code)
    child, worker = apply.child(agent), worker_of(agent)
    agent.signal(signal.SIGKILL)
    agent.exit_code()
    eventually(lambda: not worker.is_running())  # it goes with its supervisor
    apply.go_on()
    eventually(lambda: process_started(child) is None)
    start_agent()
    report = apply.end()
    assert report["outcome"] == ("failed" if code else "succeeded")
    assert apply.resources == ["terraform_data"]
    assert ("exit status 3" in report.get("error", "")) is (code == 3)
    assert apply.logged("3000")


def test_an_apply_whose_lease_is_gone_is_interrupted_once(
    agent: AgentProcess, start_agent: StartAgent, plane: Plane, configuration: Configuration, begin: Begin
) -> None:
    """F18: another run has the slot when the agent is back."""
    apply = begin()
    child = apply.child(agent)
    agent.signal(signal.SIGKILL)
    plane.slots.release("run-1", apply.order.token)
    plane.order("run-2", configuration.source)
    start_agent()
    eventually(lambda: process_started(child) is None)
    eventually(lambda: "Interrupt received." in plane.log("run-1"))
    assert "Two interrupts received." not in "\n".join(plane.log("run-1"))
    assert not list(apply.state.parent.glob("*.lock.info"))


def test_a_cancel_reaches_an_apply_whose_agent_was_started_again(
    agent: AgentProcess, plane: Plane, begin: Begin
) -> None:
    apply = begin()
    worker_of(agent).send_signal(signal.SIGKILL)
    plane.slots.cancel("run-1", CancelMode.INTERRUPT)
    assert plane.finished(apply.order)["outcome"] == "cancelled"
    assert not list(apply.state.parent.glob("*.lock.info"))


def test_a_plan_of_a_killed_worker_is_ended_and_not_reported(
    start_agent: StartAgent, plane: Plane, configuration: Configuration, tmp_path: Path
) -> None:
    """F7: it is made anew, and its slot's next run finds nothing of it."""
    terraform = tmp_path / "terraform"
    terraform.write_text(f'#!/bin/sh\n[ "$1" != plan ] || exec sleep 60\nexec {shutil.which("terraform")} "$@"\n')
    terraform.chmod(0o755)
    agent = start_agent(TERRASLOT_TERRAFORM=str(terraform))
    configuration.write('output "o" { value = 1 }')
    plane.report("agent_registered", agent="agent-1")
    plane.send(plane.order("run-1", configuration.source))
    eventually(lambda: "$ terraform plan" in plane.log("run-1"))
    (child,) = (agent.work_dir / "children").iterdir()
    worker_of(agent).send_signal(signal.SIGKILL)
    eventually(lambda: "ended what a previous process" in agent.log)
    assert process_started(int(child.name)) is None
    assert eventually(lambda: (lease := plane.slots.find("run-1")) and lease.lost_since)


def test_a_worker_that_stands_still_does_not_hold_terraform_up(agent: AgentProcess, begin: Begin) -> None:
    """F40: with more output than a pipe holds."""
    apply = begin()
    child, worker = apply.child(agent), worker_of(agent)
    worker.send_signal(signal.SIGSTOP)
    apply.go_on()
    eventually(lambda: process_started(child) is None)
    assert apply.resources == ["terraform_data"]
    worker.send_signal(signal.SIGCONT)
    assert apply.end()["outcome"] == "succeeded"
    assert apply.logged("3000")


def test_an_agent_that_is_killed_while_it_writes_its_log_has_reported(
    start_agent: StartAgent, plane: Plane, begin: Begin
) -> None:
    """F41: the outcome is on disk before the log is flushed, here to keys that take no lines."""
    agent = start_agent()
    plane.report("agent_registered", agent="agent-1")
    apply = begin()
    for key in plane.redis.keys("*run-1*"):
        if plane.redis.type(key) == b"stream":
            plane.redis.set(key, "no log")
    apply.go_on()
    eventually(lambda: any('"apply"' in path.read_text() for path in (agent.work_dir / "reports").glob("*.json")))
    agent.signal(signal.SIGKILL)
    agent.exit_code()
    assert not [each for each in plane.read() if each["type"] == "phase_finished" and each["phase"] == "apply"]
    shutil.rmtree(agent.work_dir / "runs")
    start_agent()
    assert plane.finished(apply.order)["outcome"] == "succeeded"
