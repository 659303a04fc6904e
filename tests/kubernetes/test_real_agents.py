"""SEEDS S22 on a Kubernetes pool whose pods are real agents with real Terraform and their pool's own credential."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import AuthenticationError

from tests.kubernetes.control import Cluster, control_plane
from tests.kubernetes.double.cluster import NAMESPACE, Double
from tests.kubernetes.double.containers import Processes
from tests.services.conftest import POOL
from tests.waiting import eventually
from workers.cluster.kubernetes.manifest import secret_name
from workers.core.lifecycle import RunStatus
from workers.core.rotation import OVERLAP, RECONNECT
from workers.protocol import names
from workers.protocol.errors import Unavailable
from workers.protocol.kinds import RunKind
from workers.protocol.pool_secret import SECRET_FILE
from workers.protocol.sources import DirectorySource
from workers.services import workspaces
from workers.services.runs import decide, undeliverable
from workers.services.scaling import scale
from workers.services.scaling.cycle import cycle
from workers.services.secrets import credentials
from workers.services.system import System
from workers.slots import acl
from workers.slots.report_queue import ReportQueue
from workers.specs.workspaces import WorkspaceSpec

HELD_TERRAFORM = """#!/bin/sh
case "$1" in plan) gate="$HOLD_PLAN" ;; apply) gate="$HOLD_APPLY" ;; esac
if [ -n "$gate" ]; then until [ -e "$gate" ]; do sleep 0.05; done; fi
exec {terraform} "$@"
"""
Later = Callable[[float], list[str]]
CODE = """
terraform {{
  backend "local" {{ path = "{state}" }}
}}
resource "terraform_data" "it" {{ input = "hello" }}
"""


class Live:
    """A control plane whose report reader and beat are played by :meth:`until`, over pods that are real agents."""

    def __init__(self, cluster: Cluster, directory: Path, kubelet: Processes) -> None:
        self.cluster = cluster
        self.directory = directory
        self.kubelet = kubelet

    def workspace(self, name: str, **environment: str) -> str:
        directory = self.directory / name
        directory.mkdir()
        (directory / "main.tf").write_text(CODE.format(state=self.directory / f"{name}.tfstate"))
        source = DirectorySource(path=str(directory))
        workspaces.create(self.cluster.system, WorkspaceSpec(name=name, source=source, environment=environment))
        return name

    def until(self, condition: Callable[[], Any], seconds: float = 60, *, cycles: bool = True) -> Any:
        """Take reports, and let the cycle run, until the condition is true; return it."""

        def step() -> Any:
            for found in ReportQueue(self.cluster.redis, POOL).take(100):
                undeliverable.receive(self.cluster.system, found)
            if self.cluster.redis.delete(names.CONTROL_QUEUE, names.CLUSTER_QUEUE) and cycles:
                cycle(self.cluster.system, POOL)
            return condition()

        return eventually(step, seconds, every=0.05)

    def agents(self, count: int) -> list[str]:
        """Create pods, and wait until their agents have registered."""
        scale.scale_pods(self.cluster.system, self.cluster.spec(), count)
        self.until(lambda: len(self.cluster.slots.snapshot()) == count, cycles=False)
        return [agent.name for agent in self.cluster.slots.snapshot()]

    def submit(self, workspace: str, kind: RunKind = RunKind.PLAN_AND_APPLY) -> str:
        return self.cluster.submit(kind, workspace).id

    def reach(self, run: str, status: RunStatus, *, started: bool = False) -> Any:
        def reached() -> Any:
            found = self.cluster.run(run)
            assert found.status is status or not found.status.is_over, found.error
            return found.status is status and (found.started_at or not started) and found

        return self.until(reached, cycles=False)

    def pods(self) -> list[str]:
        return self.cluster.double.pods()

    def secret(self) -> dict[str, Any]:
        """Return what the agents of the pool are given."""
        found = self.cluster.double.objects.get("secrets", NAMESPACE, secret_name(POOL))
        return json.loads(base64.b64decode(found["data"][SECRET_FILE]))

    def ping(self, secret: dict[str, Any]) -> bool:
        """Ask the server for an answer with an agent's credential."""
        url = self.cluster.system.settings.redis_url
        with redis.Redis.from_url(url, username=secret["username"], password=secret["password"]) as client:
            return bool(client.ping())

    def log(self, pod: str) -> str:
        """Return what a pod's agent has printed."""
        uid = self.cluster.double.pod(pod)["metadata"]["uid"]
        return (self.kubelet.home / uid / "log").read_text()

    def connections(self) -> dict[str, str]:
        """Return the last command of each connection of the pool's users, by the connection's id and user."""
        found = self.cluster.redis.client_list()
        return {f"{each['id']} {each['user']}": each["cmd"] for each in found if each["user"].startswith(f"ts-{POOL}-")}

    def waits_for_orders(self, user: str, closed: Collection[str] = ()) -> bool:
        """Whether only this user is connected, by none of the connections that were closed, and takes orders."""
        there = self.connections()
        users = {each.split()[1] for each in there}
        return users == {user} and "brpop" in there.values() and not there.keys() & closed


