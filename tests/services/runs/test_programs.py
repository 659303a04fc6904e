"""What a run requires of its program: it goes to agents that have it, is refused where none has, and waits for one."""

from __future__ import annotations

import pytest

from tests.services.conftest import POOL, ControlPlane, HandAgent
from workers.core.errors import UnknownRun, UnknownVersion
from workers.core.lifecycle import RunStatus
from workers.core.pools import PoolLimits
from workers.protocol.kinds import RunKind
from workers.protocol.messages import AgentRegistered
from workers.protocol.programs import Program
from workers.protocol.version import instance_id
from workers.services.pools import manage as pools
from workers.services.pools import views as pool_views
from workers.services.runs import decide, dispatch, finish, report, waiting
from workers.services.runs import views as run_views
from workers.services.scaling.cycle import cycle
from workers.services.scaling.scale import autoscale_pods


@pytest.fixture
def made_from(control: ControlPlane) -> ControlPlane:
    """A control plane whose pods are made from a configuration that can change."""
    control.pods.made_from = "first"
    pools.update(control.system, control.spec().model_copy(update={"limits": PoolLimits(max_agents=25)}))
    return control


def register(control: ControlPlane, name: str, *words: str) -> HandAgent:
    """Let an agent in a pod of its own register with programs, and say so."""
    control.pods.create(control.spec(), name)
    programs = [program for word in words if (program := Program.of_word(word))]
    agent = HandAgent(control, name, instance_id(f"life-of-{name}", programs)).register()
    report.take(control.system, AgentRegistered(pool=POOL, agent=name))
    return agent


def gone(control: ControlPlane, agent: HandAgent) -> None:
    """Let an idle agent and its pod go."""
    del control.pods.pods[agent.name]
    report.agent_gone(control.system, POOL, agent.name, agent.instance_id, "it stopped")


def waits_for(control: ControlPlane, run: str) -> str:
    return waiting.reasons(control.system, (run,))[run]


def test_a_run_goes_to_an_agent_that_has_what_its_workspace_requires(made_from: ControlPlane) -> None:
    made_from.workspace("new", terraform="terraform ~> 1.10")
    made_from.workspace("any")
    register(made_from, "default-old", "terraform/1.9.8")
    newer = register(made_from, "default-new", "terraform/1.9.8", "terraform/1.10.2")
    register(made_from, "default-silent-about-it")

    run = made_from.submit(workspace="new")

    order = newer.order()
    assert (order.run, order.terraform) == (run.id, "terraform ~> 1.10")
    assert made_from.submit(workspace="any").terraform is None


def test_a_pool_requires_it_for_workspaces_that_say_nothing(made_from: ControlPlane) -> None:
    pools.update(made_from.system, made_from.spec().model_copy(update={"terraform": "tofu"}))
    made_from.workspace("net")
    made_from.workspace("own", terraform="terraform 1.9.x")
    agent = register(made_from, "default-one", "terraform/1.9.8", "tofu/1.10.1")

    runs = [made_from.submit(RunKind.PLAN, workspace=name) for name in ("net", "own")]

    required = {order.run: order.terraform for order in agent.orders()}
    assert [required[run.id] for run in runs] == ["tofu", "terraform 1.9.x"]


def test_a_run_is_refused_at_once_with_the_versions_there_are_also_while_there_is_no_agent(
    made_from: ControlPlane,
) -> None:
    made_from.workspace(terraform="terraform ~> 1.10")
    agent = register(made_from, "default-one", "terraform/1.8.5", "terraform/1.9.8", "tofu/1.10.1")
    cycle(made_from.system, POOL)
    said = (
        "No agent of the pool 'default' has terraform ~> 1.10: they have terraform 1.9.8, terraform 1.8.5, tofu 1.10.1."
    )

    for _ in range(2):
        with pytest.raises(UnknownVersion) as refused:
            made_from.submit()
        assert str(refused.value) == said
        with pytest.raises(UnknownRun):
            made_from.run(f"run-{made_from.count}")
        if agent.name in made_from.pods.pods:
            gone(made_from, agent)
            cycle(made_from.system, POOL)
    assert pool_views.one(made_from.system, POOL).programs == ("terraform 1.8.5", "terraform 1.9.8", "tofu 1.10.1")


def test_a_run_waits_for_the_first_agent_of_a_pool_of_which_nothing_is_known(made_from: ControlPlane) -> None:
    made_from.workspace(terraform="terraform ~> 1.10")
    run = made_from.submit()
    assert waits_for(made_from, run.id) == "no agent accepts runs (first in line)"

    agent = register(made_from, "default-one", "terraform/1.10.2")

    assert agent.order().run == run.id


