"""Nodes that are drained, and nodes that are gone: which runs go there, what is said of those there, what ends them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.kubernetes.control import Clock, Cluster
from tests.kubernetes.double.cluster import NAMESPACE, NODE
from tests.services.conftest import POOL, HandAgent
from workers.cluster.kubernetes.api import Api
from workers.cluster.kubernetes.backend import KubernetesPods
from workers.core.errors import StillInUse, UnknownAgent
from workers.core.lifecycle import RunStatus
from workers.protocol.kinds import FailureReason, RunKind
from workers.services import health
from workers.services.pools import drain, forget
from workers.services.runs import decide, views
from workers.store import run_queries

PLAN = RunKind.PLAN
OTHER = "node-2"
AGENTS = [f"{POOL}-0", f"{POOL}-1"]  # on a node each


@pytest.fixture
def nodes(cluster: Cluster) -> Cluster:
    """Return a control plane with an agent on each of two nodes; the first plans, and so is the preferred one."""
    cluster.configure(min_agents=2)
    cluster.double.add_node(OTHER)
    cluster.workspace()
    backend = cluster.system.pods(cluster.spec())
    for name, node in zip(AGENTS, (NODE, OTHER), strict=True):
        backend.create(cluster.spec(), name)
        cluster.running()
        assert cluster.double.pod(name)["spec"]["nodeName"] == node
    cluster.register()
    cluster.slots.drain(AGENTS[1])
    assert cluster.submit().agent == AGENTS[0]
    cluster.slots.undrain(AGENTS[1])
    return cluster


def without_permission(cluster: Cluster, path: Path) -> Cluster:
    """Return the control plane with an account that may do what its namespace's Role says, and read no node."""
    double = cluster.double
    double.put("serviceaccounts", "worker")
    rules = [{"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["*"]}]
    double.put("roles", "worker", rules=rules)
    subjects = [{"kind": "ServiceAccount", "name": "worker", "namespace": NAMESPACE}]
    double.put("rolebindings", "worker", roleRef={"kind": "Role", "name": "worker"}, subjects=subjects)
    kubeconfig = double.write_kubeconfig(path, double.access.token_for(NAMESPACE, "worker"))
    backends = {"kubernetes": KubernetesPods(Api(str(kubeconfig)))}
    return replace(cluster, system=replace(cluster.system, backends=backends))


def draining(cluster: Cluster) -> list[str]:
    return [agent.name for agent in cluster.slots.snapshot() if agent.draining]


class TestACordonedNode:
    """F45."""

    def test_gets_no_run_until_it_takes_pods_again_and_what_is_there_ends(self, nodes: Cluster) -> None:
        nodes.double.cordon(NODE)
        nodes.cycle()
        assert nodes.status() == f"{NODE} takes no pods: 1 agent on it is given no run until that ends"
        assert [nodes.submit(PLAN).agent for _ in range(3)] == [AGENTS[1]] * 3
        assert nodes.submit(PLAN).status is RunStatus.PENDING

        nodes.agents[AGENTS[0]].work()
        decide.confirm(nodes.system, "run-1")  # its plan kept its slot
        nodes.agents[AGENTS[0]].work()
        assert nodes.run("run-1").status is RunStatus.SUCCEEDED
        assert nodes.run("run-5").status is RunStatus.PENDING

        nodes.double.cordon(NODE, ends=True)
        nodes.cycle()
        assert nodes.run("run-5").agent == AGENTS[0]
        assert draining(nodes) == []

    def test_that_takes_pods_again_ends_no_drain_of_a_person(self, nodes: Cluster) -> None:
        drain.drain_agent(nodes.system, AGENTS[0])
        for name in (NODE, OTHER):
            nodes.double.cordon(name)
        nodes.cycle()
        drain.drain_agent(nodes.system, AGENTS[1])  # whoever asks for it after the cordon means it, too
        for name in (NODE, OTHER):
            nodes.double.cordon(name, ends=True)
        nodes.cycle()
        assert draining(nodes) == AGENTS

    def test_keeps_its_agents_drained_while_it_can_not_be_read(self, nodes: Cluster) -> None:
        nodes.double.cordon(NODE)
        nodes.cycle()
        nodes.double.cordon(NODE, ends=True)
        nodes.double.fail("list", "nodes", status=500, reason="InternalError", message="no leader")
        nodes.cycle()
        assert draining(nodes) == [AGENTS[0]]
        nodes.cycle()
        assert draining(nodes) == []

    def test_does_not_give_its_agents_back_by_hand(self, nodes: Cluster) -> None:
        nodes.double.cordon(NODE)
        nodes.cycle()
        with pytest.raises(StillInUse, match=f"`kubectl uncordon {NODE}` ends that"):
            drain.undrain_agent(nodes.system, AGENTS[0])

    def test_that_may_not_be_read_is_no_error_and_is_drained_by_hand(self, nodes: Cluster, tmp_path: Path) -> None:
        plain = without_permission(nodes, tmp_path / "worker")
        plain.double.cordon(NODE)
        plain.requests()
        for _ in range(3):
            plain.cycle()
        assert plain.status() is None
        assert plain.requests().count(("list", "nodes")) == 1  # asked again some minutes later
        assert draining(plain) == []

        assert [record.name for record in drain.drain_node(plain.system, NODE)] == [AGENTS[0]]
        assert plain.submit(PLAN).agent == AGENTS[1]
        assert drain.undrain_node(plain.system, NODE) == [AGENTS[0]]
        assert draining(plain) == []
        with pytest.raises(UnknownAgent, match="No agent runs on the node 'node-9'"):
            drain.drain_node(plain.system, "node-9")


@pytest.fixture
def lost(nodes: Cluster, clock_ahead: Clock) -> HandAgent:
    """Return the agent of a node that is gone while it plans; the other one is heard."""
    agent = nodes.agents[AGENTS[0]]
    assert agent.start(agent.order())
    nodes.double.lose_node()
    for seconds in range(0, 30, 4):
        clock_ahead(seconds)
        nodes.slots.heartbeat(AGENTS[1], nodes.agents[AGENTS[1]].instance_id, [], [])
        nodes.cycle()
    assert "deletionTimestamp" in nodes.double.pod(agent.name)["metadata"]
    return agent


class TestALostNode:
    """Silence is not death: the run waits, and the wait is told."""

    def test_keeps_its_run_and_run_pool_and_doctor_say_what_for(self, nodes: Cluster, lost: HandAgent) -> None:
        assert nodes.run("run-1").status is RunStatus.PLANNING
        said = nodes.status() or ""
        assert f"the agent {lost.name} is silent since 20" in said
        assert f"its pod is Terminating on the node {NODE} (NotReady) until the node confirms its end" in said
        assert "in a grace period that ends at 20" in said
        assert f"`terraslot agent forget {lost.name} --node-is-gone` ends the wait" in said
        assert said in health.agents(nodes.system).says
        run = views.one(nodes.system.database, "run-1")
        assert views.why_silent(nodes.system, run) == said

    def test_that_is_said_to_be_gone_frees_a_plan_to_be_made_anew(self, nodes: Cluster, lost: HandAgent) -> None:
        forgotten = forget.forget_agent(nodes.system, lost.name)
        assert [(run.run_id, run.agent) for run in forgotten.runs] == [("run-1", AGENTS[1])]
        assert lost.name not in nodes.double.pods()
        assert nodes.slots.agent(lost.name) is None
        with nodes.system.database.read() as session:
            (event,) = (each for each in run_queries.events(session, "run-1") if each.event == "agent_lost")
        assert event.detail == {"why": f"its agent {lost.name} is gone (a person said that its node is gone)"}
        with pytest.raises(UnknownAgent):
            forget.forget_agent(nodes.system, lost.name)
        nodes.cycle()
        assert nodes.run("run-1").attempt == 2
        assert nodes.status() is None

    def test_is_forgotten_by_a_second_try_where_the_first_stopped_half_way(
        self, nodes: Cluster, lost: HandAgent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*_: object) -> None:
            raise SystemExit

        with monkeypatch.context() as half_way:
            half_way.setattr(forget, "agent_gone", killed)
            with pytest.raises(SystemExit):
                forget.forget_agent(nodes.system, lost.name)
        assert nodes.run("run-1").agent == lost.name
        assert lost.name not in nodes.double.pods()
        assert [run.run_id for run in forget.forget_agent(nodes.system, lost.name).runs] == ["run-1"]
        assert nodes.run("run-1").attempt == 2

    def test_fails_an_apply_as_agent_lost(self, nodes: Cluster, clock_ahead: Clock) -> None:
        """F9."""
        agent = nodes.agents[AGENTS[0]]
        agent.work()
        decide.confirm(nodes.system, "run-1")
        assert agent.start(agent.order())
        nodes.double.lose_node()
        for seconds in (0, 4, 8, 12):
            clock_ahead(seconds)
            nodes.cycle()
        forget.forget_agent(nodes.system, agent.name)
        assert (nodes.run("run-1").status, nodes.run("run-1").reason) == (RunStatus.FAILED, FailureReason.AGENT_LOST)

    def test_whose_agent_is_heard_is_not_gone(self, nodes: Cluster, lost: HandAgent) -> None:
        nodes.slots.heartbeat(lost.name, lost.instance_id, [], [])
        with pytest.raises(StillInUse, match=f"The agent {lost.name} is heard"):
            forget.forget_agent(nodes.system, lost.name)
        assert lost.name in nodes.double.pods()
        assert nodes.run("run-1").status is RunStatus.PLANNING