@pytest.fixture
def live(tmp_path: Path, redis_url: str) -> Iterator[Live]:
    wrapper = tmp_path / "terraform-held"
    wrapper.write_text(HELD_TERRAFORM.replace("{terraform}", shutil.which("terraform") or "terraform"))
    wrapper.chmod(0o755)
    environment = {
        "TERRASLOT_REDIS_URL": redis_url,
        "TERRASLOT_TERRAFORM": str(wrapper),
        "TERRASLOT_HEARTBEAT_SECONDS": "0.5",
    }
    kubelet = Processes((sys.executable, "-P", "-m", "agent"), tmp_path / "pods", environment)
    double = Double(kubelet.start)
    with control_plane(tmp_path, redis_url, double) as cluster:
        double.objects.remove("secrets", NAMESPACE, secret_name(POOL))  # the cycle makes it
        cluster.cycle()
        yield Live(cluster, tmp_path, kubelet)
    double.close()


@pytest.fixture
def later(live: Live, monkeypatch: pytest.MonkeyPatch) -> Later:
    """Return a function that does the next step of a rotation, as a cycle would some seconds later."""
    real = System.now

    def step(seconds: float) -> list[str]:
        with monkeypatch.context() as ahead:
            ahead.setattr(System, "now", lambda self: real(self) + timedelta(seconds=seconds))
            return credentials.check_and_rotate_secret(live.cluster.system, live.cluster.spec())

    return step


def test_scale_down_protection(live: Live) -> None:
    """S22: three pods with a run each, scaled to two: none is killed."""
    gate = live.directory / "gate"
    before = live.agents(3)
    held = [live.submit(live.workspace(f"net{number}", HOLD_PLAN=str(gate))) for number in range(3)]
    for run in held:
        live.reach(run, RunStatus.PLANNING, started=True)
    assert scale.scale_pods(live.cluster.system, live.cluster.spec(), 2) == 0
    live.cluster.cycle()
    assert {pod.name for pod in live.cluster.system.pods(live.cluster.spec()).list(POOL) if not pod.safe_to_evict} == {
        *before
    }
    gate.touch()
    for run in held:
        live.reach(run, RunStatus.APPLY_PENDING)
    assert live.pods() == before


def test_reserved_protection_also_through_a_restart_of_the_container(live: Live) -> None:
    """S22: a plan waits for its confirmation, its pod stays, and the apply runs on it, in the same directory."""
    live.agents(2)
    run = live.submit(live.workspace("net"))
    keeper = live.reach(run, RunStatus.APPLY_PENDING).agent
    assert scale.scale_pods(live.cluster.system, live.cluster.spec(), 0) == -1
    live.until(lambda: live.pods() == [keeper], cycles=False)
    instance_id = live.cluster.slots.agent(keeper).instance_id
    live.cluster.double.machinery.container(keeper).kill()
    live.until(lambda: live.cluster.slots.agent(keeper).instance_id != instance_id, cycles=False)
    decide.confirm(live.cluster.system, run)
    assert live.reach(run, RunStatus.SUCCEEDED).agent == keeper
    assert json.loads((live.directory / "net.tfstate").read_text())["resources"]


