"""A Kubernetes pool's whole life by the command line, over the API server's double, read as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Terraslot
from tests.kubernetes.control import Cluster, control_plane, kubernetes_pool
from tests.kubernetes.double.cluster import NAMESPACE, NODE, Double
from tests.services.conftest import POOL
from tests.waiting import eventually
from workers.core.lifecycle import RunStatus
from workers.protocol.kinds import RunKind
from workers.services import system as services_system
from workers.services.runs import decide
from workers.store import pools as stored_pools

OLD = "old-agents"


@pytest.fixture
def cluster(environment: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Return a control plane over the double, without a pool, which the command line in this process finds."""
    double = Double()
    with control_plane(environment, redis_url, double) as made:
        with made.system.database.begin() as session:
            stored_pools.delete(session, POOL)
        made.system.pods(kubernetes_pool()).delete_secret(kubernetes_pool())
        monkeypatch.setattr(services_system, "system", lambda: made.system)
        yield made
    double.close()


@pytest.fixture
def pool(cluster: Cluster, cli: Terraslot) -> Cluster:
    """Create the pool as a person does."""
    answer = cli(f"pool create {POOL} --type kubernetes --image agent:1 --min 0 --max 4 --idle-timeout 0")
    assert (answer.code, answer.out, answer.err) == (0, f"Pool {POOL} created.\n", "")
    return cluster


@pytest.fixture
def old(pool: Cluster) -> Cluster:
    """Let a Deployment of two agents run in the namespace."""
    template = {"metadata": {"labels": {"app": "old"}}, "spec": {"containers": [{"name": "agent", "image": "agent:0"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "old"}}, "template": template}
    pool.double.put("deployments", OLD, spec=spec)
    eventually(lambda: len(pool.running()) == 2)
    return pool


def test_a_workspaces_directory_is_that_of_the_agents_and_not_looked_for_here(
    pool: Cluster, cli: Terraslot, tmp_path: Path
) -> None:
    path = tmp_path / "nowhere"
    for options in (f"--path {path}", f"--archive {path}.zip"):
        assert cli(f"workspace create net-{options[2:4]} {options}").code == 0
    text = f"name: net\nsource: {{type: directory, path: {path}}}\n"
    file = tmp_path / "net.yaml"
    file.write_text(text)
    assert cli(f"workspace apply --check -f {file}").out == "workspace net valid\n"
    assert cli(f"workspace apply -f {file}").out == "workspace net created\n"


def _rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]


def _secrets(cluster: Cluster) -> list[str]:
    return [secret["metadata"]["name"] for secret in cluster.double.objects.all("secrets", NAMESPACE)]