def test_in_front_of_a_run_are_those_that_could_take_its_slot(made_from: ControlPlane) -> None:
    """Those that wait for a version that no agent has, or none of its own agents, are not in its way."""
    versions = {"old": "terraform ~> 1.9.0", "new": "terraform ~> 1.10.0", "any": None}
    for kind, version in versions.items():
        for number in range(3):
            made_from.workspace(f"{kind}{number}", terraform=version)
    register(made_from, "default-old", "terraform/1.9.8")
    newer = register(made_from, "default-new", "terraform/1.10.2")
    for busy in ("old0", "new0"):
        made_from.submit(workspace=busy)
    waiting_runs = {name: made_from.submit(workspace=name).id for name in ("new1", "new2", "old1", "any1", "old2")}

    def places() -> dict[str, str]:
        return {name: waits_for(made_from, run) for name, run in waiting_runs.items()}

    def in_front(*counts: int) -> dict[str, str]:
        words = [f"{count} in front" if count else "first in line" for count in counts]
        return dict(zip(waiting_runs, (f"no apply slot is free ({word})" for word in words), strict=True))

    assert places() == in_front(0, 1, 0, 3, 2)
    seen = {run.run_id: run.waiting for run in pool_views.one(made_from.system, POOL).waiting}
    assert {name: seen[run] for name, run in waiting_runs.items()} == places()
    gone(made_from, newer)
    left = places()
    assert (left["any1"], left["old2"]) == ("no apply slot is free (1 in front)", "no apply slot is free (2 in front)")
    assert "no agent has terraform ~> 1.10.0" in left["new2"]


def test_a_run_that_has_waited_for_an_agent_that_does_not_have_it_fails_with_the_versions_there_are(
    made_from: ControlPlane,
) -> None:
    made_from.workspace(terraform="terraform ~> 1.10")
    run = made_from.submit()
    register(made_from, "default-one", "terraform/1.9.8")

    cycle(made_from.system, POOL)

    ended = made_from.run(run.id)
    assert ended.status is RunStatus.FAILED
    assert ended.error == "No agent of the pool 'default' has terraform ~> 1.10: they have terraform 1.9.8."


def test_after_a_change_of_the_pods_a_run_waits_for_an_agent_of_theirs_which_is_started_for_it(
    made_from: ControlPlane,
) -> None:
    made_from.workspace(terraform="terraform ~> 1.10")
    register(made_from, "default-old", "terraform/1.9.8")
    cycle(made_from.system, POOL)
    made_from.pods.made_from = "second"

    run = made_from.submit()
    why = waits_for(made_from, run.id)
    autoscale_pods(made_from.system, made_from.spec())

    assert why == "no agent has terraform ~> 1.10: those that accept runs have terraform 1.9.8"
    [new] = set(made_from.pods.pods) - {"default-old"}
    assert register(made_from, new, "terraform/1.10.2").order().run == run.id
    decided = pool_views.one(made_from.system, POOL).decisions[0]
    assert "runs wait for a program that no agent has" in decided.reason


def test_those_that_wait_for_a_program_keep_no_others_waiting_however_many_they_are(
    made_from: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "BATCH", 3)
    made_from.workspace("new", terraform="terraform ~> 1.10")
    made_from.workspace("other", terraform="terraform < 1.9")
    made_from.workspace("any")
    register(made_from, "default-old", "terraform/1.8.5")
    made_from.pods.made_from = "second"
    for _ in range(8):
        made_from.submit(RunKind.PLAN, workspace="new", priority=1)

    started = [made_from.submit(RunKind.PLAN, workspace=name).id for name in ("other", "any")]

    assert [made_from.run(run).status for run in started] == [RunStatus.PLANNING] * 2


def test_what_made_the_plan_is_on_record_and_another_attempt_may_have_another(made_from: ControlPlane) -> None:
    made_from.workspace(terraform="terraform >= 1.9")
    agent = register(made_from, "default-one", "terraform/1.9.8")
    run = made_from.submit()
    agent.work(program="terraform 1.9.8")
    seen = run_views.one(made_from.system.database, run.id)
    assert (seen.terraform, seen.program) == ("terraform >= 1.9", "terraform 1.9.8")

    decide.confirm(made_from.system, run.id)
    order = agent.order()
    assert order.terraform is None, "an apply has its plan's program"
    finish.requeue_or_fail(made_from.system, made_from.run(run.id), "it is gone", may_have_started=False)
    made_from.slots.release(run.id, order.token)
    dispatch.dispatch(made_from.system, POOL)

    assert made_from.run(run.id).program is None
    assert agent.order().terraform == "terraform >= 1.9"


def test_a_run_keeps_what_it_was_asked_for_with(made_from: ControlPlane) -> None:
    made_from.workspace()
    run = made_from.submit()
    pools.update(made_from.system, made_from.spec().model_copy(update={"terraform": "tofu"}))
    agent = register(made_from, "default-one", "terraform/1.9.8")
    assert (agent.order().run, agent.orders()) == (run.id, [])


def test_what_hostile_agents_claim_to_have_is_bounded(made_from: ControlPlane) -> None:
    for number in range(20):
        register(made_from, f"default-{number}", *(f"terraform/{number}.0.{patch}" for patch in range(40)))
    assert len(pool_views.one(made_from.system, POOL).programs) == 200
    cycle(made_from.system, POOL)
    assert len(pool_views.one(made_from.system, POOL).programs) == 200