def test_utilisation_from_a_cold_start_to_nothing(live: Live) -> None:
    """S22: no pod, then one with three plans (100 %), one more, and one fewer at a time when all is done."""
    gate = live.directory / "gate"
    workspace = live.workspace("net", HOLD_PLAN=str(gate))
    plans = [live.submit(workspace, RunKind.PLAN) for _ in range(3)]
    live.until(lambda: live.cluster.slots.stats().running == 3)
    live.cluster.cycle()
    live.until(lambda: len(live.cluster.slots.snapshot()) == 2, cycles=False)
    gate.touch()
    for run in plans:
        live.reach(run, RunStatus.SUCCEEDED)
    for left in (1, 0):
        live.cluster.cycle()
        live.until(lambda left=left: len(live.pods()) == left, cycles=False)


def test_a_node_drain_lets_an_apply_finish_and_a_lost_node_has_the_plan_made_anew(live: Live) -> None:
    """F7, F18, F19."""
    gate = live.directory / "gate"
    live.agents(1)
    run = live.submit(live.workspace("net", HOLD_APPLY=str(gate)))
    drained = live.reach(run, RunStatus.APPLY_PENDING).agent
    decide.confirm(live.cluster.system, run)
    live.reach(run, RunStatus.APPLYING, started=True)
    live.cluster.double.server.api.delete("pods", NAMESPACE, drained, {})
    live.until(lambda: live.cluster.slots.agent(drained).draining, cycles=False)
    other = live.submit(live.workspace("other", HOLD_PLAN=str(live.directory / "never")))
    assert live.cluster.run(other).status is RunStatus.PENDING
    live.until(lambda: live.cluster.run(other).status is RunStatus.PLANNING)
    gate.touch()
    assert live.reach(run, RunStatus.SUCCEEDED).agent == drained
    live.until(lambda: drained not in live.pods(), cycles=False)
    lost = live.cluster.run(other).agent
    live.cluster.double.machinery.container(lost)._process.send_signal(signal.SIGKILL)
    live.cluster.double.vanish(lost)

    def seen() -> bool:
        try:
            live.cluster.cycle()
        except Unavailable:  # so early the list might be wrong, and not the pod gone
            return False
        return live.cluster.slots.agent(lost) is None

    live.until(seen, cycles=False)
    again = live.until(lambda: live.cluster.run(other).agent not in (None, lost) and live.cluster.run(other))
    assert again.attempt == 2


def test_an_agent_whose_kubelet_is_late_loses_nothing_by_a_rotation(live: Live, later: Later) -> None:
    """F27: what it uses is not retired; and where a server forgot it all the same, it waits for what it can use."""
    gate = live.directory / "gate"
    live.agents(1)
    run = live.submit(live.workspace("net", HOLD_APPLY=str(gate)))
    agent = live.reach(run, RunStatus.APPLY_PENDING).agent
    decide.confirm(live.cluster.system, run)
    live.reach(run, RunStatus.APPLYING, started=True)
    before, old = live.cluster.slots.agent(agent), live.secret()

    assert credentials.rotate(live.cluster.system, POOL) == ["generation 2 issued"]
    for seconds in (OVERLAP + 1, 2 * OVERLAP + 2):
        closed = live.connections().keys()
        assert later(seconds) == ["generation 1 disconnected"]
        live.until(lambda closed=closed: live.waits_for_orders(f"ts-{POOL}-1", closed), cycles=False)
    acl.Users(live.cluster.redis).remove(f"ts-{POOL}-1")
    assert later(2 * OVERLAP + RECONNECT + 60) == ["generation 1 retired"]
    live.until(lambda: "invalid username-password pair" in live.log(agent), cycles=False)

    live.kubelet.refresh(live.cluster.double.objects, live.cluster.double.pod(agent))
    live.until(lambda: live.waits_for_orders(f"ts-{POOL}-2"), cycles=False)
    with pytest.raises(AuthenticationError):
        live.ping(old)
    assert live.ping(live.secret())
    gate.touch()
    assert live.reach(run, RunStatus.SUCCEEDED).agent == agent
    further = live.submit(live.workspace("other"), RunKind.PLAN)
    assert live.reach(further, RunStatus.SUCCEEDED).agent == agent
    assert live.cluster.slots.agent(agent).instance_id == before.instance_id
    assert live.cluster.run(run).attempt == 1