def test_a_pool_is_created_scaled_drained_rotated_and_deleted(pool: Cluster, cli: Terraslot) -> None:
    pool.cycle()
    header, row = _rows(cli("pool list").out)
    assert dict(zip(header, row, strict=True)) == {
        "POOL": POOL, "TYPE": "kubernetes", "AGENTS": "0", "MIN": "0", "MAX": "4",
        "RUNNING": "0", "RESERVED": "0", "IDLE": "0", "WAITING": "0", "STATUS": "-",
    }  # fmt: skip
    assert cli(f"pool show {POOL}").out.startswith(
        f"Pool {POOL}: no agents; slots: 0 running, 0 reserved, 0 idle; no runs wait\n"
    )
    assert cli(f"pool scale {POOL} 1").out == f"Pool {POOL}: 1 agent is starting.\n"
    pool.register()
    assert cli(f"pool show {POOL}").out.startswith(
        f"Pool {POOL}: 1 agent; slots: 0 running, 0 reserved, 3 idle; no runs wait\n"
    )
    assert cli(f"pool scale {POOL} 3").out == f"Pool {POOL}: 2 agents are starting.\n"
    assert cli(f"pool scale {POOL} 0").out == (
        f"Pool {POOL}: 1 idle agent goes; 2 more stay, since they hold work or are starting.\n"
    )
    pool.register()
    assert cli(f"pool scale {POOL} 9").out == (
        f"Pool {POOL}: 2 agents are starting; 5 fewer than asked for: `terraslot pool show {POOL}` says why.\n"
    )
    pool.register()
    assert cli(f"pool scale {POOL} 1").out == f"Pool {POOL}: 3 idle agents go.\n"
    assert cli(f"pool scale {POOL} 1").out == f"Pool {POOL}: nothing changes.\n"

    run = pool.submit(workspace=pool.workspace())
    (agent,) = (each for each in pool.agents.values() if each.name == run.agent)
    agent.work()
    assert cli(f"pool drain {POOL}").out == f"Pool {POOL} drains; 1 slot is held.\n"
    assert cli(f"agent drain {agent.name}").out == f"Agent {agent.name} drains; it holds 1 slot.\n"
    pool.cycle()
    shown = cli(f"pool show {POOL}").out
    assert "it drains, and no run is given to it" in shown
    assert "net apply_pending" in shown
    decide.discard(pool.system, run.id)
    assert cli(f"pool drain {POOL} --wait").out == f"Pool {POOL} drains; no slots are held.\n"
    assert cli(f"pool undrain {POOL}").out == f"Pool {POOL} is given runs again.\n"

    assert cli(f"pool rotate {POOL}").out == (
        "generation 2 issued\n"
        "Each cycle continues it: agents connect with the new credential, then the old one is retired.\n"
    )
    assert len(_secrets(pool)) == 1
    assert cli(f"pool delete {POOL} --yes").sentence == (
        f"The pool '{POOL}' can't be deleted: the workspace 'net' uses it. Move it first."
    )
    assert cli("workspace delete net").code == 0
    assert cli(f"pool delete {POOL} --yes").out == f"Pool {POOL} deleted.\n"
    assert (pool.double.pods(), _secrets(pool)) == ([], [])
    assert cli("pool list --json").json == []


def test_a_take_over_that_ended_half_way_is_shown_with_what_to_do(old: Cluster, cli: Terraslot) -> None:
    old.double.fail("delete", "replicasets", cut=True)
    assert cli(f"pool adopt-deployment {POOL} {OLD}").code == 1
    shown = cli(f"pool show {POOL}").out
    assert f"The pool adopts the Deployment {OLD}" in shown
    assert f"`terraslot pool adopt-deployment {POOL} {OLD}`" in shown


def test_a_deployment_is_taken_over_and_given_its_pool_back(old: Cluster, cli: Terraslot) -> None:
    before = old.double.pods()
    assert cli(f"pool adopt-deployment {POOL} nothing").misuse == (
        "There is no Deployment 'nothing' in the namespace terraslot."
    )
    taken = f"The pods of the Deployment {OLD} are single pods of pool {POOL}; the Deployment is deleted.\n"
    for _ in range(2):
        assert cli(f"pool adopt-deployment {POOL} {OLD}").out == taken
    assert (old.double.pods(), old.double.objects.all("deployments", NAMESPACE)) == (before, [])
    old.register()
    assert cli(f"pool show {POOL}").out.startswith(f"Pool {POOL}: 2 agents; ")
    kept = old.submit(workspace=old.workspace())
    old.agents[kept.agent or ""].work()

    assert cli(f"pool return-to-deployment {POOL} another").misuse == (
        f"No Deployment 'another' of the pool '{POOL}' was adopted: there is nothing to go back to."
    )
    told = cli(f"pool return-to-deployment {POOL} {OLD}").out
    assert told.startswith(f"The Deployment {OLD} runs pool {POOL}; ")
    assert told.endswith((" single pods drain, and are deleted when idle.\n", " is deleted when idle.\n"))
    eventually(lambda: len(old.running()) == 3)
    assert cli(f"pool return-to-deployment {POOL} {OLD}").out == (
        f"The Deployment {OLD} runs pool {POOL}; 1 single pod drains, and is deleted when idle.\n"
    )
    assert f"The Deployment {OLD} runs its pods." in cli(f"pool show {POOL}").out
    assert cli(f"pool scale {POOL} 3").sentence == (
        f"The Deployment '{OLD}' runs the pods of '{POOL}': adopt it, or scale that."
    )
    decide.discard(old.system, kept.id)
    eventually(
        lambda: old.run(kept.id).status is RunStatus.DISCARDED and cli(f"pool return-to-deployment {POOL} {OLD}")
    )
    eventually(lambda: len(old.running()) == 2)
    assert cli(f"pool return-to-deployment {POOL} {OLD}").out == f"The Deployment {OLD} runs pool {POOL}.\n"


