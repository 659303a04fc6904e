"""Pools are applied, drained, scaled by hand and deleted."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.services.conftest import POOL, ControlPlane, HandAgent
from tests.waiting import eventually
from workers.core.errors import AgentGone, PodRefused, StillInUse, UnknownAgent, UnknownPool
from workers.core.lifecycle import RunStatus
from workers.core.pools import PoolLimits
from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import RunKind
from workers.protocol.sources import SensitiveVariables
from workers.services import pool_state, workspaces
from workers.services.pools import delete, drain
from workers.services.pools import manage as pools
from workers.services.runs import decide, dispatch
from workers.services.scaling import scale
from workers.services.scaling.cycle import cycle
from workers.services.secrets import credentials
from workers.services.secrets.variables import Change
from workers.slots.keys import PoolKeys
from workers.specs import Applied
from workers.specs.pools import PoolSpec
from workers.store import workspaces as stored_workspaces

PLAN = RunKind.PLAN
SECRET = SensitiveVariables(variables={"token": "s3cret"})


@pytest.fixture(autouse=True)
def _no_users_are_left(control: ControlPlane) -> Iterator[None]:
    yield
    for user in control.redis.acl_users():
        if user != "default":
            control.redis.acl_deluser(user)


class TestApply:
    def test_returns_what_it_changed(self, control: ControlPlane) -> None:
        spec = PoolSpec(name="other", limits=PoolLimits(max_agents=2))
        assert pools.apply(control.system, spec) is Applied.CREATED
        assert pools.apply(control.system, spec) is Applied.UNCHANGED
        larger = spec.model_copy(update={"limits": PoolLimits(max_agents=4)})
        assert pools.apply(control.system, larger) is Applied.CHANGED
        assert control.system.pool("other") == larger

    def test_saves_nothing_that_the_cluster_refuses(self, control: ControlPlane) -> None:
        control.pods.refusal = PodRefused("No such pods.")
        with pytest.raises(PodRefused):
            pools.apply(control.system, PoolSpec(name="other"))
        with pytest.raises(UnknownPool):
            control.system.pool("other")

    def test_saves_what_an_unreachable_cluster_can_not_check_and_the_status_says_so(
        self, control: ControlPlane
    ) -> None:
        control.pods.broken = True
        assert pools.apply(control.system, PoolSpec(name="other")) is Applied.CREATED
        assert pool_state.status(control.system, "other") == "The cluster does not answer."

    def test_leaves_what_other_operations_have_set(self, control: ControlPlane) -> None:
        spec = control.spec()
        pools.update(control.system, spec, Change(SECRET))
        drain.drain_pool(control.system, POOL)
        assert pools.apply(control.system, spec) is Applied.UNCHANGED
        pools.update(control.system, spec.model_copy(update={"attempts": 5}))
        kept = control.spec()
        assert (kept.draining, kept.sensitive, kept.attempts) == (True, ("token",), 5)

    def test_refuses_another_type_and_a_sensitive_name_without_a_value(self, control: ControlPlane) -> None:
        pod = {"image": "agent:1"}
        other = PoolSpec.model_validate({"name": POOL, "type": "kubernetes", "kubernetes": pod})
        with pytest.raises(InvalidRequest, match="stays so"):
            pools.apply(control.system, other)
        for name in (POOL, "other"):
            with pytest.raises(InvalidRequest, match="'token' has no value"):
                pools.apply(control.system, PoolSpec(name=name, sensitive=("token",)))


class TestSensitiveVariables:
    def test_change_one_by_one_and_only_their_names_are_shown(self, control: ControlPlane) -> None:
        name = control.workspace()
        spec = workspaces.get(control.system, name)
        workspaces.update(control.system, spec, Change(SECRET))
        more = SensitiveVariables(environment={"KEY": "hidden"})
        workspaces.update(control.system, spec, Change(more))
        assert workspaces.get(control.system, name).sensitive == ("token", "KEY")
        workspaces.update(control.system, workspaces.get(control.system, name), Change(unset=("token",)))
        assert workspaces.get(control.system, name).sensitive == ("KEY",)
        with pytest.raises(InvalidRequest, match="'token'"):
            workspaces.update(control.system, spec.model_copy(), Change(unset=("token",)))
        database = control.system.settings.home / "terraslot.db"
        assert b"hidden" not in database.read_bytes()

    def test_are_saved_with_a_new_pool_or_nothing_is(self, control: ControlPlane) -> None:
        pools.create(control.system, PoolSpec(name="other"), SECRET)
        assert control.system.pool("other").sensitive == ("token",)


class TestDraining:
    def test_lets_runs_end_and_starts_none_until_the_pool_is_undrained(self, control: ControlPlane) -> None:
        control.workspace()
        agent = control.agent()
        first = control.submit()
        order = agent.order()
        assert drain.drain_pool(control.system, POOL) == 1
        second = control.submit(PLAN)
        HandAgent(control, "default-2").register()
        dispatch.dispatch(control.system, POOL)
        cycle(control.system, POOL)
        assert control.run(second.id).status is RunStatus.PENDING
        assert pool_state.status(control.system, POOL) == "it drains, and no run is given to it"

        assert agent.start(order)
        agent.finish(order)
        decide.confirm(control.system, first.id)
        agent.work()
        assert control.run(first.id).status is RunStatus.SUCCEEDED
        drain.wait_until_drained(control.system, POOL)
        assert drain.held(control.system, POOL) == 0
        assert control.pods.deleted == []

        drain.undrain_pool(control.system, POOL)
        assert control.run(second.id).status is RunStatus.PLANNING

    def test_creates_no_agent_for_the_runs_that_wait(self, control: ControlPlane) -> None:
        control.workspace()
        drain.drain_pool(control.system, POOL)
        control.submit(PLAN)
        cycle(control.system, POOL)
        assert control.pods.pods == {}
        with pytest.raises(StillInUse, match="drains"):
            scale.scale_now(control.system, POOL, 1)

    def test_of_one_agent_gives_runs_to_the_others(self, control: ControlPlane) -> None:
        control.workspace()
        control.agent("default-1")
        control.agent("default-2")
        assert drain.drain_agent(control.system, "default-1").draining
        assert control.submit(PLAN).agent == "default-2"
        drain.undrain_agent(control.system, "default-1")
        record = control.slots.agent("default-1")
        assert record is not None
        assert record.available

    def test_can_not_be_ended_for_an_agent_that_is_gone_or_unknown_or_whose_pool_drains(
        self, control: ControlPlane
    ) -> None:
        control.agent("default-1")
        del control.pods.pods["default-1"]
        with pytest.raises(AgentGone):
            drain.undrain_agent(control.system, "default-1")
        with pytest.raises(UnknownAgent, match="'unknown'"):
            drain.drain_agent(control.system, "unknown")
        drain.drain_pool(control.system, POOL)
        with pytest.raises(StillInUse, match="undrain"):
            drain.undrain_agent(control.system, "default-1")


class TestScalingByHand:
    def test_returns_how_many_are_kept_since_they_hold_runs(self, control: ControlPlane) -> None:
        control.workspace()
        assert scale.scale_now(control.system, POOL, 2).added == 2
        for name in control.pods.pods:
            HandAgent(control, name).register()
        control.submit(PLAN)
        done = scale.scale_now(control.system, POOL, 0)
        assert (done.removed, done.kept) == (1, 1)
        assert scale.scale_now(control.system, POOL, 9).short == 4  # the pool's maximum is five

    def test_waits_for_the_cycle_that_is_under_way(self, control: ControlPlane) -> None:
        lock = control.system.lock(POOL, "cycle")
        assert lock.request("a cycle", ttl=30)
        scaling = threading.Thread(target=scale.scale_now, args=(control.system, POOL, 1))
        scaling.start()
        _, rerun = PoolKeys(POOL).lock("cycle")
        eventually(lambda: control.redis.exists(rerun))
        assert control.pods.pods == {}
        lock.drop("a cycle")
        scaling.join(10)
        assert len(control.pods.pods) == 1


class TestDeleting:
    def test_is_refused_while_a_workspace_or_a_run_uses_the_pool(self, control: ControlPlane) -> None:
        control.workspace()
        with pytest.raises(StillInUse, match="workspace 'net'"):
            delete.delete_pool(control.system, POOL, drain=True)
        run = control.submit(PLAN)
        self.move_away(control)
        with pytest.raises(StillInUse, match=run.id):
            delete.delete_pool(control.system, POOL)
        with pytest.raises(StillInUse, match=run.id):
            delete.delete_pool(control.system, POOL, drain=True, timeout=0.01)
        assert control.spec().draining is False

    def test_ends_agents_users_and_slot_map_and_can_wait_for_runs(self, control: ControlPlane) -> None:
        control.workspace()
        agent = control.agent()
        credentials.ensure_secret_for_pool(control.system, control.spec())
        control.submit(PLAN)
        order = agent.order()
        self.move_away(control)
        waiting = threading.Thread(target=delete.delete_pool, args=(control.system, POOL), kwargs={"drain": True})
        waiting.start()
        assert agent.start(order)
        agent.finish(order)
        waiting.join(20)
        with pytest.raises(UnknownPool):
            control.spec()
        assert control.pods.deleted == [agent.name]
        assert control.slots.snapshot() == []
        assert control.redis.acl_users() == ["default"]
        assert control.pods.secrets == {}

    def test_needs_no_cluster_that_answers(self, control: ControlPlane) -> None:
        """Its Secret is left, and no Redis user has the password in it."""
        credentials.ensure_secret_for_pool(control.system, control.spec())
        control.pods.broken = True
        assert delete.delete_pool(control.system, POOL) == 0
        with pytest.raises(UnknownPool):
            control.spec()
        assert control.redis.acl_users() == ["default"]

    def test_that_is_refused_in_the_end_gives_the_claims_back(
        self, control: ControlPlane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("default-1", "default-2"):
            control.agent(name)
        control.slots.drain("default-2")

        def used_again(*_: object) -> None:
            raise StillInUse("A workspace uses it now.")

        monkeypatch.setattr(delete, "_delete_pods", used_again)
        with pytest.raises(StillInUse):
            delete.delete_pool(control.system, POOL)
        available = {agent.name: agent.available for agent in control.slots.snapshot()}
        assert available == {"default-1": True, "default-2": False}, "an agent that was drained by hand still drains"

    def test_that_died_half_way_leaves_a_pool_whose_next_cycles_create_its_pods(
        self, control: ControlPlane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agent = control.agent()

        def die(*_: object) -> None:
            raise SystemExit

        monkeypatch.setattr(delete, "_delete_pods", die)
        with pytest.raises(SystemExit):
            delete.delete_pool(control.system, POOL)
        control.workspace()
        control.submit(PLAN)
        cycle(control.system, POOL)
        assert control.pods.deleted == [agent.name]
        assert len(control.pods.pods) == 1

    def move_away(self, control: ControlPlane) -> None:
        """Let the workspace use another pool; its runs stay in the one that they were submitted to."""
        pools.ensure(control.system, PoolSpec(name="other"))
        spec = workspaces.get(control.system, "net")
        with control.system.database.begin() as session:
            moved = spec.model_copy(update={"pool": "other"})
            stored_workspaces.update(session, moved, control.system.now())


def test_a_rotation_on_demand_issues_the_next_generation(control: ControlPlane) -> None:
    credentials.ensure_secret_for_pool(control.system, control.spec())
    assert credentials.rotate(control.system, POOL) == ["generation 2 issued"]
    with pytest.raises(UnknownPool):
        credentials.rotate(control.system, "nowhere")