def test_a_pool_whose_pods_would_come_back_or_hold_work_is_not_deleted(old: Cluster, cli: Terraslot) -> None:
    cli(f"pool adopt-deployment {POOL} {OLD}")
    cli(f"pool return-to-deployment {POOL} {OLD}")
    old.cycle()
    assert cli(f"pool delete {POOL} --yes").sentence == (
        f"The pool '{POOL}' can't be deleted: the Deployment '{OLD}' would create its pods anew. "
        "Delete that one first, or adopt it."
    )
    assert len(_secrets(old)) == 1
    cli(f"pool adopt-deployment {POOL} {OLD}")
    old.register()
    lease = old.slots.acquire("run-x", RunKind.PLAN, "t" * 16)
    assert lease is not None
    assert cli(f"pool delete {POOL} --yes").sentence == (f"The pool '{POOL}' can't be deleted: 1 of its slots is held.")
    old.slots.release("run-x", lease.token)
    assert cli(f"pool delete {POOL} --yes --json").json == {"pool": POOL, "deleted": True, "ending": 0}
    assert (old.double.pods(), _secrets(old)) == ([], [])


def test_an_agent_of_a_node_that_is_gone_is_forgotten_on_a_persons_word(pool: Cluster, cli: Terraslot) -> None:
    pool.cycle()
    cli(f"pool scale {POOL} 1")
    (agent,) = pool.register()
    run = pool.submit(workspace=pool.workspace())
    assert agent.start(agent.order())
    forget = f"agent forget {agent.name}"
    assert cli(forget).misuse.startswith(f"Say --node-is-gone to forget the agent '{agent.name}': silence alone")
    assert cli(f"{forget} --node-is-gone --yes").sentence.startswith(f"The agent {agent.name} is heard")

    pool.slots.mark_silent(0)
    waits = f"the agent {agent.name} is silent since "
    assert waits in cli(f"show {run.id}").out
    assert cli(f"show {run.id} --json").json["waiting"].startswith(waits)
    assert cli(f"{forget} --node-is-gone").misuse == (
        f"Say --yes to forget the agent '{agent.name}': there is nobody to ask."
    )
    assert cli(f"{forget} --node-is-gone --yes").out == (
        f"Agent {agent.name} is forgotten.\n  Run {run.id} is pending.\n"
    )
    assert pool.double.pods() == []
    assert cli(f"{forget} --node-is-gone --yes").sentence.startswith(f"No agent has the name '{agent.name}'")


def test_the_agents_of_a_node_are_drained_and_given_runs_again_together(pool: Cluster, cli: Terraslot) -> None:
    pool.cycle()
    cli(f"pool scale {POOL} 2")
    first, second = sorted(agent.name for agent in pool.register())
    drained = f"Agent {first} drains; it holds no slots.\nAgent {second} drains; it holds no slots.\n"
    assert cli(f"agent drain --node {NODE}").out == drained
    assert cli(f"agent undrain --node {NODE} --json").json == [
        {"agent": name, "draining": False} for name in (first, second)
    ]
    assert "No agent runs on the node 'node-9'" in cli("agent drain --node node-9").sentence
    for command in ("agent drain", f"agent drain {first} --node {NODE}"):
        assert cli(command).code == 2
